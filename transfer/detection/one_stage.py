"""What RetinaNet and FCOS share: a pyramid of five levels, and one head that reads them all.

N images, C channels, H height, W width, A anchors of all levels, K classes, D detections.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pretrain.backbone import Backbone
from transfer.detection.anchors import Anchors
from transfer.detection.body import DetectorBackbone
from transfer.detection.config import DetectorConfig
from transfer.detection.padding import PaddedBatch

Tensors = dict[str, Tensor]
LEVEL_STRIDES = (8, 16, 32, 64, 128)
PADDED_TO = 32
"""Height and width of a batch are multiples of it."""


class OneStageDetector(nn.Module):
    """Body, head and anchors; what is made of their outputs, a kind of detector says itself."""

    backbone: nn.Module
    head: nn.Module
    anchor_generator: Anchors
    pad: PaddedBatch

    def losses(self, outputs: Tensors, anchors: Tensor, sizes: Any, targets: Any) -> Tensors:
        """{loss: scalar} of the head's outputs (N, A, ...); A is divided into levels of `sizes`."""
        raise NotImplementedError

    def detections(
        self, outputs: dict[str, list[Tensor]], anchors: Sequence[Tensor], image_sizes: Any
    ) -> list[Tensors]:
        """{"boxes" (D, 4), "labels" (D,) from 0, "scores" (D,)} of each image.

        Outputs and anchors come level by level.
        """
        raise NotImplementedError

    def forward(
        self, images: list[Tensor], targets: list[Tensors] | None = None
    ) -> Tensors | list[Tensors]:
        """See `setup.build_model`."""
        batch = self.pad(images)
        levels = list(self.backbone(batch.tensors).values())
        # float32 under mixed precision too
        outputs = {name: output.float() for name, output in self.head(levels).items()}
        anchors = self.anchor_generator(batch, levels)[0]
        per_place = self.anchor_generator.num_anchors_per_location()
        sizes = [
            number * level.shape[-2] * level.shape[-1]
            for number, level in zip(per_place, levels, strict=True)
        ]
        if self.training:
            return self.losses(outputs, anchors, sizes, targets)
        of_levels = {name: list(output.split(sizes, 1)) for name, output in outputs.items()}
        found = self.detections(of_levels, anchors.split(sizes), batch.image_sizes)
        return [{**one, "labels": one["labels"] + 1} for one in found]


def build_body(backbone: Backbone, config: DetectorConfig, *, from_p5: bool) -> DetectorBackbone:
    """The backbone's levels at strides 8 to 32 in a pyramid of five.

    The two last come of the pyramid's third (`from_p5`, as in FCOS), or of the backbone's last
    (RetinaNet). torchvision's layer takes the third wherever both have the same width.
    """

    def pyramid(channels: list[int]) -> nn.Module:
        width = config.fpn_channels
        last = LastLevelP6P7(width if from_p5 else channels[-1], width)
        last.use_P5 = from_p5
        return FeaturePyramidNetwork(channels, width, last)

    return DetectorBackbone(backbone, config, LEVEL_STRIDES[:3], pyramid)
