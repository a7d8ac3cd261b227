"""Faster R-CNN of torchvision's parts on the levels of a Backbone: feature pyramid or C4.

N images, H height, W width.
"""

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.detection.body import STRIDES, C4Trunk, PyramidTrunk, Res5Head
from transfer.detection.config import DetectorConfig
from transfer.detection.regions import (
    RPN,
    Anchors,
    BoxHead,
    BoxPredictor,
    Float32RPNHead,
    RoIPooler,
    TwoFCBoxHead,
)

LOSSES = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
_DIVISOR = 32  # images are padded to multiples of it


class FasterRCNN(nn.Module):
    """Trunk, region proposals, box heads.

    In training: images and targets to {loss: scalar}. In evaluation: images to a list of {"boxes"
    (K, 4), "labels" (K,) from 1, "scores" (K,)}, in pixels of the images as given.
    """

    def __init__(
        self, backbone: Backbone, trunk: nn.Module, proposals: RPN, heads: BoxHead
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.trunk, self.rpn, self.roi_heads = trunk, proposals, heads
        for name in ("mean", "std"):
            values = torch.tensor(getattr(backbone.spec, name)) * 255
            self.register_buffer(name, values[:, None, None], persistent=False)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Images: N uint8 RGB (3, H, W) of any sizes, resized already.

        Targets: {"boxes" (K, 4), "labels" (K,) from 1}, K may be 0.
        """
        batch = self.pad(images)
        features = self.trunk(batch.tensors)
        proposals, first = self.rpn(batch, features, targets)
        found, second = self.roi_heads(features, proposals, batch.image_sizes, targets)
        return {**first, **second} if self.training else found

    def pad(self, images: list[Tensor]) -> ImageList:
        """Normalised by the backbone's mean and std, zeros to the right and below."""
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        height, width = (-(-max(side) // _DIVISOR) * _DIVISOR for side in zip(*sizes, strict=True))
        batch = self.mean.new_zeros((len(images), 3, height, width))
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[-2], : image.shape[-1]] = (image - self.mean) / self.std
        return ImageList(batch, sizes)


def build_detector(backbone: Backbone, config: DetectorConfig, num_classes: int) -> FasterRCNN:
    """A detector for `num_classes` classes; label 0 is the background.

    New parts are drawn from torch's ambient generator.
    """
    if config.head == "dc5":
        raise UsageError("detector.head dc5 is detectron2's alone; with torchvision: fpn or c4.")
    trunk: PyramidTrunk | C4Trunk
    sides: list[tuple[float, ...]]
    head: TwoFCBoxHead | Res5Head
    if config.head == "fpn":
        trunk = PyramidTrunk(backbone, config)
        sides = [(side,) for side in config.anchor_sizes]
        pooler = RoIPooler([str(k) for k in range(len(STRIDES))], STRIDES, 7)
        head = TwoFCBoxHead(config.fpn_channels * 7**2, config.head_channels)
    else:
        trunk = C4Trunk(backbone, config)
        sides = [config.anchor_sizes]
        pooler = RoIPooler(["0"], trunk.strides, 14)
        head = Res5Head(backbone, config)
    anchors = Anchors(sides, trunk.strides)
    proposals = RPN(
        anchors,
        Float32RPNHead(trunk.out_channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={
            "training": config.proposals_before_nms,
            "testing": config.test_proposals_before_nms,
        },
        post_nms_top_n={"training": config.proposals, "testing": config.test_proposals},
        nms_thresh=0.7,
        beta=config.smooth_l1_beta,
    )
    heads = BoxHead(
        pooler,
        head,
        BoxPredictor(head.out_channels, num_classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=config.rois,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
        beta=config.smooth_l1_beta,
    )
    return FasterRCNN(backbone, trunk, proposals, heads)
