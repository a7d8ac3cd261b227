"""Mean IoU, Dice and boundary F of label maps. K classes; every figure is a percentage.

All but the boundaries comes from confusion matrices (K, K), int64, rows the truth: of an image, of
a volume as the sum over its slices, of a data set as the sum over all. Void pixels count nowhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SegmentationScores:
    """The figures of a split; None where nothing of a class is in truth or prediction."""

    mean_iou: float | None
    """Pascal VOC's: over the classes that occur, of the sum over all pixels of the split."""
    iou: Mapping[str, float | None]
    """By class."""
    mean_dice: float | None
    """Over the classes but a class 0 called background. Of volumes each has its own Dice, in three
    dimensions, which is averaged over the volumes in which the class occurs, then over classes."""
    dice: Mapping[str, float | None]
    pixel_accuracy: float | None
    num_classes: int
    """Over how many the mean IoU goes."""


def confusion_matrix(predicted: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """(K, K) int64 of label maps of one shape, on their device; rows are the truth."""
    raise NotImplementedError


def evaluate(confusions: Tensor, classes: Sequence[str]) -> SegmentationScores:
    """The scores of a split.

    Args:
        confusions: (C, K, K): of each of C volumes; of images one, of all of them.
        classes: names of the K classes.
    """
    raise NotImplementedError
