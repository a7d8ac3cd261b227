"""A backbone inside a detector: its levels, its first part frozen, its norms at rest.

N images, C channels, H height, W width.
"""

from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from timm.models import group_parameters
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.detection.config import DetectorConfig
from transfer.formats.proof import TOLERANCE

STRIDES = (4, 8, 16, 32)


class FrozenBatchNormModule(nn.Module):
    """A module whose frozen BatchNorm keeps its statistics in training mode.

    In place: converters to FrozenBatchNorm2d would drop the activations that timm fuses into its
    norms.
    """

    def __init__(self, batch_norm: str) -> None:
        super().__init__()
        self.frozen_norm = batch_norm == "frozen"

    def train(self, mode: bool = True) -> "FrozenBatchNormModule":
        """Training mode for all but frozen norms."""
        super().train(mode)
        if self.frozen_norm:
            for module in batch_norms(self):
                module.eval()
        return self


class PyramidTrunk(FrozenBatchNormModule):
    """The backbone's levels at strides 4 to 32 and the feature pyramid on them."""

    strides = (*STRIDES, 64)

    def __init__(self, backbone: Backbone, config: DetectorConfig) -> None:
        super().__init__(config.batch_norm)
        channels, indices = levels_of(backbone, STRIDES)
        self.body = frozen_body(backbone, indices, config)
        self.pyramid = FeaturePyramidNetwork(channels, config.fpn_channels, LastLevelMaxPool())
        self.out_channels = config.fpn_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {"0": (N, C, H/4, W/4), ..., "3": stride 32, "pool": stride 64}."""
        levels = {str(number): level for number, level in enumerate(self.body(images))}
        return self.pyramid(levels)


class C4Trunk(FrozenBatchNormModule):
    """The backbone up to stride 16; its last stage works on regions (`LastStage`)."""

    strides = (16,)

    def __init__(self, backbone: Backbone, config: DetectorConfig) -> None:
        super().__init__(config.batch_norm)
        channels, indices = levels_of(backbone, (16,))
        self.body = frozen_body(backbone, indices, config)
        self.out_channels = channels[0]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to {"0": (N, C, H/16, W/16)}."""
        return {"0": self.body(images)[0]}


class Res5Head(FrozenBatchNormModule):
    """The backbone's last stage on regions, then their mean: C4's box head."""

    def __init__(self, backbone: Backbone, config: DetectorConfig) -> None:
        super().__init__(config.batch_norm)
        network: Any = backbone.build()
        stage = getattr(network, "layer4", None)
        if stage is None:
            raise UsageError(
                f"{backbone.spec.arch} has no last stage that could work on regions: head c4 needs "
                "a ResNet, ResNeXt or Wide ResNet. Use --detector.head fpn."
            )
        if config.batch_norm == "sync":
            stage = convert_sync_batchnorm(stage)
        self.stage: nn.Module = stage
        self.out_channels: int = network.num_features
        for parameter in frozen_parameters(stage, 0, self.frozen_norm):
            parameter.requires_grad_(False)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, 14, 14) to (R, 2C)."""
        return self.stage(regions).mean((2, 3))


def levels_of(backbone: Backbone, strides: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Channels and timm's numbers of the levels at `strides`; UsageError where one is missing."""
    by_stride = {level.stride: level for level in backbone.spec.levels()}
    if not set(strides) <= set(by_stride):
        offered = [level.stride for level in backbone.spec.levels()]
        raise UsageError(
            f"{backbone.spec.arch} has feature levels of stride {offered}; the detector needs "
            f"{list(strides)}."
        )
    levels = [by_stride[stride] for stride in strides]
    return [level.channels for level in levels], [level.index for level in levels]


def frozen_body(backbone: Backbone, indices: list[int], config: DetectorConfig) -> nn.Module:
    """The network to those levels, frozen as asked, and proved to be still the backbone."""
    body = backbone.feature_network(indices)
    if config.batch_norm == "sync":
        body = convert_sync_batchnorm(body)
    frozen_norm = config.batch_norm == "frozen"
    for parameter in frozen_parameters(body, config.freeze, frozen_norm):
        parameter.requires_grad_(False)
    verify_body(body, backbone, indices)
    return body


@torch.no_grad()
def verify_body(body: nn.Module, backbone: Backbone, indices: list[int]) -> None:
    """Compare every level with the backbone's own; an image of noise, evaluation mode.

    Raises:
        UsageError: a level differs by more than 1e-4 of its largest value.
    """
    image = noise()
    was_training = body.training
    found, wanted = body.eval()(image), own_levels(backbone, image)
    body.train(was_training)
    for index, level in zip(indices, found, strict=True):
        name = f"{backbone.name}: level {index} of the frozen network"
        verify_level(level, wanted[index], name, "This architecture cannot be frozen so.")


def verify_level(found: Tensor, wanted: Tensor, name: str, remedy: str) -> None:
    """UsageError where a level differs from the backbone's by more than the exports allow."""
    scale = max(float(wanted.abs().max()), 1e-12)
    off = float((found - wanted).abs().max()) / scale
    if not off <= TOLERANCE:
        raise UsageError(
            f"{name} differs from the backbone's by {off:.1e} of its largest value. {remedy}"
        )


def noise() -> Tensor:
    """The image that a network is compared on, (1, 3, 96, 128)."""
    return torch.randn((1, 3, 96, 128), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def own_levels(backbone: Backbone, image: Tensor) -> list[Tensor]:
    """As `Backbone.features`, of a network that is not kept: training needs the memory."""
    indices = [level.index for level in backbone.spec.levels()]
    return backbone.feature_network(indices).eval()(image)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Every BatchNorm in a module, timm's with fused activation too."""
    return [
        inner for inner in module.modules() if isinstance(inner, nn.modules.batchnorm._BatchNorm)
    ]


def frozen_parameters(body: nn.Module, freeze: int, frozen_norm: bool) -> list[nn.Parameter]:
    """The parameters that stay: the first `freeze` parts, and every BatchNorm's if asked.

    The parts are timm's own coarse groups: 0 is the stem, 1 the first stage.
    """
    kept: list[nn.Parameter] = []
    if freeze:
        model: Any = body.model  # the network inside timm's feature wrapper
        groups = group_parameters(model, model.group_matcher(coarse=True))
        names = {name for part, held in groups.items() if part < freeze for name in held}
        kept = [value for name, value in model.named_parameters() if name in names]
    if frozen_norm:
        kept += [value for module in batch_norms(body) for value in module.parameters()]
    return kept
