"""What neither names nor shapes say of a network: settled by the source, asked for, or assumed."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from torch import nn

from pretrain.errors import UsageError
from transfer.formats.architectures import CAFFE, RESNET_SHAPES
from transfer.formats.sources import Overrides, Preprocessing

_TWINS = CAFFE | {caffe: stock for stock, caffe in CAFFE.items()}


def eps_of(network: nn.Module) -> dict[str, float]:
    """Of the network's BatchNorms, by their names."""
    norms = (nn.BatchNorm2d, nn.BatchNorm1d)
    return {name: m.eps for name, m in network.named_modules() if isinstance(m, norms)}


def settle_strides(
    arch: str, preprocessing: Preprocessing, overrides: Overrides, path: Path
) -> str:
    """resnet50 or resnet50_caffe: the same shapes, told apart by the source alone."""
    stride, twin = preprocessing.stride, _TWINS.get(arch)
    if stride is None and arch in CAFFE:
        raise UsageError(
            f"{path}: a {arch} may have its strides in the 3x3 convolutions (torchvision, "
            f"timm) or in the 1x1 (MSRA, Caffe). Give --arch {arch} or --arch {twin}."
        )
    shape = RESNET_SHAPES.get(arch)
    if stride == "1x1" and twin is None and (shape is None or shape.block == "bottleneck"):
        raise UsageError(f"{path}: a {arch} with its strides in the 1x1 is not supported.")
    own = "3x3" if arch in CAFFE else "1x1"
    if twin is None or stride in (None, own):
        return arch
    if overrides.arch is not None or own == "1x1":
        raise UsageError(
            f"--arch {arch} has its strides in the {own} convolutions, {preprocessing.origin} in "
            f"the {stride}: give --arch {twin}, or leave --arch away."
        )
    return twin


def leaves_stem_open(arch: str, arguments: Mapping[str, Any]) -> bool:
    """True for a CIFAR stem whose pool and padding nobody has stated."""
    shape = RESNET_SHAPES.get(arch)
    answered = {"stem_pool", "stem_padding"} & set(arguments)
    return shape is not None and shape.stem == "3x3" and not answered


def require_stem(arch: str, preprocessing: Preprocessing, overrides: Overrides, path: Path) -> None:
    """Networks of CIFAR's stem, told apart by the source or an argument alone."""
    if preprocessing.stem or overrides.arch or not leaves_stem_open(arch, overrides.model_args):
        return
    raise UsageError(
        f"{path}: behind the 3x3 stem of a {arch} there may be a max-pool or none, and its "
        f"padding may be 1 or 2. Give --arch {arch} for none and 1, --model-arg stem_pool=max "
        "for the pool, --model-arg stem_padding=2."
    )


def list_assumed(
    arch: str,
    arguments: Mapping[str, Any],
    network: nn.Module,
    unsaid: Sequence[str],
    overrides: Overrides,
) -> list[str]:
    """What nothing says of the network's function, each fact with the option that decides it."""
    assumed = []
    if arch.startswith("pyramidnet") and "shakedrop_rate" not in arguments:
        assumed.append("no ShakeDrop, which has no weights; --model-arg shakedrop_rate=0.5 has it")
    if not unsaid:
        return assumed
    takes = inspect.signature(type(network).__init__).parameters
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    eps = sorted(set(eps_of(network).values()))
    if "channels" in unsaid:
        assumed.append("the first convolution takes red, green, blue; --channels bgr turns it")
    # a strided convolution without overlap pads nothing
    if "padding" in unsaid and any(
        c.stride[0] > 1 and c.kernel_size[0] > c.stride[0] for c in convolutions
    ):
        is_same = arch.startswith("tf_")
        twin = arch.removeprefix("tf_") if is_same else f"tf_{arch}"
        pads, other = ("SAME, as TensorFlow", "PyTorch") if is_same else (
            "on both sides alike, as PyTorch", "TensorFlow and JAX (SAME)")  # fmt: skip
        option = f"--arch {twin} pads as {other}"
        if not timm.is_model(twin):
            option = f"no architecture here pads a {arch} as {other}"
        assumed.append(f"convolutions pad {pads}; {option}")
    if "dilation" in unsaid and "output_stride" in takes and "output_stride" not in arguments:
        assumed.append("no stride is replaced by dilation; --model-arg output_stride=16 or 8 is")
    if "activation" in unsaid and "act_layer" in takes and "act_layer" not in arguments:
        places = ("nn.modules.activation", "timm.layers.act")
        kinds = [type(m) for m in network.modules() if type(m).__module__.startswith(places)]
        name = max(kinds, key=kinds.count).__name__ if kinds else "the architecture's own"
        assumed.append(f"the activation is {name}; --model-arg act_layer=NAME")
    if "eps" in unsaid and eps and overrides.bn_eps is None:
        assumed.append(f"BatchNorm's eps is {', '.join(map(str, eps))}; --bn-eps NUMBER")
    groups = {m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)}
    if groups - {1}:
        assumed.append(f"GroupNorm has {max(groups)} groups; no option has another number")
    return assumed
