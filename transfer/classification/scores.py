"""What predictions are worth. N images, K classes; a prediction of -1 is an image left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfer.classification.folders import Numbers


def confusion(predicted: Numbers, labels: Numbers, num_classes: int) -> NDArray[np.int64]:
    """(K, K): images of the class of the row that were taken for the class of the column."""
    seen = predicted >= 0
    cells = labels[seen] * num_classes + predicted[seen]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def top1(matrix: NDArray[np.int64]) -> float:
    """Percent of the images that are right."""
    return 100 * float(np.trace(matrix)) / float(matrix.sum())


def mean_per_class(matrix: NDArray[np.int64]) -> float:
    """Mean over the classes that have images of the percent of theirs that are right."""
    counts = matrix.sum(1)
    there = counts > 0
    return 100 * float((np.diag(matrix)[there] / counts[there]).mean())


@dataclass(frozen=True)
class Confused:
    """Images of one class taken for another."""

    true: str
    predicted: str
    count: int
    share: float
    """Percent of the images of the true class."""


def mistakes(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """The matrix without the images that are right."""
    return matrix * (1 - np.eye(len(matrix), dtype=np.int64))


def most_confused(
    matrix: NDArray[np.int64], classes: Sequence[str], most: int = 10
) -> list[Confused]:
    """The pairs with the most mistakes; of equals the first in the order of the classes."""
    wrong = mistakes(matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    counts = matrix.sum(1)
    return [
        Confused(classes[row], classes[column], int(wrong[row, column]),
                 round(100 * float(wrong[row, column] / counts[row]), 1))
        for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[row, column]
    ]  # fmt: skip
