"""A backbone's own classifier on a data set, the labels in the order of its outputs."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from timm.data.imagenet_info import ImageNetInfo
from torchvision.transforms import v2

from pretrain.backbone import Backbone
from pretrain.data import Transformed, collate
from pretrain.data.cifar import find_cifar, open_cifar
from pretrain.data.folders import is_flat, open_flat, open_folder
from pretrain.data.images import ImageArray, ImageFiles
from pretrain.data.pixels import Pixels
from pretrain.errors import UsageError, shorten
from pretrain.evaluation import ClassificationScores, evaluate
from pretrain.spec import evaluation_crop
from pretrain.training import Loader


@dataclass(frozen=True)
class BackboneEvaluation:
    """What a backbone's own classifier scores on a data set."""

    scores: ClassificationScores
    classes: tuple[str, ...]
    """Names of the outputs."""
    matching: str
    """How the classes of the data were matched with the outputs."""
    num_corrupt: int
    """Images that could not be read and were left out."""


def evaluate_backbone(
    backbone: Backbone,
    root: Path,
    fabric: Fabric,
    *,
    split: str | None = None,
    labels: str | None = None,
    by_pil: bool = True,
    batch_size: int = 64,
    workers: int = 2,
    max_corrupt: int = 0,
) -> BackboneEvaluation:
    """Score a backbone with its own preprocessing.

    Args:
        backbone: with its classifier.
        root: see open_matched, also for `split` and `labels`.
        fabric: device, precision, processes.
        split: folder in `root`.
        labels: file of the labels.
        by_pil: resize by PIL, as timm's and torchvision's reference figures; otherwise as tensors.
        batch_size: images at once.
        workers: loader processes.
        max_corrupt: unreadable images that may be left out.

    Raises:
        UsageError: a backbone without classifier, or data that do not fit it.
    """
    spec = backbone.spec
    if not spec.num_classes:
        raise UsageError(
            "the backbone has no classifier of its own; it cannot be scored by itself."
        )
    images, matching = open_matched(root, split, labels, backbone)
    _, height, width = spec.input_size
    crop = evaluation_crop(height, width, spec.crop_pct, spec.interpolation)
    steps = [v2.ToPILImage(), *crop, v2.PILToTensor()] if by_pil else [*crop]
    loader = Loader(
        Transformed(images, v2.Compose(steps)),
        batch_size=batch_size,
        seed=0,
        workers=workers,
        shuffle=False,
        collate=collate,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        max_corrupt=max_corrupt,
        pin_memory=fabric.device.type == "cuda",
    )
    network = backbone.build().to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = Pixels(mean=spec.mean, std=spec.std, memory_format=torch.channels_last)
    networks = {"": network}
    scores = evaluate(networks, loader, pixels.normalised, fabric, spec.num_classes, "scoring")
    return BackboneEvaluation(scores[""], images.classes, matching, len(loader.corrupt))


def open_matched(
    root: Path, split: str | None, labels: str | None, backbone: Backbone
) -> tuple[ImageFiles | ImageArray, str]:
    """The images, their labels being the classifier's outputs, and how the classes were matched.

    Args:
        root: CIFAR's pickles, or a folder with SPLIT/CLASS/*.jpg, or with CLASS/*.jpg itself.
        split: None takes val or test, or the folder itself.
        labels: file for a split without class folders.
        backbone: with its classifier; where its file does not name the classes, the 1,000 of
            ImageNet are known (timm's list), and others are taken in alphabetical order.

    Raises:
        UsageError: no such data, or classes that are not the classifier's.
    """
    named = backbone.provenance.classes
    # sorted synsets: the order that everybody trains in
    synsets = ImageNetInfo().label_names() if backbone.spec.num_classes == 1000 else None
    images: ImageFiles | ImageArray
    if (cifar := find_cifar(root)) is not None:
        images = open_cifar(*cifar)[1]
    else:
        split = _default_split(root) if split is None else split
        if is_flat(root / split):
            named = named or synsets
            images = open_flat(root, split, tuple(named or ()), labels, "--val-labels")
        else:
            images = open_folder(root, split, "--split")
    if named is None and backbone.spec.num_classes == len(images.classes):
        return images, "classes in alphabetical order (the file does not name them)"
    how = "by timm's list of ImageNet's synsets" if named is None else "by the names in the file"
    outputs = named or synsets
    if outputs is None:
        raise UsageError(
            f"{root} has {len(images.classes)} classes, the classifier "
            f"{backbone.spec.num_classes} outputs, and the file does not name them."
        )
    index = {name: number for number, name in enumerate(outputs)}
    if unknown := [name for name in images.classes if name not in index]:
        raise UsageError(
            f"{len(unknown)} of the {len(images.classes)} classes in {root} are none of the "
            f"classifier's {len(outputs)}: {shorten(unknown)}. Its own are {shorten(outputs)}."
        )
    numbers = np.array([index[name] for name in images.classes])
    matching = f"{len(images.classes)} of {len(outputs)} classes, {how}"
    return replace(images, classes=tuple(outputs), labels=numbers[images.labels]), matching


def _default_split(root: Path) -> str:
    for name in ("val", "test"):
        if (root / name).is_dir():
            return name
    has_folders = root.is_dir() and any(entry.is_dir() for entry in os.scandir(root))
    return "." if has_folders else "val"
