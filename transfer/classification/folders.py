"""Image folders: DIR/{train,val,test}/CLASS/*.jpg, or DIR/CLASS/*.jpg, and what is held out.

A class is a folder that is not hidden; its images are the files in it (not in folders below) whose
names end as `pretrain.images.SUFFIXES` say. What is held out is decided by a hash of CLASS/NAME:
the same for every seed, wherever the data lies, and for what is there when images are added.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES
from transfer.classification.config import DatasetConfig

Numbers = NDArray[np.int64]

_USUAL = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled images. A split is the numbers of its images."""

    name: str
    classes: tuple[str, ...]
    """In alphabetical order; a label is a position here."""
    paths: tuple[Path, ...]
    """Of all images."""
    names: tuple[str, ...]
    """The same below DIR, with /."""
    labels: Numbers
    train: Numbers
    fit: Numbers
    """Training images that penalties and k are tried on, and `choose` what they are chosen by."""
    choose: Numbers
    val: Numbers
    """What fine-tuning is watched on."""
    scored: Numbers
    """What the figures are of."""
    scored_name: str
    """test, val, or `held out`."""
    chosen_on: str
    """val, or `held out of train`."""
    notes: tuple[str, ...]
    """For the reader of the run."""

    def digest(self) -> str:
        """16 hex digits over names, labels and splits (not over the pixels)."""
        found = hashlib.sha256("\n".join(self.names).encode())
        for part in (self.labels, self.train, self.fit, self.choose, self.val, self.scored):
            found.update(b"|" + part.astype("<i8").tobytes())
        return found.hexdigest()[:16]


def open_data(root: Path, config: DatasetConfig) -> Data:
    """List the images and divide them.

    With a test split, penalty and k are chosen on val and the figures are of test. Without, they
    are chosen on a part held out of train, and the figures are of val: the test split where that is
    the only other one, and a part held out where there are no splits.

    Raises:
        UsageError: no folder, no images, fewer than two classes, or splits of other classes.
    """
    if not root.exists():
        raise UsageError(f"there is no folder {root}. Expected {root}/train/CLASS/*.jpg.")
    if not root.is_dir():
        raise UsageError(f"{root} is a file; a folder of images is needed.")
    folders = {split: _split_folder(root, split, config) for split in _USUAL}
    listed = _Listed(root)
    if folders["train"] is None:
        _refuse_half(root, folders)
        everything = listed.add(root)
        train, val = hold_out(listed.names, listed.labels, everything, config.val_fraction, "val")
        scored_name, test = "held out", _NONE
    else:
        parts = {split: listed.add(f) if f else _NONE for split, f in folders.items()}
        train, val, test = parts["train"], parts["val"], parts["test"]
        scored_name = "test" if len(test) else "val"
        if not len(val):
            val, test = test, _NONE
        if not len(val):
            train, val = hold_out(listed.names, listed.labels, train, config.val_fraction, "val")
            scored_name = "held out"
    if not len(val):
        raise UsageError(f"{root}: no class has two images, so none can be held out.")
    fit, choose, chosen_on = train, val, "val"
    if not len(test):
        fit, choose = hold_out(listed.names, listed.labels, train, config.val_fraction, "choose")
        chosen_on = "held out of train"
    return Data(
        name=root.resolve().name,
        classes=listed.classes,
        paths=tuple(listed.paths),
        names=tuple(listed.names),
        labels=np.array(listed.labels, np.int64),
        train=train,
        fit=fit,
        choose=choose,
        val=val,
        scored=test if len(test) else val,
        scored_name=scored_name,
        chosen_on=chosen_on,
        notes=tuple(listed.notes),
    )


def hold_out(
    names: Sequence[str],
    labels: Sequence[int],
    numbers: Numbers,
    share: float,
    purpose: Literal["val", "choose"],
) -> tuple[Numbers, Numbers]:
    """Divide images: (those that stay, those that are held out).

    Held out is where a hash of `purpose` and the last two parts of the name lies below `share`. A
    class of two or more images is on both sides: where the hash does not see to it, the image
    nearest to the other side changes over. A class of one image stays.

    Args:
        names: of all images, .../CLASS/NAME.
        labels: their classes.
        numbers: the images to divide.
        share: in (0, 1).
        purpose: other purposes hold out other images.
    """
    places = np.array([_place(names[number], purpose) for number in numbers])
    out = places < share
    of_class = np.array([labels[number] for number in numbers])
    order = np.argsort(of_class, kind="stable")
    bounds = np.flatnonzero(np.diff(of_class[order])) + 1
    for members in np.split(order, bounds):
        if len(members) == 1:
            out[members] = False
        elif not out[members].any():
            out[members[places[members].argmin()]] = True
        elif out[members].all():
            out[members[places[members].argmax()]] = False
    return numbers[~out], numbers[out]


def _place(name: str, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but the purpose and CLASS/NAME."""
    below = "/".join(name.split("/")[-2:])
    text = f"{purpose}/{below}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2**48


class _Listed:
    """Images of the splits so far, which must all name the same classes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.classes: tuple[str, ...] = ()
        self.paths: list[Path] = []
        self.names: list[str] = []
        self.labels: list[int] = []
        self.notes: list[str] = []
        self._first: Path | None = None

    def add(self, folder: Path) -> Numbers:
        """List a folder with class folders; the numbers of its images."""
        classes = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
        images, others = {}, []
        for name in classes:
            entries = sorted(e.name for e in os.scandir(folder / name) if e.is_file())
            images[name] = [entry for entry in entries if entry.lower().endswith(SUFFIXES)]
            others += [
                f"{name}/{entry}"
                for entry in entries
                if not entry.lower().endswith(SUFFIXES) and entry[0] != "."
            ]
        self._check(folder, classes, images)
        begun = len(self.paths)
        for label, name in enumerate(classes):
            for entry in images[name]:
                path = folder / name / entry
                self.paths.append(path)
                self.names.append(path.relative_to(self.root).as_posix())
                self.labels.append(label)
        if others:
            self.notes.append(
                f"{folder}: {len(others):,} files are no images by their names "
                f"({', '.join(SUFFIXES)}), the first is {others[0]}"
            )
        return np.arange(begun, len(self.paths))

    def _check(self, folder: Path, classes: list[str], images: dict[str, list[str]]) -> None:
        if not any(images.values()):
            held = sorted(entry.name for entry in os.scandir(folder))
            raise UsageError(
                f"{folder} has no images in class folders; it holds {_few(held) or 'nothing'}. "
                f"Expected {folder}/CLASS/*.jpg ({', '.join(SUFFIXES)})."
            )
        empty = [name for name in classes if not images[name]]
        if empty:
            raise UsageError(
                f"{folder}: no images ({', '.join(SUFFIXES)}) in class {_few(empty)}. "
                "Fill or remove these folders."
            )
        if self._first is None:
            self._first, self.classes = folder, tuple(classes)
            if len(classes) < 2:
                raise UsageError(
                    f"{folder} has one class, {classes[0]}; there is nothing to tell apart. "
                    "Two or more are needed."
                )
            return
        here, there = set(classes), set(self.classes)
        sides = [
            f"only {side} has {_few(sorted(names))}"
            for side, names in ((folder, here - there), (self._first, there - here))
            if names
        ]
        if sides:
            raise UsageError(
                f"{self._first} and {folder} name different classes: {'; '.join(sides)}. "
                "Every split must have a folder with images for each class."
            )


def _split_folder(root: Path, split: str, config: DatasetConfig) -> Path | None:
    wanted = getattr(config, split)
    if wanted is not None:
        if not (root / wanted).is_dir():
            held = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
            raise UsageError(
                f"dataset.{split} is {wanted}, but {root} has no such folder; it holds "
                f"{_few(held) or 'none'}."
            )
        return root / wanted
    found = [name for name in _USUAL[split] if (root / name).is_dir()]
    if len(found) > 1:
        raise UsageError(
            f"{root} holds {' and '.join(found)}: name one of them by --dataset.{split}."
        )
    return root / found[0] if found else None


def _refuse_half(root: Path, folders: dict[str, Path | None]) -> None:
    """Where there is no training folder, no other split may be there either."""
    if others := [folder.name for folder in folders.values() if folder is not None]:
        raise UsageError(
            f"{root} holds {' and '.join(others)}, but no folder train. Add it, or name it by "
            "--dataset.train."
        )


def _few(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
