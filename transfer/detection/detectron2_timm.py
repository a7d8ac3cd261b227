"""A timm network as a detectron2 backbone, with or without detectron2's feature pyramid.

Frozen BatchNorm stays a BatchNorm in evaluation mode: detectron2's converter would drop the
activations that timm fuses into its norms. N images, C channels, H height, W width.
"""

from dataclasses import replace
from typing import Any

import timm
from detectron2.config import CfgNode
from detectron2.modeling import FPN
from detectron2.modeling import Backbone as Detectron2Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import Tensor

from pretrain.backbone import Backbone
from transfer.body import FrozenBatchNormModule, freeze_parameters, levels_of
from transfer.detection.body import STRIDES

NAMES = ("res2", "res3", "res4", "res5")


class TimmBackbone(FrozenBatchNormModule, Detectron2Backbone):
    """The levels at strides 4 to 32 as `res2` to `res5`, its first parts and norms frozen."""

    _out_feature_channels: dict[str, int]

    def __init__(self, backbone: Backbone, freeze_at: int, batch_norm: str) -> None:
        super().__init__(batch_norm)
        backbone = for_any_size(backbone)
        channels, indices = levels_of(backbone, STRIDES)
        self.body = backbone.feature_network(indices)
        freeze_parameters(self.body, freeze_at, self.frozen_norm)
        self._out_features = list(NAMES)
        self._out_feature_channels = dict(zip(NAMES, channels, strict=True))
        self._out_feature_strides = dict(zip(NAMES, STRIDES, strict=True))

    @property
    def size_divisibility(self) -> int:
        """detectron2 pads images to multiples of it."""
        return STRIDES[-1]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised (N, 3, H, W) to {"res2": (N, C, H/4, W/4), ..., "res5": stride 32}."""
        return dict(zip(NAMES, self.body(images), strict=True))


def for_any_size(backbone: Backbone) -> Backbone:
    """The same weights, for images of any size where the architecture is tied to one (Swin)."""
    spec = backbone.spec
    described: Any = timm.get_pretrained_cfg(spec.arch)
    if not (spec.arch.startswith("swin") and described.fixed_input_size):
        return backbone
    spec = replace(spec, model_args={**spec.model_args, "strict_img_size": False})
    return replace(backbone, spec=spec)


def build_pyramid(cfg: CfgNode, body: TimmBackbone) -> FPN:
    """detectron2's pyramid on the levels, as the configuration describes it."""
    width = cfg.MODEL.FPN.OUT_CHANNELS
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        last = LastLevelP6P7(body._out_feature_channels["res5"], width)
    else:
        last = LastLevelMaxPool()
    return FPN(
        bottom_up=body,
        in_features=list(cfg.MODEL.FPN.IN_FEATURES),
        out_channels=width,
        norm=cfg.MODEL.FPN.NORM,
        top_block=last,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
