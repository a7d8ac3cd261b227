"""Cut-Thumbnail (Xie et al., ACM Multimedia 2021, arXiv 2103.05342, section 3).

A thumbnail, the whole of an image made smaller, is pasted at a random place inside the image:
    self     ST: its own
    single   MST: the partner's
    double   MDT: those of two partners, the second over the first
Label rule: the share of pixels, for a thumbnail of half the side a quarter: the paper's fixed 0.25.
Under "self" the label stays. The network makes no further pass.
As TianshuXie/Cut-Thumbnail (nearest pixels, one place for a batch, any whole place inside), but:
there the weight is an option of its own beside the size; 0.8 of the batches take part, here
`mixing.probability 0.8`; and it has no double, so that whose thumbnails these are, and that what
the second hides of the first does not count, is our reading. Mean weight of the own label at half
the side: 0.75 for single, 0.610 for double.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import check_ranges
from pretrain.mixing.boxes import inside_boxes
from pretrain.mixing.mixed import (
    Mixed,
    PairedMix,
    blend_several,
    numpy_generator,
    several_partners,
)
from pretrain.mixing.resizemix import Interpolation, paste_resized


@dataclass(frozen=True, kw_only=True)
class CutThumbnail(PairedMix):
    """Cut-Thumbnail."""

    side: float = 0.5
    """Side of a thumbnail as a share of the image's: 112 of 224 in the paper."""
    mode: Literal["self", "single", "double"] = "single"
    """Whose thumbnails are pasted."""
    interpolation: Interpolation = "nearest"
    """Of the smaller picture."""

    def __post_init__(self) -> None:
        """Refuse a thumbnail larger than the image."""
        super().__post_init__()
        check_ranges("mixing", self, side="(0, 1]")

    @property
    def on_bytes(self) -> bool:  # type: ignore[override]
        """The nearest pixel is moved; between pixels a byte is rounded."""
        return self.interpolation == "nearest"

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Two partners are others, and different, where there are three images."""
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        height, width = images.shape[-2:]
        side = np.full_like(pairs.lam, self.side)
        own = np.arange(len(pairs.partner))[:, None]
        partner = {"self": own, "single": pairs.partner[:, None]}.get(self.mode)
        if partner is None:
            partner = several_partners(len(own), len(images), 2, rng)
        drawn = [inside_boxes(side, height, width, rng) for _ in partner.T]
        boxes = np.stack([pairs.spread(box, 0) for box in drawn])
        mixed = paste_resized(images, boxes, partner, self.interpolation)
        share = visible_shares(boxes, height, width)
        if self.mode == "self":
            share = np.eye(1, 2).repeat(len(own), axis=0)
        targets = blend_several(labels, num_classes, np.hstack([own, partner]), share)
        lam = torch.from_numpy(share[:, 0].astype(np.float32))
        partners = torch.from_numpy(partner if self.mode == "double" else partner[:, 0])
        return Mixed(mixed, targets, lam, partners)


def visible_shares(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shares (M, 1 + P) of the pixels: the image's, and those of P = 1 or 2 boxes (P, M, 4) on it.

    The second box hides what lies under it of the first.
    """
    areas = np.prod(boxes[..., 2:] - boxes[..., :2], axis=2)
    if len(boxes) == 2:
        overlap = boxes[..., 2:].min(axis=0) - boxes[..., :2].max(axis=0)
        areas[0] -= np.prod(np.maximum(overlap, 0), axis=1)
    return np.vstack([height * width - areas.sum(axis=0), areas]).T / (height * width)
