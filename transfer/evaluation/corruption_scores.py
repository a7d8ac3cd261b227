"""What the errors under corruption come to: the mean over all, and mCE."""

from statistics import mean
from typing import Any

from transfer.evaluation.corruptions import NAMES

ALEXNET_ERRORS = (
    88.6428, 89.4468, 92.2640, 81.9880, 82.6268, 78.5948, 79.8360, 86.6816, 82.6572, 81.9324,
    56.4592, 85.3204, 64.6056, 71.7840, 60.6500,
)  # fmt: skip
"""Percent, of each corruption in the order of `NAMES`, mean over its severities: what mCE divides
by (github.com/google-research/augmix, imagenet.py, from github.com/hendrycks/robustness)."""


def corruption_scores(top1: dict[str, list[float]], is_imagenet: bool) -> dict[str, Any]:
    """Means over corruptions and severities.

    mCE, the mean of the errors in percent of AlexNet's on the same corruption, is given where those
    are defined: of all 15, on images of all of ImageNet's classes.
    """
    errors = {name: 100 - mean(values) for name, values in top1.items()}
    without = 100 - mean(error for name, error in errors.items() if name != "frost")
    values: dict[str, Any] = {"corruptions": top1, "corruptions_without_frost_top1": without}
    if len(errors) == len(NAMES):
        values["corruptions_top1"] = 100 - mean(errors.values())
        if is_imagenet:
            alexnet = dict(zip(NAMES, ALEXNET_ERRORS, strict=True))
            values["corruptions_mce"] = mean(100 * errors[name] / alexnet[name] for name in NAMES)
    return values
