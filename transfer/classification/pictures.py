"""The confusion matrix as a picture: all of it, or the part where most mistakes are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pretrain.run import save_figure
from transfer.classification.scores import mistakes

_MOST = 50  # classes that can be read
_SHOWN = 30  # of more classes
_FIGURES = 25  # up to so many, each cell has its percentage


def draw_confusion(
    matrix: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    """Rows are true classes, columns are predictions, cells are percent of the row.

    Args:
        matrix: (K, K) counts.
        classes: K names.
        title: above the picture.
        path: of the PNG.
    """
    chosen = shown(matrix)
    whole = len(chosen) == len(classes)
    names = [_short(classes[number]) for number in chosen]
    counts = matrix.sum(1, keepdims=True)
    percent = (100 * matrix / np.maximum(counts, 1))[np.ix_(chosen, chosen)]
    side = max(4.2, 0.21 * len(chosen) + 2.4 if len(chosen) > _FIGURES else 0.42 * len(chosen) + 2)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    size = 9 if len(chosen) <= _FIGURES else 7
    axes.set_xticks(range(len(chosen)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(chosen)), names, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    part = "" if whole else f"\nthe {len(chosen)} most confused of {len(classes)} classes"
    figure.suptitle(f"{title}{part}", fontsize=10)
    axes.tick_params(length=0)
    if len(chosen) <= _FIGURES:
        for row, column in zip(*np.nonzero(percent >= 0.5), strict=True):
            value = percent[row, column]
            colour = "white" if value > 55 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, c=colour)
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of the true class")
    save_figure(figure, path)


def shown(matrix: NDArray[np.int64]) -> list[int]:
    """Numbers of the classes in the picture, in order: all, or those of the worst pairs."""
    if len(matrix) <= _MOST:
        return list(range(len(matrix)))
    wrong = mistakes(matrix)
    chosen: set[int] = set()
    for cell in np.argsort(-wrong, axis=None, kind="stable"):
        pair = {int(cell) // len(matrix), int(cell) % len(matrix)}
        if len(chosen | pair) > _SHOWN:
            break
        chosen |= pair
    return sorted(chosen)


def _short(name: str, most: int = 20) -> str:
    """Long names differ at either end."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"
