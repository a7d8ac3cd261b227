"""Folders of images and folders of masks: where they lie in a tree.

    images/SPLIT    masks/SPLIT      ADE20K's too (training, validation)
    SPLIT/images    SPLIT/masks
    SPLIT           masks/SPLIT      masks beside MS-COCO's folders of images
    SPLIT           SPLITannot       also SPLIT_masks, SPLIT_labels: CamVid's
    SPLIT                            images and NAME_mask beside one another: Roboflow's
    images          masks            without splits

Other names of `images` and `masks`, in any case: see below.
"""

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pretrain.data_hints import describe
from pretrain.errors import UsageError, shorten
from pretrain.images import class_folders, list_images
from transfer.segmentation.listing import Listing, match_folders

_IMAGES = ("images", "image", "imgs", "img", "img_dir", "jpegimages")
_MASKS = ("masks", "mask", "annotations", "annotation", "labels", "label", "ann_dir", "gt",
          "ground_truth", "segmentationclasspng", "segmentationclass")  # fmt: skip
_BESIDE = ("annot", "_annot", "_masks", "_mask", "_labels", "_label")
SPLIT = re.compile(r"(trainval|train(ing)?|val(id|idation)?|test(ing)?)[\d_-]*", re.IGNORECASE)

Splits = Mapping[str, Callable[[], Listing]]
"""Name of a split: what lists it. The name "" where a tree has none."""


def find_splits(root: Path, masks: str | None) -> Splits:
    """The splits of a tree.

    Args:
        root: the tree.
        masks: the folder of the masks in the tree, or in a split's; None looks for it.

    Raises:
        UsageError: no folder of masks, or several.
    """
    image_root, mask_root = _folder(root, _IMAGES), _mask_folder(root, masks)
    splits: dict[str, tuple[Path, Path]] = {}
    here = _split_names(root)
    if mask_root is not None:
        inner = _split_names(mask_root)
        base = root if image_root is None else image_root
        splits = {name: (base / name, mask_root / name) for name in inner if (base / name).is_dir()}
        if not splits and image_root is not None:
            splits = {"": (image_root, mask_root)}
    if not splits:
        for name in here:
            images = _folder(root / name, _IMAGES) or root / name
            own = _mask_folder(root / name, masks)
            beside = [root / f"{name}{end}" for end in _BESIDE if (root / f"{name}{end}").is_dir()]
            if own is not None or beside:
                splits[name] = (images, own or beside[0])
            elif any("_mask." in path for path in list_images(root / name)[0]):
                splits[name] = (root / name, root / name)
    if not splits:
        content = shorten(sorted(name for name in os.listdir(root) if name[0] != "."), 6)
        raise UsageError(
            f"{root} has no images with masks; it holds {content or 'nothing'}. Expected images "
            "and masks with folders train and val in both, or train and val with images and masks "
            f"in both; --dataset.masks names another folder of masks.{describe(root)}"
        )
    return {name: partial(match_folders, *folders) for name, folders in splits.items()}


def _split_names(folder: Path) -> list[str]:
    return [name for name in class_folders(folder) if SPLIT.fullmatch(name)]


def _mask_folder(root: Path, given: str | None) -> Path | None:
    if given is not None:
        return root / given if (root / given).is_dir() else None
    return _folder(root, _MASKS)


def _folder(root: Path, names: tuple[str, ...]) -> Path | None:
    """The one folder of such a name that has images."""
    found = [
        root / name
        for name in class_folders(root)
        if name.lower() in names and list_images(root / name)[0]
    ]
    if len(found) > 1:
        option = "Name the masks' by --dataset.masks." if names is _MASKS else "Rename the others."
        raise UsageError(
            f"{root} has the folders {' and '.join(path.name for path in found)}; which of them "
            f"is meant? {option}"
        )
    return found[0] if found else None
