"""Cutout (DeVries and Taylor, 2017): a square of each image is zeroed; the label stays whole."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import check_ranges
from pretrain.mixing.boxes import box_mask
from pretrain.mixing.mixed import Mixed, by_slices, numpy_generator, unmixed


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """One square for each image, centre uniform, clipped at the border.

    Zero is the mean colour of a normalised image.
    """

    on_bytes: ClassVar[bool] = False  # zero is the mean colour of normalised images alone
    side: float = 0.5
    """Side of the square as a share of the image's: 112 of 224 and 16 of 32 in the CutMix paper."""
    probability: float = 1.0
    """Chance that an image is cut."""

    def __post_init__(self) -> None:
        """Refuse a square larger than the image."""
        check_ranges("mixing", self, side="(0, 1]", probability="[0, 1]")

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Every lam is 1 and every image its own partner."""
        rng = numpy_generator(generator)
        size = np.array(images.shape[-2:])
        side = np.rint(self.side * size).astype(np.int64)
        low = rng.integers(0, size, (len(images), 2)) - side // 2
        boxes = np.concatenate([np.clip(low, 0, size), np.clip(low + side, 0, size)], axis=1)
        boxes[rng.random(len(images)) >= self.probability] = 0
        cut = images.clone()
        if by_slices(images):
            for image, (top, left, bottom, right) in zip(cut, boxes.tolist(), strict=True):
                image[:, top:bottom, left:right] = 0
        else:
            cut.masked_fill_(box_mask(boxes, images), 0)
        return replace(unmixed(images, labels, num_classes), images=cut)
