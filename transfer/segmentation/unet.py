"""U-Net (Ronneberger et al., MICCAI 2015): a decoder that adds the backbone's levels, one by one.

The decoder is segmentation-models-pytorch's (0.6, `decoders/unet`), which the field takes for
pretrained backbones: nearest upsampling, concatenation, two convolutions with BatchNorm and ReLU
that keep the size. The paper upsamples by a transposed convolution, has no BatchNorm, and crops.

N images, C channels, H height, W width, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.segmentation.config import SegmenterConfig
from transfer.segmentation.network import SegmenterBackbone, enlarge, synchronized


class DecoderBlock(nn.Module):
    """Upsampling to the next finer level, which is joined if there is one."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2dNormActivation(in_channels + skip_channels, out_channels)
        self.conv2 = Conv2dNormActivation(out_channels, out_channels)

    def forward(self, coarse: Tensor, size: Sequence[int], skip: Tensor | None) -> Tensor:
        """(N, C, h, w) and (N, C', *size), or nothing, to (N, C", *size)."""
        level = functional.interpolate(coarse, size, mode="nearest")
        if skip is not None:
            level = torch.cat([level, skip], 1)
        joined: Tensor = self.conv2(self.conv1(level))
        return joined


class UNet(nn.Module):
    """A backbone's levels, and a block of the decoder for each but the coarsest.

    There is one more, without a level, where the finest is coarser than the image.
    """

    def __init__(
        self,
        backbone: SegmenterBackbone,
        level_channels: Sequence[int],
        config: SegmenterConfig,
        num_classes: int,
    ) -> None:
        """`level_channels`: fine to coarse."""
        super().__init__()
        self.backbone = backbone
        widths = [level_channels[-1], *config.decoder_channels]
        skips = [*level_channels[-2::-1], 0]  # the 0 only where there is a block more than levels
        self.decoder = nn.ModuleList(
            DecoderBlock(widths[place], skips[place], widths[place + 1])
            for place in range(len(config.decoder_channels))
        )
        head = nn.Conv2d(widths[-1], num_classes, 3, padding=1)
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), head)
        for module in self.decoder.modules():  # segmentation-models-pytorch's initial weights
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        nn.init.xavier_uniform_(head.weight)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See `setup.build_model`. No size of an image is refused."""
        *skips, level = self.backbone(images)
        for block in self.decoder:
            skip = skips.pop() if skips else None
            level = block(level, (images if skip is None else skip).shape[-2:], skip)
        return {"out": enlarge(self.classifier(level), images.shape[-2:])}


def build_segmenter(backbone: Backbone, config: SegmenterConfig, num_classes: int) -> nn.Module:
    """See `setup.build_model`. New parts are drawn from torch's ambient generator.

    Raises:
        UsageError: the blocks are not as many as the levels at strides above 1.
    """
    levels = backbone.spec.levels()
    strides = [level.stride for level in levels]
    wanted, given = sum(stride > 1 for stride in strides), list(config.decoder_channels)
    if len(given) != wanted:
        fitting = [*given, *[given[-1]] * wanted][:wanted]
        raise UsageError(
            f"segmenter.decoder_channels is {given}, and {backbone.spec.arch} has {wanted} levels "
            f"at strides above 1 ({strides}): give as many channels, such as "
            f"--segmenter.decoder_channels '{fitting}'"
        )
    body = SegmenterBackbone(backbone, config, [level.index for level in levels])
    network = UNet(body, [level.channels for level in levels], config, num_classes)
    return synchronized(network, config)
