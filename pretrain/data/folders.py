"""Image folders ROOT/SPLIT/CLASS/*.jpg; ImageNet's are such, by synset.

ImageNet's validation images come in one folder without classes; their labels are in a file (see
validation_labels).
"""

import os
from pathlib import Path

import numpy as np

from pretrain.data.images import ImageFiles
from pretrain.data.validation_labels import find_labels, read_labels
from pretrain.data_hints import describe
from pretrain.errors import UsageError, shorten
from pretrain.held_out import HELD_OUT, hold_out
from pretrain.images import class_folders, describe_others, list_classes, list_images


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
            f"{describe(root)}"
        )
    listed = list_classes(folder)
    listed.check()
    classes, notes = [*listed.images], listed.notes()
    return ImageFiles.of(classes, listed.paths, listed.labels, notes, listed.annotations)


def open_undivided(root: Path) -> tuple[ImageFiles, ImageFiles] | None:
    """The images of ROOT/CLASS, and those held out of them; None where that is not the layout.

    Held out are those that linear probe and fine-tuning score: the network has not seen them.

    Raises:
        UsageError: a class without images, classes named as splits are.
    """
    inner = [path.parent for path in root.glob("*/train")]
    if not root.is_dir() or any((path / validation_split(path)).is_dir() for path in inner):
        return None  # a data set lies further down
    listed = list_classes(root)
    if len(listed.images) < 2 or not listed.paths:
        return None
    listed.refuse_splits(has_test=False)
    listed.check()
    paths, labels, below = listed.paths, listed.labels, len(os.path.join(root, ""))
    names = [path[below:] for path in paths]
    parts = hold_out(names, labels, np.arange(len(paths)), HELD_OUT, "val")
    note = f"{root} has no splits: {len(parts[1]):,} of {len(paths):,} images are held out as val"
    train, val = (
        ImageFiles.of([*listed.images], [paths[n] for n in part], [labels[n] for n in part], notes)
        for part, notes in zip(parts, ([*listed.notes(), note], []), strict=True)
    )
    return train, val


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
    paths, others = list_images(root / split)
    file = find_labels(root, split, option) if labels is None else Path(labels)
    synsets = read_labels(file, [Path(path).name for path in paths], classes)
    index = {name: number for number, name in enumerate(classes)}
    if unknown := sorted(set(synsets) - set(index)):
        raise UsageError(f"{file} names classes that {root} does not train on: {shorten(unknown)}.")
    notes = describe_others(root / split, [path for path in others if Path(path) != file])
    numbers, read = [index[name] for name in synsets], (file, file.with_name("meta.mat"))
    return ImageFiles.of(classes, paths, numbers, notes, tuple(filter(Path.is_file, read)))


def is_flat(folder: Path) -> bool:
    """True where images lie in the folder itself and there are no class folders."""
    return folder.is_dir() and not class_folders(folder) and bool(list_images(folder)[0])


def validation_split(root: Path) -> str:
    """The name of the validation folder: `val`, `valid`, `validation`, or else `test`."""
    names = ("val", "valid", "validation", "test")
    return next((split for split in names if (root / split).is_dir()), "val")
