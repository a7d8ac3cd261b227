"""GridMask (Chen et al., 2020, arXiv 2001.04086): squares on a rotated grid are zeroed.

A grid of period d has lines of width ratio * d, which stay; the squares between them are dropped.
Period, place and angle are drawn for each image. Label rule: the label stays whole. The network
makes no further pass. The paper raises the probability linearly over the first 240 of 300 epochs:
that is `mixing.ramp`.

As dvlab-research/GridMask (imagenet_grid/utils/grid.py), which rotates a drawn mask with Pillow:
from its draws comes its mask, but for a pixel in a thousand at rotated edges. There the periods are
in pixels, here they are shares of the shorter side.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import check_ranges
from pretrain.mixing.boxes import check_interval
from pretrain.mixing.mixed import Mixed, by_slices, numpy_generator, to_device, unmixed


@dataclass(frozen=True, kw_only=True)
class GridMask:
    """One grid for each image. Zero is the mean colour of a normalised image, black of a byte."""

    on_bytes: ClassVar[bool] = False  # zero is the mean colour of normalised images alone
    period: tuple[float, float] = (96 / 224, 1.0)
    """Range of the period as shares of the shorter side: 96 to 224 pixels of 224."""
    ratio: float = 0.6
    """Width of the lines as a share of the period."""
    rotate: int = 360
    """The angle is drawn from 0 up to this many degrees; 1 rotates nothing."""
    mode: Literal[0, 1] = 1
    """What is dropped: 1 the squares (the paper), 0 the lines (the reference's other mode)."""
    probability: float = 1.0
    """Chance that an image is masked; the paper ends at 0.8."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        check_ranges("mixing", self, probability="[0, 1]")
        check_ranges("mixing.args", self, ratio="[0, 1]", rotate="[1, 360]")
        check_interval("period", self.period, 1)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Every lam is 1 and every image its own partner."""
        rng = numpy_generator(generator)
        count, (height, width) = len(images), images.shape[-2:]
        low, high = np.maximum(np.rint(np.array(self.period) * min(height, width)), 2)
        period = rng.integers(int(low), int(max(high, low + 1)), count)
        start = rng.integers(0, period, (2, count))
        angle = rng.integers(0, self.rotate, count)
        masked = rng.random(count) < self.probability
        lines = grid_lines(height, width, period, start, angle, np.ceil(period * self.ratio))
        sent = to_device(torch.from_numpy(lines), images.device)
        asked = to_device(torch.from_numpy(masked), images.device)
        cut = images.clone()
        rows = [slice(i, i + 1) for i in range(count)] if by_slices(images) else [slice(None)]
        for row in rows:
            drop = on_lines(sent[row], height) != bool(self.mode)
            cut[row].masked_fill_((drop & asked[row, None, None])[:, None], 0)
        return replace(unmixed(images, labels, num_classes), images=cut)


def grid_lines(
    height: int,
    width: int,
    period: np.ndarray,
    start: np.ndarray,
    angle: np.ndarray,
    line: np.ndarray,
) -> np.ndarray:
    """What `on_lines` needs of N grids: (N, 2, H + W + 1) float32, all in periods.

    For horizontal and for vertical lines: what each row and what each column adds to the place of
    a pixel, and the width of a line. All that is left for a device are sums and comparisons, which
    are the same everywhere.

    Args:
        height: of the images.
        width: of the images.
        period: (N,) pixels.
        start: (2, N) pixels: the first horizontal and vertical line, in the square about the image
            in which it can be turned.
        angle: (N,) degrees, counterclockwise.
        line: (N,) pixels.
    """
    side = int(np.ceil(np.hypot(height, width)))
    row = np.arange(height) + 0.5 + (side - height) // 2 - side / 2
    column = np.arange(width) + 0.5 + (side - width) // 2 - side / 2
    sine, cosine = np.sin(np.deg2rad(angle))[:, None], np.cos(np.deg2rad(angle))[:, None]
    origin = side / 2 - start[:, :, None] + 2 * period[:, None]  # never below 0
    horizontal = [cosine * row + origin[0], sine * column, line[:, None]]
    vertical = [-sine * row + origin[1], cosine * column, line[:, None]]
    places = np.stack([np.concatenate(axis, axis=1) for axis in (horizontal, vertical)], axis=1)
    return (places / period[:, None, None]).astype(np.float32)


def on_lines(lines: Tensor, height: int) -> Tensor:
    """Masks (N, H, W) of grids (N, 2, H + W + 1): true on their lines."""
    rows, columns, width = lines[:, :, :height], lines[:, :, height:-1], lines[:, :, -1:]
    place = rows[:, :, :, None] + columns[:, :, None]
    return (place.frac_() < width[..., None]).any(1)
