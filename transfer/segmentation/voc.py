"""Pascal VOC's segmentation trees: lists of images, whose masks are palette PNGs.

    ROOT/JPEGImages/ID.jpg   ROOT/SegmentationClass/ID.png   ROOT/ImageSets/Segmentation/SPLIT.txt

or a folder of such trees (a VOCdevkit), whose splits are called TREE/SPLIT. A line is an ID, or as
in DeepLab's lists /JPEGImages/ID.jpg /SegmentationClassAug/ID.png, or in quotes as CVAT writes it.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pretrain.errors import UsageError, shorten
from pretrain.images import SUFFIXES, class_folders
from transfer.segmentation.config import DatasetConfig
from transfer.segmentation.folders import Splits
from transfer.segmentation.listing import Listing, Pair, index_images

_LISTS = Path("ImageSets") / "Segmentation"
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""The task's, in the order of the masks' values."""


def find_trees(root: Path) -> Mapping[str, Path]:
    """{"": root} where it is a tree, otherwise those in it (or in its VOCdevkit) by name."""
    if _is_tree(root):
        return {"": root}
    root = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    trees = {name: root / name for name in class_folders(root) if _is_tree(root / name)}
    return {"": next(iter(trees.values()))} if len(trees) == 1 else trees


def find_splits(root: Path, config: DatasetConfig) -> Splits:
    """The splits of a tree, or of a folder of trees, by the names of their lists.

    Raises:
        UsageError: no tree, or one without its folders.
    """
    trees = find_trees(root)
    if not trees:
        raise UsageError(
            f"{root} is no Pascal VOC tree for segmentation: it has no ImageSets/Segmentation with "
            "lists such as train.txt and val.txt (one image name, without its ending, in a line)."
        )
    splits = {}
    for tree_name, tree in trees.items():
        masks = tree / (config.masks or "SegmentationClass")
        for folder in (tree / "JPEGImages", masks):
            if not folder.is_dir():
                raise UsageError(
                    f"{tree} has no folder {folder.name}; it has {shorten(class_folders(tree), 9)}."
                    " Images lie in JPEGImages, masks in SegmentationClass or the folder that "
                    "--dataset.masks names."
                )
        for path in sorted((tree / _LISTS).glob("*.txt")):
            name = f"{tree_name}/{path.stem}" if tree_name else path.stem
            splits[name] = partial(_read_split, tree, path, masks)
    return splits


def _is_tree(folder: Path) -> bool:
    return any((folder / _LISTS).glob("*.txt"))


def _read_split(tree: Path, file: Path, folder: Path) -> Listing:
    images, masks = index_images(tree / "JPEGImages"), index_images(folder)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        raise UsageError(f"{file} is no text in UTF-8; save it so.") from None
    pairs = dict[str, Pair]()
    for number, line in enumerate(lines, 1):
        name = _image_name(line)
        if name and name not in images:
            raise UsageError(f"{file}:{number}: there is no image {tree}/JPEGImages/{name}.jpg.")
        if name:
            pairs[name] = Pair(name, images[name], masks.get(name))
    if not pairs:
        raise UsageError(f"{file} is empty.")
    return Listing(tuple(pairs.values()), folder, (file,))


def _image_name(line: str) -> str:
    """The name without folder of images, and without ending."""
    name = line.strip().strip('"')
    if name.startswith("/"):  # two columns, each from the tree on
        name = name.split()[0].lstrip("/").partition("/")[2]
    return name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name
