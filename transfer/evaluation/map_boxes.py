"""Boxes round the connected regions of a map, at one threshold or at many at once.

A map (H, W) is given as levels: how many of T ascending thresholds each pixel exceeds; its
foreground at threshold t is `levels > t`. All thresholds are taken together: a run of foreground
begins at every threshold that lies between a pixel and a higher one on its right, and runs of
neighbouring rows that touch are one region. A call of scipy.ndimage.label for each threshold gives
the same regions in three to four times the time.

Regions are 8-connected, as OpenCV's contours are. Their size is what their outline through the
centres of pixels encloses, holes included, as cv2.contourArea gives it and as the codes of weakly
supervised localisation choose the largest one. Boxes are left, top, right, bottom in pixels,
0-based; right and bottom are exclusive.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class Runs(NamedTuple):
    """Rows of foreground pixels, in the order of threshold, row, column."""

    threshold: np.ndarray
    row: np.ndarray
    left: np.ndarray
    right: np.ndarray
    """Exclusive."""


class Regions(NamedTuple):
    """The regions of a map at all thresholds, in the order of their first runs."""

    threshold: np.ndarray
    """(R,) the number of each one's threshold."""
    boxes: np.ndarray
    """(R, 4) int64."""
    area: np.ndarray
    """(R,) int64, twice the area inside the outline; without holes."""
    holes: int
    """Of all regions together."""
    runs: Runs
    region: np.ndarray
    """Of each run, its number."""


class Boxes(NamedTuple):
    """What `find_boxes` finds."""

    largest: np.ndarray
    """(T, 4) that of the largest region at each threshold; zeros where there is none. Of several
    that are as large, the one that begins last in reading order: OpenCV's first contour."""
    boxes: np.ndarray
    """(B, 4) those of all contours: of regions, and of their holes, whose contours run through the
    pixels round them, as with cv2.RETR_TREE."""
    threshold: np.ndarray
    """(B,) the number of each one's threshold."""


def find_boxes(levels: np.ndarray, thresholds: int) -> Boxes:
    """The boxes of a map (H, W) of levels from 0 to `thresholds`."""
    regions = outer = find_regions(levels, thresholds)
    boxes, threshold = regions.boxes, regions.threshold
    if regions.holes:
        holes, inside = _find_holes(levels, thresholds)
        outer = find_regions(_fill(levels, holes, inside, thresholds), thresholds)
        boxes = np.concatenate([boxes, holes.boxes[inside] + np.array([-1, -1, 1, 1])])
        threshold = np.concatenate([threshold, holes.threshold[inside]])
    largest = np.zeros((thresholds, 4), dtype=np.int64)
    order = np.lexsort((outer.area, outer.threshold))  # of each threshold the last one stays
    largest[outer.threshold[order]] = outer.boxes[order]
    return Boxes(largest, boxes, threshold)


def find_regions(levels: np.ndarray, thresholds: int, connectivity: int = 8) -> Regions:
    """The regions of a map at all thresholds.

    Args:
        levels: (H, W) integers from 0 to `thresholds`.
        thresholds: their number T.
        connectivity: 8, or 4.
    """
    height, stride = len(levels), levels.shape[1] + 2
    starts, ends = _run_ends(levels)
    # which runs of the next row each one touches: of a corner too, or not
    corner = int(connectivity == 8)
    first = np.searchsorted(ends, starts + stride - corner, "right")
    touching = np.searchsorted(starts, ends + stride + corner, "left") - first
    above = np.repeat(np.arange(len(starts)), touching)
    below = first[above] + _count_up(touching)
    graph = coo_array((np.ones(len(above), np.int8), (above, below)), shape=(len(starts),) * 2)
    number, region = connected_components(graph, directed=False)
    place, left = np.divmod(starts, stride)
    threshold, row = np.divmod(place, height + 1)
    runs = Runs(threshold, row, left, ends % stride)

    boxes = np.tile([np.iinfo(np.int64).max] * 2 + [0, 0], (number, 1))
    np.minimum.at(boxes[:, 0], region, runs.left)
    np.minimum.at(boxes[:, 1], region, row)
    np.maximum.at(boxes[:, 2], region, runs.right)
    np.maximum.at(boxes[:, 3], region, row + 1)
    of_region = np.zeros(number, dtype=np.int64)
    of_region[region] = threshold
    # between two rows the outline encloses a square for each four pixels, a half of one for three
    begins, stops = (np.stack([side[above], side[below]]) for side in (runs.left, runs.right))
    overlap = stops.min(0) - begins.max(0)
    slants = (begins[0] != begins[1]).astype(int) + (stops[0] != stops[1])
    doubled = np.where(overlap > 0, 2 * (overlap - 1) + slants, 0)
    area = np.bincount(region[above], doubled, number).astype(np.int64)
    # runs and touches are a graph in the plane: Euler's formula
    return Regions(of_region, boxes, area, len(above) - len(starts) + number, runs, region)


def _run_ends(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs begin, and where they end: (threshold (H + 1) + row) (W + 2) + column, sorted."""
    padded = np.pad(levels.astype(np.int64), ((0, 0), (1, 1)))
    height, stride = padded.shape
    step = np.diff(padded)

    def keys(steps: np.ndarray, lower: np.ndarray) -> np.ndarray:
        row, column = np.nonzero(steps > 0)
        number = steps[row, column]
        which = np.repeat(np.arange(len(number)), number)
        threshold = lower[row, column][which] + _count_up(number)
        return np.sort((threshold * (height + 1) + row[which]) * stride + column[which])

    return keys(step, padded[:, :-1]), keys(-step, padded[:, 1:])


def _count_up(numbers: np.ndarray) -> np.ndarray:
    """0, 1, ..., number - 1 for each of them, one after another."""
    ends = np.cumsum(numbers)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - numbers, numbers)


def _find_holes(levels: np.ndarray, thresholds: int) -> tuple[Regions, np.ndarray]:
    """The 4-connected regions of the background at all thresholds; which of them are holes."""
    background = find_regions(thresholds - levels, thresholds, connectivity=4)
    height, width = levels.shape
    left, top, right, bottom = background.boxes.T
    inside = (left > 0) & (top > 0) & (right < width) & (bottom < height)
    return background._replace(threshold=thresholds - 1 - background.threshold), inside


def _fill(levels: np.ndarray, holes: Regions, inside: np.ndarray, thresholds: int) -> np.ndarray:
    """The levels with the holes of every threshold filled."""
    keep = inside[holes.region]
    of_run, row, left, right = (values[keep] for values in holes.runs)
    number = right - left
    pixel = np.repeat(row * levels.shape[1] + left, number) + _count_up(number)
    filled = levels.copy()
    np.maximum.at(filled.reshape(-1), pixel, np.repeat(thresholds - of_run, number))
    return filled
