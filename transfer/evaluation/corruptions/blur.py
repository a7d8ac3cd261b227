"""Blurs of ImageNet-C: defocus, glass, motion and zoom.

Written here on torch's FFT and interpolation and on SciPy's kernels: what the authors call (OpenCV,
scikit-image, ImageMagick, loops over pixels) works on one image at a time, on the CPU.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from scipy import ndimage
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from transfer.evaluation.corruptions.pixels import gaussian_filter, truncate


def defocus_blur(images: Tensor, radius: float, alias: float) -> Tensor:
    """Convolve with a disk of `radius`, itself blurred by `alias` against its steps.

    The border mirrors without repeating the edge (OpenCV's reflect 101).
    """
    kernel = _disk(radius, alias)
    _, _, height, width = images.shape
    margin = len(kernel) // 2
    padded = _mirror(images.float(), margin)
    size = [next_fast_len(side, real=True) for side in padded.shape[-2:]]
    spectrum = torch.fft.rfft2(torch.from_numpy(kernel).to(padded), s=size)
    blurred = torch.fft.irfft2(torch.fft.rfft2(padded, s=size).mul_(spectrum), s=size)
    end = 2 * margin
    return truncate(blurred[..., end : end + height, end : end + width])


def glass_blur(images: Tensor, source: Tensor, sigma: float, reach: int, rounds: int) -> Tensor:
    """Blur, move pixels a little, blur again.

    Args:
        images: uint8 (B, 3, H, W).
        source: (B, H * W), from `glass_source`: which pixel each one shows.
        sigma: of both Gaussians, whose border repeats the edge.
        reach: how far pixels move; `source` has it in it.
        rounds: how often they move; likewise.
    """
    blurred = truncate(gaussian_filter(images.float(), sigma, "nearest", 4)).flatten(2)
    moved = blurred.gather(2, source[:, None].expand_as(blurred)).view_as(images)
    return truncate(gaussian_filter(moved.float(), sigma, "nearest", 4))


def motion_blur(images: Tensor, angles: Sequence[float], radius: int, sigma: float) -> Tensor:
    """Average along lines of `angles` (B, degrees), by the weights of half a Gaussian."""
    return truncate(along_line(images.float(), angles, radius, sigma))


def zoom_blur(images: Tensor, stop: float, step: float) -> Tensor:
    """The mean of the image twice and zoomed in by the factors 1 + step, ... below `stop`."""
    pixels = images.float().contiguous(memory_format=torch.channels_last)
    total, factors = pixels.clone(), np.arange(1, stop, step)
    for factor in factors:
        total += zoom_in(pixels, factor)
    return truncate(total / (len(factors) + 1)).contiguous()


def along_line(images: Tensor, angles: Sequence[float], radius: int, sigma: float) -> Tensor:
    """ImageMagick's motion blur of float images (B, C, H, W); the border repeats the edge.

    The pixels on a line from each pixel onwards, 2 * radius + 1 of them, each at the nearest place,
    weighted by a Gaussian of their number.
    """
    _, _, height, width = images.shape
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    margin = len(steps)
    padded = functional.pad(images, [margin] * 4, mode="replicate")
    total = torch.zeros_like(images)
    for blurred, pixels, angle in zip(total, padded, angles, strict=True):
        down = margin + np.ceil(steps * math.sin(math.radians(angle)) - 0.5).astype(int)
        right = margin + np.ceil(steps * math.cos(math.radians(angle)) - 0.5).astype(int)
        for weight, y, x in zip(weights.tolist(), down.tolist(), right.tolist(), strict=True):
            blurred.add_(pixels[:, y : y + height, x : x + width], alpha=weight)
    return total


def zoom_in(images: Tensor, factor: float) -> Tensor:
    """The middle of float images, enlarged to their size; corners stay corners, as SciPy's zoom."""
    sides = images.shape[-2:]
    crop = [math.ceil(side / factor) for side in sides]
    top, left = ((side - part) // 2 for side, part in zip(sides, crop, strict=True))
    middle = images[..., top : top + crop[0], left : left + crop[1]]
    size = [round(part * factor) for part in crop]
    if size != crop:
        middle = functional.interpolate(middle, size, mode="bilinear", align_corners=True)
    top, left = ((large - side) // 2 for large, side in zip(size, sides, strict=True))
    return middle[..., top : top + sides[0], left : left + sides[1]]


def draw_glass(
    rng: Generator, height: int, width: int, sigma: float, reach: int, rounds: int
) -> tuple[np.ndarray]:
    """Where the pixels of an image come from, (H * W,)."""
    sides = (max(0, side - 2 * reach) for side in (height, width))
    moves = rng.integers(-reach, reach, (rounds, *sides, 2), np.int8)
    return (glass_source(moves, height, width, reach),)


def draw_angle(rng: Generator, height: int, width: int, *constants: float) -> tuple[float]:
    """The direction of an image's motion, in degrees."""
    return (float(rng.uniform(-45, 45)),)


def glass_source(moves: np.ndarray, height: int, width: int, reach: int) -> np.ndarray:
    """Which pixel each one shows, (H * W,), after rounds of moves (rounds, H - 2r, W - 2r, 2).

    The authors go through the pixels from the last to the first, but for a border of r = reach, and
    mean to swap each with the one at (y + move[1], x + move[0]). They swap two views of one array,
    which leaves the other pixel as it is: so each takes the value that the other has by then.
    """
    places = np.arange(height * width)
    inner = places.reshape(height, width)[
        reach + 1 : height - reach + 1, reach + 1 : width - reach + 1
    ].ravel()
    moved = np.zeros(len(places), bool)
    moved[inner] = True
    total = places
    for right, down in moves.astype(int).reshape(len(moves), -1, 2).transpose(0, 2, 1):
        source = places.copy()
        source[inner] += down * width + right
        # one that was moved before shows its own source by now, and that one perhaps its own
        chained = moved[source] & (source > places)
        while len(later := np.flatnonzero(chained)):
            link = source[later]
            source[later], chained[later] = source[link], chained[link]
        total = total[source]
    return total


def _disk(radius: float, alias: float) -> np.ndarray:
    """The kernel of defocus: 17 pixels wide, or what a radius above 8 needs."""
    reach = 8 if radius <= 8 else math.ceil(radius)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x**2 + y**2 <= radius**2).astype(float)
    smoothing = 1 if radius <= 8 else 2
    return ndimage.gaussian_filter(disk / disk.sum(), alias, mode="mirror", radius=smoothing)


def _mirror(images: Tensor, margin: int) -> Tensor:
    """Pad by a mirror, however small the image."""
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(side), margin, "reflect")).to(images.device)
        for side in images.shape[-2:]
    )
    return images[..., rows[:, None], columns]
