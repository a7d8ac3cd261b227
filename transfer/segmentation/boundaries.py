"""Boundary F of label maps (Csurka et al., BMVC 2013, section 3).

The boundary of a class: its pixels with one of another class above, below, left or right of them;
the edge of the image is none. Precision is the share of the predicted boundary that is nearer to
the true one than the tolerance, recall the reverse, F their harmonic mean, of each class in each
image where truth or prediction has a boundary of it: 0 where only one of them has. MATLAB's
bfscore is this measure with this tolerance; DAVIS' f_boundary widens it to whole pixels, has 1
where there is no boundary in either, and knows one object.

Void, which the paper does not mention: Pascal VOC's masks have a band of it around every object, so
that no two classes touch. True boundaries are those of the mask in which each void pixel has the
class of the nearest pixel that has one: they lie in the middle of a band. None is asked for in
void farther from all that has a class than the tolerance. What is predicted in void can be right,
not wrong.
"""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from transfer.segmentation.config import VOID


class BoundaryF:
    """Collects the F of each class in each image; `mean` is over images, then over classes."""

    def __init__(self, tolerance: float = 0.0075) -> None:
        """`tolerance`: share of the image's diagonal within which a boundary counts as found."""
        self.tolerance = tolerance
        self._sums = np.zeros((2, VOID))  # of F, and of images, by class

    def see(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Add an image: label maps (H, W) uint8."""
        near = self.tolerance * float(np.hypot(*truth.shape))
        void = truth == VOID
        if void.all():
            return
        known = truth
        if void.any():
            distance, place = distance_transform_edt(void, return_indices=True)
            known = truth[tuple(place)]
        true_edge, edge = _edges(known), _edges(predicted)
        if void.any():
            true_edge &= distance < near
        for label in np.union1d(known[true_edge], predicted[edge]):
            true_points = np.argwhere(true_edge & (known == label))
            points = np.argwhere(edge & (predicted == label))
            found, right = _near(true_points, points, near), _near(points, true_points, near)
            counted = right | ~void[tuple(points.T)]
            if len(found) or counted.any():
                precision = right.sum() / counted.sum() if counted.any() else 1.0
                recall = found.mean() if len(found) else 1.0
                both = precision + recall
                self._sums[:, label] += (2 * precision * recall / both if both else 0.0), 1

    def share(self) -> None:
        """Add what other processes have seen."""
        everywhere: list[np.ndarray] = [self._sums] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everywhere, self._sums)
        self._sums = np.sum(everywhere, axis=0)

    @property
    def mean(self) -> float | None:
        """Percent; None where no class has a boundary."""
        total, images = self._sums[:, self._sums[1] > 0]
        return 100 * float((total / images).mean()) if len(images) else None


def _edges(labels: np.ndarray) -> np.ndarray:
    """Pixels (H, W) with one of another label above, below, left or right of them."""
    edges = np.zeros(labels.shape, bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    return edges


def _near(points: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Which of `points` (P, 2) have one of `others` (Q, 2) nearer than `distance`."""
    if not len(points) or not len(others):
        return np.zeros(len(points), bool)
    nearest = cKDTree(others).query(points, distance_upper_bound=distance)[0]
    return np.isfinite(nearest)
