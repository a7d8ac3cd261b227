"""Image folders ROOT/SPLIT/CLASS/*.jpg; ImageNet's are such, by synset.

ImageNet's validation images come in one folder without classes; their labels are in a file (see
validation_labels).
"""

import os
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

from pretrain.data.images import ImageFiles
from pretrain.data.validation_labels import find_labels, read_labels
from pretrain.errors import UsageError, shorten
from pretrain.images import class_folders, describe_others, list_classes, list_images

ClassOrder = Literal["alphabetical", "natural", "number"]
"""Which class folder is output 0, 1, ... of a classifier: see CLASS_ORDERS."""
CLASS_ORDERS: dict[ClassOrder, str] = {
    "alphabetical": "as torchvision's ImageFolder sorts them",
    "natural": "as timm sorts them: digits are numbers, the case of letters is nothing",
    "number": "a folder's name is the number of its output",
}


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
    listed = list_classes(folder)
    listed.check()
    files = listed.images.values()
    labels = [label for label, paths in enumerate(files) for _ in paths]
    return ImageFiles.of([*listed.images], [*chain.from_iterable(files)], labels, listed.notes())


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
    return ImageFiles.of(classes, paths, [index[name] for name in synsets], notes)


def is_flat(folder: Path) -> bool:
    """True where images lie in the folder itself and there are no class folders."""
    return folder.is_dir() and not class_folders(folder) and bool(list_images(folder)[0])


def validation_split(root: Path) -> str:
    """The name of the validation folder: `val`, or else `test`."""
    return next((split for split in ("val", "test") if (root / split).is_dir()), "val")


def order_classes(names: Sequence[str], order: ClassOrder, num_outputs: int) -> list[int]:
    """The output of a classifier that each class folder is.

    Args:
        names: of the folders.
        order: see ClassOrder.
        num_outputs: of the classifier; as many as folders, but with `number`.

    Raises:
        UsageError: a folder that is no output, two that are the same, or another number of folders.
    """
    if order == "number":
        outputs = [int(name) if name.isdecimal() else -1 for name in names]
        valid = range(num_outputs)
        if wrong := [name for name, n in zip(names, outputs, strict=True) if n not in valid]:
            raise UsageError(
                f"{len(wrong)} of {len(names)} class folders are not the number of an output, 0 to "
                f"{num_outputs - 1}: {shorten(wrong)}."
            )
    elif len(names) != num_outputs:
        raise UsageError(
            f"there are {len(names)} class folders and {num_outputs} outputs; in {order} order "
            "each output needs its folder."
        )
    else:
        keys = [_natural_key(name) if order == "natural" else name for name in names]
        ranks = {key: place for place, key in enumerate(sorted(set(keys)))}
        outputs = [ranks[key] for key in keys]
    if len(set(outputs)) < len(outputs):
        twice = [name for name, n in zip(names, outputs, strict=True) if outputs.count(n) > 1]
        raise UsageError(f"class folders {shorten(twice)} are the same in {order} order.")
    return outputs


def _natural_key(name: str) -> tuple[tuple[str, int], ...]:
    """As timm's: digits are numbers, the case of letters is nothing."""
    parts = re.findall(r"(\D*)(\d*)", name.lower())
    return tuple((text, int(digits or -1)) for text, digits in parts)
