"""Boxes (M, 4) of integers: top, left, bottom, right, half-open, in an image of H x W pixels.

Two rules, both with centre uniform over the image and clipped to it:

    paper      continuous edges at centre +- W sqrt(1 - lam) / 2, each rounded to the nearest pixel:
               the mean area is exact (mean lam 0.679 at alpha 1)
    official   clovaai's train.py (and torchvision's): integer centre, half sides rounded down,
               so small images lose area (mean lam 0.701 at 32 pixels, 0.690 at 64, 0.682 at 224)

and what can be changed in the paper's: see `paper_boxes`.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UsageError
from pretrain.mixing.mixed import to_device

Centre = Literal["uniform", "gaussian"]
DEVIATION = 1 / 6
"""Of a Gaussian centre, as a share of the image's side: its border is at three of them. The paper
gives no figure."""


def paper_boxes(
    lam: np.ndarray,
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    centre: Centre = "uniform",
    inside: bool = False,
    aspect: tuple[float, float] | None = None,
    sides: tuple[float, float] | None = None,
) -> np.ndarray:
    """Boxes (N, 4) of the paper for lam (N,).

    Args:
        lam: the share of the image that a box leaves, were it not clipped.
        height: of the image in pixels.
        width: of the image in pixels.
        rng: the only source of randomness.
        centre: uniform over the image, or Gaussian about its middle (and held in it).
        inside: the centre is drawn where the whole box fits, so that nothing is clipped.
        aspect: log-uniform range of a box's width / height over the image's own; the area is kept,
            so that a large box can be less oblong than drawn.
        sides: uniform range of both sides, each drawn by itself, as shares of the image's; in place
            of lam and aspect.
    """
    side = np.sqrt(1 - lam)
    if aspect is not None:
        stretch = np.exp(rng.uniform(np.log(aspect[0]), np.log(aspect[1]), len(lam)) / 2)
        stretch = np.clip(stretch, side, 1 / np.maximum(side, 1e-9))  # no side above 1
        side = np.stack([side / stretch, side * stretch])
    if sides is not None:
        side = rng.uniform(*sides, (2, len(lam)))
    if centre == "uniform":
        middle = rng.random((2, len(lam)))
    else:
        middle = np.clip(rng.normal(0.5, DEVIATION, (2, len(lam))), 0, 1)
    if inside:
        middle = side / 2 + middle * (1 - side)
    edges = np.clip(np.concatenate([middle - side / 2, middle + side / 2]), 0, 1)
    return np.rint(edges * np.array([[height], [width], [height], [width]])).astype(np.int64).T


def official_boxes(
    lam: np.ndarray, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Boxes (N, 4) of the official code (train.py, rand_bbox) for lam (N,)."""
    size = np.array([[height], [width]])
    half = (size * np.sqrt(1 - lam)).astype(np.int64) // 2
    centre = rng.integers(0, size, (2, len(lam)))
    return np.concatenate([np.clip(centre - half, 0, size), np.clip(centre + half, 0, size)]).T


def inside_boxes(side: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Boxes (N, 4) of a `side` (N,), a share of the image's, uniform among those inside it."""
    whole = np.array([[height], [width]])
    size = np.rint(whole * side).astype(np.int64)
    low = rng.integers(0, whole - size, endpoint=True)
    return np.concatenate([low, low + size]).T


def cutout_boxes(
    side: float, count: int, rng: np.random.Generator, height: int, width: int
) -> np.ndarray:
    """Boxes (N, 4) of Cutout: a share `side`, the centre uniform over the pixels, clipped."""
    size = np.array([height, width])
    cut = np.rint(side * size).astype(np.int64)
    low = rng.integers(0, size, (count, 2)) - cut // 2
    return np.concatenate([np.clip(low, 0, size), np.clip(low + cut, 0, size)], axis=1)


def box_mask(boxes: np.ndarray | Tensor, images: Tensor) -> Tensor:
    """Mask (M, 1, H, W) on the device of `images` (N, C, H, W): true inside the boxes (M, 4)."""
    height, width = images.shape[-2:]
    if isinstance(boxes, np.ndarray):
        boxes = to_device(torch.from_numpy(np.ascontiguousarray(boxes)), images.device)
    top, left, bottom, right = boxes.T[:, :, None, None, None]
    row = torch.arange(height, device=images.device)[:, None]
    column = torch.arange(width, device=images.device)
    return ((row >= top) & (row < bottom)) & ((column >= left) & (column < right))


def own_share(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Share (M,) of an image's pixels outside its box."""
    share: np.ndarray = 1 - np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / (height * width)
    return share


def check_interval(name: str, interval: tuple[float, float] | None, most: float) -> None:
    """Raise UsageError unless 0 < low <= high <= most; None is not checked."""
    if interval is not None and not 0 < interval[0] <= interval[1] <= most:
        raise UsageError(
            f"mixing.args.{name} is {list(interval)}; give two numbers above 0 and at most "
            f"{most:g}, the smaller first"
        )
