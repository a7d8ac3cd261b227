"""timm's ResNet behind a CIFAR stem, and with the strides of MSRA's Caffe networks.

He et al. (CVPR 2016, section 4.2) feed 32x32 images to a single 3x3 convolution; with the blocks of
the ImageNet networks behind it this is the ResNet-18 that CIFAR papers mean (11.17 M parameters at
10 classes). The names of the weights are those of the stock network; only conv1 has another shape.
Feature levels lie at strides 1, 1, 2, 4, 8: a feature pyramid for detection needs 4 to 32.

The same paper halves the image in the first 1x1 convolution of a stage; fb.torch.resnet,
torchvision, timm and the CutMix release do it in the 3x3 behind it. Names and shapes of the weights
are the same, the function is not: only the architecture's name tells the two apart.

Neither do they show what a stem does beside its weights, or how an image is padded. CIFAR networks
exist with and without the max-pool, with one and with two pixels of padding: arguments say which.
TensorFlow and JAX pad by SAME, where a strided convolution sees more of the right and lower edge.

DropBlock as its authors train ResNet-50 with it is more than timm's drop_block_rate, which has
blocks of 5 and 3 behind the 3x3 convolutions alone.
"""

from typing import Any, Literal

from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from timm.models.resnet import ResNet
from torch import nn

from pretrain.errors import UsageError
from pretrain.models.dropblock import DropBlock


class CifarResNet(ResNet):
    """A 3x3 convolution of stride 1 before the blocks.

    Args:
        block: of timm's.
        layers: blocks of each stage.
        stem_pool: max for the 3x3 max-pool of stride 2 that the ImageNet networks have.
        stem_padding: of the convolution; with 2 its output is larger than the image.
        options: of timm's ResNet.
    """

    def __init__(
        self,
        block: Any,
        layers: tuple[int, ...],
        stem_pool: Literal["none", "max"] = "none",
        stem_padding: Literal[1, 2] = 1,
        **options: Any,
    ) -> None:
        if stem_pool not in ("none", "max") or stem_padding not in (1, 2):
            raise UsageError(
                f"stem_pool is {stem_pool!r} and stem_padding {stem_padding!r}; they must be none "
                "or max, and 1 or 2."
            )
        super().__init__(block, layers, **options)
        levels: Any = self.feature_info
        width = levels[0]["num_chs"]
        stem = nn.Conv2d(self.in_chans, width, 3, padding=stem_padding, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.add_module("conv1", stem)
        if stem_pool == "none":
            self.add_module("maxpool", nn.Identity())
        for level in levels:
            level["reduction"] = max(1, level["reduction"] // (4 if stem_pool == "none" else 2))


class CaffeResNet(ResNet):
    """A ResNet of bottlenecks with the stride in the first 1x1 convolution of a stage."""

    def __init__(self, block: Any, layers: tuple[int, ...], **options: Any) -> None:
        super().__init__(block, layers, **options)
        stages: Any = (self.layer2, self.layer3, self.layer4)
        for first in (stage[0] for stage in stages):
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride


class SameResNet(ResNet):
    """A ResNet that pads as TensorFlow and JAX do by SAME, in the stem, its pool and the blocks."""

    def __init__(self, block: Any, layers: tuple[int, ...], **options: Any) -> None:
        super().__init__(block, layers, **options)
        for parent in list(self.modules()):
            for name, conv in list(parent.named_children()):
                if isinstance(conv, nn.Conv2d) and conv.stride[0] > 1 and conv.kernel_size[0] > 1:
                    same = Conv2dSame(
                        conv.in_channels, conv.out_channels, conv.kernel_size[0],
                        conv.stride[0], groups=conv.groups, bias=False,
                    )  # fmt: skip
                    same.weight = conv.weight
                    parent.add_module(name, same)
        self.add_module("maxpool", MaxPool2dSame(3, 2))


class DropBlockResNet(ResNet):
    """DropBlock behind each convolution of the last two stages, and on the shortcuts (section 4.1).

    As in the authors' code (tensorflow/tpu, models/official/resnet: groups 3,4), where the third
    stage has a quarter of the rate. There it rises from 0 over the run; here it is constant.

    Args:
        block: of timm's, a bottleneck.
        layers: blocks of each stage.
        drop_block_rate: of the fourth stage; 1 - keep_prob.
        drop_block_size: side of a block in both stages.
        options: of timm's ResNet.
    """

    def __init__(
        self,
        block: Any,
        layers: tuple[int, ...],
        drop_block_rate: float = 0.1,
        drop_block_size: int = 7,
        **options: Any,
    ) -> None:
        super().__init__(block, layers, **options)
        stages: Any = (self.layer3, self.layer4)
        for stage, rate in zip(stages, (drop_block_rate / 4, drop_block_rate), strict=True):
            for one in stage:
                drop = DropBlock(rate, drop_block_size)  # without weights: names stay
                one.act1 = nn.Sequential(one.act1, drop)
                one.drop_block = drop
                one.drop_path = drop  # behind the last BN
                one.downsample = nn.Sequential(*(one.downsample or ()), drop)
