"""Mosaic for classification (Bochkovskiy et al., YOLOv4, 2020, arXiv 2004.10934, section 3.4).

A centre is drawn; the image keeps what lies above and left of it, and three partners fill the other
quarters, each with the pixels that it has at this place.
Label rule: the share of pixels. The network makes no further pass.
As AlexeyAB/darknet trains classifiers (load_data_augment in data.c, its 0.2 too), but for the
partners, which are from the batch here, and the rounding of the centre. Detectors shift the images
towards the centre, so that their inner corners meet there, and carry boxes, no label weights:

    darknet    an output of one image's size, a centre within 0.2 to 0.8
    YOLOv5     a canvas of twice the side, a centre within its middle half, then a crop in random
               perspective
    kornia     RandomMosaic: of 2 x 2 images side by side a window of one image's size, its corner
               within 0.3 to 0.7 of the first; it refuses class labels

The image owns a quarter on average: mean weight of the own label 0.250.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import check_ranges
from pretrain.mixing.mixed import (
    Mixed,
    PairedMix,
    as_array,
    blend_several,
    by_slices,
    numpy_generator,
    several_partners,
    to_device,
)


@dataclass(frozen=True, kw_only=True)
class Mosaic(PairedMix):
    """Mosaic; `granularity` says who shares a centre, and `partner` nothing: see __call__."""

    margin: float = 0.2
    """The centre is uniform between this share of a side and 1 - this share."""

    def __post_init__(self) -> None:
        """Refuse centres outside the image."""
        super().__post_init__()
        check_ranges("mixing.args", self, margin="[0, 0.5]")

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Partners are others, and different, where there are four images."""
        centre, partner = self.draw(images, generator)
        own, size = np.arange(len(centre))[:, None], np.array(images.shape[-2:])
        (down, across), (rest_down, rest_across) = centre.T, (size - centre).T
        quarters = [down * across, down * rest_across, rest_down * across, rest_down * rest_across]
        share = np.stack(quarters, axis=1) / size.prod()
        targets = blend_several(labels, num_classes, np.hstack([own, partner]), share)
        lam = torch.from_numpy(share[:, 0].astype(np.float32))
        mixed = assemble(images, centre, partner)
        return Mixed(mixed, targets, lam, torch.from_numpy(partner))

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Centres (M, 2), row and column, and partners (M, 3) of a batch, as `assemble` takes."""
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        drawn = rng.uniform(self.margin, 1 - self.margin, (len(pairs.lam), 2))
        size = np.array(images.shape[-2:])
        centre = np.rint(pairs.spread(drawn, 1) * size).astype(np.int64)
        return centre, several_partners(len(centre), len(images), 3, rng)


def assemble(images: Tensor, centre: np.ndarray, partner: np.ndarray) -> Tensor:
    """Images (M, C, H, W) of four, split at `centre` (M, 2), row and column.

    Of `partner` (M, 3) the first is above right, the second below left, the third below right.
    """
    if by_slices(images):
        mixed = images[: len(centre)].clone()
        source = as_array(images)
        rows = zip(as_array(mixed), centre.tolist(), partner.tolist(), strict=True)
        for image, (row, column), (right, below, diagonal) in rows:
            image[:, :row, column:] = source[right, :, :row, column:]
            image[:, row:, :column] = source[below, :, row:, :column]
            image[:, row:, column:] = source[diagonal, :, row:, column:]
        return mixed
    split = to_device(torch.from_numpy(centre), images.device)[:, :, None, None, None]
    is_below = torch.arange(images.shape[-2], device=images.device)[:, None] >= split[:, 0]
    is_right = torch.arange(images.shape[-1], device=images.device) >= split[:, 1]
    right, below, diagonal = to_device(torch.from_numpy(partner), images.device).T
    above = torch.where(is_right, images[right], images[: len(centre)])
    return torch.where(is_below, torch.where(is_right, images[diagonal], images[below]), above)
