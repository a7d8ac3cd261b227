"""Anchors, pooling, proposals and box heads: torchvision's, where they equal detectron2's defaults.

What torchvision fixes otherwise is here: anchors are not rounded and keep their level's stride;
regions are aligned to half a pixel and sampled as densely as they are large; boxes have an L1 loss,
divided by the number of regions asked for; boxes are computed in float32 under mixed precision.

N images, C channels, H height, W width, A anchors at a place, R regions.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align

_RATIOS = (0.5, 1.0, 2.0)


class Anchors(nn.Module):
    """Boxes of each side and of ratios 1:2, 1:1, 2:1 at every place of every level."""

    def __init__(self, sides: Sequence[Sequence[float]], strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.cells = [_cell(level) for level in sides]

    def num_anchors_per_location(self) -> list[int]:
        """Of each level; torchvision asks for it."""
        return [len(cell) for cell in self.cells]

    def forward(self, images: ImageList, features: list[Tensor]) -> list[Tensor]:
        """The same (sum of H * W * A, 4) for each image."""
        anchors = torch.cat([
            _spread(cell.to(level.device), level.shape[-2:], stride)
            for cell, level, stride in zip(self.cells, features, self.strides, strict=True)
        ])  # fmt: skip
        return [anchors] * len(images.image_sizes)


def _cell(sides: Sequence[float]) -> Tensor:
    """(A, 4) boxes round the origin."""
    boxes = []
    for side in sides:
        for ratio in _RATIOS:
            width = math.sqrt(side**2 / ratio)
            height = ratio * width
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(boxes)


def _spread(cell: Tensor, size: torch.Size, stride: int) -> Tensor:
    """(H * W * A, 4): the cell at every place, row by row."""
    y, x = (torch.arange(n, dtype=torch.float32, device=cell.device) * stride for n in size)
    top, left = (grid.reshape(-1) for grid in torch.meshgrid(y, x, indexing="ij"))
    shifts = torch.stack([left, top, left, top], 1)
    return (shifts[:, None] + cell).reshape(-1, 4)


class RoIPooler(nn.Module):
    """Regions from the level that suits their size (FPN paper, equation 1), or the only one."""

    def __init__(self, names: Sequence[str], strides: Sequence[int], size: int) -> None:
        super().__init__()
        self.names, self.strides, self.size = tuple(names), tuple(strides), size

    def forward(
        self, features: dict[str, Tensor], boxes: list[Tensor], _: list[tuple[int, int]]
    ) -> Tensor:
        """Levels and (R, 4) boxes of each image to (sum of R, C, size, size)."""
        number = torch.cat([torch.full_like(b[:, :1], k) for k, b in enumerate(boxes)])
        regions = torch.cat([number, torch.cat(boxes)], 1)
        levels = [features[name] for name in self.names]
        if len(levels) == 1:
            return self._align(levels[0], regions, self.strides[0])
        area = (regions[:, 3] - regions[:, 1]) * (regions[:, 4] - regions[:, 2])
        first = math.log2(self.strides[0])
        place = torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-8)) - first
        place = place.clamp(0, len(levels) - 1).long()
        pooled = levels[0].new_zeros((len(regions), levels[0].shape[1], self.size, self.size))
        pooled = pooled.float() if torch.is_autocast_enabled(pooled.device.type) else pooled
        for number_of_level, (level, stride) in enumerate(zip(levels, self.strides, strict=True)):
            chosen = torch.nonzero(place == number_of_level).flatten()
            found = self._align(level, regions[chosen], stride)
            pooled[chosen] = found.to(pooled.dtype)
        return pooled

    def _align(self, level: Tensor, regions: Tensor, stride: int) -> Tensor:
        size = (self.size, self.size)
        return roi_align(level, regions, size, 1 / stride, sampling_ratio=0, aligned=True)


class Float32RPNHead(RPNHead):
    """torchvision's, its outputs in float32 under mixed precision."""

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness and box corrections of every level."""
        objectness, corrections = super().forward(levels)
        return [o.float() for o in objectness], [c.float() for c in corrections]


class RPN(RegionProposalNetwork):
    """torchvision's region proposal network with a loss of the given beta.

    Both losses are divided by the anchors asked for in all images, as detectron2 does.
    """

    def __init__(self, *arguments: Any, beta: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.beta = beta

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Loss of objectness and of boxes."""
        positive, negative = self.fg_bg_sampler(labels)
        on_objects = torch.nonzero(torch.cat(positive)).flatten()
        sampled = torch.cat([on_objects, torch.nonzero(torch.cat(negative)).flatten()])
        count = self.fg_bg_sampler.batch_size_per_image * len(labels)
        wanted, targets = torch.cat(labels), torch.cat(regression_targets)
        boxes = functional.smooth_l1_loss(
            pred_bbox_deltas[on_objects], targets[on_objects], beta=self.beta, reduction="sum"
        )
        found = functional.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], wanted[sampled], reduction="sum"
        )
        return found / count, boxes / count


class BoxHead(RoIHeads):
    """torchvision's box head with a loss of the given beta."""

    def __init__(self, *arguments: Any, beta: float, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.beta = beta

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """(detections, losses): one of them empty."""
        if not self.training:
            scores, corrections = self._predict(features, proposals, image_shapes)
            found = self.postprocess_detections(scores, corrections, proposals, image_shapes)
            rows = zip(*found, strict=True)
            return [{"boxes": b, "scores": s, "labels": k} for b, s, k in rows], {}
        proposals, _, labels, wanted = self.select_training_samples(proposals, targets)
        scores, corrections = self._predict(features, proposals, image_shapes)
        label = torch.cat(labels)
        on_objects = torch.nonzero(label > 0).flatten()
        own = corrections.reshape(len(label), -1, 4)[on_objects, label[on_objects]]
        boxes = functional.smooth_l1_loss(
            own, torch.cat(wanted)[on_objects], beta=self.beta, reduction="sum"
        )
        return [], {
            "loss_classifier": functional.cross_entropy(scores, label),
            "loss_box_reg": boxes / len(label),
        }

    def _predict(
        self, features: dict[str, Tensor], proposals: list[Tensor], shapes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        return self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, shapes)))


class TwoFCBoxHead(nn.Module):
    """The pyramid's box head; initialised as detectron2's (`c2_xavier_fill`)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, width), nn.Linear(width, width)
        self.out_channels = width
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, 7, 7) to (R, width)."""
        return functional.relu(self.fc2(functional.relu(self.fc1(regions.flatten(1)))))


class BoxPredictor(nn.Module):
    """Class scores and box corrections from a region's features, initialised as in Fast R-CNN."""

    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, num_outputs)
        self.bbox_pred = nn.Linear(channels, 4 * num_outputs)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C) to (R, classes + 1) and (R, 4 (classes + 1))."""
        return self.cls_score(features).float(), self.bbox_pred(features).float()
