"""Top-1, top-5 and loss of a classifier over every image once, on any number of processes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from pretrain.backbone import Backbone
from pretrain.data.images import Transformed, collate
from pretrain.data.pixels import Pixels
from pretrain.data.scoring import open_scored
from pretrain.errors import UsageError
from pretrain.progress import bar
from pretrain.spec import evaluation_crop
from pretrain.training import InMemoryLoader, Loader


@dataclass(frozen=True)
class Evaluation:
    """What a classifier scores. K classes."""

    top1: float
    """Percent."""
    top5: float
    """Percent: the label is among the five largest outputs (all of them, where there are fewer)."""
    loss: float
    """Mean cross entropy."""
    images: int
    """Counted; images that could not be read are not."""
    per_class: Tensor
    """(K, 3) int64: images of the class, of these right at first, of these right among five."""
    images_per_second: float


@torch.inference_mode()
def evaluate(
    networks: Mapping[str, nn.Module],
    loader: Loader | InMemoryLoader,
    prepare: Callable[[Tensor], Tensor],
    fabric: Fabric,
    num_classes: int,
    title: str = "validating",
) -> dict[str, Evaluation]:
    """Score networks on the same images, which are read once.

    Args:
        networks: by name, on the device of `fabric`; not wrapped for training, so that processes
            with fewer batches than others need not wait. Buffers are taken from process 0.
        loader: uint8 images and labels; with `ranks`, each process its share.
        prepare: uint8 (N, 3, H, W) to the networks' input.
        fabric: device, precision, processes.
        num_classes: K.
        title: of the progress bar.
    """
    started = time.monotonic()
    training = {name: network.training for name, network in networks.items()}
    for network in networks.values():
        network.eval()
        if fabric.world_size > 1:
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, 0)
    exact = torch.float32 if fabric.device.type == "mps" else torch.float64
    counts = torch.zeros(len(networks), num_classes, 3, dtype=torch.int64, device=fabric.device)
    losses = torch.zeros(len(networks), dtype=exact, device=fabric.device)
    batches = loader.batches
    total = len(range(batches.rank, batches.count, batches.ranks))
    with bar(title, total, "images", shown=fabric.is_global_zero) as advance:
        for images, labels in loader.epoch(0):
            images, labels = fabric.to_device((images, labels))
            inputs = prepare(images)
            for place, network in enumerate(networks.values()):
                with fabric.autocast():
                    logits = network(inputs)
                hits = logits.topk(min(5, num_classes)).indices == labels[:, None]
                row = torch.stack([torch.ones_like(labels), hits[:, 0], hits.any(1)], 1)
                counts[place].index_add_(0, labels, row.to(torch.int64))
                loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
                losses[place] += loss.to(exact)
            advance(len(labels))
    for name, network in networks.items():
        network.train(training[name])
    loader.share_corrupt()
    all_counts: Any = fabric.all_reduce(counts, reduce_op="sum")
    all_losses: Any = fabric.all_reduce(losses, reduce_op="sum")
    seconds = time.monotonic() - started
    if not int(all_counts[0, :, 0].sum()):
        raise UsageError("none of the validation images can be read.")
    scored = zip(networks, all_counts.cpu(), all_losses.tolist(), strict=True)
    return {name: _evaluation(rows, loss, seconds) for name, rows, loss in scored}


def _evaluation(per_class: Tensor, loss: float, seconds: float) -> Evaluation:
    seen, right, among = per_class.sum(0).tolist()
    return Evaluation(
        top1=100 * right / seen,
        top5=100 * among / seen,
        loss=loss / seen,
        images=seen,
        per_class=per_class,
        images_per_second=seen / seconds,
    )


@dataclass(frozen=True)
class Scored:
    """A backbone's own classifier on a data set."""

    evaluation: Evaluation
    classes: tuple[str, ...]
    """Names of the outputs."""
    how: str
    """How the classes of the data were matched with the outputs."""
    left_out: int
    """Images that could not be read."""


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
) -> Scored:
    """Score a backbone with its own preprocessing.

    Args:
        backbone: with its classifier.
        root: see open_scored, also for `split` and `labels`.
        fabric: device, precision, processes.
        split: folder in `root`.
        labels: file of the labels.
        by_pil: resize by PIL, as timm and torchvision's reference figures; otherwise as tensors.
        batch_size: images at once.
        workers: loader processes.
        max_corrupt: unreadable images that may be left out.
    """
    if not backbone.spec.num_classes:
        raise UsageError(
            "the backbone has no classifier of its own; it cannot be scored by itself."
        )
    images, how = open_scored(root, split, labels, backbone)
    _, height, width = backbone.spec.input_size
    crop = evaluation_crop(height, width, backbone.spec.crop_pct, backbone.spec.interpolation)
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
    pixels = Pixels(
        mean=backbone.spec.mean, std=backbone.spec.std, memory_format=torch.channels_last
    )
    outputs = backbone.spec.num_classes
    found = evaluate({"": network}, loader, pixels.normalised, fabric, outputs, "scoring")
    return Scored(found[""], images.classes, how, len(loader.broken))
