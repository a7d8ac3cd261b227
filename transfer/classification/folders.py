"""Image folders: DIR/{train,val,test}/CLASS/*.jpg, or DIR/CLASS/*.jpg, and how they are split.

A class is a folder that is not hidden; its images are the files in it and in folders below whose
names end as `pretrain.images.SUFFIXES` say. What is held out is decided by a hash of CLASS/NAME:
the same for every seed, wherever the data lies, and for what is there when images are added.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrain.data_hints import describe
from pretrain.errors import UsageError, shorten
from pretrain.held_out import hold_out
from pretrain.images import class_folders, list_classes
from transfer.classification.config import DatasetConfig

Indices = NDArray[np.int64]

_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True, eq=False)
class ClassificationData:
    """Labelled images. A split is the indices of its images."""

    name: str
    classes: tuple[str, ...]
    """In alphabetical order; a label is an index into it."""
    paths: tuple[Path, ...]
    """Of all images."""
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
    """Files that say the classes."""


def open_image_folders(root: Path, config: DatasetConfig) -> ClassificationData:
    """List the images and split them.

    With a test split, penalty and k are chosen on val and the metrics are computed on test.
    Without, they are chosen on a part held out of train, and the metrics are computed on val: the
    test split where that is the only other one, and a part held out where there are no splits.

    Raises:
        UsageError: no folder, no images, fewer than two classes, or splits of other classes.
    """
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
    folders.setdefault("train", root)  # class folders alone are split below

    classes: tuple[str, ...] = ()
    splits, paths, labels, notes = dict[str, Indices](), list[str](), list[int](), list[str]()
    keys, annotations = list[str](), list[Path]()  # CLASS/NAME; what says the classes
    for split, folder in folders.items():
        if split == "test" and "val" in folders and not {*class_folders(folder)} - {"images"}:
            notes.append(f"{folder} is left out: its images have no labels")  # as ImageNet's test
            continue
        listed = list_classes(folder)
        listed.check()
        if folder == root:
            listed.refuse_splits()
        images = listed.images
        classes = classes or tuple(images)  # of train, which comes first
        if len(classes) < 2:
            raise UsageError(
                f"{folder} has one class, {classes[0]}; there is nothing to tell apart. "
                f"Two or more are needed.{describe(folder)}"
            )
        if classes != tuple(images):
            here, train_only = sorted({*images} - {*classes}), sorted({*classes} - {*images})
            sides = [f"only {folder} has {shorten(here)}"] if here else []
            sides += [f"only {folders['train']} has {shorten(train_only)}"] if train_only else []
            raise UsageError(
                f"{folders['train']} and {folder} name different classes: {'; '.join(sides)}. "
                "Every split must have a folder with images for each class."
            )
        start, below = len(paths), len(os.path.join(folder, ""))
        paths += listed.paths
        labels += listed.labels
        keys += [path[below:] for path in paths[start:]]
        splits[split] = np.arange(start, len(paths))
        notes += listed.notes()
        annotations += listed.annotations

    below = len(os.path.join(root, ""))
    train, *others = splits.values()
    scored_name = [*splits][-1]
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
        name=root.resolve().name,
        classes=classes,
        paths=tuple(map(Path, paths)),
        names=tuple(path[below:] for path in paths),
        labels=np.array(labels, np.int64),
        train=train,
        fit=fit,
        choose=choose,
        val=others[0],
        scored=others[-1],
        scored_name=scored_name,
        chosen_on=chosen_on,
        notes=tuple(notes),
        annotations=tuple(annotations),
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
