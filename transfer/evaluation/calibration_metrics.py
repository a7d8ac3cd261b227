"""How far confidence is from accuracy, and the temperature that brings it nearest.

N images, K classes, B bins. Confidence is the largest softmax, right is whether its class is the
label; the gap of a bin is |mean confidence - accuracy|. Bins without images count nothing.

    ece             gaps weighted by the images, B bins of equal width (Guo et al., ICML 2017, eq.
                    3): bin b holds confidences above b / B and up to (b + 1) / B, 1 in the last
    mce             the largest gap of these bins (eq. 5)
    adaptive_ece    as ece, but bins of equally many images (Nguyen and O'Connor, EMNLP 2015); equal
                    confidences are never parted
    classwise_ece   mean over the K classes of the ECE of that class's softmax, for all images,
                    against whether it is the label (Kull et al., NeurIPS 2019)
    nll             mean of -log softmax of the label, in nats
    brier           mean over images of the squared distance of the softmax from the label, summed
                    over classes: from 0 to 2

Bins are open below as in Guo et al.'s code, in scikit-learn's calibration_curve and netcal.
torchmetrics closes them below, and gives confidences of exactly 1 a bin of their own. The edges are
b / B in float64, the confidences come from float64 logits.

Written here: the dependencies have none of it but the search for a root, which is SciPy's.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reliability:
    """The images in each of B bins."""

    count: Values
    """(B,)"""
    accuracy: Values
    """(B,) in [0, 1]; 0 where there is no image."""
    confidence: Values
    """(B,) mean, in [0, 1]; 0 where there is no image."""

    @property
    def ece(self) -> float:
        """In [0, 1]."""
        return float(np.abs(self.accuracy - self.confidence) @ self.count / self.count.sum())

    @property
    def mce(self) -> float:
        """In [0, 1]."""
        return float(np.abs(self.accuracy - self.confidence).max())


def reliability(confidence: Values, right: Values, inner_edges: Values) -> Reliability:
    """Put images into bins.

    Args:
        confidence: (N,) in [0, 1].
        right: (N,) 0 or 1.
        inner_edges: (B - 1,) upper ends of all bins but the last, each in the bin below it.
    """
    bins = np.searchsorted(inner_edges, confidence)
    count, hits, total = (
        np.bincount(bins, weights, len(inner_edges) + 1).astype(np.float64)
        for weights in (np.ones(len(bins)), right, confidence)
    )
    some = np.maximum(count, 1)
    return Reliability(count, hits / some, total / some)


def equal_width(bins: int) -> Values:
    """The inner edges of bins of equal width."""
    return np.arange(1, bins) / bins


def equal_mass(confidence: Values, bins: int) -> Values:
    """The inner edges of bins of equally many images, or one more or less."""
    ends = np.arange(1, bins) * len(confidence) // bins
    return np.sort(confidence)[np.maximum(ends, 1) - 1]


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that the likelihood is largest at, for logits / temperature.

    NLL is convex in 1 / temperature; the root of its derivative is found to 1e-12 of itself.

    Args:
        logits: (N, K) float64.
        labels: (N,) int64.

    Returns:
        A number above 0; 0 where every label has the largest logit, so that nothing is too sharp;
        inf where labels have logits no larger than the mean of all, on average.
    """
    centred = logits - logits.gather(1, labels[:, None])

    def slope(inverse: float) -> float:
        """The derivative of NLL by 1 / temperature."""
        return float(((centred * inverse).softmax(1) * centred).sum(1).mean())

    if centred.max() <= 0:
        return 0.0
    if slope(0) >= 0:
        return math.inf
    high = 1.0
    while slope(high) < 0:
        high *= 2
    return float(1 / brentq(slope, 0, high, xtol=1e-300, rtol=1e-12))
