"""ResNets with the stride in the first 1x1 convolution, as MSRA's Caffe networks have it.

He et al. (CVPR 2016) halve the image in the first 1x1 convolution of a stage; fb.torch.resnet,
torchvision, timm and the CutMix release do it in the 3x3 behind it. The names and shapes of the
weights are the same, the function is not: nothing but the architecture's name can tell them apart.
"""

from typing import Any

from timm.models import generate_default_cfgs, is_model, register_model
from timm.models._builder import build_model_with_cfg
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

# what MSRA's files expect, as detectron2 feeds them: 0 to 255, the mean taken off, not scaled
_CONFIG = {
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bilinear",
    "mean": (123.675 / 255, 116.28 / 255, 103.53 / 255),
    "std": (1 / 255, 1 / 255, 1 / 255),
    "first_conv": "conv1",
    "classifier": "fc",
    "num_classes": 1000,
}
_LAYERS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# the name under which timm looks for them
default_cfgs = generate_default_cfgs({f"resnet{depth}_caffe": dict(_CONFIG) for depth in _LAYERS})


class CaffeResNet(ResNet):
    """timm's ResNet of bottlenecks, its strides moved."""

    def __init__(self, block: Any, layers: tuple[int, ...], **options: Any) -> None:
        super().__init__(block, layers, **options)
        stages: Any = (self.layer2, self.layer3, self.layer4)
        for first in (stage[0] for stage in stages):
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride


def resnet50_caffe(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 with the stride in the first 1x1."""
    return _build(50, pretrained, options)


def resnet101_caffe(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-101 with the stride in the first 1x1."""
    return _build(101, pretrained, options)


def resnet152_caffe(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-152 with the stride in the first 1x1."""
    return _build(152, pretrained, options)


def _build(depth: int, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    return build_model_with_cfg(
        CaffeResNet,
        f"resnet{depth}_caffe",
        pretrained,
        block=Bottleneck,
        layers=_LAYERS[depth],
        **options,
    )


def register_caffe_resnets() -> None:
    """Register the functions above by their names."""
    for build in (resnet50_caffe, resnet101_caffe, resnet152_caffe):
        if not is_model(build.__name__):
            register_model(build)
