"""What several corruptions do with pixels."""

from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor


def truncate(pixels: Tensor) -> Tensor:
    """Values in levels as uint8, the fraction cut off, as the authors' np.uint8 does.

    A value that float32 leaves a hair below a whole level counts as that level.
    """
    return pixels.add(2e-4).clamp_(0, 255).to(torch.uint8)


def gaussian_filter(images: Tensor, sigma: float, mode: str, truncate: float) -> Tensor:
    """SciPy's Gaussian filter of the last two axes, as a matrix for each: exact at any sigma.

    A matrix is what SciPy's filter makes of the identity, so its rules for borders and for the
    length of the kernel hold.
    """
    rows, columns = (
        _gaussian_matrix(side, sigma, mode, truncate, images.device) for side in images.shape[-2:]
    )
    return torch.matmul(rows, images) @ columns.T


@lru_cache(32)
def _gaussian_matrix(
    side: int, sigma: float, mode: str, truncate: float, device: torch.device
) -> Tensor:
    matrix = np.eye(side)
    if sigma:
        matrix = gaussian_filter1d(matrix, sigma, axis=0, mode=mode, truncate=truncate)
    return torch.from_numpy(matrix).float().to(device)
