"""A backbone's own classifier on a data set, the labels in the order of its outputs."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from timm.data.imagenet_info import ImageNetInfo
from torchvision.transforms import v2

from pretrain.backbone import Backbone
from pretrain.data import Images, Transformed, collate, folders
from pretrain.data.cifar import find_cifar, open_cifar
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
    crop = evaluation_crop(*spec.input_size[1:], spec.crop_pct, spec.interpolation)
    steps = [v2.ToPILImage(), *crop, v2.PILToTensor()] if by_pil else crop
    loader = Loader(
        Transformed(images, v2.Compose(steps)),
        batch_size=batch_size,
        workers=workers,
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
) -> tuple[Images, str]:
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
    named, count = backbone.provenance.classes, backbone.spec.num_classes
    if named is not None:
        outputs, how = tuple(named), "by the names in the file"
    else:  # sorted synsets: the order that everybody trains in
        outputs = tuple(ImageNetInfo().label_names()) if count == 1000 else ()
        how = "by timm's list of ImageNet's synsets"
    images: Images
    if (cifar := find_cifar(root)) is not None:
        images = open_cifar(*cifar)[1]
    else:
        if split is None:
            split = folders.validation_split(root)
            if root.is_dir() and not (root / split).is_dir() and folders.class_folders(root):
                split = "."
        if folders.is_flat(root / split):
            images = folders.open_flat(root, split, outputs, labels, "--val-labels")
        else:
            images = folders.open_folder(root, split, "--split")
    classes = images.classes
    if named is None and len(classes) == count and classes != outputs:
        return images, "classes in alphabetical order (the file does not name them)"
    if not outputs:
        raise UsageError(
            f"{root} has {len(classes)} classes, the classifier {count} outputs, and the file does "
            "not name them."
        )
    index = {name: number for number, name in enumerate(outputs)}
    if unknown := [name for name in classes if name not in index]:
        raise UsageError(
            f"{len(unknown)} of the {len(classes)} classes in {root} are none of the "
            f"classifier's {len(outputs)}: {shorten(unknown)}. Its own are {shorten(outputs)}."
        )
    numbers = np.array([index[name] for name in classes])
    matching = f"{len(classes)} of {len(outputs)} classes, {how}"
    return replace(images, classes=outputs, labels=numbers[images.labels]), matching
