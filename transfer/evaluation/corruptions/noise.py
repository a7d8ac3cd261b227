"""Noise of ImageNet-C: Gaussian, shot and impulse.

Written here: each is a line of torch, and the time goes into the random numbers. NumPy draws them,
in float32 or 16 bits.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.random import Generator
from scipy import stats
from torch import Tensor

from transfer.evaluation.corruptions.pixels import truncate


def gaussian_noise(images: Tensor, noise: Tensor, scale: float) -> Tensor:
    """Add `noise` (B, 3, H, W), standard normal, times `scale` of the range."""
    return truncate(torch.add(images, noise, alpha=255 * scale))


def shot_noise(images: Tensor, draws: Tensor, photons: int) -> Tensor:
    """Count photons: Poisson numbers around x * photons, divided by photons.

    Args:
        images: uint8 (B, 3, H, W).
        draws: as images, from 0 to 65535, each as likely: a count is the Poisson quantile of its
            draw, so its probability is right to 1 / 65536. Tabulated, since NumPy's and SciPy's
            Poisson numbers take tens of times as long.
        photons: of a white pixel.
    """
    table = _shot_table(photons, images.device)
    return table[(images.long() << 16) | draws]


def impulse_noise(images: Tensor, draws: Tensor, amount: float) -> Tensor:
    """Make a share of the values black or white, each as likely.

    Args:
        images: uint8 (B, 3, H, W).
        draws: as images, from 0 to 65535: the lowest become black, the next ones white.
        amount: the share.
    """
    black, either = round(amount / 2 * 65536), round(amount * 65536)
    return torch.where(draws < either, torch.where(draws < black, 0, 255), images).to(torch.uint8)


def draw_normal(rng: Generator, height: int, width: int, *constants: float) -> tuple[np.ndarray]:
    """Standard normal numbers for an image."""
    return (rng.standard_normal((3, height, width), np.float32),)


def draw_16_bits(rng: Generator, height: int, width: int, *constants: float) -> tuple[np.ndarray]:
    """Numbers from 0 to 65535, each as likely, for an image."""
    return (rng.integers(0, 65536, (3, height, width), np.uint16).astype(np.int32),)


@lru_cache(8)
def _shot_table(photons: int, device: torch.device) -> Tensor:
    """The outcome for each level and draw, uint8 (256 * 65536,)."""
    counts = np.arange(photons + 1)
    means = np.arange(256)[:, None] * (photons / 255)
    ends = np.rint(stats.poisson.cdf(counts[:-1], means) * 65536).astype(int)
    ends = np.hstack([np.zeros((256, 1), int), ends, np.full((256, 1), 65536)])
    outcomes = torch.from_numpy(counts * (255 / photons))
    repeats = torch.from_numpy(np.diff(ends)).view(-1)
    return truncate(outcomes).repeat(256).repeat_interleave(repeats).to(device)
