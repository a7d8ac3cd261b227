"""Image folders as the field lays them out: ROOT/SPLIT/CLASS/*.jpg."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pretrain.errors import UserError
from pretrain.images import SUFFIXES, decode


@dataclass(frozen=True)
class ImageFolder:
    """Images with labels; a sample is (transform(uint8 (3, H, W)), label)."""

    classes: tuple[str, ...]
    """Class names in alphabetical order; a label is a position here."""
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    transform: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(decode(Path(self.paths[index]))), self.labels[index]


def open_image_folder(root: Path, split: str, transform: Callable[[Tensor], Tensor]) -> ImageFolder:
    """List the images of ROOT/SPLIT.

    Raises:
        UserError: no such folder, no classes, a class without images.
    """
    folder = root / split
    if not folder.is_dir():
        raise UserError(_no_folder(root, split))
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not classes:
        raise UserError(f"{folder} has no class folders; expected {folder}/CLASS/*.jpg.")
    paths: list[str] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(classes):
        found = sorted(
            entry.path
            for entry in os.scandir(folder / name)
            if entry.name.lower().endswith(SUFFIXES) and entry.is_file()
        )
        if not found:
            empty.append(name)
        paths += found
        labels += [label] * len(found)
    if empty:
        raise UserError(
            f"{folder}: no images ({', '.join(SUFFIXES)}) in class {', '.join(empty[:5])}"
            f"{f' and {len(empty) - 5} more' if len(empty) > 5 else ''}. "
            "Fill or remove these folders."
        )
    return ImageFolder(tuple(classes), tuple(paths), tuple(labels), transform)


def validation_split(root: Path, wanted: str | None) -> str:
    """The name of the validation folder: `wanted`, or `val`, or else `test`."""
    if wanted is not None:
        return wanted
    return next((name for name in ("val", "test") if (root / name).is_dir()), "val")


def check_same_classes(train: ImageFolder, val: ImageFolder) -> None:
    """Raise UserError where the two splits do not name the same classes."""
    if train.classes != val.classes:
        only = sorted(set(train.classes) ^ set(val.classes))[:6]
        raise UserError(
            f"training and validation folders name different classes: {only} stand on "
            "one side only."
        )


def _no_folder(root: Path, split: str) -> str:
    if not root.exists():
        return f"there is no folder {root}. Expected {root}/{split}/CLASS/*.jpg."
    if not root.is_dir():
        return f"{root} is a file; a folder with {split}/CLASS/*.jpg is needed."
    held = sorted(entry.name for entry in os.scandir(root))[:6]
    return (
        f"there is no folder {root / split}; {root} holds {', '.join(held) or 'nothing'}. "
        f"Expected {root}/{split}/CLASS/*.jpg, or name the folder by --dataset.{split} NAME."
    )
