"""Anchors as detectron2 lays them: not rounded, at multiples of their level's own stride."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList


class Anchors(AnchorGenerator):
    """Boxes of each size and ratio (height to width) at every position of every level."""

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        strides: Sequence[int],
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> None:
        super().__init__(sizes, (tuple(ratios),) * len(sizes))
        self.strides = strides

    def generate_anchors(
        self, scales: Sequence[float], aspect_ratios: Sequence[float], *_: Any
    ) -> Tensor:
        """(A, 4) boxes round the origin, not rounded."""
        shapes = [(math.sqrt(s**2 / ratio), ratio) for s in scales for ratio in aspect_ratios]
        return torch.tensor([[-w / 2, -r * w / 2, w / 2, r * w / 2] for w, r in shapes])

    def forward(self, images: ImageList, levels: list[Tensor]) -> list[Tensor]:
        """The same (sum of H * W * A, 4) for each image."""
        self.set_cell_anchors(torch.float32, levels[0].device)
        shapes = [level.shape[-2:] for level in levels]
        anchors = torch.cat(self.grid_anchors(shapes, [(s, s) for s in self.strides]))
        return [anchors] * len(images.image_sizes)
