"""Boxes (M, 4) of integers: top, left, bottom, right, half-open, in an image of H x W pixels.

Two rules, both with centre uniform over the image and clipped to it:

    paper      continuous edges at centre +- W sqrt(1 - lam) / 2, each rounded to the nearest pixel:
               the mean area is exact (mean lam 0.679 at alpha 1)
    official   clovaai's train.py (and torchvision's): integer centre, half sides rounded down,
               so small images lose area (mean lam 0.701 at 32 pixels, 0.690 at 64, 0.682 at 224)
"""

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.mixed import to_device


def paper_boxes(lam: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Boxes (N, 4) of the paper for lam (N,)."""
    side = np.sqrt(1 - lam)
    centre = rng.random((2, len(lam)))
    edges = np.clip(np.concatenate([centre - side / 2, centre + side / 2]), 0, 1)
    return np.rint(edges * np.array([[height], [width], [height], [width]])).astype(np.int64).T


def official_boxes(
    lam: np.ndarray, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Boxes (N, 4) of the official code (train.py, rand_bbox) for lam (N,)."""
    size = np.array([[height], [width]])
    half = (size * np.sqrt(1 - lam)).astype(np.int64) // 2
    centre = rng.integers(0, size, (2, len(lam)))
    return np.concatenate([np.clip(centre - half, 0, size), np.clip(centre + half, 0, size)]).T


def box_mask(boxes: np.ndarray, images: Tensor) -> Tensor:
    """Mask (M, 1, H, W) on the device of `images` (N, C, H, W): true inside the boxes (M, 4)."""
    height, width = images.shape[-2:]
    edges = to_device(torch.from_numpy(np.ascontiguousarray(boxes)), images.device)
    top, left, bottom, right = edges.T[:, :, None, None, None]
    row = torch.arange(height, device=images.device)[:, None]
    column = torch.arange(width, device=images.device)
    return ((row >= top) & (row < bottom)) & ((column >= left) & (column < right))
