"""Top-1, top-5 and loss of a classifier over every image once, on any number of processes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.progress import bar
from pretrain.training import InMemoryLoader, Loader, share_buffers
from pretrain.training.device_batches import to_device


@dataclass(frozen=True)
class ClassificationScores:
    """Scores of a classifier of K classes."""

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
    preprocess: Callable[[Tensor], Tensor],
    fabric: Fabric,
    num_classes: int,
    title: str = "validating",
) -> dict[str, ClassificationScores]:
    """Score networks on the same images, which are read once.

    Args:
        networks: by name, on the device of `fabric`; not wrapped for training, so that processes
            with fewer batches than others need not wait. Buffers are taken from process 0.
        loader: uint8 images and labels; with `ranks`, each process its share.
        preprocess: uint8 (N, 3, H, W) to the networks' input.
        fabric: device, precision, processes.
        num_classes: K.
        title: of the progress bar.

    Raises:
        UsageError: no image can be read.
    """
    started = time.monotonic()
    training = {name: network.training for name, network in networks.items()}
    for network in networks.values():
        network.eval()
        share_buffers(network, fabric)
    exact = torch.float32 if fabric.device.type == "mps" else torch.float64
    counts = torch.zeros(len(networks), num_classes, 3, dtype=torch.int64, device=fabric.device)
    losses = torch.zeros(len(networks), dtype=exact, device=fabric.device)
    total = len(range(loader.batches.rank, loader.batches.count, loader.batches.ranks))
    with bar(title, total, "images", shown=fabric.is_global_zero) as advance:
        for images, labels in loader.epoch(0):
            images, labels = to_device((images, labels), fabric)
            inputs = preprocess(images)
            for index, network in enumerate(networks.values()):
                with fabric.autocast():
                    logits = network(inputs)
                hits = logits.topk(min(5, num_classes)).indices == labels[:, None]
                row = torch.stack([torch.ones_like(labels), hits[:, 0], hits.any(1)], 1)
                counts[index].index_add_(0, labels, row.to(torch.int64))
                loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
                losses[index] += loss.to(exact)
            advance(len(labels))
    for name, network in networks.items():
        network.train(training[name])
    loader.share_corrupt()
    all_counts, all_losses = (
        fabric.all_reduce(sums, reduce_op="sum").cpu()  # type: ignore[union-attr]
        for sums in (counts, losses)
    )
    seconds = time.monotonic() - started
    scores = {}
    for name, per_class, loss_sum in zip(networks, all_counts, all_losses, strict=True):
        seen, first, among_five = per_class.sum(0).tolist()
        if not seen:
            raise UsageError("none of the validation images can be read.")
        top1, top5, loss = 100 * first / seen, 100 * among_five / seen, float(loss_sum) / seen
        scores[name] = ClassificationScores(top1, top5, loss, seen, per_class, seen / seconds)
    return scores
