"""What the kinds of segmenter share: a backbone's levels, dilated or not, and heads on them.

N images, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.fcn import FCNHead

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.spec import create_outline
from transfer.body import FrozenBatchNormModule, feature_body
from transfer.segmentation.config import SegmenterConfig


class SegmenterBackbone(FrozenBatchNormModule):
    """The levels that a segmenter reads, of images as they come."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, config: SegmenterConfig, indices: Sequence[int]) -> None:
        """Freeze and verify the body; `indices` are timm's numbers of levels, fine to coarse."""
        super().__init__(config.batch_norm)
        self.body = feature_body(
            backbone, indices, freeze=config.freeze, batch_norm=config.batch_norm
        )
        for name, values in (("mean", backbone.spec.mean), ("std", backbone.spec.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None] * 255, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """uint8 RGB (N, 3, H, W), or floats (N, 1 or 3, H, W) that are not normalised, to levels.

        One channel is seen as three equal ones.
        """
        if images.dtype == torch.uint8:
            images = (images - self.mean) / self.std
        levels: list[Tensor] = self.body(images.expand(-1, 3, -1, -1))
        return levels


class Segmenter(nn.Module):
    """A head on the last level and, in training, a second one on the level before it.

    torchvision's `_SimpleSegmentationModel`, which applies the second head in evaluation too.
    """

    def __init__(
        self, backbone: SegmenterBackbone, classifier: nn.Module, aux_classifier: nn.Module | None
    ) -> None:
        super().__init__()
        self.backbone, self.classifier, self.aux_classifier = backbone, classifier, aux_classifier

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See `setup.build_model`."""
        levels = self.backbone(images)
        outputs = {"out": self.classifier(levels[-1])}
        if self.aux_classifier is not None and self.training:
            outputs["aux"] = self.aux_classifier(levels[0])
        return {name: enlarge(logits, images.shape[-2:]) for name, logits in outputs.items()}


def build_dilated(
    backbone: Backbone,
    config: SegmenterConfig,
    num_classes: int,
    make_head: Callable[[int], nn.Module],
) -> nn.Module:
    """A segmenter at the configuration's output stride.

    Args:
        backbone: whose last level is classified.
        config: what of it is frozen, and whether there is a second head.
        num_classes: of the logits.
        make_head: from the channels of the last level to what makes logits of it.

    Raises:
        UsageError: the architecture cannot be dilated, or has one level and needs two.
    """
    backbone = dilate(backbone, config.output_stride)
    levels = backbone.spec.levels()[-2:] if config.aux_weight else backbone.spec.levels()[-1:]
    if config.aux_weight and len(levels) < 2:
        raise UsageError(
            f"segmenter.aux_weight is {config.aux_weight:g}, and {backbone.spec.arch} has one "
            "feature level: there is none for a second head. Leave it 0."
        )
    body = SegmenterBackbone(backbone, config, [level.index for level in levels])
    aux_head = fcn_head(levels[0].channels, config, num_classes) if config.aux_weight else None
    return synchronized(Segmenter(body, make_head(levels[-1].channels), aux_head), config)


def fcn_head(channels: int, config: SegmenterConfig, num_classes: int) -> nn.Module:
    """torchvision's, with the configuration's dropout."""
    head = FCNHead(channels, num_classes)
    for module in head:
        if isinstance(module, nn.Dropout):
            module.p = config.dropout
    return head


def dilate(backbone: Backbone, output_stride: int) -> Backbone:
    """The same weights in a network whose last level has at most this stride.

    Its last stages are dilated instead of strided, as timm does it: a stage's first block has the
    dilation of the stage before, like torchvision's `replace_stride_with_dilation`.

    Raises:
        UsageError: timm cannot build the architecture so.
    """
    spec = backbone.spec
    own_stride = spec.levels()[-1].stride
    if own_stride <= output_stride:
        return backbone
    dilated = replace(spec, model_args={**spec.model_args, "output_stride": output_stride})
    try:  # MobileNetV3 takes it for its levels alone
        create_outline(dilated.arch, **dilated.model_args)
        built = dilated.levels()[-1].stride == output_stride
    except UsageError:
        built = False
    if not built:
        own = f"--segmenter.output_stride {own_stride}, which is its own, or "
        raise UsageError(
            f"segmenter.output_stride is {output_stride}, and timm cannot dilate {spec.arch}: take "
            f"{own if own_stride in (8, 16, 32) else ''}--segmenter.kind unet, or another backbone "
            "such as resnet18"
        )
    return replace(backbone, spec=dilated)


def enlarge(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (N, K, h, w) bilinearly to (N, K, *size), in float32 under mixed precision too."""
    logits = logits.float()
    if logits.shape[-2:] == size:
        return logits
    return functional.interpolate(logits, size, mode="bilinear")


def synchronized(network: nn.Module, config: SegmenterConfig) -> nn.Module:
    """With every BatchNorm over all processes, the heads' too, if that was asked for."""
    if config.batch_norm == "sync":
        network = convert_sync_batchnorm(network)
    return network
