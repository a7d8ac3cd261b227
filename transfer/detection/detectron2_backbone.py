"""A backbone file of any timm architecture as a detectron2 backbone, with or without a pyramid.

For networks that stock detectron2 lacks (ConvNeXt, EfficientNet, ResNet-D, Swin ...). In a training
script of detectron2's:

    cfg = get_cfg()
    cfg.merge_from_file(...)
    detectron2_backbone.configure(cfg, "convnext.pth")

`configure` registers the builders and takes mean, std and channel order from the file; the builders
refuse a configuration that was changed afterwards. Our own detector does not need this module.
"""

from copy import deepcopy

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN

from pretrain.errors import UsageError
from transfer import hub
from transfer.detection.detectron2_timm import TimmBackbone, build_pyramid
from transfer.detectron2_resnet import HEAD_CONFIG, to_pixels

PLAIN, PYRAMID = "build_timm_backbone", "build_timm_fpn_backbone"


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
        pyramid: with a feature pyramid (p2 to p6) and what reads it; a RetinaNet's (p3 to p7) is
            that of its own configuration.
    """
    register()
    spec = hub.resolve(name).spec
    cfg.MODEL.CUTMIX = CfgNode({"BACKBONE": name})
    cfg.MODEL.WEIGHTS = ""  # or detectron2 fetches MSRA's ResNet-50
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = to_pixels(spec.mean), to_pixels(spec.std)
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.BACKBONE.NAME = PYRAMID if pyramid else PLAIN
    if pyramid and cfg.MODEL.META_ARCHITECTURE != "RetinaNet":
        settings = deepcopy(HEAD_CONFIG["fpn"])
        settings["RPN"] = {"IN_FEATURES": settings["RPN"]["IN_FEATURES"]}  # not its numbers
        del settings["ANCHOR_GENERATOR"]["ASPECT_RATIOS"]
        cfg.MODEL.merge_from_other_cfg(CfgNode(settings))


def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """The levels alone, for detectron2's registry."""
    if "CUTMIX" not in cfg.MODEL:
        raise UsageError("the configuration names no backbone file: call configure(cfg, name).")
    backbone = hub.resolve(cfg.MODEL.CUTMIX.BACKBONE)
    settings = {
        "INPUT.FORMAT": (cfg.INPUT.FORMAT, "RGB"),
        "MODEL.PIXEL_MEAN": (list(cfg.MODEL.PIXEL_MEAN), to_pixels(backbone.spec.mean)),
        "MODEL.PIXEL_STD": (list(cfg.MODEL.PIXEL_STD), to_pixels(backbone.spec.std)),
    }
    wrong = [
        f"{key} is {value}, not {needed}" for key, (value, needed) in settings.items()
        if value != needed
    ]  # fmt: skip
    if wrong:
        raise UsageError(f"{backbone.name} would be fed wrongly: {'; '.join(wrong)}.")
    norm = cfg.MODEL.RESNETS.NORM
    if norm not in ("FrozenBN", "BN"):
        raise UsageError(f"MODEL.RESNETS.NORM is {norm!r}; it must be FrozenBN or BN.")
    batch_norm = "frozen" if norm == "FrozenBN" else "trained"
    return TimmBackbone(backbone, cfg.MODEL.BACKBONE.FREEZE_AT, batch_norm)


def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The levels under detectron2's own pyramid."""
    return build_pyramid(cfg, build_timm_backbone(cfg, input_shape))
