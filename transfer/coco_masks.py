"""MS-COCO's segmentations as masks.

A segmentation is a list of polygons [x, y, x, y, ...], or runs (RLE) down the columns, {"size":
[height, width], "counts": numbers, or their compressed text}. Until its pixels are asked for it is
kept as it stands in the file; pycocotools draws them.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_FARTHEST = 2**16  # pixels; each of an outline costs time, wherever it lies


def is_segmentation(value: Any) -> bool:
    """Whether a value has the form of one, with at least one polygon or run."""
    if isinstance(value, dict):
        counts = value.get("counts")
        is_list = isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts)
        return bool(counts) and (is_list or isinstance(counts, str))
    return isinstance(value, list) and any(map(_is_polygon, value))


def may_belong(segmentation: Any, box: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a segmentation can be that of an object: the mask of another is an empty one.

    Args:
        segmentation: with the form of one.
        box: x, y, width, height.
        size: width and height of the image; 0 where unknown.
    """
    if isinstance(segmentation, dict):
        return 0 in size or segmentation.get("size") == [size[1], size[0]]
    x, y, width, height = box
    polygons = filter(_is_polygon, segmentation)
    corners = np.concatenate([np.array(one, float).reshape(-1, 2) for one in polygons])
    reaches = (corners.max(0) > (x, y)) & (corners.min(0) < (x + width, y + height))
    return bool(reaches.all())


def rasterize(segmentations: Sequence[Any], height: int, width: int) -> Tensor:
    """Masks (K, H, W), bool, of K segmentations of one image.

    All false where there is none, where its runs are of another size or do not fill it, and where
    a compressed text is not the one that pycocotools writes of the same pixels.
    """
    masks = torch.zeros(len(segmentations), height, width, dtype=torch.bool)
    for mask, segmentation in zip(masks, segmentations, strict=True):
        if is_segmentation(segmentation):
            pixels = _pixels(segmentation, height, width)
            if pixels is not None:
                mask.copy_(torch.from_numpy(pixels))
    return masks


def _is_polygon(value: Any) -> bool:
    """Three corners at least; pycocotools takes four numbers for a box."""
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2:
        return False
    numbers = {int, float}.issuperset(map(type, value))
    return numbers and all(math.isfinite(n) and abs(n) <= _FARTHEST for n in value)


def _pixels(segmentation: Any, height: int, width: int) -> np.ndarray | None:
    from pycocotools import mask as coco  # not every installation has it: see `check_mixing`

    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
        runs = coco.merge(coco.frPyObjects(polygons, height, width))
        return np.asarray(coco.decode(runs), bool)
    counts = segmentation["counts"]
    is_text = isinstance(counts, str)
    if segmentation.get("size") != [height, width]:
        return None
    if not is_text and sum(counts) != height * width:
        return None
    try:
        runs = segmentation if is_text else coco.frPyObjects(segmentation, height, width)
        pixels = np.asarray(coco.decode(runs))
    except ValueError:
        return None
    # of runs that end too early, the rest is whatever the memory held
    if is_text and coco.encode(np.asfortranarray(pixels))["counts"].decode() != counts:
        return None
    return pixels.astype(bool)
