"""Image folders: DIR/{train,val,test}/CLASS/*.jpg, or DIR/CLASS/*.jpg, and how they are split.

The same in shards, see `pretrain.shards`: their images come in the order of the folders that were
packed, so that both give the same figures.

A class is a folder that is not hidden; its images are the files in it and in folders below whose
names end as `pretrain.images.SUFFIXES` say. What is held out is decided by a hash of CLASS/NAME:
the same for every seed, wherever the data lies, and for what is there when images are added.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrain.data_hints import describe
from pretrain.errors import UsageError, shorten
from pretrain.held_out import hold_out
from pretrain.images import ImageSource, class_folders, list_classes
from pretrain.shards import ShardedImage, Store, find_store
from transfer.classification.config import DatasetConfig

Indices = NDArray[np.int64]

_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True, eq=False)
class ClassificationData:
    """Labelled images. A split is the indices of its images."""

    name: str
    classes: tuple[str, ...]
    """In alphabetical order; a label is an index into it."""
    paths: tuple[ImageSource, ...]
    """Of all images, or where they lie in shards."""
    names: tuple[str, ...]
    """The same relative to DIR, with /."""
    labels: Indices
    train: Indices
    fit: Indices
    """Training images that penalties and k are tried on, and `choose` what they are chosen by."""
    choose: Indices
    val: Indices
    """What fine-tuning is watched on."""
    scored: Indices
    """What the metrics are computed on."""
    scored_name: str
    """test, val, or `held out`."""
    chosen_on: str
    """val, or `held out of train`."""
    notes: tuple[str, ...]
    """To be logged."""
    annotations: tuple[Path, ...] = ()
    """Files that say the classes, or where images lie in shards."""

    @property
    def files(self) -> Iterator[Path]:
        """Of images that have one each, for the digest."""
        return (path for path in self.paths if isinstance(path, Path))


@dataclass(frozen=True, eq=False)
class _Split:
    """What is listed of a split, class by class and in the order of the names."""

    place: str
    """For messages."""
    classes: tuple[str, ...]
    paths: Sequence[ImageSource]
    keys: Sequence[str]
    """CLASS/NAME of each."""
    labels: Sequence[int]
    prefix: str
    """What stands before CLASS/NAME below DIR."""
    annotations: tuple[Path, ...]
    notes: Sequence[str] = ()


def open_image_folders(
    root: str | Path, config: DatasetConfig, cache_gib: float = 64.0
) -> ClassificationData:
    """List the images and split them.

    With a test split, penalty and k are chosen on val and the metrics are computed on test.
    Without, they are chosen on a part held out of train, and the metrics are computed on val: the
    test split where that is the only other one, and a part held out where there are no splits.

    Args:
        root: the folder, or a folder or an address of shards.
        config: which splits.
        cache_gib: what may be kept of remote shards on this machine.

    Raises:
        UsageError: no folder, no images, fewer than two classes, or splits of other classes.
    """
    notes = list[str]()
    if (store := find_store(root, cache_gib)) is not None:
        name, listed = store.name, _list_shards(store, config, notes)
        notes += store.notes
    else:
        root = Path(root)
        name, listed = root.resolve().name, _list_folders(root, config, notes)

    splits, indices, count = list[_Split](), dict[str, Indices](), 0
    for split, one in listed:
        train_place = splits[0].place if splits else one.place
        classes = splits[0].classes if splits else one.classes  # of train, which comes first
        if len(classes) < 2:
            raise UsageError(
                f"{one.place} has one class, {classes[0]}; there is nothing to tell apart. "
                f"Two or more are needed.{'' if store else describe(Path(one.place))}"
            )
        if classes != one.classes:
            here = sorted({*one.classes} - {*classes})
            train_only = sorted({*classes} - {*one.classes})
            sides = [f"only {one.place} has {shorten(here)}"] if here else []
            sides += [f"only {train_place} has {shorten(train_only)}"] if train_only else []
            raise UsageError(
                f"{train_place} and {one.place} name different classes: {'; '.join(sides)}. "
                "Every split must have a folder with images for each class."
            )
        splits.append(one)
        indices[split] = np.arange(count, count + len(one.paths))
        count += len(one.paths)
        notes += one.notes

    keys = [*chain.from_iterable(one.keys for one in splits)]  # CLASS/NAME
    labels = [*chain.from_iterable(one.labels for one in splits)]
    train, *others = indices.values()
    scored_name = [*indices][-1]
    if not others:
        train, held_out = hold_out(keys, labels, train, config.val_fraction, "val")
        others, scored_name = [held_out], "held out"
        if not len(held_out):
            raise UsageError(f"{root}: no class has two images, so none can be held out.")
    fit, choose, chosen_on = train, others[0], "val"
    if len(others) == 1:
        fit, choose = hold_out(keys, labels, train, config.val_fraction, "choose")
        chosen_on = "held out of train"
    return ClassificationData(
        name=name,
        classes=splits[0].classes,
        paths=tuple(chain.from_iterable(one.paths for one in splits)),
        names=tuple(one.prefix + key for one in splits for key in one.keys),
        labels=np.array(labels, np.int64),
        train=train,
        fit=fit,
        choose=choose,
        val=others[0],
        scored=others[-1],
        scored_name=scored_name,
        chosen_on=chosen_on,
        notes=tuple(notes),
        annotations=tuple(chain.from_iterable(one.annotations for one in splits)),
    )


def _list_folders(
    root: Path, config: DatasetConfig, notes: list[str]
) -> Iterator[tuple[str, _Split]]:
    """The splits that are there, train first."""
    if not root.exists():
        raise UsageError(f"there is no folder {root}. Expected {root}/train/CLASS/*.jpg.")
    if not root.is_dir():
        raise UsageError(f"{root} is a file; a folder of images is needed.")
    folders = {split: f for split in _FOLDERS if (f := _split_folder(root, split, config))}
    if folders and "train" not in folders:
        raise UsageError(
            f"{root} holds {' and '.join(folder.name for folder in folders.values())}, but no "
            "folder train. Add it, or name it by --dataset.train."
        )
    folders.setdefault("train", root)  # class folders alone are split by who asks
    for split, folder in folders.items():
        if split == "test" and "val" in folders and not {*class_folders(folder)} - {"images"}:
            notes.append(f"{folder} is left out: its images have no labels")  # as ImageNet's test
            continue
        listed = list_classes(folder)
        listed.check()
        if folder == root:
            listed.refuse_splits()
        below = len(os.path.join(folder, ""))
        yield (
            split,
            _Split(
                place=str(folder),
                classes=tuple(listed.images),
                paths=[*map(Path, listed.paths)],
                keys=[path[below:] for path in listed.paths],
                labels=listed.labels,
                prefix="" if folder == root else f"{os.path.relpath(folder, root)}/",
                annotations=listed.annotations,
                notes=listed.notes(),
            ),
        )


def _list_shards(
    store: Store, config: DatasetConfig, notes: list[str]
) -> Iterator[tuple[str, _Split]]:
    """The same of a store. Its order, mostly shuffled, becomes that of the folders it is of."""
    there = [*store.splits]
    for split in _FOLDERS:
        name = getattr(config, split) or split
        if name not in there:
            if name != split or split == "train":
                raise UsageError(
                    f"{store.location} has no shards of {name} (it has {shorten(there)}). Name a "
                    f"split by --dataset.{split}, or pack one."
                )
            continue
        reader, place = store.splits[name], f"{store.location}, {name}"
        index = reader.index
        if not index.classes and split == "test" and "val" in there:
            notes.append(f"{place} is left out: its images have no labels")
            continue
        if not index.classes:
            raise UsageError(
                f"the samples of {place} have no classes (no member .cls). Pack a folder with "
                "class folders."
            )
        keys, labels = [*map(index.name, range(len(index)))], index.labels.tolist()
        order = sorted(range(len(index)), key=lambda number: (labels[number], keys[number]))
        yield (
            split,
            _Split(
                place=place,
                classes=index.classes,
                paths=[ShardedImage(reader, number) for number in order],
                keys=[keys[number] for number in order],
                labels=[labels[number] for number in order],
                prefix=f"{name}/",
                annotations=(index.path,),
            ),
        )


def _split_folder(root: Path, split: str, config: DatasetConfig) -> Path | None:
    named = getattr(config, split)
    names = _FOLDERS[split] if named is None else (named,)
    existing = [name for name in names if (root / name).is_dir()]
    if named is not None and not existing:
        others = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        raise UsageError(
            f"dataset.{split} is {named}, but {root} has no such folder; it holds "
            f"{shorten(others) or 'none'}."
        )
    if len(existing) > 1:
        raise UsageError(
            f"{root} holds {' and '.join(existing)}: name one of them by --dataset.{split}."
        )
    return root / existing[0] if existing else None
