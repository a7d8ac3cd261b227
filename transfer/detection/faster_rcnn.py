"""Faster R-CNN of torchvision's parts on the levels of a Backbone: feature pyramid or C4.

What torchvision fixes otherwise than detectron2 is set to detectron2's defaults here: anchors are
not rounded and keep their level's stride; regions are aligned to half a pixel and sampled as
densely as they are large; boxes have an L1 loss, divided by the number of anchors or regions asked
for; boxes are computed in float32 under mixed precision; new layers are drawn as detectron2's.

N images, C channels, H height, W width, A anchors at a position, R regions.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pretrain.backbone import Backbone, BackboneSpec
from pretrain.errors import UsageError
from transfer.detection.anchors import Anchors
from transfer.detection.body import STRIDES, DetectorBackbone, Res5Head
from transfer.detection.config import DetectorConfig
from transfer.detection.padding import PaddedBatch

Tensors = dict[str, Tensor]
_PYRAMID = 32  # images are padded to multiples of it


class FasterRCNN(nn.Module):
    """Backbone, region proposal network, box head.

    In training: images and targets to {loss: scalar}. In evaluation: images to a list of {"boxes"
    (K, 4), "labels" (K,) from 1, "scores" (K,)}, in pixels of the images as given.
    """

    def __init__(
        self, backbone: DetectorBackbone, rpn: "RPN", roi_heads: "BoxHead", spec: BackboneSpec
    ) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = backbone, rpn, roi_heads
        self.pad = PaddedBatch(spec, _PYRAMID)

    def forward(
        self, images: list[Tensor], targets: list[Tensors] | None = None
    ) -> Tensors | list[Tensors]:
        """Images: N uint8 RGB (3, H, W) of any sizes, resized already.

        Targets: {"boxes" (K, 4), "labels" (K,) from 1}, K may be 0.
        """
        batch = self.pad(images)
        features = self.backbone(batch.tensors)
        proposals, rpn_losses = self.rpn(batch, features, targets)
        detections, losses = self.roi_heads(features, proposals, batch.image_sizes, targets)
        return {**rpn_losses, **losses} if self.training else detections


class RoIPooler(nn.Module):
    """Regions from the level that suits their size (FPN paper, equation 1), or the only one."""

    def __init__(self, names: Sequence[str], strides: Sequence[int], size: int) -> None:
        super().__init__()
        self.names, self.strides, self.size = tuple(names), tuple(strides), size

    def forward(self, features: Tensors, boxes: list[Tensor], _: list[tuple[int, int]]) -> Tensor:
        """Levels and (R, 4) boxes of each image to (sum of R, C, size, size)."""
        number = torch.cat([torch.full_like(b[:, :1], k) for k, b in enumerate(boxes)])
        regions = torch.cat([number, torch.cat(boxes)], 1)
        levels = [features[name] for name in self.names]
        if len(levels) == 1:
            return self._align(levels[0], regions, self.strides[0])
        area = (regions[:, 3] - regions[:, 1]) * (regions[:, 4] - regions[:, 2])
        first = math.log2(self.strides[0])
        level_of = torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-8)) - first
        level_of = level_of.clamp(0, len(levels) - 1).long()
        pooled = levels[0].new_zeros((len(regions), levels[0].shape[1], self.size, self.size))
        pooled = pooled.float() if torch.is_autocast_enabled(pooled.device.type) else pooled
        for index, (level, stride) in enumerate(zip(levels, self.strides, strict=True)):
            chosen = torch.nonzero(level_of == index).flatten()
            pooled[chosen] = self._align(level, regions[chosen], stride).to(pooled.dtype)
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

    beta: float

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
        targets = torch.cat(regression_targets)[on_objects]
        boxes = functional.smooth_l1_loss(
            pred_bbox_deltas[on_objects], targets, beta=self.beta, reduction="sum"
        )
        scores = functional.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        return scores / count, boxes / count


class BoxHead(RoIHeads):
    """torchvision's box head with a loss of the given beta."""

    beta: float

    def forward(
        self, features: Tensors, proposals: list[Tensor], image_shapes: Any, targets: Any = None
    ) -> tuple[list[Tensors], Tensors]:
        """(detections, losses): one of them empty."""
        if not self.training:
            return super().forward(features, proposals, image_shapes)
        proposals, _, labels, corrected = self.select_training_samples(proposals, targets)
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        scores, corrections = self.box_predictor(self.box_head(pooled))
        label = torch.cat(labels)
        on_objects = torch.nonzero(label > 0).flatten()
        own = corrections.reshape(len(label), -1, 4)[on_objects, label[on_objects]]
        boxes = functional.smooth_l1_loss(
            own, torch.cat(corrected)[on_objects], beta=self.beta, reduction="sum"
        )
        return [], {
            "loss_classifier": functional.cross_entropy(scores, label),
            "loss_box_reg": boxes / len(label),
        }


class BoxPredictor(FastRCNNPredictor):
    """Class scores and box corrections of a region, initialised as in Fast R-CNN, in float32."""

    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__(channels, num_outputs)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C) to (R, classes + 1) and (R, 4 (classes + 1))."""
        scores, corrections = super().forward(features)
        return scores.float(), corrections.float()


def build_detector(backbone: Backbone, config: DetectorConfig, num_classes: int) -> FasterRCNN:
    """A detector for `num_classes` classes; label 0 is the background.

    New parts are drawn from torch's ambient generator.
    """
    if config.head == "dc5":
        raise UsageError("detector.head dc5 is detectron2's alone; with torchvision: fpn or c4.")
    strides: tuple[int, ...] = (*STRIDES, 64) if config.head == "fpn" else (16,)
    if config.head == "fpn":
        body = DetectorBackbone(
            backbone,
            config,
            STRIDES,
            lambda channels: FeaturePyramidNetwork(
                channels, config.fpn_channels, LastLevelMaxPool()
            ),
        )
        channels = config.fpn_channels
        sizes: list[Sequence[float]] = [(size,) for size in config.anchor_sizes]
        pooler = RoIPooler([str(k) for k in range(len(STRIDES))], STRIDES, 7)
        head: Any = TwoMLPHead(config.fpn_channels * 7**2, config.head_channels)
        for layer in (head.fc6, head.fc7):  # as detectron2's c2_xavier_fill
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        head_channels = config.head_channels
    else:
        body = DetectorBackbone(backbone, config, strides)
        (channels,) = body.level_channels
        sizes = [config.anchor_sizes]
        pooler = RoIPooler(["0"], strides, 14)
        head = Res5Head(backbone, config)
        head_channels = head.out_channels
    anchors = Anchors(sizes, strides)
    before = {"training": config.proposals_before_nms, "testing": config.test_proposals_before_nms}
    rpn = RPN(
        anchors,
        Float32RPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=before,
        post_nms_top_n={"training": config.proposals, "testing": config.test_proposals},
        nms_thresh=0.7,
    )
    roi_heads = BoxHead(
        pooler,
        head,
        BoxPredictor(head_channels, num_classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=config.rois,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
    )
    rpn.beta = roi_heads.beta = config.smooth_l1_beta
    return FasterRCNN(body, rpn, roi_heads, backbone.spec)
