"""Cutout (DeVries and Taylor, 2017): a square of each image is zeroed; the label stays whole."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UserError
from pretrain.mixing.mixed import Mixed, numpy_generator, unmixed


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """One square for each image, centre uniform, clipped at the border.

    Zero is the mean colour of a normalised image.
    """

    side: float = 0.5
    """Side of the square as a share of the image's: 112 of 224 and 16 of 32 in the CutMix paper."""
    probability: float = 1.0
    """Chance that a batch is cut at all."""

    def __post_init__(self) -> None:
        """Refuse a square larger than the image."""
        if not 0 < self.side <= 1:
            raise UserError(f"mixing.side is {self.side}; it must lie in (0, 1]")
        if not 0 <= self.probability <= 1:
            raise UserError(f"mixing.probability is {self.probability}; it must lie in [0, 1]")

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Every lam is 1 and every image its own partner."""
        draw = numpy_generator(generator)
        whole = unmixed(images, labels, num_classes)
        if draw.random() >= self.probability:
            return whole
        size = np.array(images.shape[-2:])
        side = np.rint(self.side * size).astype(np.int64)
        low = draw.integers(0, size, (len(images), 2)) - side // 2
        keep = torch.ones(len(images), 1, *images.shape[-2:], dtype=torch.bool)
        for mask, (top, left), (bottom, right) in zip(
            keep, np.clip(low, 0, size), np.clip(low + side, 0, size), strict=True
        ):
            mask[:, top:bottom, left:right] = False
        cut = images * keep.to(images.device, images.dtype, non_blocking=True)
        return Mixed(cut, whole.targets, whole.lam, whole.partner)
