"""Folders of images and folders of masks: where they lie in a tree.

    images/SPLIT    masks/SPLIT      ADE20K's too (training, validation); masks of all splits may
                                     lie in one folder
    SPLIT/images    SPLIT/masks
    SPLIT           masks/SPLIT      masks beside MS-COCO's folders of images
    SPLIT           SPLITannot       also SPLIT_masks, SPLIT_labels: CamVid's
    SPLIT                            images and NAME_mask beside one another: Roboflow's
    images          masks            without splits

Other names of `images` and `masks`, in any case: see below.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from pretrain.data_hints import describe
from pretrain.errors import UsageError, shorten
from pretrain.images import class_folders, list_images
from transfer.segmentation.config import DatasetConfig
from transfer.segmentation.listing import Listing, match_folders

_IMAGES = ("images", "image", "imgs", "img", "img_dir", "jpegimages")
_MASKS = ("masks", "mask", "annotations", "annotation", "labels", "label", "ann_dir", "gt",
          "ground_truth", "segmentationclasspng", "segmentationclass")  # fmt: skip
_BESIDE = ("annot", "_annot", "_masks", "_mask", "_labels", "_label")
SPLIT = re.compile(r"(trainval|train(ing)?|val(id|idation)?|test(ing)?)[\d_-]*", re.IGNORECASE)

Splits = Mapping[str, Callable[[], Listing]]
"""Name of a split: what lists it. The name "" where a tree has none."""


def find_splits(root: Path, config: DatasetConfig) -> Splits:
    """The splits of a tree: folders of usual names, and of those that the configuration gives.

    Raises:
        UsageError: no folder of masks, or several.
    """
    given = {name for text in (config.train, config.val) if text for name in text.split("+")}
    images, masks = _folder(root, _IMAGES), _mask_folder(root, config.masks)
    splits: dict[str, tuple[Path, Path]] = {}
    if masks is not None:
        base = images or root
        inner, here = _split_names(masks, given), _split_names(base, given)
        splits = {name: (base / name, masks / name) for name in here if name in inner}
        if not inner:  # masks of all splits in one folder
            splits = {name: (base / name, masks) for name in here}
        if not splits and images is not None:
            splits = {"": (images, masks)}
    for name in () if splits else _split_names(root, given):
        folder = root / name
        beside = [root / f"{name}{end}" for end in _BESIDE if (root / f"{name}{end}").is_dir()]
        own = _mask_folder(folder, config.masks) or next(iter(beside), None)
        if own is not None:
            splits[name] = (_folder(folder, _IMAGES) or folder, own)
        elif any("_mask." in path for path in list_images(folder)[0]):
            splits[name] = (folder, folder)
    if not splits:
        content = shorten(sorted(name for name in os.listdir(root) if name[0] != "."), 6)
        named = f" called {config.masks}" if config.masks else ""
        instances = any(root.glob("annotations/instances_*.json"))
        above = images is None and masks is None
        hint = describe(root, (*_IMAGES, *_MASKS)) if above else ""
        draw = f" python tools/prepare_data.py instance-masks --data {root} draws masks of MS-COCO."
        raise UsageError(
            f"{root} has no images with a folder of masks{named}; it holds {content or 'nothing'}. "
            "Expected images and masks, with folders train and val in both, or train and val with "
            "images and masks in both; --dataset.masks names another folder."
            f"{draw if instances else hint}"
        )
    return {name: partial(match_folders, *folders) for name, folders in splits.items()}


def _split_names(folder: Path, given: Collection[str]) -> list[str]:
    names = class_folders(folder)
    return [name for name in names if name in given or SPLIT.fullmatch(name)]


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
