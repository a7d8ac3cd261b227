"""Which network a set of names and shapes belongs to, for the families of residual networks.

Depth, groups, widths, stem and squeeze-excitation are read off the shapes, and a table gives the
name. The shapes do not show where the strides are. This is the guess; strict loading verifies it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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


_BLOCKS: dict[str, tuple[Literal["basic", "bottleneck"], tuple[int, ...]]] = {
    "10": ("basic", (1, 1, 1, 1)),
    "18": ("basic", (2, 2, 2, 2)),
    "34": ("basic", (3, 4, 6, 3)),
    "14": ("bottleneck", (1, 1, 1, 1)),
    "26": ("bottleneck", (2, 2, 2, 2)),
    "50": ("bottleneck", (3, 4, 6, 3)),
    "101": ("bottleneck", (3, 4, 23, 3)),
    "152": ("bottleneck", (3, 8, 36, 3)),
}
# timm's names, the depths that each is known of, and what its shapes have of their own
_FAMILIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("resnet{}", "18 34 26 50 101 152", {}),
    ("resnet{}_cifar", "18 34 50", {"stem": "3x3"}),
    ("resnet{}t", "10 14 26", {"stem": "24-32-64", "pooled": True}),
    ("resnet{}d", "18 34 26 50 101 152", {"stem": "32-32-64", "pooled": True}),
    ("resnet{}c", "50 101 152", {"stem": "32-32-64"}),
    ("resnet{}s", "50 101 152", {"stem": "64-64-128"}),
    ("seresnet{}", "18 34 50 101 152", {"squeeze": True}),
    ("wide_resnet{}_2", "50 101", {"width": 128}),
    ("resnext{}_32x4d", "50 101", {"groups": 32, "width": 4}),
    ("resnext{}_32x8d", "101", {"groups": 32, "width": 8}),
    ("resnext{}_64x4d", "101", {"groups": 64, "width": 4}),
    ("resnext{}_32x16d", "101", {"groups": 32, "width": 16}),
    ("resnext{}_32x32d", "101", {"groups": 32, "width": 32}),
    ("seresnext{}_32x4d", "50 101", {"groups": 32, "width": 4, "squeeze": True}),
    ("seresnext{}_32x8d", "101", {"groups": 32, "width": 8, "squeeze": True}),
    ("seresnext{}_64x4d", "101", {"groups": 64, "width": 4, "squeeze": True}),
)
RESNET_SHAPES: dict[str, ResNetShape] = {
    name.format(depth): ResNetShape(*_BLOCKS[depth], **own)
    for name, depths, own in _FAMILIES
    for depth in depths.split()
}
ARCHITECTURES: dict[ResNetShape, str] = {shape: name for name, shape in RESNET_SHAPES.items()}
# the same shapes, the stride in the first 1x1: only the source of a file can tell these apart
CAFFE = {f"resnet{depth}": f"resnet{depth}_caffe" for depth in (50, 101, 152)}


def infer(shapes: Shapes) -> tuple[str, dict[str, int | bool]] | None:
    """The architecture of these names (ours) and shapes and its arguments, or None."""
    if "bn_final.weight" in shapes:
        return _infer_pyramidnet(shapes)
    if "conv6.weight" in shapes and "features.28.weight" in shapes:
        return "vgg16_gap", {}  # of wsolevaluation
    middle = shapes.get("layer1.0.conv2.weight", Size())
    if len(middle) != 4 or not all(middle):
        return None
    basic = "layer1.0.conv3.weight" not in shapes
    if "layer4.0.conv1.weight" not in shapes:
        return _infer_three_stages(shapes, basic)
    groups = 1 if basic else middle[0] // middle[1]
    shape = ResNetShape(
        block="basic" if basic else "bottleneck",
        layers=tuple(_count_blocks(shapes, stage) for stage in (1, 2, 3, 4)),
        groups=groups,
        width=64 if basic else middle[0] // max(groups, 1),
        stem=_infer_stem(shapes),
        squeeze=any(".se." in name for name in shapes),
        pooled=len(shapes.get("layer2.0.downsample.1.weight", ())) == 4,
    )
    return (ARCHITECTURES[shape], {}) if shape in ARCHITECTURES else None


def _infer_stem(shapes: Shapes) -> str:
    if first := shapes.get("conv1.weight"):
        return f"{first[-1]}x{first[-1]}" if len(first) == 4 else "?"
    widths = [(*shapes.get(f"conv1.{index}.weight", ()), "?")[0] for index in (0, 3, 6)]
    return "-".join(map(str, widths))


def _infer_three_stages(shapes: Shapes, basic: bool) -> tuple[str, dict[str, int | bool]] | None:
    """A ResNet of 32x32 images: depth from the blocks, the kind of shortcut from its weights."""
    blocks = {_count_blocks(shapes, stage) for stage in (1, 2, 3)}
    depth = (6 if basic else 9) * max(blocks) + 2
    if len(blocks) != 1 or not max(blocks):
        return None
    if basic and "layer2.0.downsample.0.weight" not in shapes:
        return (f"resnet{depth}_cifar", {}) if depth in (20, 32, 44, 56, 110) else None
    if not basic and depth == 110:
        return "resnet110_cifar_bottleneck", {}
    return "resnet_cifar", {"depth": depth, "bottleneck": not basic}


def _infer_pyramidnet(shapes: Shapes) -> tuple[str, dict[str, int | bool]] | None:
    """Depth from the number of blocks, alpha from the width of the last."""
    blocks = {_count_blocks(shapes, stage) for stage in (1, 2, 3)}
    last = shapes.get(f"layer3.{max(blocks) - 1}.conv2.weight", Size())
    if len(blocks) != 1 or len(last) != 4:
        return None
    bottleneck = "layer1.0.conv3.weight" in shapes
    depth = (9 if bottleneck else 6) * max(blocks) + 2
    alpha = last[0] - 16  # the release's own networks have a whole alpha
    if bottleneck and (depth, alpha) in ((200, 240), (110, 64)):
        return f"pyramidnet{depth}_a{alpha}", {}
    return "pyramidnet", {"depth": depth, "alpha": alpha, "bottleneck": bottleneck}


def _count_blocks(shapes: Shapes, stage: int) -> int:
    """Of a stage; 0 where their numbers have a gap."""
    matches = (re.match(rf"layer{stage}\.(\d{{1,3}})\.", name) for name in shapes)
    numbers = {int(match.group(1)) for match in matches if match}
    return len(numbers) if numbers == set(range(len(numbers))) else 0
