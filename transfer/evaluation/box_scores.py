"""How well the boxes of maps fit the true ones: at the paper's threshold, and at a hundred of them.

MaxBoxAcc and MaxBoxAccV2 (Choe et al., CVPR 2020, and its extension of 2022) are those of
github.com/clovaai/wsolevaluation (evaluation.py) on the same maps and boxes, by its conventions:
maps of 8 bits, a threshold is a whole number, boxes reach one pixel further to the right and below,
true boxes are cut to whole pixels. The paper's box takes the map as it is, and boxes as they are.
"""

from typing import Any

import numpy as np

from transfer.evaluation.map_boxes import find_boxes

IOU = 0.5
"""A box is right from here on, as in ADL's and wsolevaluation's code; the paper says above it."""
IOUS = (0.3, 0.5, 0.7)
"""MaxBoxAccV2's."""
THRESHOLDS = np.arange(0, 1, 0.01)
"""Shares of a map's maximum. The interval of 0.001 that wsolevaluation has by default comes to 255
thresholds of 8 bits, in twice the time."""


class BoxCounts:
    """How many images of one method are right, at each threshold and overlap."""

    def __init__(self) -> None:
        self.top1_loc = self.gt_known_loc = 0
        self.largest = np.zeros((len(IOUS), len(THRESHOLDS)), np.int64)
        self.best = np.zeros_like(self.largest)

    def add(self, scores: np.ndarray, truth: np.ndarray, is_right: bool, threshold: float) -> None:
        """Count an image by its map (H, W) and true boxes (K, 4)."""
        found = overlaps(map_box(scores, threshold)[None], truth).max(initial=0) >= IOU
        self.gt_known_loc += int(found)
        self.top1_loc += int(found and is_right)
        largest, best = box_accuracy(scores, truth)
        for row, iou in enumerate(IOUS):
            self.largest[row] += largest >= iou
            self.best[row] += best >= iou

    def percent(self, images: int) -> dict[str, Any]:
        """The metrics."""
        at_half = 100 * self.largest[IOUS.index(IOU)] / images
        return {
            "top1_loc": 100 * self.top1_loc / images,
            "gt_known_loc": 100 * self.gt_known_loc / images,
            "max_box_acc": float(at_half.max()),
            "max_box_acc_v2": float((100 * self.best / images).max(1).mean()),
            "threshold": float(THRESHOLDS[at_half.argmax()]),
            "box_acc": at_half.tolist(),
        }


def map_box(scores: np.ndarray, threshold: float) -> np.ndarray:
    """The box (4,) round the largest region of a map (H, W) of at least so much of its maximum.

    Zeros where nothing of the map is above 0.
    """
    inside = (scores >= threshold * scores.max()) & (scores > 0)
    return find_boxes(inside.astype(np.int64), 1).largest[0]


def box_accuracy(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best overlap with a true box at each of THRESHOLDS, as wsolevaluation finds it.

    Args:
        scores: (H, W) from 0 to 1.
        truth: true boxes (K, 4).

    Returns:
        That of the largest region (MaxBoxAcc), and that of any contour (MaxBoxAccV2).
    """
    height, width = scores.shape
    pixels = (scores * 255).astype(np.uint8)
    cuts, place = np.unique((THRESHOLDS * int(pixels.max())).astype(int), return_inverse=True)
    levels = np.searchsorted(cuts, pixels, side="left")
    truth = truth.astype(int) + np.array([0, 0, 1, 1])

    def overlap(boxes: np.ndarray) -> np.ndarray:
        last = np.array([width - 1, height - 1])
        boxes = np.concatenate([boxes[:, :2], np.minimum(boxes[:, 2:], last) + 1], axis=1)
        return overlaps(boxes, truth).max(1, initial=0)

    found = find_boxes(levels, len(cuts))
    largest = overlap(found.largest)
    best = largest.copy()  # where there is no contour, the box 0, 0, 0, 0 stands for it
    np.maximum.at(best, found.threshold, overlap(found.boxes))
    return largest[place], best[place]


def overlaps(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union of each of the boxes (B, 4) with each of the true ones (K, 4)."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(one[:, 2:] - one[:, :2]).prod(1) for one in (boxes, truth)]
    return shared / (areas[0][:, None] + areas[1] - shared)
