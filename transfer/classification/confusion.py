"""The confusion matrix, the metrics that follow from it, and its picture.

K classes. Rows are true classes, columns are predictions. A prediction of -1 is an image left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pretrain.files import save_figure
from transfer.classification.folders import Indices

_MAX_READABLE = 50  # classes in a picture
_MAX_CONFUSED = 30  # of more classes, those with the most mistakes
_MAX_ANNOTATED = 25  # up to so many, each cell has its percentage


def confusion_matrix(predictions: Indices, labels: Indices, num_classes: int) -> NDArray[np.int64]:
    """(K, K) counts of images."""
    valid = predictions >= 0
    cells = labels[valid] * num_classes + predictions[valid]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def top1(matrix: NDArray[np.int64]) -> float:
    """Percent of the images that are right."""
    return 100 * float(np.trace(matrix)) / float(matrix.sum())


def mean_per_class(matrix: NDArray[np.int64]) -> float:
    """Mean over the classes that have images of the percent of theirs that are right."""
    counts = matrix.sum(1)
    present = counts > 0
    return 100 * float((np.diag(matrix)[present] / counts[present]).mean())


def most_confused(
    matrix: NDArray[np.int64], classes: Sequence[str], most: int = 10
) -> list[dict[str, Any]]:
    """The pairs with the most mistakes; of equals the first in the order of the classes.

    Of each pair the names `true` and `predicted`, the `count` of images, and their `share` in
    percent of the images of the true class.
    """
    counts = matrix.sum(1)
    return [
        {"true": classes[row], "predicted": classes[column], "count": int(matrix[row, column]),
         "share": round(100 * float(matrix[row, column] / counts[row]), 1)}
        for row, column in _by_mistakes(matrix)[:most]
        if row != column and matrix[row, column]
    ]  # fmt: skip


def most_confused_classes(matrix: NDArray[np.int64]) -> list[int]:
    """Indices of the classes in the picture, in order: all, or those of the worst pairs."""
    if len(matrix) <= _MAX_READABLE:
        return list(range(len(matrix)))
    chosen: set[int] = set()
    for pair in map(np.ndarray.tolist, _by_mistakes(matrix)):
        if len(chosen.union(pair)) > _MAX_CONFUSED:
            break
        chosen.update(pair)
    return sorted(chosen)


def draw_confusion(
    matrix: NDArray[np.int64], classes: Sequence[str], title: str, path: Path
) -> None:
    """Draw all of the matrix, or the part where most mistakes are; cells are percent of the row.

    Args:
        matrix: (K, K) counts.
        classes: K names.
        title: above the picture.
        path: of the PNG.
    """
    chosen = most_confused_classes(matrix)
    count, annotated = len(chosen), len(chosen) <= _MAX_ANNOTATED
    # long names differ at either end
    names = [n if len(n) <= 20 else f"{n[:10]}…{n[-9:]}" for n in (classes[c] for c in chosen)]
    percent = (100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1))[np.ix_(chosen, chosen)]
    side = max(4.2, 0.42 * count + 2 if annotated else 0.21 * count + 2.4)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(range(count), names, rotation=90, fontsize=9 if annotated else 7)
    axes.set_yticks(range(count), names, fontsize=9 if annotated else 7)
    if count < len(classes):
        title += f"\nthe {count} most confused of {len(classes)} classes"
    figure.suptitle(title, fontsize=10)
    axes.tick_params(length=0)
    if annotated:
        for row, column in np.argwhere(percent >= 0.5):
            value = percent[row, column]
            colour = "white" if value > 55 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, c=colour)
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of the true class")
    save_figure(figure, path)


def _by_mistakes(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K * K, 2): rows and columns of all cells, those with the most mistakes first."""
    mistakes = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    order = np.argsort(-mistakes, axis=None, kind="stable")
    return np.stack(np.unravel_index(order, matrix.shape), axis=1)
