"""detectron2's Faster R-CNN and RetinaNet behind the interface of ours: same pixels, same boxes.

ResNet-18 to 152, ResNeXt and Wide ResNet become detectron2's own networks, under its own names, so
that its tools open the trained weights; timm's other architectures stand in its pyramid as they
are. The model is built from detectron2's parts and configuration; `model_zoo` is never imported
(it needs a package that setuptools has removed). Training is the loop of engine.py.
"""

from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import (
    build_anchor_generator,
    build_backbone,
    build_proposal_generator,
    build_roi_heads,
)
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from pretrain.audit import load_strict
from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.body import sample_image, verify_levels
from transfer.detection.config import DetectorConfig
from transfer.detection.detectron2_timm import TimmBackbone, build_pyramid
from transfer.detection.loss_normalizer import LossNormalizer
from transfer.detection.retinanet import octave_sizes
from transfer.detectron2_resnet import (
    HEAD_CONFIG,
    dilated_res5,
    heads_of,
    model_config,
    resnet_config,
    split_tensors,
)
from transfer.parity import features

# detectron2's names of the losses, and ours
_LOSSES = {
    "loss_cls": "loss_classifier",
    "loss_box_reg": "loss_box_reg",
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
}
_NORMS = {"frozen": "FrozenBN", "trained": "BN", "sync": "SyncBN"}


class Detectron2Detector(nn.Module):
    """A detectron2 model called as `setup.build_model` says."""

    def __init__(self, model: GeneralizedRCNN | RetinaNet) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Images: N uint8 RGB (3, H, W). See `FasterRCNN.forward`."""
        if not self.training:
            outputs = self.model([{"image": image} for image in images])
            return [
                {"boxes": f.pred_boxes.tensor, "labels": f.pred_classes + 1, "scores": f.scores}
                for f in (output["instances"] for output in outputs)
            ]
        assert targets is not None
        with EventStorage(0):  # the heads write statistics to it, and stop where there is none
            losses = self.model(training_inputs(images, targets))
        return {ours: losses[theirs] for theirs, ours in _LOSSES.items() if theirs in losses}


class ResumableRetinaNet(RetinaNet):
    """detectron2's, what its losses are divided by kept in the checkpoint."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.normalizer = LossNormalizer()

    def _ema_update(self, name: str, value: float, *_: Any) -> Tensor:
        """In the place of an attribute; see `LossNormalizer`."""
        return self.normalizer(torch.as_tensor(value, device=self.device))


def training_inputs(images: list[Tensor], targets: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    """Images and targets of `FasterRCNN.forward` as detectron2's models take them."""
    inputs = []
    for image, target in zip(images, targets, strict=True):
        instances = Instances((image.shape[-2], image.shape[-1]))
        instances.gt_boxes = Boxes(target["boxes"])
        instances.gt_classes = target["labels"] - 1  # the background is the last class
        inputs.append({"image": image, "instances": instances})
    return inputs


def build_detector(
    backbone: Backbone, config: DetectorConfig, num_classes: int
) -> Detectron2Detector:
    """A detector for `num_classes` classes. New parts are drawn from torch's ambient generator.

    Raises:
        UsageError: a head that detectron2 cannot build on this architecture.
    """
    is_stock = _is_stock(backbone)
    if is_stock or config.head != "fpn":
        heads_of(backbone, [config.head])  # C4 and DC5 want a ResNet with bottlenecks
    cfg = configuration(backbone, config, num_classes)
    if is_stock:
        body = build_backbone(cfg)
    elif config.batch_norm == "sync":
        raise UsageError(
            f"detector.batch_norm sync is for the ResNets of detectron2, not {backbone.spec.arch}. "
            "Use frozen or trained, or --engine torchvision."
        )
    else:
        body = build_pyramid(cfg, TimmBackbone(backbone, config.freeze, config.batch_norm))
    make = _retinanet if config.kind == "retinanet" else _faster_rcnn
    model = make(
        cfg,
        body,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        input_format="RGB",
    )
    if is_stock:
        _load_backbone(model, backbone, config)
    _verify(model, backbone, config)
    return Detectron2Detector(model)


def _faster_rcnn(cfg: CfgNode, body: Any, **pixels: Any) -> GeneralizedRCNN:
    return GeneralizedRCNN(
        backbone=body,
        proposal_generator=build_proposal_generator(cfg, body.output_shape()),
        roi_heads=build_roi_heads(cfg, body.output_shape()),
        **pixels,
    )


def _retinanet(cfg: CfgNode, body: Any, **pixels: Any) -> RetinaNet:
    """As its `from_config` does, on a body that is built already."""
    options = cfg.MODEL.RETINANET
    levels = [body.output_shape()[name] for name in options.IN_FEATURES]
    return ResumableRetinaNet(
        backbone=body,
        head=RetinaNetHead(cfg, levels),
        head_in_features=options.IN_FEATURES,
        anchor_generator=build_anchor_generator(cfg, levels),
        box2box_transform=Box2BoxTransform(weights=options.BBOX_REG_WEIGHTS),
        anchor_matcher=Matcher(
            options.IOU_THRESHOLDS, options.IOU_LABELS, allow_low_quality_matches=True
        ),
        num_classes=options.NUM_CLASSES,
        smooth_l1_beta=options.SMOOTH_L1_LOSS_BETA,
        **pixels,
    )


def configuration(backbone: Backbone, config: DetectorConfig, num_classes: int) -> CfgNode:
    """detectron2's configuration of this detector; what is not named keeps detectron2's default."""
    cfg = get_cfg()
    stock = _is_stock(backbone)
    section = model_config(backbone, config.head) if stock else dict(HEAD_CONFIG["fpn"])
    cfg.MODEL.merge_from_other_cfg(CfgNode(section))
    model = cfg.MODEL
    model.WEIGHTS, model.MASK_ON, model.DEVICE = "", False, "cpu"
    model.BACKBONE.FREEZE_AT = config.freeze
    model.RESNETS.NORM = _NORMS[config.batch_norm]
    model.FPN.OUT_CHANNELS = config.fpn_channels
    sizes = [float(size) for size in config.anchor_sizes]
    model.ANCHOR_GENERATOR.SIZES = [[s] for s in sizes] if config.head == "fpn" else [sizes]
    if config.kind == "retinanet":
        model.META_ARCHITECTURE = "RetinaNet"
        model.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
        model.RESNETS.OUT_FEATURES = model.FPN.IN_FEATURES = ["res3", "res4", "res5"]
        model.ANCHOR_GENERATOR.SIZES = octave_sizes(config)
        model.RETINANET.NUM_CLASSES = num_classes
        model.RETINANET.NUM_CONVS = config.head_convs
        model.RETINANET.SMOOTH_L1_LOSS_BETA = config.smooth_l1_beta
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


def _is_stock(backbone: Backbone) -> bool:
    try:
        resnet_config(backbone)
    except UsageError:
        return False
    return True


def _load_backbone(model: GeneralizedRCNN, backbone: Backbone, config: DetectorConfig) -> None:
    """The backbone's weights under detectron2's names, every one of them."""
    prefix = "backbone.bottom_up." if config.head == "fpn" else "backbone."
    tensors, _ = split_tensors(backbone)
    weights = {}
    for name, tensor in tensors.items():
        on_regions = config.head == "c4" and name.startswith("res5.")
        weights[("roi_heads." if on_regions else prefix) + name] = tensor
    carried = r"backbone\.(bottom_up\.)?(stem|res[2-5])\..*|roi_heads\.res5\..*"
    load_strict(model, weights, new=[rf"(?!{carried}).*|.*\.num_batches_tracked"])


@torch.inference_mode()
def _verify(model: GeneralizedRCNN, backbone: Backbone, config: DetectorConfig) -> None:
    """Every level equals the backbone's own, in evaluation mode."""
    image = sample_image(backbone)
    expected = features(backbone, image)
    was_training = model.training
    model.eval()
    levels = getattr(model.backbone, "bottom_up", model.backbone)(image)
    if config.head == "c4":
        levels["res5"] = model.roi_heads.res5(levels["res4"])
    model.train(was_training)
    if config.head == "dc5":
        expected["res5"] = dilated_res5(backbone, expected["res4"])
    verify_levels(backbone, levels, expected, "in detectron2", "Use --engine torchvision.")
