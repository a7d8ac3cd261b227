"""Networks that timm lacks, under names that timm knows once `register` was called."""

from collections.abc import Callable
from functools import partial
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, is_model, register_model
from timm.models._builder import build_model_with_cfg
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from pretrain.models.cifar_resnet import ThreeStageResNet
from pretrain.models.pyramidnet import PyramidNet
from pretrain.models.resnet import CaffeResNet, CifarResNet, DropBlockResNet, SameResNet
from pretrain.models.unet_encoder import UNetEncoder
from pretrain.models.vgg_gap import VGGGAP


def _describe(size: int, pool: int, crop_pct: float, mean: Any, std: Any, num_classes: int) -> Any:
    """What timm is told of a network."""
    return {
        "input_size": (3, size, size),
        "pool_size": (pool, pool),
        "crop_pct": crop_pct,
        "mean": mean,
        "std": std,
        "num_classes": num_classes,
        "interpolation": "bilinear",
        "first_conv": "conv1",
        "classifier": "fc",
    }


_CIFAR10 = _describe(32, 4, 1.0, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 10)
_CIFAR100_STATISTICS = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)
_CIFAR100 = _describe(32, 8, 1.0, *_CIFAR100_STATISTICS, 100)
# what MSRA's files expect, as detectron2 feeds them: 0 to 255, the mean taken off, not scaled
_CAFFE_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
_CAFFE = _describe(224, 7, 0.875, _CAFFE_MEAN, (1 / 255, 1 / 255, 1 / 255), 1000)

_IMAGENET = _describe(224, 7, 0.875, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, 1000)

_UNET = _describe(224, 14, 0.875, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, 1000)
_UNET["first_conv"] = "stages.0.0"
_VGG = _describe(224, 14, 0.875, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, 1000)
_VGG["first_conv"] = "features.0"

# what github.com/akamaster/pytorch_resnet_cifar10 trains with
_CIFAR10_IMAGENET = _describe(32, 8, 1.0, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, 10)


def _with_levels(network: type[nn.Module], count: int) -> Callable[..., nn.Module]:
    """What builds a network of ours that gives its levels by `forward_intermediates`."""

    def build(name: str, pretrained: bool, **options: Any) -> nn.Module:
        # timm writes into it
        levels = {"out_indices": tuple(range(count)), "feature_cls": "getter"}
        return build_model_with_cfg(network, name, pretrained, feature_cfg=levels, **options)

    return build


_pyramidnet = _with_levels(PyramidNet, 3)
_three_stages = _with_levels(ThreeStageResNet, 3)
_cifar_resnet = partial(build_model_with_cfg, CifarResNet)
_caffe_resnet = partial(build_model_with_cfg, CaffeResNet, block=Bottleneck)
_same_resnet = partial(build_model_with_cfg, SameResNet)
_dropblock_resnet = partial(build_model_with_cfg, DropBlockResNet, block=Bottleneck)
# name -> how timm feeds it, what builds it, with which arguments
_NETWORKS: dict[str, tuple[dict[str, Any], Callable[..., nn.Module], dict[str, Any]]] = {
    # 0.56, 1.16 and 1.30 GMACs for an image of 32x32
    "resnet18_cifar": (_CIFAR10, _cifar_resnet, {"block": BasicBlock, "layers": (2, 2, 2, 2)}),
    "resnet34_cifar": (_CIFAR10, _cifar_resnet, {"block": BasicBlock, "layers": (3, 4, 6, 3)}),
    "resnet50_cifar": (_CIFAR10, _cifar_resnet, {"block": Bottleneck, "layers": (3, 4, 6, 3)}),
    "resnet50_caffe": (_CAFFE, _caffe_resnet, {"layers": (3, 4, 6, 3)}),
    "resnet101_caffe": (_CAFFE, _caffe_resnet, {"layers": (3, 4, 23, 3)}),
    "resnet152_caffe": (_CAFFE, _caffe_resnet, {"layers": (3, 8, 36, 3)}),
    "tf_resnet18": (_IMAGENET, _same_resnet, {"block": BasicBlock, "layers": (2, 2, 2, 2)}),
    "tf_resnet34": (_IMAGENET, _same_resnet, {"block": BasicBlock, "layers": (3, 4, 6, 3)}),
    "tf_resnet50": (_IMAGENET, _same_resnet, {"block": Bottleneck, "layers": (3, 4, 6, 3)}),
    "tf_resnet101": (_IMAGENET, _same_resnet, {"block": Bottleneck, "layers": (3, 4, 23, 3)}),
    "tf_resnet152": (_IMAGENET, _same_resnet, {"block": Bottleneck, "layers": (3, 8, 36, 3)}),
    # the paper's own networks for CIFAR; 0.27 M to 1.7 M parameters
    **{
        f"resnet{depth}_cifar": (_CIFAR10_IMAGENET, _three_stages, {"depth": depth})
        for depth in (20, 32, 44, 56, 110)
    },
    # the CutMix release's, of any depth, with and without bottlenecks; table 6 (1.17 M)
    "resnet_cifar": (_CIFAR100, _three_stages, {"projection": True}),
    "resnet110_cifar_bottleneck": (
        _CIFAR100,
        _three_stages,
        {"depth": 110, "bottleneck": True, "projection": True},
    ),
    "resnet50_dropblock": (_IMAGENET, _dropblock_resnet, {"layers": (3, 4, 6, 3)}),
    # any depth, alpha and block; the paper's CIFAR network (26.8 M parameters); its light one
    # (table 6; 1.7 M)
    "pyramidnet": (_CIFAR100, _pyramidnet, {}),
    "pyramidnet200_a240": (_CIFAR100, _pyramidnet, {"depth": 200, "alpha": 240}),
    "pyramidnet110_a64": (_CIFAR100, _pyramidnet, {"depth": 110, "alpha": 64}),
    # CycleMix's, for a U-Net (18.8 M parameters without the classifier)
    "unet_encoder": (_UNET, _with_levels(UNetEncoder, 5), {}),
    # table 9's (20.5 M)
    "vgg16_gap": (_VGG, _with_levels(VGGGAP, 5), {}),
}
# the name under which timm looks for them
default_cfgs = generate_default_cfgs({name: row[0] for name, row in _NETWORKS.items()})

NAMES = frozenset(_NETWORKS)
"""What a program with timm alone cannot build."""


def register() -> None:
    """Give timm our architectures; `timm.create_model(name)` builds them afterwards."""
    for name in _NETWORKS:
        if not is_model(name):
            register_model(_entrypoint(name))


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """A function as timm registers it, by its own name."""
    _, build, arguments = _NETWORKS[name]

    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        return build(name, pretrained, **{**arguments, **options})

    create.__name__ = name
    return create


__all__ = ["NAMES", "register"]
