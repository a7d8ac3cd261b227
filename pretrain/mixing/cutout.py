"""Cutout (DeVries and Taylor, 2017): a square of each image is zeroed; the label stays whole."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UsageError
from pretrain.mixing.boxes import inside
from pretrain.mixing.mixed import Mixed, check, numpy_generator, unmixed


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """One square for each image, centre uniform, clipped at the border.

    Zero is the mean colour of a normalised image.
    """

    side: float = 0.5
    """Side of the square as a share of the image's: 112 of 224 and 16 of 32 in the CutMix paper."""
    probability: float = 1.0
    """Chance that an image is cut."""

    def __post_init__(self) -> None:
        """Refuse a square larger than the image."""
        if not 0 < self.side <= 1:
            raise UsageError(f"mixing.side is {self.side}; it must lie in (0, 1]")
        check(1.0, self.probability)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Every lam is 1 and every image its own partner."""
        draw = numpy_generator(generator)
        whole = unmixed(images, labels, num_classes)
        size = np.array(images.shape[-2:])
        side = np.rint(self.side * size).astype(np.int64)
        low = draw.integers(0, size, (len(images), 2)) - side // 2
        boxes = np.concatenate([np.clip(low, 0, size), np.clip(low + side, 0, size)], axis=1)
        boxes[draw.random(len(images)) >= self.probability] = 0
        if images.device.type == "cpu":
            cut = images.clone()
            for image, (top, left, bottom, right) in zip(cut, boxes.tolist(), strict=True):
                image[:, top:bottom, left:right] = 0
        else:
            cut = images.clone().masked_fill_(inside(boxes, images), 0)
        return Mixed(cut, whole.targets, whole.lam, whole.partner)
