"""Key maps: how other programs name the tensors of a network, as rows of which one fits each name.

A row is (ours, theirs). `<b>` is the number of a block, `<k>` of a convolution, `<p>` a parameter
or statistic, `<rest>` anything; each stands on both sides. Both directions are derived from the
rows, and the tests hold each map against lists of names from the libraries themselves. Ours are
timm's names, which for ResNets are torchvision's and the CutMix release's.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeVar

Row = tuple[str, str]
Value = TypeVar("Value")

_PLACEHOLDERS = {
    "<b>": r"(?P<b>\d+)",
    "<k>": r"(?P<k>[1-3])",
    "<p>": r"(?P<p>weight|bias|running_mean|running_var|num_batches_tracked)",
    "<rest>": r"(?P<rest>.+)",
}


@dataclass(frozen=True)
class KeyMap:
    """One program's names. `ignored`: expressions for names that are no part of the network."""

    rows: Sequence[Row]
    ignored: Sequence[str] = ()
    architectures: Sequence[tuple[str, dict[str, Any]]] = ()
    """Where not empty, the only ones that names like these belong to, with their arguments."""

    def ours(self, theirs: str) -> str | None:
        """Our name for one of theirs; None where no row fits."""
        return _translate(theirs, self._from_theirs)

    def theirs(self, ours: str) -> str | None:
        """Their name for one of ours; None where no row fits."""
        return _translate(ours, self._from_ours)

    @cached_property
    def _from_theirs(self) -> "Patterns":
        return _split((theirs, ours) for ours, theirs in self.rows)

    @cached_property
    def _from_ours(self) -> "Patterns":
        return _split(self.rows)

    def rename(self, weights: Mapping[str, Value]) -> dict[str, Value] | None:
        """Weights under our names; None where a name has no row, or two become one."""
        ignored = set(self.find_ignored(weights))
        kept: dict[str, Value] = {}
        for name, value in weights.items():
            if name not in ignored:
                if (ours := self.ours(name)) is None or ours in kept:
                    return None
                kept[ours] = value
        return kept

    def find_ignored(self, names: Iterable[str]) -> list[str]:
        """Their names that `rename` leaves out."""
        return [n for n in names if any(re.fullmatch(pattern, n) for pattern in self.ignored)]


# what a name begins with, the whole left side, the right side
Patterns = list[tuple[str, str, str]]


def _translate(name: str, patterns: Patterns) -> str | None:
    """From the left side of the first row that fits to its right side."""
    for begin, left, right in patterns:
        if name.startswith(begin) and (match := _compile(left).fullmatch(name)):
            return re.sub(r"<(\w+)>", lambda found: str(match[found[1]]), right)
    return None


def _split(rows: Iterable[Row]) -> Patterns:
    return [(left.partition("<")[0], left, right) for left, right in rows]


@cache
def _compile(left: str) -> re.Pattern[str]:
    pattern = re.escape(left)
    for placeholder, expression in _PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(placeholder), expression)
    return re.compile(pattern)


def _stages(*rows: Row) -> list[Row]:
    """Rows for `layer1` to `layer4`, which Caffe2 and detectron2 call `res2` to `res5`."""
    return [
        (f"layer{stage}.<b>.{ours}", theirs.replace("RES", f"res{stage + 1}"))
        for stage in (1, 2, 3, 4)
        for ours, theirs in rows
    ]


def _detectron2(classifier: str) -> KeyMap:
    return KeyMap(
        [
            ("conv1.weight", "stem.conv1.weight"),
            ("bn1.<p>", "stem.conv1.norm.<p>"),
            ("fc.<p>", f"{classifier}.<p>"),
            *_stages(
                ("conv<k>.weight", "RES.<b>.conv<k>.weight"),
                ("bn<k>.<p>", "RES.<b>.conv<k>.norm.<p>"),
                ("downsample.0.weight", "RES.<b>.shortcut.weight"),
                ("downsample.1.<p>", "RES.<b>.shortcut.norm.<p>"),
            ),
        ],
        ignored=[r"stem\.conv1\.bias"],  # of MSRA's ResNet-50; detectron2 ignores it too
    )


def _caffe2(classifier: str) -> KeyMap:
    statistics = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}

    def norm(ours: str, theirs: str) -> list[Row]:
        return [(f"{ours}.{name}", f"{theirs}_bn_{short}") for name, short in statistics.items()]

    branches = {"1": "RES_<b>_branch2a", "2": "RES_<b>_branch2b", "3": "RES_<b>_branch2c"}
    return KeyMap(
        [
            ("conv1.weight", "conv1_w"),
            ("fc.weight", f"{classifier}_w"),
            ("fc.bias", f"{classifier}_b"),
            *norm("bn1", "res_conv1"),
            *_stages(
                ("downsample.0.weight", "RES_<b>_branch1_w"),
                *norm("downsample.1", "RES_<b>_branch1"),
                *((f"conv{number}.weight", f"{theirs}_w") for number, theirs in branches.items()),
                *(
                    row
                    for number, theirs in branches.items()
                    for row in norm(f"bn{number}", theirs)
                ),
            ),
        ],
        # training state; and the bias that detectron2 ignores too
        ignored=[r".*_momentum", r"lr", r"model_iter", r"weight_order", r"conv1_b"],
    )


PLAIN = KeyMap([("<rest>", "<rest>")])
DETECTRON2 = _detectron2("stem.fc")  # what its own converter makes of a classifier
DETECTRON2_MSRA = _detectron2("fc1000")
CAFFE2_MSRA = _caffe2("fc1000")
CAFFE2_FAIR = _caffe2("pred")
MMPRETRAIN = KeyMap(
    [
        ("fc.<p>", "head.fc.<p>"),
        *(
            (f"layer{s}.<b>.se.fc{n}.<p>", f"backbone.layer{s}.<b>.se_layer.conv{n}.conv.<p>")
            for s in (1, 2, 3, 4)
            for n in (1, 2)
        ),
        ("<rest>", "backbone.<rest>"),
    ]
)
# ResNetV1d: three convolutions in the stem, a pooled shortcut that the first stage does without
MMPRETRAIN_DEEP_STEM = KeyMap(
    [
        ("fc.<p>", "head.fc.<p>"),
        ("conv1.0.weight", "backbone.stem.0.conv.weight"),
        ("conv1.1.<p>", "backbone.stem.0.bn.<p>"),
        ("conv1.3.weight", "backbone.stem.1.conv.weight"),
        ("conv1.4.<p>", "backbone.stem.1.bn.<p>"),
        ("conv1.6.weight", "backbone.stem.2.conv.weight"),
        ("bn1.<p>", "backbone.stem.2.bn.<p>"),
        ("layer1.0.downsample.1.weight", "backbone.layer1.0.downsample.0.weight"),
        ("layer1.0.downsample.2.<p>", "backbone.layer1.0.downsample.1.<p>"),
        *((f"layer{s}.<rest>", f"backbone.layer{s}.<rest>") for s in (1, 2, 3, 4)),
    ]
)

_TRANSFORMERS = [
    ("conv1.weight", "embedder.embedder.convolution.weight"),
    ("bn1.<p>", "embedder.embedder.normalization.<p>"),
    *(
        row
        for s in (1, 2, 3, 4)
        for ours, theirs in [(f"layer{s}.<b>", f"encoder.stages.{s - 1}.layers.<b>")]
        for row in [
            (f"{ours}.downsample.0.weight", f"{theirs}.shortcut.convolution.weight"),
            (f"{ours}.downsample.1.<p>", f"{theirs}.shortcut.normalization.<p>"),
            *(
                row
                for k in (1, 2, 3)
                for row in [
                    (f"{ours}.conv{k}.weight", f"{theirs}.layer.{k - 1}.convolution.weight"),
                    (f"{ours}.bn{k}.<p>", f"{theirs}.layer.{k - 1}.normalization.<p>"),
                ]
            ),
        ]
    ),
]
TRANSFORMERS = KeyMap(
    [
        *((ours, f"resnet.{theirs}") for ours, theirs in _TRANSFORMERS),
        ("fc.<p>", "classifier.1.<p>"),
    ]
)


def _sequential(first_stage: int) -> KeyMap:
    """nn.Sequential(*network.children()): numbers instead of names."""
    return KeyMap(
        [
            ("conv1.weight", "0.weight"),
            ("bn1.<p>", "1.<p>"),
            *((f"layer{s}.<rest>", f"{first_stage + s - 1}.<rest>") for s in (1, 2, 3, 4)),
            ("fc.<p>", f"{first_stage + 5}.<p>"),
        ]
    )


def _paddle_clas(layers: Sequence[int], deep: bool) -> KeyMap:
    """PaddleClas numbers the blocks of all stages; its deep stem is that of ResNet-D."""
    stem = [("conv1.weight", "stem.0.conv.weight"), ("bn1.<p>", "stem.0.bn.<p>")]
    if deep:
        stem = [
            *((f"conv1.{3 * n}.weight", f"stem.{n}.conv.weight") for n in (0, 1, 2)),
            *((f"conv1.{3 * n + 1}.<p>", f"stem.{n}.bn.<p>") for n in (0, 1)),
            ("bn1.<p>", "stem.2.bn.<p>"),
        ]
    rows, number = [*stem, ("fc.<p>", "fc.<p>")], 0
    for stage, depth in enumerate(layers, 1):
        for block in range(depth):
            ours, theirs = f"layer{stage}.{block}", f"blocks.{number}"
            shift = int(deep)  # behind the pooling
            rows += [
                (f"{ours}.downsample.{shift}.weight", f"{theirs}.short.conv.weight"),
                (f"{ours}.downsample.{shift + 1}.<p>", f"{theirs}.short.bn.<p>"),
            ]
            for k in (1, 2, 3):
                rows.append((f"{ours}.conv{k}.weight", f"{theirs}.conv{k - 1}.conv.weight"))
                rows.append((f"{ours}.bn{k}.<p>", f"{theirs}.conv{k - 1}.bn.<p>"))
            number += 1
    return KeyMap(rows)


# github.com/kuangliu/pytorch-cifar and those after it
CIFAR = KeyMap(
    [
        ("fc.<p>", "linear.<p>"),
        *(
            (f"layer{s}.<b>.downsample.<rest>", f"layer{s}.<b>.shortcut.<rest>")
            for s in (1, 2, 3, 4)
        ),
        ("conv1.weight", "conv1.weight"),
        ("bn1.<p>", "bn1.<p>"),
        *((f"layer{s}.<b>.<rest>", f"layer{s}.<b>.<rest>") for s in (1, 2, 3, 4)),
    ]
)
# github.com/akamaster/pytorch_resnet_cifar10: three stages, shortcuts without weights
AKAMASTER = KeyMap(
    [
        ("fc.<p>", "linear.<p>"),
        ("conv1.weight", "conv1.weight"),
        ("bn1.<p>", "bn1.<p>"),
        *(
            (f"layer{s}.<b>.{kind}<k>.<p>", f"layer{s}.<b>.{kind}<k>.<p>")
            for s in (1, 2, 3)
            for kind in ("conv", "bn")
        ),
    ],
    architectures=[(f"resnet{depth}_cifar", {}) for depth in (20, 32, 44, 56, 110)],
)
# github.com/weiaicunzai/pytorch-cifar100
CIFAR_100 = KeyMap(
    [
        ("conv1.weight", "conv1.0.weight"),
        ("bn1.<p>", "conv1.1.<p>"),
        ("fc.<p>", "fc.<p>"),
        *(
            row
            for s in (1, 2, 3, 4)
            for ours, theirs in [(f"layer{s}.<b>", f"conv{s + 1}_x.<b>")]
            for row in [
                (f"{ours}.downsample.<rest>", f"{theirs}.shortcut.<rest>"),
                *(
                    (f"{ours}.{kind}{k}.<p>", f"{theirs}.residual_function.{3 * k - 3 + shift}.<p>")
                    for k in (1, 2, 3)
                    for shift, kind in enumerate(("conv", "bn"))
                ),
            ]
        ),
    ]
)
_BOTTLENECKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

RESNET_MAPS: dict[str, KeyMap] = {
    "timm and torchvision": PLAIN,
    "detectron2": DETECTRON2,
    "detectron2, MSRA's classifier": DETECTRON2_MSRA,
    "Caffe2 of MSRA": CAFFE2_MSRA,
    "Caffe2 of FAIR": CAFFE2_FAIR,
    "mmpretrain and openmixup": MMPRETRAIN,
    "mmpretrain and openmixup, deep stem": MMPRETRAIN_DEEP_STEM,
    "transformers' ResNet": TRANSFORMERS,
    "transformers' ResNet, without classifier": KeyMap(_TRANSFORMERS),
    "Sequential of its children": _sequential(4),
    "Sequential of its children, without pooling": _sequential(3),
    "pytorch_resnet_cifar10": AKAMASTER,
    "pytorch-cifar": CIFAR,
    "pytorch-cifar100": CIFAR_100,
    **{
        f"PaddleClas, ResNet-{depth}{'-vd' if deep else ''}": _paddle_clas(layers, deep)
        for depth, layers in _BOTTLENECKS.items()
        for deep in (False, True)
    },
}
