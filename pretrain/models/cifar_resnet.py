"""ResNets with the CIFAR stem: a 3x3 convolution of stride 1 and no pooling.

He et al. (CVPR 2016, section 4.2) feed 32x32 images to a single 3x3 convolution; with the blocks of
the ImageNet networks behind it this is the ResNet-18 that CIFAR papers mean (11.17 M parameters at
10 classes). The names of the weights are those of the stock network; only conv1 has another shape.
Feature levels lie at strides 1, 1, 2, 4, 8: a feature pyramid for detection needs 4 to 32.
"""

from typing import Any

from timm.models import generate_default_cfgs, is_model, register_model
from timm.models._builder import build_model_with_cfg
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

_CONFIG = {
    "input_size": (3, 32, 32),
    "pool_size": (4, 4),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "first_conv": "conv1",
    "classifier": "fc",
    "num_classes": 10,
}
# the name under which timm looks for them
default_cfgs = generate_default_cfgs(
    {f"resnet{depth}_cifar": dict(_CONFIG) for depth in (18, 34, 50)}
)


class CifarResNet(ResNet):
    """timm's ResNet behind a CIFAR stem."""

    def __init__(self, block: Any, layers: tuple[int, ...], **options: Any) -> None:
        super().__init__(block, layers, **options)
        levels: Any = self.feature_info
        stem = nn.Conv2d(self.in_chans, levels[0]["num_chs"], 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.add_module("conv1", stem)
        self.add_module("maxpool", nn.Identity())
        for level in levels:
            level["reduction"] = max(1, level["reduction"] // 4)


def resnet18_cifar(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-18 for 32x32 images, 0.56 GMACs each."""
    return _build("resnet18_cifar", BasicBlock, (2, 2, 2, 2), pretrained, options)


def resnet34_cifar(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-34 for 32x32 images, 1.16 GMACs each."""
    return _build("resnet34_cifar", BasicBlock, (3, 4, 6, 3), pretrained, options)


def resnet50_cifar(pretrained: bool = False, **options: Any) -> nn.Module:
    """ResNet-50 for 32x32 images, 1.30 GMACs each."""
    return _build("resnet50_cifar", Bottleneck, (3, 4, 6, 3), pretrained, options)


def _build(
    name: str,
    block: type[BasicBlock] | type[Bottleneck],
    layers: tuple[int, ...],
    pretrained: bool,
    options: dict[str, Any],
) -> nn.Module:
    return build_model_with_cfg(
        CifarResNet,
        name,
        pretrained,
        block=block,
        layers=layers,
        **options,
    )


def register_cifar_resnets() -> None:
    """Register the functions above by their names."""
    for build in (resnet18_cifar, resnet34_cifar, resnet50_cifar):
        if not is_model(build.__name__):
            register_model(build)
