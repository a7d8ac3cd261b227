"""Image folders ROOT/SPLIT/CLASS/*.jpg; ImageNet's are such, by synset.

ImageNet's validation images come in one folder without classes; their labels are in a file (see
validation_labels).
"""

import os
from itertools import chain
from pathlib import Path

from pretrain.data.images import ImageFiles
from pretrain.data.validation_labels import find_labels, read_labels
from pretrain.errors import UsageError, shorten
from pretrain.images import SUFFIXES


def open_folder(root: Path, split: str, option: str = "") -> ImageFiles:
    """List the images of ROOT/SPLIT/CLASS, classes and names in alphabetical order.

    Args:
        root: the data set.
        split: the folder with class folders.
        option: how a user names another, for the message.

    Raises:
        UsageError: no such folder, no classes, a class without images.
    """
    folder = root / split
    expected = f"{folder}/CLASS/*.jpg"
    if not root.is_dir():
        problem = f"{root} is a file" if root.exists() else f"there is no folder {root}"
        raise UsageError(f"{problem}. Expected {expected}.")
    if not folder.is_dir():
        entries = ", ".join(sorted(os.listdir(root))[:6]) or "nothing"
        other = f", or name the folder by {option} NAME" if option else ""
        raise UsageError(
            f"there is no folder {folder}; {root} holds {entries}. Expected {expected}{other}."
        )
    classes = class_folders(folder)
    if not classes:
        raise UsageError(f"{folder} has no class folders; expected {expected}.")
    files = {name: image_files(folder / name) for name in classes}
    if empty := [name for name, paths in files.items() if not paths]:
        raise UsageError(
            f"{folder}: no images ({', '.join(SUFFIXES)}) in class {shorten(empty)}. "
            "Fill or remove these folders."
        )
    labels = [label for label, paths in enumerate(files.values()) for _ in paths]
    return ImageFiles.of(classes, [*chain.from_iterable(files.values())], labels)


def open_flat(
    root: Path, split: str, classes: tuple[str, ...], labels: str | None, option: str
) -> ImageFiles:
    """List the images of ROOT/SPLIT/*.JPEG with the classes that a file gives them.

    Args:
        root: the data set.
        split: the folder without class folders.
        classes: of the training images.
        labels: the file; None looks for those that ImageNet comes with.
        option: how a user names a file, for the message.

    Raises:
        UsageError: no labels, an image without one, a class that training does not have.
    """
    paths = image_files(root / split)
    file = find_labels(root, split, option) if labels is None else Path(labels)
    synsets = read_labels(file, [Path(path).name for path in paths], classes)
    index = {name: number for number, name in enumerate(classes)}
    if unknown := sorted(set(synsets) - set(index)):
        raise UsageError(f"{file} names classes that {root} does not train on: {shorten(unknown)}.")
    return ImageFiles.of(classes, paths, [index[name] for name in synsets])


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, in alphabetical order; hidden ones are no classes."""
    entries = os.scandir(folder)
    return sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")


def is_flat(folder: Path) -> bool:
    """True where images lie in the folder itself and there are no class folders."""
    kinds = {entry.is_dir() for entry in os.scandir(folder)} if folder.is_dir() else set()
    return kinds == {False} and bool(image_files(folder))


def image_files(folder: Path) -> list[str]:
    """Paths of the images in a folder, in alphabetical order."""
    return sorted(
        entry.path
        for entry in os.scandir(folder)
        if entry.name.lower().endswith(SUFFIXES) and entry.is_file()
    )


def validation_split(root: Path) -> str:
    """The name of the validation folder: `val`, or else `test`."""
    return next((split for split in ("val", "test") if (root / split).is_dir()), "val")
