"""Pictures of a pretraining run: a mixed batch with its label weights, and the curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pretrain.mixing import Mixed
from pretrain.run import save_figure


def draw_mixed_batch(
    mixed: Mixed, classes: Sequence[str], mean: Sequence[float], std: Sequence[float], path: Path
) -> None:
    """The first images of a mixed batch; under each its labels and their weights."""
    shown = min(len(mixed.images), 18)
    columns = min(shown, 6)
    rows = -(-shown // columns)
    figure = Figure(figsize=(1.75 * columns, 2.15 * rows + 0.5), layout="constrained")
    figure.suptitle("a training batch as the network sees it, with its label weights", fontsize=11)
    scale = torch.tensor(std)[:, None, None]
    shift = torch.tensor(mean)[:, None, None]
    for place in range(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        pixels = mixed.images[place].detach().cpu().float() * scale + shift
        axes.imshow(pixels.clamp(0, 1).permute(1, 2, 0).numpy())
        axes.set_axis_off()
        axes.set_title(label_weights(mixed.targets[place], classes), fontsize=8, y=-0.06, va="top")
    save_figure(figure, path)


def label_weights(target: Tensor, classes: Sequence[str]) -> str:
    """`0.68 star` and a line for the other label; an unmixed image has a single line."""
    weights, labels = target.detach().cpu().topk(min(2, len(target)))
    lines = [
        f"{weight:.2f} {classes[label]}"
        for weight, label in zip(weights.tolist(), labels.tolist(), strict=True)
        if weight > 0
    ]
    return "\n".join(lines)


def draw_curves(log: Sequence[dict[str, Any]], mixing: str, path: Path) -> None:
    """Loss and accuracy over the epochs."""
    epochs = [record["epoch"] for record in log]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    against = "" if mixing in ("none", "cutout") else " (mixed labels)"
    for axes, name, train, val in (
        (loss, "loss", "train_loss", "val_loss"),
        (accuracy, "accuracy, %", "train_accuracy", "top1"),
    ):
        axes.plot(epochs, [record[train] for record in log], ".-", label=f"training{against}")
        axes.plot(epochs, [record[val] for record in log], ".-", label="validation")
        axes.set_xlabel("epoch")
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path)
