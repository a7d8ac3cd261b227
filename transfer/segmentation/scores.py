"""Mean IoU, Dice and boundary F of label maps. K classes; every figure is a percentage.

All but the boundaries comes from confusion matrices (K, K), int64, rows the truth: of an image, of
a volume as the sum over its slices, of a data set as the sum over all. Void pixels count nowhere.

IoU and Dice have no value for a class that is neither in truth nor in prediction, and it is left
out of the means; one that is in only one of them has 0. Elsewhere such a class

    makes the mean NaN    Pascal VOC's devkit (VOCevalseg.m)
    is left out           torchmetrics 1.9
    has Dice 0            ACDC's metrics_acdc.py, by medpy; scikit-learn, if not asked for NaN
    has Dice 1            CycleMix's inference.py

and in all of them the rest is the same, to the last digit (tests/peers/segmentation_scores.py). On
VOC's val and ACDC every class occurs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
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
    """(K, K) int64 of label maps of one shape, on their device; rows are the truth.

    Args:
        predicted: classes, 0 to K - 1.
        truth: the same; what is no class (VOID) counts nowhere.
        num_classes: K.
    """
    cells = num_classes**2
    places = torch.where(truth < num_classes, truth.long() * num_classes + predicted, cells)
    # not bincount, which asks a GPU for the largest place
    counts = torch.zeros(cells + 1, dtype=torch.int64, device=truth.device)
    places = places.flatten()
    counts.scatter_add_(0, places, torch.ones_like(places))
    return counts[:cells].view(num_classes, num_classes)


def evaluate(confusions: Tensor, classes: Sequence[str]) -> SegmentationScores:
    """The scores of a split.

    Args:
        confusions: (C, K, K): of each of C volumes; of images one, of all of them.
        classes: names of the K classes.
    """
    hits = confusions.diagonal(dim1=1, dim2=2).double()
    pixels = confusions.sum(1).double() + confusions.sum(2)  # of truth and of prediction
    iou = 100 * hits.sum(0) / (pixels - hits).sum(0)  # NaN where a class does not occur
    dice = (200 * hits / pixels).nanmean(0)
    first = 1 if classes[0] == "background" else 0
    accuracy = 100 * hits.sum() / confusions.sum()
    return SegmentationScores(
        mean_iou=_known(iou.nanmean()),
        iou=dict(zip(classes, map(_known, iou), strict=True)),
        mean_dice=_known(dice[first:].nanmean()),
        dice=dict(zip(classes, map(_known, dice), strict=True)),
        pixel_accuracy=_known(accuracy),
        num_classes=int((~iou.isnan()).sum()),
    )


def _known(figure: Tensor) -> float | None:
    """A figure, unless it is one of nothing."""
    return None if figure.isnan() else float(figure)
