"""Data sets of labelled images, recognised by their layout on disk."""

from dataclasses import dataclass
from pathlib import Path

from pretrain.config import DatasetConfig
from pretrain.data.cifar import find_cifar, open_cifar
from pretrain.data.folders import (
    is_flat,
    open_flat,
    open_folder,
    open_undivided,
    validation_split,
)
from pretrain.data.images import Images, Transformed, collate
from pretrain.errors import UsageError


@dataclass(frozen=True)
class ImageSplits:
    """The training and validation images of a data set."""

    name: str
    train: Images
    val: Images

    @property
    def notes(self) -> tuple[str, ...]:
        """What a run says about the files before it trains: those left out, by their endings."""
        return (*self.train.notes, *self.val.notes)


def open_data(root: Path, options: DatasetConfig) -> ImageSplits:
    """Open CIFAR's pickles, ImageNet, or any image folders.

    Raises:
        UsageError: what is missing or does not fit, and where.
    """
    if (cifar := find_cifar(root)) is not None:
        return ImageSplits(cifar[0].name, *open_cifar(*cifar))
    split = options.val or validation_split(root)
    is_named = options.train != "train" or options.val is not None
    has_splits = any((root / name).is_dir() for name in ("train", split))
    if not is_named and not has_splits and (parts := open_undivided(root)) is not None:
        return ImageSplits(root.name, *parts)
    train = open_folder(root, options.train, "--dataset.train")
    if is_flat(root / split):
        val = open_flat(root, split, train.classes, options.val_labels, "--dataset.val_labels")
    else:
        val = open_folder(root, split, "--dataset.val")
    if train.classes != val.classes:
        difference = sorted(set(train.classes) ^ set(val.classes))[:6]
        raise UsageError(
            f"training and validation folders name different classes: {difference} are on one "
            "side only."
        )
    return ImageSplits(root.name, train, val)


__all__ = ["ImageSplits", "Images", "Transformed", "collate", "open_data"]
