"""GridMix, the name of two methods: the partner is pasted in the pattern of a grid.

    grid     IlyaDobrynin/GridMixup (2020) and openmixup: a grid of holes in a random crop of the
             image, `holes` across it; the side of a hole is that of its cell times sqrt(1 - lam),
             at least one pixel and at most the cell less one
    cells    Baek, Bang and Shim, Pattern Recognition 2021: the image is cut into cells x cells
             rectangles, each of which is the image's own with probability lam

lam ~ Beta(alpha, alpha). Label rule of both: the share of pixels. The network makes no further
pass. The second paper also has each patch predicted from its own place in the features;
`patch_targets` gives these labels, but no trainer here has that second loss.

Differs from openmixup (gridmix.py): a crop that does not fit into the image is cut down to it
(there its place is negative, and most of the holes are lost), and height and width are not
exchanged where the image is not square. Of the paper of the cells only the abstract was at hand:
that lam comes from Beta is ours.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UsageError, check_ranges
from pretrain.mixing.boxes import check_interval
from pretrain.mixing.masks import mix_by_masks
from pretrain.mixing.mixed import Mixed, PairedMix, Read, numpy_generator, soft_labels, to_device


@dataclass(frozen=True, kw_only=True)
class GridMix(PairedMix):
    """GridMix; one grid for the batch is the references'."""

    reads: ClassVar[bool] = True

    rule: Literal["grid", "cells"] = "grid"
    """Which of the two."""
    holes: tuple[int, int] = (2, 6)
    """Holes across the crop, from and to; fewer where they would be narrower than two pixels."""
    area: tuple[float, float] = (0.5, 1.0)
    """Range of the crop's share of the image."""
    aspect: tuple[float, float] = (0.5, 2.0)
    """Range of the crop's height / width."""
    cells: int = 4
    """Cells along a side."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        super().__post_init__()
        check_ranges("mixing.args", self, cells="[1, 1024]")
        check_interval("area", self.area, 1)
        check_interval("aspect", self.aspect, 100)
        if not 1 <= self.holes[0] <= self.holes[1] <= 1024:
            raise UsageError(
                f"mixing.args.holes is {list(self.holes)}; give two numbers from 1 to 1024, the "
                "smaller first"
            )

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        generator: torch.Generator,
        read: Read | None = None,
    ) -> Mixed:
        """See Mix."""
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        height, width = images.shape[-2:]
        if self.rule == "cells":
            own = rng.random((len(pairs.lam), self.cells, self.cells)) < pairs.lam[:, None, None]
            masks = cell_masks(~own, height, width)
        else:
            masks = np.stack([self._grid(lam, height, width, rng) for lam in pairs.lam])
        sent = to_device(torch.from_numpy(masks), images.device)
        return mix_by_masks(images, labels, num_classes, pairs, sent, 1 - masks.mean((1, 2)), read)

    def _grid(self, lam: float, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw one mask of holes (H, W)."""
        area = rng.uniform(*self.area) * height * width
        across = np.sqrt(area / rng.uniform(*self.aspect))
        crop_width = min(max(int(across), 1), width)
        crop_height = min(max(int(area / across), 1), height)
        holes = int(rng.integers(self.holes[0], self.holes[1] + 1))
        cell = math.ceil(crop_width / min(holes, max(crop_width // 2, 1)))
        top, left = rng.integers(0, [height - crop_height + 1, width - crop_width + 1])
        hole = hole_side(cell, lam)
        rows = hole_line(height, top, top + crop_height, cell, hole)
        return rows[:, None] & hole_line(width, left, left + crop_width, cell, hole)


def hole_side(cell: int, lam: float) -> int:
    """Side in pixels of the hole in a square cell."""
    return min(max(int(cell * np.sqrt(1 - lam)), 1), max(cell - 1, 1))


def hole_line(size: int, start: int, end: int, cell: int, hole: int) -> np.ndarray:
    """One axis (size,) of a grid of holes: true where a hole is; the crop is [start, end)."""
    place = np.arange(size)
    return (place >= start) & (place < end) & ((place - start) % cell < hole)


def cell_masks(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Masks (G, H, W) of cells (G, n, n), as equal as whole pixels allow."""
    rows = np.arange(height) * cells.shape[1] // height
    columns = np.arange(width) * cells.shape[2] // width
    return cells[:, rows][:, :, columns]


def patch_targets(labels: Tensor, num_classes: int, partner: Tensor, cells: Tensor) -> Tensor:
    """Targets (M, K, n, n) of the patches: the whole label of whom each cell (M, n, n) shows.

    `cells` is true where the partner shows. Against the logits (M, K, n, n) of a classifier on the
    pooled features, `cross_entropy` of both is the local loss.
    """
    targets = soft_labels(labels, num_classes)[..., None, None]
    return torch.where(cells[:, None], targets[partner], targets[: len(cells)])
