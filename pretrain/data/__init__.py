"""Data sets of labelled images: what they are is seen from how they lie on disk."""

from dataclasses import dataclass
from pathlib import Path

from pretrain.config import DatasetConfig
from pretrain.data.cifar import find_cifar, open_cifar
from pretrain.data.folders import (
    check_same_classes,
    is_flat,
    open_flat,
    open_folder,
    validation_split,
)
from pretrain.data.images import ImageArray, ImageFiles, Images, Transformed, collate


@dataclass(frozen=True)
class Data:
    """A data set: the two splits and what it is called."""

    name: str
    train: Images
    val: Images


def open_data(root: Path, options: DatasetConfig) -> Data:
    """Open CIFAR's pickles, ImageNet, or any image folders.

    Raises:
        UsageError: what is missing or does not fit, and where.
    """
    if (found := find_cifar(root)) is not None:
        train, val = open_cifar(*found)
        return Data(found[0].name, train, val)
    train_files = open_folder(root, options.train, "--dataset.train")
    return Data(root.name, train_files, open_validation(root, options, train_files.classes))


def open_validation(root: Path, options: DatasetConfig, classes: tuple[str, ...]) -> Images:
    """The validation images alone, whose classes are `classes`."""
    if (found := find_cifar(root)) is not None:
        return open_cifar(*found)[1]
    split = validation_split(root, options.val)
    if is_flat(root / split):
        return open_flat(root, split, classes, options.val_labels, "--dataset.val_labels")
    val = open_folder(root, split, "--dataset.val")
    check_same_classes(classes, val.classes)
    return val


__all__ = [
    "Data",
    "ImageArray",
    "ImageFiles",
    "Images",
    "Transformed",
    "collate",
    "open_data",
    "open_validation",
]
