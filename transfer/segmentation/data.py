"""From a folder to what is trained on and what is scored, whatever its layout."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pretrain.cache import hash_sample
from pretrain.errors import UsageError
from pretrain.held_out import HELD_OUT, hold_out
from transfer.segmentation import folders, voc
from transfer.segmentation.acdc import open_acdc
from transfer.segmentation.classes import find_classes
from transfer.segmentation.config import DatasetConfig
from transfer.segmentation.folders import Splits
from transfer.segmentation.image_records import make_records
from transfer.segmentation.listing import Listing, Pair, join
from transfer.segmentation.masks import ImageRecord
from transfer.segmentation.patients import is_acdc
from transfer.segmentation.records import SegmentationData
from transfer.stores import refuse_store


def open_data(root: str | Path, config: DatasetConfig) -> SegmentationData:
    """Read the splits that the configuration names, or those that are usual.

    Where no split is there to score, a fifth of the images is held out, by a hash of their names.

    Raises:
        UsageError: no such tree or split, a store of shards, or what the rules refuse.
    """
    refuse_store(root, "segmentation needs their masks")
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; a tree of images and masks is needed.")
    layout = layout_of(root) if config.layout == "auto" else config.layout
    if layout == "acdc":
        return open_acdc(root, config)
    _refuse_options_of_volumes(config)
    find_splits = voc.find_splits if layout == "voc" else folders.find_splits
    splits, notes = find_splits(root, config), list[str]()
    train_split, val_split = choose_splits([*splits], config.train, config.val)
    listed = read_split(splits, train_split)
    if val_split is not None:
        scored = read_split(splits, val_split)
    else:
        listed, scored = hold_out_pairs(listed)
        val_split = "held out"
        notes.append(f"no split to score: {len(scored.pairs):,} images are held out of the others")
    classes = find_classes(root, listed, config, layout == "voc")
    notes.append(classes.note)
    train = make_records(listed, classes.coding, config, train_split or "train", notes)
    val = make_records(scored, classes.coding, config, val_split, notes)
    if shared := find_shared(train, val):
        notes.append(
            f"{len(shared):,} of {len(val):,} images are trained on too, the first is {shared[0]}: "
            "scores on them say nothing of new images"
        )
    records = (*train, *val)
    masks = (record.mask for record in records)
    return SegmentationData(
        name=root.resolve().name,
        classes=classes.names,
        train=train,
        val=val,
        splits=(train_split or "train", val_split),
        volumes=False,
        paths=tuple(dict.fromkeys(record.path for record in records)),
        annotations=tuple(dict.fromkeys((*listed.lists, *scored.lists, *classes.files, *masks))),
        notes=tuple(notes),
    )


def _refuse_options_of_volumes(config: DatasetConfig) -> None:
    default = DatasetConfig()
    for name in ("spacing", "labels", "phases", "fold"):
        if getattr(config, name) != getattr(default, name):
            raise UsageError(
                f"dataset.{name} is of ACDC's volumes, and images are read here: leave it out"
            )


def layout_of(root: Path) -> str:
    """`acdc` where there are patients with their Info.cfg, `voc` where there are its lists."""
    if is_acdc(root):
        return "acdc"
    return "voc" if voc.find_trees(root) else "folders"


def choose_splits(
    names: Sequence[str], train: str | None, val: str | None
) -> tuple[str, str | None]:
    """The splits to train and to score on, out of `names`; what is given stands.

    Otherwise train, and val, or else test; None where there is nothing to score. Also by their
    longer names (training, validation) and with a number (train2017).
    """

    def find(*patterns: str) -> str | None:
        for pattern in patterns:
            found = [name for name in names if re.fullmatch(rf"{pattern}[\d_-]*", name, re.I)]
            if found:
                return min(found)
        return None

    if train is None:
        train = names[0] if len(names) == 1 else find("train", "training", "trainval")
    if val is None:
        val = find("val", "valid", "validation", "test", "testing")
        val = None if val == train else val
    if train is None or (val is None and len(names) > 1):
        raise UsageError(
            f"there are the splits {', '.join(names)}: say which to train on and which to score "
            "on with --dataset.train and --dataset.val (several are joined by +)."
        )
    return train, val


def read_split(splits: Splits, name: str) -> Listing:
    """A split, or several joined by +."""
    names = [name] if name in splits else name.split("+")
    if missing := [one for one in names if one not in splits]:
        there = ", ".join(one or "none, all images are in one folder" for one in splits)
        raise UsageError(f"there is no split {missing[0]!r}; there are: {there}.")
    return join([splits[one]() for one in names], names)


def hold_out_pairs(listing: Listing) -> tuple[Listing, Listing]:
    """A listing as (what stays, a fifth held out)."""
    pairs = listing.pairs
    if len(pairs) < 2:
        raise UsageError(
            f"{listing.masks} has {len(pairs)} masks, so none can be held out to be scored: give "
            "two images at least."
        )
    names = [pair.image_id for pair in pairs]
    sides = hold_out(names, np.zeros(len(pairs)), np.arange(len(pairs)), HELD_OUT, "val")
    chosen: list[tuple[Pair, ...]] = [tuple(pairs[index] for index in side) for side in sides]
    return listing._replace(pairs=chosen[0]), listing._replace(pairs=chosen[1])


def find_shared(train: Sequence[ImageRecord], val: Sequence[ImageRecord]) -> list[Path]:
    """Images that are scored and trained on, under this name or another.

    Files of one size are compared by samples of their bytes, as in `pretrain.data_digest`.
    """
    sides = [
        {record.path: os.path.getsize(record.path) for record in side} for side in (train, val)
    ]
    sizes = {*sides[0].values()} & {*sides[1].values()}
    hashes: list[dict[Path, str]] = []
    for side in sides:
        hashes.append({})
        for path in (path for path, size in side.items() if size in sizes):
            with open(path, "rb", buffering=0) as file:
                hashes[-1][path] = hash_sample(file)
    trained = {*hashes[0].values()}
    return [path for path, content in hashes[1].items() if content in trained]
