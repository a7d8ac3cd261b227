"""A backbone's own classifier on a data set, the labels in the order of its outputs."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torchvision.transforms import v2

from pretrain.backbone import Backbone
from pretrain.data import Images, Transformed, collate, folders
from pretrain.data.cifar import find_cifar, open_cifar
from pretrain.data.pixels import Pixels
from pretrain.data.shards import open_scored
from pretrain.errors import UsageError, shorten
from pretrain.evaluation import ClassificationScores, evaluate
from pretrain.images import class_folders
from pretrain.progress import log
from pretrain.shards import find_store
from pretrain.spec import evaluation_crop
from pretrain.training import Loader

ClassOrder = Literal["alphabetical", "natural", "number"]
"""Which class folder is output 0, 1, ... of a classifier: see CLASS_ORDERS."""
CLASS_ORDERS: dict[ClassOrder, str] = {
    "alphabetical": "as torchvision's ImageFolder sorts them",
    "natural": "as timm sorts them: digits are numbers, the case of letters is nothing",
    "number": "a folder's name is the number of its output",
}


@dataclass(frozen=True)
class BackboneEvaluation:
    """What a backbone's own classifier scores on a data set."""

    scores: ClassificationScores
    classes: tuple[str, ...]
    """Names of the outputs."""
    matching: str
    """How the classes of the data were matched with the outputs."""
    notes: tuple[str, ...]
    """On the files, those left out."""
    num_corrupt: int
    """Images that could not be read and were left out."""


def evaluate_backbone(
    backbone: Backbone,
    root: str | Path,
    fabric: Fabric,
    *,
    split: str | None = None,
    labels: str | None = None,
    class_order: ClassOrder | None = None,
    by_pil: bool = True,
    batch_size: int = 64,
    workers: int = 2,
    max_corrupt: int = 0,
) -> BackboneEvaluation:
    """Score a backbone with its own preprocessing.

    Args:
        backbone: with its classifier.
        root: see open_matched, also for `split`, `labels` and `class_order`.
        fabric: device, precision, processes.
        split: folder in `root`.
        labels: file of the labels.
        class_order: which class folder is which output.
        by_pil: resize by PIL, as timm's and torchvision's reference figures; otherwise as tensors.
        batch_size: images at once.
        workers: loader processes.
        max_corrupt: unreadable images that may be left out.

    Raises:
        UsageError: a backbone without classifier, or data that do not fit it.
    """
    spec = backbone.spec
    require_classifier(backbone)
    images, matching = open_matched(root, split, labels, backbone, class_order)
    for note in images.notes if fabric.is_global_zero else ():
        log(f"note: {note}")
    crop = evaluation_crop(*spec.input_size[1:], spec.crop_pct, spec.interpolation)
    loader = Loader(
        Transformed(images, resizing(crop, by_pil)),
        batch_size=batch_size,
        workers=workers,
        collate=collate,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        max_corrupt=max_corrupt,
        max_corrupt_option="--max-corrupt",
        pin_memory=fabric.device.type == "cuda",
    )
    network = backbone.build().to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = Pixels(mean=spec.mean, std=spec.std, memory_format=torch.channels_last)
    networks = {"": network}
    scores = evaluate(networks, loader, pixels.normalised, fabric, spec.num_classes, "scoring")
    corrupt = len(loader.corrupt)
    return BackboneEvaluation(scores[""], images.classes, matching, images.notes, corrupt)


def require_classifier(backbone: Backbone) -> None:
    """Raise UsageError for a backbone without outputs."""
    if not backbone.spec.num_classes:
        raise UsageError(
            "the backbone has no classifier of its own; it cannot be scored by itself."
        )


def resizing(geometry: Sequence[Any], by_pil: bool) -> v2.Compose:
    """uint8 (3, H, W) to uint8 of one size: as published figures are made, or all in tensors."""
    return v2.Compose([v2.ToPILImage(), *geometry, v2.PILToTensor()] if by_pil else geometry)


def open_matched(
    root: str | Path,
    split: str | None,
    labels: str | None,
    backbone: Backbone,
    class_order: ClassOrder | None = None,
) -> tuple[Images, str]:
    """The images, their labels being the classifier's outputs, and how the classes were matched.

    Args:
        root: CIFAR's pickles, a folder with SPLIT/CLASS/*.jpg, or with CLASS/*.jpg itself, or a
            folder or an address of shards.
        split: None takes val or test, or the folder itself.
        labels: file for a split without class folders.
        backbone: with its classifier; where its file does not name the classes, the 1,000 of
            ImageNet are known (timm's list).
        class_order: which folder is which output, where names do not say it. None is enough where
            all orders are the same.

    Raises:
        UsageError: no such data, classes that are not the classifier's, or class folders that may
            be other outputs in each order.
    """
    named, count = backbone.provenance.classes is not None, backbone.spec.num_classes
    outputs = backbone.output_names
    how = "by the names in the file" if named else "by timm's list of ImageNet's synsets"
    images: Images
    if (store := find_store(root)) is not None:
        cifar, images = None, open_scored(store, split)
    elif (cifar := find_cifar(root := Path(root))) is not None:
        images = open_cifar(*cifar)[1]
    else:
        if split is None:
            split = folders.validation_split(root)
            if root.is_dir() and not (root / split).is_dir() and class_folders(root):
                split = "."
        if folders.is_flat(root / split):
            images = folders.open_flat(root, split, outputs, labels, "--val-labels")
        else:
            images = folders.open_folder(root, split, "--split")
    classes = images.classes
    index = {name: number for number, name in enumerate(outputs)}
    unknown = [name for name in classes if name not in index]
    if twice := [name for name, n in Counter(outputs).items() if n > 1 and name in classes]:
        raise UsageError(f"the classifier has more than one output of the name {shorten(twice)}.")
    if class_order is None and not unknown:
        numbers, names = [index[name] for name in classes], outputs
        how = f"{len(classes)} of {count} classes, {how}"
    elif class_order is not None or (not named and len(classes) == count):
        if named and not unknown:
            raise UsageError(
                f"--class-order is {class_order}, but the file names the classes of {root}, and "
                "they are matched by these names. Leave it off."
            )
        # CIFAR's classes come in the order of its labels
        order = class_order or ("alphabetical" if cifar else _only_order(classes, root))
        numbers = order_classes(classes, order, count)
        folder_of = dict(zip(numbers, classes, strict=True))
        names = outputs
        if not named:
            names = tuple(folder_of.get(number, f"output {number}") for number in range(count))
        how = f"{len(classes)} of {count} classes, in {order} order"
    else:
        problem = (
            f"{root} has {len(classes)} classes, the classifier {count} outputs without names."
        )
        if outputs:
            problem = (
                f"{len(unknown)} of the {len(classes)} classes in {root} are none of the "
                f"classifier's {count}: {shorten(unknown)}. Its own are {shorten(outputs)}."
            )
        if all(name.isdecimal() for name in classes):
            problem += " If a folder's name is the number of its output, give --class-order number."
        raise UsageError(problem)
    return replace(images, classes=names, labels=np.array(numbers)[images.labels]), how


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


def _only_order(classes: Sequence[str], root: str | Path) -> ClassOrder:
    """The order of class folders, where all orders are the same; else UsageError."""
    orders = dict[ClassOrder, list[str]]()
    for order in CLASS_ORDERS:
        try:
            numbers = order_classes(classes, order, len(classes))
        except UsageError:  # no order of these names
            continue
        orders[order] = [name for _, name in sorted(zip(numbers, classes, strict=True))]
    if all(names == orders["alphabetical"] for names in orders.values()):
        return "alphabetical"
    start = next(
        n for n, names in enumerate(zip(*orders.values(), strict=True)) if len(set(names)) > 1
    )
    remedies = "; ".join(
        f"--class-order {order} ({CLASS_ORDERS[order]}: {', '.join(names[start : start + 3])}, ...)"
        for order, names in orders.items()
    )
    raise UsageError(
        f"the file does not name the classifier's {len(classes)} outputs, and which of the class "
        f"folders of {root} is output {start} depends on their order. Give the one that the "
        f"classifier was trained with: {remedies}."
    )


def _natural_key(name: str) -> tuple[tuple[str, int], ...]:
    """As timm's: digits are numbers, the case of letters is nothing."""
    parts = re.findall(r"(\D*)(\d*)", name.lower())
    return tuple((text, int(digits or -1)) for text, digits in parts)
