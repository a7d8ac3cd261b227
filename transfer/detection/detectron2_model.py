"""detectron2's Faster R-CNN under the interface of ours: the same pixels in, the same boxes out.

ResNet-18 to 152, ResNeXt and Wide ResNet become detectron2's own networks, under its own names, so
that its tools open the trained weights; timm's other architectures stand in its pyramid as they
are. The model is built from detectron2's parts and configuration; `model_zoo` is never imported
(it needs a package that setuptools has removed). Training is the loop of engine.py.
"""

from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import FPN, build_backbone, build_proposal_generator, build_roi_heads
from detectron2.modeling import Backbone as Detectron2Backbone
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from pretrain.audit import place
from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.detection.body import noise, own_levels, verify_level
from transfer.detection.config import DetectorConfig
from transfer.detection.detectron2_backbone import TimmBackbone, pyramid
from transfer.formats import to_detectron2
from transfer.formats.proof import level_names

# detectron2's names of the losses, and torchvision's
_LOSSES = {
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
}
_NORMS = {"frozen": "FrozenBN", "trained": "BN", "sync": "SyncBN"}


class Detectron2Detector(nn.Module):
    """A detectron2 model called as `faster_rcnn.FasterRCNN` is."""

    def __init__(self, model: GeneralizedRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Images: N uint8 RGB (3, H, W). See `FasterRCNN.forward`."""
        if not self.training:
            found = self.model.inference([{"image": image} for image in images])
            return [_output(one["instances"]) for one in found]
        assert targets is not None
        inputs = [
            {"image": image, "instances": _instances(image, target)}
            for image, target in zip(images, targets, strict=True)
        ]
        with EventStorage(0):  # the heads write statistics to it, and stop where there is none
            losses = self.model(inputs)
        return {ours: losses[theirs] for theirs, ours in _LOSSES.items()}


def _instances(image: Tensor, target: dict[str, Tensor]) -> Instances:
    held = Instances((image.shape[-2], image.shape[-1]))
    held.gt_boxes = Boxes(target["boxes"])
    held.gt_classes = target["labels"] - 1  # detectron2's background is the last class
    return held


def _output(found: Instances) -> dict[str, Tensor]:
    return {
        "boxes": found.pred_boxes.tensor,
        "labels": found.pred_classes + 1,
        "scores": found.scores,
    }


def build_detector(
    backbone: Backbone, config: DetectorConfig, num_classes: int
) -> Detectron2Detector:
    """A detector for `num_classes` classes. New parts are drawn from torch's ambient generator.

    Raises:
        UsageError: a head that detectron2 cannot build on this architecture.
    """
    is_stock = _is_stock(backbone)
    if not is_stock and config.head != "fpn":
        to_detectron2.residual_of(backbone)  # says why
    if is_stock:
        to_detectron2.heads_of(backbone, [config.head])  # C4 and DC5 want bottlenecks
    cfg = configuration(backbone, config, num_classes)
    trunk = _stock(cfg) if is_stock else _pyramid(cfg, backbone, config)
    model = GeneralizedRCNN(
        backbone=trunk,
        proposal_generator=build_proposal_generator(cfg, trunk.output_shape()),
        roi_heads=build_roi_heads(cfg, trunk.output_shape()),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        input_format="RGB",
    )
    if is_stock:
        _place(model, backbone, config)
    _prove(model, backbone, config)
    return Detectron2Detector(model)


def configuration(backbone: Backbone, config: DetectorConfig, num_classes: int) -> CfgNode:
    """detectron2's configuration of this detector; what is not named keeps detectron2's default."""
    cfg = get_cfg()
    described = _described(backbone, config)
    cfg.MODEL.merge_from_other_cfg(CfgNode(described))
    model = cfg.MODEL
    model.WEIGHTS, model.MASK_ON = "", False
    model.BACKBONE.FREEZE_AT = config.freeze
    model.RESNETS.NORM = _NORMS[config.batch_norm]
    model.FPN.OUT_CHANNELS = config.fpn_channels
    sides = [float(side) for side in config.anchor_sizes]
    model.ANCHOR_GENERATOR.SIZES = [[s] for s in sides] if config.head == "fpn" else [sides]
    rpn, heads = model.RPN, model.ROI_HEADS
    rpn.PRE_NMS_TOPK_TRAIN = config.proposals_before_nms
    rpn.POST_NMS_TOPK_TRAIN = config.proposals
    rpn.PRE_NMS_TOPK_TEST = config.test_proposals_before_nms
    rpn.POST_NMS_TOPK_TEST = config.test_proposals
    rpn.SMOOTH_L1_BETA = model.ROI_BOX_HEAD.SMOOTH_L1_BETA = config.smooth_l1_beta
    heads.NUM_CLASSES, heads.BATCH_SIZE_PER_IMAGE = num_classes, config.rois
    model.ROI_BOX_HEAD.FC_DIM = config.head_channels
    model.PIXEL_MEAN = [255 * value for value in backbone.spec.mean]
    model.PIXEL_STD = [255 * value for value in backbone.spec.std]
    cfg.INPUT.FORMAT = "RGB"
    return cfg


def _described(backbone: Backbone, config: DetectorConfig) -> dict[str, Any]:
    """The MODEL section as the export writes it, or the head's alone."""
    if _is_stock(backbone):
        held = to_detectron2.config(backbone, config.head, "")["MODEL"]
        return {**held, "MASK_ON": False}
    return dict(to_detectron2.HEAD_CONFIG["fpn"])


def _is_stock(backbone: Backbone) -> bool:
    try:
        to_detectron2.residual_of(backbone)
    except UsageError:
        return False
    return True


def _stock(cfg: CfgNode) -> Detectron2Backbone:
    cfg.MODEL.DEVICE = "cpu"
    return build_backbone(cfg)


def _pyramid(cfg: CfgNode, backbone: Backbone, config: DetectorConfig) -> FPN:
    if config.batch_norm == "sync":
        raise UsageError(
            f"detector.batch_norm sync is for the ResNets of detectron2, not {backbone.spec.arch}. "
            "Use frozen or trained, or --engine torchvision."
        )
    return pyramid(cfg, TimmBackbone(backbone, config.freeze, config.batch_norm))


def _place(model: GeneralizedRCNN, backbone: Backbone, config: DetectorConfig) -> None:
    """The backbone's weights under detectron2's names, every one of them."""
    prefix = "backbone.bottom_up." if config.head == "fpn" else "backbone."
    tensors, _ = to_detectron2.model_tensors(backbone)
    placed = {}
    for name, tensor in tensors.items():
        on_regions = config.head == "c4" and name.startswith("res5.")
        placed[("roi_heads." if on_regions else prefix) + name] = tensor
    trunk = r"backbone\.(bottom_up\.)?(stem|res[2-5])\..*|roi_heads\.res5\..*"
    new = rf"(?!{trunk}).*|.*\.num_batches_tracked"
    place(model, placed, new=[new])


@torch.no_grad()
def _prove(model: GeneralizedRCNN, backbone: Backbone, config: DetectorConfig) -> None:
    """Every level equals the backbone's own; an image of noise, evaluation mode."""
    image = noise()
    own = own_levels(backbone, image)
    was_training = model.training
    model.eval()
    found = getattr(model.backbone, "bottom_up", model.backbone)(image)
    if config.head == "c4":
        found["res5"] = model.roi_heads.res5(found["res4"])
    model.train(was_training)
    wanted = {name: own[number] for name, number in level_names(backbone).items()}
    if config.head == "dc5":
        wanted["res5"] = to_detectron2.dilated_res5(backbone, wanted["res4"])
    for name, level in found.items():
        where = f"{backbone.name}: level {name} in detectron2"
        verify_level(level, wanted[name], where, "Use --engine torchvision.")
