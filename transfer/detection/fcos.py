"""FCOS (Tian et al., ICCV 2019) by torchvision's own rules: centre sampling, GIoU, centerness.

Two things are otherwise than in torchvision's class. Points lie at multiples of their level's own
stride; torchvision divides the padded image by the level, which gives other points wherever the
image is no multiple of 128 pixels. And there is no output for a background that no loss reads.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection.fcos import FCOSHead

from pretrain.backbone import Backbone, BackboneSpec
from pretrain.errors import UsageError
from transfer.detection.anchors import Anchors
from transfer.detection.body import DetectorBackbone
from transfer.detection.config import DetectorConfig
from transfer.detection.one_stage import (
    LEVEL_STRIDES,
    PADDED_TO,
    OneStageDetector,
    Tensors,
    build_body,
)
from transfer.detection.padding import PaddedBatch

_GROUPS = 32  # of the head's GroupNorm; one channel alone would have no spread in a level of 1 x 1


class FCOS(OneStageDetector, detection.FCOS):
    """torchvision's, on a body of ours."""

    def __init__(
        self, backbone: DetectorBackbone, head: FCOSHead, anchors: Anchors, spec: BackboneSpec
    ) -> None:
        num_classes = head.classification_head.num_classes
        super().__init__(backbone, num_classes, anchor_generator=anchors, head=head)
        del self.transform  # resizes, and normalises by ImageNet's mean
        self.pad = PaddedBatch(spec, PADDED_TO)

    def losses(
        self, outputs: Tensors, anchors: Tensor, sizes: list[int], targets: list[Tensors]
    ) -> Tensors:
        """Focal, GIoU and centerness loss, divided by the number of points on objects."""
        from_zero = [{**target, "labels": target["labels"] - 1} for target in targets]
        losses = detection.FCOS.compute_loss(
            self, from_zero, outputs, [anchors] * len(targets), sizes
        )
        return {
            "loss_classifier": losses["classification"],
            "loss_box_reg": losses["bbox_regression"],
            "loss_centerness": losses["bbox_ctrness"],
        }

    def detections(
        self, outputs: dict[str, list[Tensor]], anchors: Sequence[Tensor], image_sizes: Any
    ) -> list[Tensors]:
        """By the root of score times centerness."""
        found: list[Tensors] = detection.FCOS.postprocess_detections(
            self, outputs, [list(anchors)] * len(image_sizes), image_sizes
        )
        return found


def build_detector(backbone: Backbone, config: DetectorConfig, num_classes: int) -> FCOS:
    """A detector for `num_classes` classes. New parts are drawn from torch's ambient generator.

    Raises:
        UsageError: a width that the head's norms cannot divide, or levels that are missing.
    """
    if config.fpn_channels % _GROUPS or config.fpn_channels == _GROUPS:
        raise UsageError(
            f"detector.fpn_channels is {config.fpn_channels}; with fcos it must be a multiple of "
            f"{_GROUPS} and at least {2 * _GROUPS}, for the GroupNorm of its head"
        )
    body: Any = build_body(backbone, config, from_p5=True)
    body.out_channels = config.fpn_channels  # torchvision asks for it
    anchors = Anchors([[stride] for stride in LEVEL_STRIDES], LEVEL_STRIDES, [1.0])
    head = FCOSHead(config.fpn_channels, 1, num_classes, config.head_convs)
    return FCOS(body, head, anchors, backbone.spec)
