"""Images to score a trained classifier on, their labels in the order of its outputs."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from timm.data.imagenet_info import ImageNetInfo

from pretrain.backbone import Backbone
from pretrain.data.cifar import find_cifar, open_cifar
from pretrain.data.folders import is_flat, open_flat, open_folder
from pretrain.data.images import ImageArray, ImageFiles
from pretrain.errors import UsageError


def open_scored(
    root: Path, split: str | None, labels: str | None, backbone: Backbone
) -> tuple[ImageFiles | ImageArray, str]:
    """The images and a line that says how their classes were matched.

    Args:
        root: CIFAR's pickles, or a folder with SPLIT/CLASS/*.jpg, or with CLASS/*.jpg itself.
        split: None takes val or test, or the folder itself.
        labels: file for a split without class folders.
        backbone: with its classifier; where its file does not name the classes, the 1,000 of
            ImageNet are known (timm's list), and others are taken in alphabetical order.

    Raises:
        UsageError: no such data, or classes that are not the classifier's.
    """
    outputs = backbone.provenance.classes
    images: ImageFiles | ImageArray
    if (found := find_cifar(root)) is not None:
        images = open_cifar(*found)[1]
    else:
        part = split if split is not None else _split_of(root)
        if is_flat(root / part):
            outputs = outputs or _imagenet(backbone)
            images = open_flat(root, part, tuple(outputs or ()), labels, "--val-labels")
        else:
            images = open_folder(root, part, "--split")
    if outputs is None and backbone.spec.num_classes == len(images.classes):
        return images, "classes in alphabetical order (the file does not name them)"
    how = "by the names in the file"
    if outputs is None:
        outputs, how = _imagenet(backbone), "by timm's list of ImageNet's synsets"
    if outputs is None:
        raise UsageError(
            f"{root} has {len(images.classes)} classes, the classifier "
            f"{backbone.spec.num_classes} outputs, and the file does not name them."
        )
    place = {name: number for number, name in enumerate(outputs)}
    unknown = [name for name in images.classes if name not in place]
    if unknown:
        raise UsageError(
            f"{len(unknown)} of the {len(images.classes)} classes in {root} are none of the "
            f"classifier's {len(outputs)}: {', '.join(unknown[:5])}. Its own are "
            f"{', '.join(outputs[:5])}, ..."
        )
    numbers = np.array([place[name] for name in images.classes])
    found_here = f"{len(images.classes)} of {len(outputs)} classes, {how}"
    return replace(images, classes=tuple(outputs), labels=numbers[images.labels]), found_here


def _split_of(root: Path) -> str:
    for name in ("val", "test"):
        if (root / name).is_dir():
            return name
    if root.is_dir() and any(entry.is_dir() for entry in os.scandir(root)):
        return "."
    return "val"


def _imagenet(backbone: Backbone) -> list[str] | None:
    """The synsets of a classifier of 1,000 outputs, sorted: the order that the field trains in."""
    return ImageNetInfo().label_names() if backbone.spec.num_classes == 1000 else None
