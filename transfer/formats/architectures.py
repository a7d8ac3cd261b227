"""Which network a set of names and shapes belongs to, for the families of residual networks.

Depth, groups, widths, stem and squeeze-excitation are read off the shapes, and a table gives the
name. Where the strides lie is not in the shapes. Strict loading is the proof, here is the guess.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Size

Shapes = Mapping[str, Size]


@dataclass(frozen=True)
class Residual:
    """What the shapes of a four-stage ResNet tell."""

    block: Literal["basic", "bottleneck"]
    layers: tuple[int, ...]
    groups: int = 1
    width: int = 64
    """Channels of a group in the first stage's 3x3; torchvision's width_per_group."""
    stem: str = "7x7"
    """7x7, 3x3 (CIFAR), or the widths of three 3x3 convolutions: 32-32-64."""
    squeeze: bool = False
    pooled: bool = False
    """Average pooling in front of the shortcut's convolution."""


_BASIC = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3)}
_DEEP = {"26": (2, 2, 2, 2), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}
_NEXT = {"50_32x4d": (32, 4), "101_32x4d": (32, 4), "101_32x8d": (32, 8), "101_64x4d": (64, 4)}
_NEXT |= {"101_32x16d": (32, 16), "101_32x32d": (32, 32)}


def _table() -> dict[Residual, str]:
    rows: dict[Residual, str] = {}
    for depth, layers in _BASIC.items():
        rows[Residual("basic", layers)] = f"resnet{depth}"
        rows[Residual("basic", layers, squeeze=True)] = f"seresnet{depth}"
        rows[Residual("basic", layers, stem="3x3")] = f"resnet{depth}_cifar"
        rows[Residual("basic", layers, stem="32-32-64", pooled=True)] = f"resnet{depth}d"
    for depth, layers in _DEEP.items():
        rows[Residual("bottleneck", layers)] = f"resnet{depth}"
        rows[Residual("bottleneck", layers, stem="32-32-64", pooled=True)] = f"resnet{depth}d"
        if depth != "26":
            rows[Residual("bottleneck", layers, squeeze=True)] = f"seresnet{depth}"
            rows[Residual("bottleneck", layers, stem="32-32-64")] = f"resnet{depth}c"
            rows[Residual("bottleneck", layers, stem="64-64-128")] = f"resnet{depth}s"
    for name, (groups, width) in _NEXT.items():
        layers = _DEEP[name.split("_")[0]]
        rows[Residual("bottleneck", layers, groups, width)] = f"resnext{name}"
    for name in ("50_32x4d", "101_32x4d", "101_32x8d", "101_64x4d"):
        groups, width = _NEXT[name]
        layers = _DEEP[name.split("_")[0]]
        rows[Residual("bottleneck", layers, groups, width, squeeze=True)] = f"seresnext{name}"
    rows[Residual("bottleneck", _DEEP["50"], stem="3x3")] = "resnet50_cifar"
    rows[Residual("bottleneck", _DEEP["50"], 1, 128)] = "wide_resnet50_2"
    rows[Residual("bottleneck", _DEEP["101"], 1, 128)] = "wide_resnet101_2"
    rows[Residual("basic", (1, 1, 1, 1), stem="24-32-64", pooled=True)] = "resnet10t"
    rows[Residual("bottleneck", (1, 1, 1, 1), stem="24-32-64", pooled=True)] = "resnet14t"
    rows[Residual("bottleneck", (2, 2, 2, 2), stem="24-32-64", pooled=True)] = "resnet26t"
    return rows


FAMILY: dict[Residual, str] = _table()
RESIDUAL: dict[str, Residual] = {name: kind for kind, name in FAMILY.items()}
# the same shapes, the stride in the first 1x1
CAFFE = {
    "resnet50": "resnet50_caffe",
    "resnet101": "resnet101_caffe",
    "resnet152": "resnet152_caffe",
}


@dataclass(frozen=True)
class Found:
    """An architecture, and the arguments that build it."""

    arch: str
    model_args: Mapping[str, int | float | bool]


def infer(shapes: Shapes) -> Found | None:
    """The architecture of these names (ours) and shapes, or None."""
    if "bn_final.weight" in shapes:
        return _pyramid(shapes)
    kind = _residual(shapes)
    return Found(FAMILY[kind], {}) if kind in FAMILY else None


def strides_are_open(arch: str) -> bool:
    """True where another network has the same names and shapes: only the source can tell."""
    return arch in CAFFE


def _residual(shapes: Shapes) -> Residual | None:
    counts = tuple(_blocks(shapes, stage) for stage in (1, 2, 3, 4))
    middle = shapes.get("layer1.0.conv2.weight")
    if 0 in counts or middle is None or len(middle) != 4 or not all(middle):
        return None
    is_deep = "layer1.0.conv3.weight" in shapes
    groups = (middle[0] // middle[1]) if is_deep else 1
    width = middle[0] // max(groups, 1) if is_deep else 64
    return Residual(
        "bottleneck" if is_deep else "basic",
        counts,
        groups,
        width,
        _stem(shapes),
        any(".se." in name for name in shapes),
        "layer2.0.downsample.1.weight" in shapes
        and len(shapes["layer2.0.downsample.1.weight"]) == 4,
    )


def _stem(shapes: Shapes) -> str:
    first = shapes.get("conv1.weight")
    if first is not None:
        return f"{first[-1]}x{first[-1]}" if len(first) == 4 else "?"
    widths = [shapes.get(f"conv1.{place}.weight") for place in (0, 3, 6)]
    return "-".join(str(shape[0]) if shape else "?" for shape in widths)


def _pyramid(shapes: Shapes) -> Found | None:
    """Depth from the number of blocks, alpha from the width of the last."""
    blocks = [_blocks(shapes, stage) for stage in (1, 2, 3)]
    last = shapes.get(f"layer3.{blocks[2] - 1}.conv2.weight")
    if blocks[0] == 0 or len(set(blocks)) != 1 or last is None or len(last) != 4:
        return None
    bottleneck = "layer1.0.conv3.weight" in shapes
    depth = (9 if bottleneck else 6) * blocks[0] + 2
    alpha = last[0] - 16  # the release's own networks have a whole alpha
    if bottleneck and (depth, alpha) in ((200, 240), (110, 64)):
        return Found(f"pyramidnet{depth}_a{alpha}", {})
    return Found("pyramidnet", {"depth": depth, "alpha": alpha, "bottleneck": bottleneck})


def _blocks(shapes: Shapes, stage: int) -> int:
    found = {
        int(match.group(1))
        for name in shapes
        if (match := re.match(rf"layer{stage}\.(\d{{1,3}})\.", name))
    }
    return len(found) if found == set(range(len(found))) else 0
