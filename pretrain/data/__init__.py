"""Data sets of labelled images, recognised by their layout on disk."""

from dataclasses import replace
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
from pretrain.data.images import Images, ImageSplits, Transformed, collate
from pretrain.data.shards import open_shards
from pretrain.errors import UsageError
from pretrain.shards import find_store


def open_data(root: str | Path, options: DatasetConfig, cache_gib: float = 64.0) -> ImageSplits:
    """Open shards, CIFAR's pickles, ImageNet, or any image folders.

    Args:
        root: the folder, or the address of shards.
        options: which splits, and where labels are.
        cache_gib: what may be kept of remote shards on this machine.

    Raises:
        UsageError: what is missing or does not fit, and where.
    """
    if (store := find_store(root, cache_gib)) is not None:
        if options.per_class is not None:
            raise UsageError(
                f"dataset.per_class is {options.per_class}, but {root} has shards, whose samples "
                "are read as they were packed. Give the folder that was packed, or null."
            )
        return open_shards(store, options)
    splits = _open_images(Path(root), options)
    if options.per_class is None:
        return splits
    train = splits.train.few(options.per_class)
    note = f"{len(train):,} of {len(splits.train):,} training images, {options.per_class} a class"
    return replace(splits, train=replace(train, notes=(*train.notes, note)))


def _open_images(root: Path, options: DatasetConfig) -> ImageSplits:
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
