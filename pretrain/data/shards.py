"""Labelled images in shards: the splits of a store, as folders give them."""

from pretrain.config import DatasetConfig
from pretrain.data.images import ImageShards, ImageSplits
from pretrain.errors import UsageError, shorten
from pretrain.shards import Store


def open_shards(store: Store, options: DatasetConfig) -> ImageSplits:
    """Training and validation images of a store.

    Raises:
        UsageError: a split is missing, has no classes, or other ones than the other split; shards
            are missing or cut; the cache of a remote store is too small.
    """
    names = (
        options.train,
        options.val or next((n for n in ("val", "test") if n in store.splits), "val"),
    )
    for option, split in zip(("train", "val"), names, strict=True):
        if split not in store.splits:
            there = shorten([*store.splits])
            raise UsageError(
                f"{store.location} has no shards of {split} (it has {there}). Name a split by "
                f"--dataset.{option}, or pack one."
            )
        if not store.splits[split].index.classes:
            raise UsageError(
                f"the samples of {split} in {store.location} have no classes (no member .cls). "
                "Pack a folder with class folders."
            )
        store.splits[split].require_shards(options.max_corrupt)
    train, val = (
        ImageShards.of(store.splits[split], notes)
        for split, notes in zip(names, (store.notes, ()), strict=True)
    )
    if train.classes != val.classes:
        difference = sorted(set(train.classes) ^ set(val.classes))[:6]
        raise UsageError(
            f"training and validation shards name different classes: {difference} are on one "
            "side only."
        )
    train.reader.require_room(options.shard_window)
    return ImageSplits(store.name, train, val)


def open_scored(store: Store, split: str | None) -> ImageShards:
    """The images of a split of a store; None takes val, or else test.

    Raises:
        UsageError: there is no such split, or it has no classes.
    """
    name = split or next((name for name in ("val", "test") if name in store.splits), "val")
    if name not in store.splits:
        raise UsageError(
            f"{store.location} has no shards of {name} (it has {shorten([*store.splits])}). Name "
            "one of these by --split."
        )
    if not store.splits[name].index.classes:
        raise UsageError(f"the samples of {name} in {store.location} have no classes.")
    return ImageShards.of(store.splits[name])
