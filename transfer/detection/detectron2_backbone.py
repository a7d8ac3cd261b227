"""A backbone file of any timm architecture as a detectron2 backbone, with or without a pyramid.

For networks that stock detectron2 lacks (ConvNeXt, EfficientNet, ResNet-D, Swin ...). In a training
script of detectron2's:

    cfg = get_cfg()
    cfg.merge_from_file(...)
    detectron2_backbone.configure(cfg, "convnext.pth")

`configure` registers the builders and takes mean, std and channel order from the file; the builders
refuse a configuration that was changed afterwards. Frozen BatchNorm stays a BatchNorm in evaluation
mode: detectron2's converter would drop the activations that timm fuses into its norms.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling import Backbone as Detectron2Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer import hub
from transfer.detection.body import STRIDES, FrozenBatchNormModule, frozen_parameters

NAMES = ("res2", "res3", "res4", "res5")
PLAIN, PYRAMID = "build_timm_backbone", "build_timm_fpn_backbone"


class TimmBackbone(FrozenBatchNormModule, Detectron2Backbone):
    """The levels at strides 4 to 32 as `res2` to `res5`, its first parts and norms frozen."""

    def __init__(self, backbone: Backbone, freeze_at: int, batch_norm: str) -> None:
        super().__init__(batch_norm)
        backbone = of_any_size(backbone)
        levels = [level for level in backbone.spec.levels() if level.stride in STRIDES]
        if tuple(level.stride for level in levels) != STRIDES:
            offered = [level.stride for level in backbone.spec.levels()]
            raise UsageError(
                f"{backbone.spec.arch} has feature levels of stride {offered}; a detector needs "
                f"{list(STRIDES)}."
            )
        self.body = backbone.feature_network([level.index for level in levels])
        for parameter in frozen_parameters(self.body, freeze_at, self.frozen_norm):
            parameter.requires_grad_(False)
        self._out_features = list(NAMES)
        self._out_feature_channels = dict(
            zip(NAMES, (level.channels for level in levels), strict=True)
        )
        self._out_feature_strides = dict(zip(NAMES, STRIDES, strict=True))

    @property
    def size_divisibility(self) -> int:
        """detectron2 pads images to multiples of it."""
        return STRIDES[-1]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised (N, 3, H, W) to {"res2": (N, C, H/4, W/4), ..., "res5": stride 32}."""
        return dict(zip(NAMES, self.body(images), strict=True))


def of_any_size(backbone: Backbone) -> Backbone:
    """The same weights, for images of any size where the architecture is tied to one (Swin)."""
    spec = backbone.spec
    described: Any = timm.get_pretrained_cfg(spec.arch)
    if not (spec.arch.startswith("swin") and described.fixed_input_size):
        return backbone
    free = {**spec.model_args, "strict_img_size": False}
    return Backbone(
        spec=replace(spec, model_args=free),
        provenance=backbone.provenance,
        weights=backbone.weights,
    )


def register() -> None:
    """Give detectron2 the two builders by name."""
    for name, build in ((PLAIN, build_timm_backbone), (PYRAMID, build_timm_fpn_backbone)):
        if name not in BACKBONE_REGISTRY:
            BACKBONE_REGISTRY.register(build)


def configure(cfg: CfgNode, name: str, *, pyramid: bool = True) -> None:
    """Set a configuration up for a backbone: builder, mean, std, channel order, levels.

    Args:
        cfg: detectron2's, changed in place; heads, schedule and data stay as they are.
        name: a path or name for `transfer.hub.resolve`.
        pyramid: with a feature pyramid (p2 to p6) and what reads it.
    """
    register()
    spec = hub.resolve(name).spec
    cfg.MODEL.CUTMIX = CfgNode({"BACKBONE": name})
    cfg.MODEL.WEIGHTS = ""  # or detectron2 fetches MSRA's ResNet-50
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = _pixels(spec.mean), _pixels(spec.std)
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.BACKBONE.NAME = PYRAMID if pyramid else PLAIN
    if pyramid:
        cfg.MODEL.FPN.IN_FEATURES = list(NAMES)
        cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
        cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
        cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
        cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
        cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
        cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7


def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """The levels alone, for detectron2's registry."""
    if "CUTMIX" not in cfg.MODEL:
        raise UsageError("the configuration names no backbone file: call configure(cfg, name).")
    backbone = hub.resolve(cfg.MODEL.CUTMIX.BACKBONE)
    spec = backbone.spec
    fed = {
        "INPUT.FORMAT": (cfg.INPUT.FORMAT, "RGB"),
        "MODEL.PIXEL_MEAN": (list(cfg.MODEL.PIXEL_MEAN), _pixels(spec.mean)),
        "MODEL.PIXEL_STD": (list(cfg.MODEL.PIXEL_STD), _pixels(spec.std)),
    }
    wrong = [f"{key} is {found}, not {wanted}" for key, (found, wanted) in fed.items()
             if found != wanted]  # fmt: skip
    if wrong:
        raise UsageError(f"{backbone.name} would be fed wrongly: {'; '.join(wrong)}.")
    norm = cfg.MODEL.RESNETS.NORM
    if norm not in ("FrozenBN", "BN"):
        raise UsageError(f"MODEL.RESNETS.NORM is {norm!r}; it must be FrozenBN or BN.")
    batch_norm = "frozen" if norm == "FrozenBN" else "trained"
    return TimmBackbone(backbone, cfg.MODEL.BACKBONE.FREEZE_AT, batch_norm)


def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The levels under detectron2's own pyramid."""
    return pyramid(cfg, build_timm_backbone(cfg, input_shape))


def pyramid(cfg: CfgNode, body: TimmBackbone) -> FPN:
    """detectron2's pyramid, as the configuration describes it."""
    options: Mapping[str, Any] = cfg.MODEL.FPN
    return FPN(
        bottom_up=body,
        in_features=list(NAMES),
        out_channels=options["OUT_CHANNELS"],
        norm=options["NORM"],
        top_block=LastLevelMaxPool(),
        fuse_type=options["FUSE_TYPE"],
    )


def _pixels(values: tuple[float, float, float]) -> list[float]:
    """From [0, 1] to 0 to 255."""
    return [round(255 * value, 6) for value in values]
