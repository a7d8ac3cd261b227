"""RetinaNet (Lin et al., ICCV 2017) of torchvision's parts, by detectron2's rules.

What torchvision's own class does otherwise: its anchors have sides rounded down and the stride of
the padded image; each image's losses are divided by the image's own number of anchors on objects;
boxes are cut at the image's edges before non-maximum suppression, 300 of them stay; P6 comes of P5
in its first version. N, A, K, D as in `one_stage`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, sigmoid_focal_loss
from torchvision.ops.misc import Conv2dNormActivation

from pretrain.backbone import Backbone, BackboneSpec
from transfer.detection.anchors import Anchors
from transfer.detection.body import DetectorBackbone
from transfer.detection.config import DetectorConfig
from transfer.detection.loss_normalizer import LossNormalizer
from transfer.detection.one_stage import (
    LEVEL_STRIDES,
    PADDED_TO,
    OneStageDetector,
    Tensors,
    build_body,
)
from transfer.detection.padding import PaddedBatch

_SCORE, _CANDIDATES, _OVERLAP, _DETECTIONS = 0.05, 1000, 0.5, 100


class RetinaNet(OneStageDetector):
    """Focal loss over all anchors, smooth L1 on those on objects."""

    def __init__(
        self, backbone: DetectorBackbone, head: nn.Module, anchors: Anchors,
        spec: BackboneSpec, beta: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone, self.head, self.anchor_generator = backbone, head, anchors
        self.pad = PaddedBatch(spec, PADDED_TO)
        self.beta = beta
        self.normalizer = LossNormalizer()
        self.matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
        self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def losses(
        self, outputs: Tensors, anchors: Tensor, sizes: list[int], targets: list[Tensors]
    ) -> Tensors:
        """Both losses, divided by the average number of anchors on objects."""
        logits, corrections = outputs["cls_logits"], outputs["bbox_regression"]
        matched = [self._match(anchors, target) for target in targets]
        labels = torch.stack([label for label, _ in matched])  # (N, A)
        boxes = torch.stack([box for _, box in matched])  # (N, A, 4)
        is_class = labels[..., None] == torch.arange(1, logits.shape[2] + 1, device=labels.device)
        focal = sigmoid_focal_loss(logits, is_class.to(logits.dtype)).sum(2)
        on_objects = torch.nonzero(labels > 0)
        image, anchor = on_objects.unbind(1)
        wanted = self.box_coder.encode_single(boxes[image, anchor], anchors[anchor])
        smooth = functional.smooth_l1_loss(
            corrections[image, anchor], wanted, beta=self.beta, reduction="sum"
        )
        divisor = self.normalizer((labels > 0).sum())
        return {
            "loss_classifier": (focal * (labels >= 0)).sum() / divisor,
            "loss_box_reg": smooth / divisor,
        }

    def _match(self, anchors: Tensor, target: Tensors) -> tuple[Tensor, Tensor]:
        """(A,) labels of the anchors, 0 for the background, -1 for neither; (A, 4) boxes."""
        if not len(target["boxes"]):
            return anchors.new_zeros(len(anchors), dtype=torch.long), torch.zeros_like(anchors)
        index = self.matcher(box_iou(target["boxes"], anchors))
        object_of = index.clamp(min=0)
        labels = target["labels"][object_of]
        labels = labels.masked_fill(index == Matcher.BELOW_LOW_THRESHOLD, 0)
        labels = labels.masked_fill(index == Matcher.BETWEEN_THRESHOLDS, -1)
        return labels, target["boxes"][object_of]

    def detections(
        self,
        outputs: dict[str, list[Tensor]],
        anchors: Sequence[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Tensors]:
        """The best of each level, after non-maximum suppression within a class."""
        found = []
        for number, image_size in enumerate(image_sizes):
            levels = zip(outputs["cls_logits"], outputs["bbox_regression"], anchors, strict=True)
            candidates = [
                self._candidates(logits[number], corrections[number], of_level)
                for logits, corrections, of_level in levels
            ]
            boxes, labels, scores = (torch.cat(part) for part in zip(*candidates, strict=True))
            kept = batched_nms(boxes, scores, labels, _OVERLAP)[:_DETECTIONS]
            boxes = clip_boxes_to_image(boxes[kept], image_size)
            inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
            found.append(
                {
                    "boxes": boxes[inside],
                    "labels": labels[kept][inside],
                    "scores": scores[kept][inside],
                }
            )
        return found

    def _candidates(
        self, logits: Tensor, corrections: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, labels and scores of the most certain of a level."""
        every = logits.sigmoid()
        above = torch.nonzero(every > _SCORE)
        scores, best = every[above.unbind(1)].topk(min(_CANDIDATES, len(above)))
        anchor, label = above[best].unbind(1)
        return self.box_coder.decode_single(corrections[anchor], anchors[anchor]), label, scores


def octave_sizes(config: DetectorConfig) -> list[list[float]]:
    """Three sizes of anchors for each level, a third of an octave apart."""
    return [[size * 2 ** (step / 3) for step in range(3)] for size in config.anchor_sizes]


def build_detector(backbone: Backbone, config: DetectorConfig, num_classes: int) -> RetinaNet:
    """A detector for `num_classes` classes. New parts are drawn from torch's ambient generator."""
    body = build_body(backbone, config, from_p5=False)
    anchors = Anchors(octave_sizes(config), LEVEL_STRIDES)
    channels = config.fpn_channels
    head = RetinaNetHead(channels, anchors.num_anchors_per_location()[0], num_classes)
    if config.head_convs != len(head.classification_head.conv):
        for part in (head.classification_head, head.regression_head):
            part.conv = _tower(channels, config.head_convs)
    return RetinaNet(body, head, anchors, backbone.spec, config.smooth_l1_beta)


def _tower(channels: int, depth: int) -> nn.Sequential:
    """Of so many convolutions, drawn as torchvision's four."""
    layers = [Conv2dNormActivation(channels, channels, norm_layer=None) for _ in range(depth)]
    for convolution, *_ in layers:
        nn.init.normal_(convolution.weight, std=0.01)
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(*layers)
