"""Cutout (DeVries and Taylor, 2017, arXiv 1708.04552): a square of each image is zeroed.

Label rule: the label stays whole. The network makes no further pass. As uoguelph-mlrg/Cutout
(util/cutout.py, one hole): the centre is uniform over the pixels, and the square is clipped at the
border. There the side is given in pixels, and that of an odd number loses one.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pretrain.errors import check_ranges
from pretrain.mixing.boxes import cutout_boxes
from pretrain.mixing.masks import fill_boxes
from pretrain.mixing.mixed import Mixed, numpy_generator, unmixed


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """One square for each image. Zero is the mean colour of a normalised image, black of a byte."""

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
        boxes = cutout_boxes(self.side, len(images), rng, *images.shape[-2:])
        boxes[rng.random(len(images)) >= self.probability] = 0
        cut = fill_boxes(images, boxes, images.new_zeros(1, 1, 1, 1))
        return replace(unmixed(images, labels, num_classes), images=cut)
