"""Faster R-CNN with a feature pyramid (torchvision's parts) on the levels of a Backbone.

N images, C channels, H height, W width.
"""

from typing import Any

from timm.models import group_parameters
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pretrain.backbone import Backbone
from pretrain.errors import UserError
from transfer.detection.config import DetectorConfig

STRIDES = (4, 8, 16, 32)


class Trunk(nn.Module):
    """The backbone's levels at strides 4 to 32, its first part frozen, and the pyramid on them."""

    def __init__(self, backbone: Backbone, config: DetectorConfig) -> None:
        super().__init__()
        levels = [level for level in backbone.spec.levels() if level.stride in STRIDES]
        if tuple(level.stride for level in levels) != STRIDES:
            offered = [level.stride for level in backbone.spec.levels()]
            raise UserError(
                f"{backbone.spec.arch} has feature levels of stride {offered}; the "
                f"feature pyramid needs {list(STRIDES)}."
            )
        self.body = backbone.feature_network([level.index for level in levels])
        self.frozen_norm = config.batch_norm == "frozen"
        for parameter in frozen_parameters(self.body, config.freeze, self.frozen_norm):
            parameter.requires_grad_(False)
        self.pyramid = FeaturePyramidNetwork(
            [level.channels for level in levels], config.fpn_channels, LastLevelMaxPool()
        )
        self.out_channels = config.fpn_channels  # the name torchvision's detectors ask for

    def train(self, mode: bool = True) -> "Trunk":
        """Training mode, but frozen BatchNorm keeps its statistics.

        In place: torchvision's converter to FrozenBatchNorm2d would drop the activations that
        timm fuses into its norms.
        """
        super().train(mode)
        if self.frozen_norm:
            for module in norms(self.body):
                module.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {"0": (N, C, H/4, W/4), ..., "3": stride 32, "pool": stride 64}."""
        levels = {str(number): level for number, level in enumerate(self.body(images))}
        return self.pyramid(levels)


def norms(module: nn.Module) -> list[nn.Module]:
    """Every BatchNorm in a module, timm's with fused activation too."""
    return [
        inner for inner in module.modules() if isinstance(inner, nn.modules.batchnorm._BatchNorm)
    ]


def frozen_parameters(body: nn.Module, freeze: int, frozen_norm: bool) -> list[nn.Parameter]:
    """The parameters that stay: the first `freeze` parts, and every BatchNorm's if asked.

    The parts are timm's own coarse groups: 0 is the stem, 1 the first stage.
    """
    model: Any = body.model  # the network inside timm's feature wrapper
    groups = group_parameters(model, model.group_matcher(coarse=True)) if freeze else {}
    names = {name for part, held in groups.items() if part < freeze for name in held}
    kept = [value for name, value in model.named_parameters() if name in names]
    if frozen_norm:
        kept += [value for module in norms(body) for value in module.parameters()]
    return kept


def build_detector(backbone: Backbone, config: DetectorConfig, num_classes: int) -> FasterRCNN:
    """A detector for `num_classes` classes; torchvision's label 0 is the background.

    Input: a list of (3, H, W) floats in [0, 1]; the detector resizes and normalises with the
    backbone's own mean and std. New parts are drawn from torch's ambient generator.
    """
    trunk = Trunk(backbone, config)
    names = [str(number) for number in range(len(STRIDES))]
    strides = (*STRIDES, 2 * STRIDES[-1])
    sizes = tuple((config.anchor_scale * stride,) for stride in strides)
    pool = MultiScaleRoIAlign(featmap_names=names, output_size=7, sampling_ratio=2)
    head = TwoMLPHead(config.fpn_channels * 7**2, config.head_channels)
    detector = FasterRCNN(
        trunk,
        num_classes=None,
        min_size=config.short_side,
        max_size=config.long_side,
        image_mean=list(backbone.spec.mean),
        image_std=list(backbone.spec.std),
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        rpn_pre_nms_top_n_train=2 * config.proposals,
        rpn_pre_nms_top_n_test=config.proposals,
        rpn_post_nms_top_n_train=config.proposals,
        rpn_post_nms_top_n_test=config.proposals,
        box_roi_pool=pool,
        box_head=head,
        box_predictor=BoxPredictor(config.head_channels, num_classes + 1),
        box_batch_size_per_image=config.rois,
    )
    return detector


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
        """(regions, C) to (regions, classes + 1) and (regions, 4 (classes + 1))."""
        return self.cls_score(features), self.bbox_pred(features)
