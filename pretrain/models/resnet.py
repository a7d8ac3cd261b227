"""timm's ResNet behind a CIFAR stem, and with the strides of MSRA's Caffe networks.

He et al. (CVPR 2016, section 4.2) feed 32x32 images to a single 3x3 convolution; with the blocks of
the ImageNet networks behind it this is the ResNet-18 that CIFAR papers mean (11.17 M parameters at
10 classes). The names of the weights are those of the stock network; only conv1 has another shape.
Feature levels lie at strides 1, 1, 2, 4, 8: a feature pyramid for detection needs 4 to 32.

The same paper halves the image in the first 1x1 convolution of a stage; fb.torch.resnet,
torchvision, timm and the CutMix release do it in the 3x3 behind it. Names and shapes of the weights
are the same, the function is not: only the architecture's name tells the two apart.
"""

from typing import Any

from timm.models.resnet import ResNet
from torch import nn


class CifarResNet(ResNet):
    """A 3x3 convolution of stride 1 and no pooling before the blocks."""

    def __init__(self, block: Any, layers: tuple[int, ...], **options: Any) -> None:
        super().__init__(block, layers, **options)
        levels: Any = self.feature_info
        stem = nn.Conv2d(self.in_chans, levels[0]["num_chs"], 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.add_module("conv1", stem)
        self.add_module("maxpool", nn.Identity())
        for level in levels:
            level["reduction"] = max(1, level["reduction"] // 4)


class CaffeResNet(ResNet):
    """A ResNet of bottlenecks with the stride in the first 1x1 convolution of a stage."""

    def __init__(self, block: Any, layers: tuple[int, ...], **options: Any) -> None:
        super().__init__(block, layers, **options)
        stages: Any = (self.layer2, self.layer3, self.layer4)
        for first in (stage[0] for stage in stages):
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
