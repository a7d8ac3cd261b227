"""Pictures of a pretraining run: a mixed batch with its label weights, and the curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pretrain.config import WITHOUT_PARTNERS
from pretrain.files import save_figure
from pretrain.mixing import Mixed

MOST_LABELS = 4
"""Below an image; Mosaic has four."""
LEAST_SHOWN = 0.005
"""Weights below it would be 0.00."""


def draw_mixed_batch(
    mixed: Mixed, classes: Sequence[str], mean: Sequence[float], std: Sequence[float], path: Path
) -> None:
    """The first images of a mixed batch; under each its labels and their weights."""
    count = min(len(mixed.targets), 18)  # a network may be given more images, to halve them itself
    columns = min(count, 6)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.75 * columns, 2.15 * rows + 0.5), layout="constrained")
    figure.suptitle(_title(mixed), fontsize=11)
    scale, shift = (torch.tensor(values)[:, None, None] for values in (std, mean))
    for index in range(count):
        pixels = mixed.images[index].detach().cpu().float() * scale + shift
        axes = figure.add_subplot(rows, columns, index + 1)
        draw_image(axes, pixels, mixed.targets[index], classes, fontsize=8, y=-0.06)
    save_figure(figure, path)


def _title(mixed: Mixed) -> str:
    """What the picture shows, and what it cannot."""
    if mixed.inside is None:
        return "a training batch as the network sees it, with its label weights"
    if mixed.note:
        return f"a training batch before the network, which mixes its features at {mixed.note}"
    return "a training batch with label weights by area, before the network's attention weighs them"


def draw_image(
    axes: Any, pixels: Tensor, target: Tensor, classes: Sequence[str], fontsize: float, y: float
) -> None:
    """An image (3, H, W) in [0, 1], below it its largest labels, such as `0.68 star`."""
    axes.imshow(pixels.clamp(0, 1).permute(1, 2, 0).numpy())
    axes.set_axis_off()
    weights, labels = target.detach().cpu().topk(min(MOST_LABELS, len(target)))
    pairs = zip(weights.tolist(), labels.tolist(), strict=True)
    lines = [f"{weight:.2f} {classes[label]}" for weight, label in pairs if weight >= LEAST_SHOWN]
    axes.set_title("\n".join(lines), fontsize=fontsize, y=y, va="top")


def draw_curves(log: Sequence[dict[str, Any]], mixing: str, path: Path) -> None:
    """Loss and accuracy over the epochs."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    suffix = "" if mixing in WITHOUT_PARTNERS else " (mixed labels)"
    left, right = figure.subplots(1, 2)
    for axes, title, key, label in (
        (left, "loss", "train_loss", f"training{suffix}"),
        (left, "loss", "val_loss", "validation"),
        (right, "accuracy, %", "train_accuracy", f"training{suffix}"),
        (right, "accuracy, %", "top1", "validation"),
    ):
        points = {record["epoch"]: record[key] for record in log if key in record}
        axes.plot([*points], [*points.values()], ".-", label=label)
        axes.set_xlabel("epoch")
        axes.set_title(title, fontsize=10)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path)
