"""A backbone inside a detector: see `transfer.body`.

N images, C channels, H height, W width, R regions.
"""

from collections.abc import Callable, Sequence
from typing import Any

from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.body import FrozenBatchNormModule, feature_body, freeze_parameters, levels_of
from transfer.detection.config import DetectorConfig

STRIDES = (4, 8, 16, 32)
"""Of the levels that a feature pyramid reads."""


class DetectorBackbone(FrozenBatchNormModule):
    """The levels that a detector reads, as they are or through a pyramid."""

    def __init__(
        self,
        backbone: Backbone,
        config: DetectorConfig,
        strides: Sequence[int],
        pyramid: Callable[[list[int]], nn.Module] | None = None,
    ) -> None:
        """Freeze and verify the body.

        Args:
            backbone: whose levels.
            config: what of it is frozen.
            strides: of the levels.
            pyramid: from the channels of the levels to what makes others of them: a dictionary of
                tensors to a dictionary of tensors.
        """
        super().__init__(config.batch_norm)
        self.level_channels, indices = levels_of(backbone, tuple(strides))
        self.body = feature_body(
            backbone, indices, freeze=config.freeze, batch_norm=config.batch_norm
        )
        self.fpn: nn.Module = pyramid(self.level_channels) if pyramid else nn.Identity()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to (N, C, H/stride, W/stride) by "0", "1", ..., and the pyramid's own."""
        return self.fpn({str(number): level for number, level in enumerate(self.body(images))})


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
        freeze_parameters(stage, 0, self.frozen_norm)
        self.stage: nn.Module = stage
        self.out_channels: int = network.num_features

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, 14, 14) to (R, 2C)."""
        return self.stage(regions).mean((2, 3))
