"""Image folders as the field lays them out: ROOT/SPLIT/CLASS/*.jpg; ImageNet's are such, by synset.

ImageNet's validation images come in one folder without classes; their labels stand in a file (see
validation_labels).
"""

import os
from pathlib import Path

from pretrain.data.images import ImageFiles
from pretrain.data.validation_labels import find_labels, read_labels
from pretrain.errors import UsageError
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
    if not folder.is_dir():
        raise UsageError(_no_folder(root, split, option))
    classes = class_folders(folder)
    if not classes:
        raise UsageError(f"{folder} has no class folders; expected {folder}/CLASS/*.jpg.")
    paths: list[str] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(classes):
        found = image_files(folder / name)
        if not found:
            empty.append(name)
        paths += found
        labels += [label] * len(found)
    if empty:
        raise UsageError(
            f"{folder}: no images ({', '.join(SUFFIXES)}) in class {', '.join(empty[:5])}"
            f"{f' and {len(empty) - 5} more' if len(empty) > 5 else ''}. "
            "Fill or remove these folders."
        )
    return ImageFiles.of(classes, paths, labels)


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
    folder = root / split
    paths = image_files(folder)
    path = find_labels(root, split, option) if labels is None else Path(labels)
    of_image = read_labels(path, [Path(name).name for name in paths], classes)
    place = {name: number for number, name in enumerate(classes)}
    unknown = sorted(set(of_image) - set(place))
    if unknown:
        raise UsageError(
            f"{path} names classes that {root} does not train on: {', '.join(unknown[:5])}"
            f"{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''}."
        )
    return ImageFiles.of(list(classes), paths, [place[name] for name in of_image])


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


def validation_split(root: Path, wanted: str | None) -> str:
    """The name of the validation folder: `wanted`, or `val`, or else `test`."""
    if wanted is not None:
        return wanted
    return next((name for name in ("val", "test") if (root / name).is_dir()), "val")


def check_same_classes(train: tuple[str, ...], val: tuple[str, ...]) -> None:
    """Raise UsageError where the two splits do not name the same classes."""
    if train != val:
        only = sorted(set(train) ^ set(val))[:6]
        raise UsageError(
            f"training and validation folders name different classes: {only} stand on "
            "one side only."
        )


def _no_folder(root: Path, split: str, option: str) -> str:
    if not root.exists():
        return f"there is no folder {root}. Expected {root}/{split}/CLASS/*.jpg."
    if not root.is_dir():
        return f"{root} is a file; a folder with {split}/CLASS/*.jpg is needed."
    held = sorted(entry.name for entry in os.scandir(root))[:6]
    return (
        f"there is no folder {root / split}; {root} holds {', '.join(held) or 'nothing'}. "
        f"Expected {root}/{split}/CLASS/*.jpg"
        f"{f', or name the folder by {option} NAME' if option else ''}."
    )
