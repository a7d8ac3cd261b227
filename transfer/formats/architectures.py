"""Which network a set of names and shapes belongs to, for the families of residual networks.

Depth, groups, widths, stem and squeeze-excitation are read off the shapes, and a table gives the
name. The shapes do not show where the strides are. This is the guess; strict loading verifies it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Size

Shapes = Mapping[str, Size]


@dataclass(frozen=True)
class ResNetShape:
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
_NEXT = {"50_32x4d": (32, 4), "101_32x4d": (32, 4), "101_32x8d": (32, 8), "101_64x4d": (64, 4),
         "101_32x16d": (32, 16), "101_32x32d": (32, 32)}  # fmt: skip


def _architectures() -> dict[str, ResNetShape]:
    rows: dict[str, ResNetShape] = {}
    for depth, layers in _BASIC.items():
        rows[f"resnet{depth}"] = ResNetShape("basic", layers)
        rows[f"seresnet{depth}"] = ResNetShape("basic", layers, squeeze=True)
        rows[f"resnet{depth}_cifar"] = ResNetShape("basic", layers, stem="3x3")
        rows[f"resnet{depth}d"] = ResNetShape("basic", layers, stem="32-32-64", pooled=True)
    for depth, layers in _DEEP.items():
        rows[f"resnet{depth}"] = ResNetShape("bottleneck", layers)
        rows[f"resnet{depth}d"] = ResNetShape("bottleneck", layers, stem="32-32-64", pooled=True)
        if depth != "26":
            rows[f"seresnet{depth}"] = ResNetShape("bottleneck", layers, squeeze=True)
            rows[f"resnet{depth}c"] = ResNetShape("bottleneck", layers, stem="32-32-64")
            rows[f"resnet{depth}s"] = ResNetShape("bottleneck", layers, stem="64-64-128")
    for name, (groups, width) in _NEXT.items():
        layers = _DEEP[name.split("_")[0]]
        rows[f"resnext{name}"] = ResNetShape("bottleneck", layers, groups, width)
        if width <= 8:
            rows[f"seresnext{name}"] = ResNetShape(
                "bottleneck", layers, groups, width, squeeze=True
            )
    rows["wide_resnet50_2"] = ResNetShape("bottleneck", _DEEP["50"], 1, 128)
    rows["wide_resnet101_2"] = ResNetShape("bottleneck", _DEEP["101"], 1, 128)
    rows["resnet50_cifar"] = ResNetShape("bottleneck", _DEEP["50"], stem="3x3")
    rows["resnet10t"] = ResNetShape("basic", (1, 1, 1, 1), stem="24-32-64", pooled=True)
    rows["resnet14t"] = ResNetShape("bottleneck", (1, 1, 1, 1), stem="24-32-64", pooled=True)
    rows["resnet26t"] = ResNetShape("bottleneck", (2, 2, 2, 2), stem="24-32-64", pooled=True)
    return rows


RESNET_SHAPES: dict[str, ResNetShape] = _architectures()
ARCHITECTURES: dict[ResNetShape, str] = {shape: name for name, shape in RESNET_SHAPES.items()}
# the same shapes, the stride in the first 1x1: only the source of a file can tell these apart
CAFFE = {f"resnet{depth}": f"resnet{depth}_caffe" for depth in (50, 101, 152)}


def infer(shapes: Shapes) -> tuple[str, dict[str, int | bool]] | None:
    """The architecture of these names (ours) and shapes and its arguments, or None."""
    if "bn_final.weight" in shapes:
        return _infer_pyramidnet(shapes)
    arch = ARCHITECTURES.get(shape) if (shape := _resnet_shape(shapes)) else None
    return (arch, {}) if arch else None


def _resnet_shape(shapes: Shapes) -> ResNetShape | None:
    layers = tuple(_count_blocks(shapes, stage) for stage in (1, 2, 3, 4))
    middle = shapes.get("layer1.0.conv2.weight")
    if 0 in layers or middle is None or len(middle) != 4 or not all(middle):
        return None
    squeeze = any(".se." in name for name in shapes)
    pooled = len(shapes.get("layer2.0.downsample.1.weight", ())) == 4
    if "layer1.0.conv3.weight" not in shapes:
        return ResNetShape("basic", layers, 1, 64, _infer_stem(shapes), squeeze, pooled)
    groups = middle[0] // middle[1]
    width = middle[0] // max(groups, 1)
    return ResNetShape("bottleneck", layers, groups, width, _infer_stem(shapes), squeeze, pooled)


def _infer_stem(shapes: Shapes) -> str:
    if first := shapes.get("conv1.weight"):
        return f"{first[-1]}x{first[-1]}" if len(first) == 4 else "?"
    widths = [shapes.get(f"conv1.{index}.weight") for index in (0, 3, 6)]
    return "-".join(str(shape[0]) if shape else "?" for shape in widths)


def _infer_pyramidnet(shapes: Shapes) -> tuple[str, dict[str, int | bool]] | None:
    """Depth from the number of blocks, alpha from the width of the last."""
    blocks = [_count_blocks(shapes, stage) for stage in (1, 2, 3)]
    last = shapes.get(f"layer3.{blocks[2] - 1}.conv2.weight")
    if blocks[0] == 0 or len(set(blocks)) != 1 or last is None or len(last) != 4:
        return None
    bottleneck = "layer1.0.conv3.weight" in shapes
    depth = (9 if bottleneck else 6) * blocks[0] + 2
    alpha = last[0] - 16  # the release's own networks have a whole alpha
    if bottleneck and (depth, alpha) in ((200, 240), (110, 64)):
        return f"pyramidnet{depth}_a{alpha}", {}
    return "pyramidnet", {"depth": depth, "alpha": alpha, "bottleneck": bottleneck}


def _count_blocks(shapes: Shapes, stage: int) -> int:
    """Of a stage; 0 where their numbers have a gap."""
    matches = (re.match(rf"layer{stage}\.(\d{{1,3}})\.", name) for name in shapes)
    numbers = {int(match.group(1)) for match in matches if match}
    return len(numbers) if numbers == set(range(len(numbers))) else 0
