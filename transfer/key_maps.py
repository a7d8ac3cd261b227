"""Key maps: how other programs name the tensors of a network, as rows of which one fits each name.

A row is (ours, theirs). `<s>` is the number of a stage, `<b>` of a block, `<k>` of a convolution,
`<p>` a parameter or statistic, `<rest>` anything; each stands on both sides. Both directions are
derived from the rows, and the tests hold each map against lists of names from the libraries
themselves. Ours are timm's names, which for ResNets are torchvision's and the CutMix release's.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeVar

Row = tuple[str, str]
Value = TypeVar("Value")

_PLACEHOLDERS = {
    "<s>": r"(?P<s>[1-4])",
    "<b>": r"(?P<b>\d+)",
    "<k>": r"(?P<k>[1-3])",
    "<p>": r"(?P<p>weight|bias|running_mean|running_var|num_batches_tracked)",
    "<rest>": r"(?P<rest>.+)",
}


@dataclass(frozen=True)
class KeyMap:
    """One program's names. `ignored`: expressions for names that are no part of the network."""

    rows: Sequence[Row]
    architectures: Sequence[tuple[str, dict[str, Any]]] = ()
    """Where not empty, the only ones that names like these belong to, with their arguments."""
    ignored: Sequence[str] = ()

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


def _stages(first: int, *rows: Row) -> list[Row]:
    """Rows for `layer1` to `layer4`, in theirs numbered from `first` on in the place of {}."""
    return [
        (f"layer{stage}.{ours}", theirs.format(first + stage - 1))
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
                2,
                ("<b>.conv<k>.weight", "res{}.<b>.conv<k>.weight"),
                ("<b>.bn<k>.<p>", "res{}.<b>.conv<k>.norm.<p>"),
                ("<b>.downsample.0.weight", "res{}.<b>.shortcut.weight"),
                ("<b>.downsample.1.<p>", "res{}.<b>.shortcut.norm.<p>"),
            ),
        ],
        ignored=[r"stem\.conv1\.bias"],  # of MSRA's ResNet-50; detectron2 ignores it too
    )


def _caffe2(classifier: str) -> KeyMap:
    statistics = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}

    def norm(ours: str, theirs: str) -> list[Row]:
        return [(f"{ours}.{name}", f"{theirs}_bn_{short}") for name, short in statistics.items()]

    branches = [(k, f"res{{}}_<b>_branch2{letter}") for k, letter in enumerate("abc", 1)]
    return KeyMap(
        [
            ("conv1.weight", "conv1_w"),
            ("fc.weight", f"{classifier}_w"),
            ("fc.bias", f"{classifier}_b"),
            *norm("bn1", "res_conv1"),
            *_stages(
                2,
                ("<b>.downsample.0.weight", "res{}_<b>_branch1_w"),
                *norm("<b>.downsample.1", "res{}_<b>_branch1"),
                *((f"<b>.conv{k}.weight", f"{theirs}_w") for k, theirs in branches),
                *(row for k, theirs in branches for row in norm(f"<b>.bn{k}", theirs)),
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
        ("layer<s>.<b>.se.fc<k>.<p>", "backbone.layer<s>.<b>.se_layer.conv<k>.conv.<p>"),
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
        ("layer<s>.<rest>", "backbone.layer<s>.<rest>"),
    ]
)
_TRANSFORMERS = [
    ("conv1.weight", "embedder.embedder.convolution.weight"),
    ("bn1.<p>", "embedder.embedder.normalization.<p>"),
    *_stages(
        0,
        ("<b>.downsample.0.weight", "encoder.stages.{}.layers.<b>.shortcut.convolution.weight"),
        ("<b>.downsample.1.<p>", "encoder.stages.{}.layers.<b>.shortcut.normalization.<p>"),
        *(
            (f"<b>.{ours}{k}.<p>", f"encoder.stages.{{}}.layers.<b>.layer.{k - 1}.{theirs}.<p>")
            for k in (1, 2, 3)
            for ours, theirs in (("conv", "convolution"), ("bn", "normalization"))
        ),
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
    stages = _stages(first_stage, ("<rest>", "{}.<rest>"))
    fc = ("fc.<p>", f"{first_stage + 5}.<p>")
    return KeyMap([("conv1.weight", "0.weight"), ("bn1.<p>", "1.<p>"), *stages, fc])


def _paddle_clas(layers: Sequence[int], deep: bool) -> KeyMap:
    """PaddleClas numbers the blocks of all stages; its deep stem is that of ResNet-D."""
    stem = [("conv1.weight", "stem.0.conv.weight"), ("bn1.<p>", "stem.0.bn.<p>")]
    if deep:
        stem = [
            *((f"conv1.{3 * n}.weight", f"stem.{n}.conv.weight") for n in (0, 1, 2)),
            *((f"conv1.{3 * n + 1}.<p>", f"stem.{n}.bn.<p>") for n in (0, 1)),
            ("bn1.<p>", "stem.2.bn.<p>"),
        ]
    shift = int(deep)  # behind the pooling
    pairs = [("downsample.{}.weight", "short.conv.weight"), ("downsample.{}.<p>", "short.bn.<p>")]
    pairs = [(ours.format(n), theirs) for n, (ours, theirs) in enumerate(pairs, shift)]
    for k in (1, 2, 3):
        pairs += [
            (f"conv{k}.weight", f"conv{k - 1}.conv.weight"),
            (f"bn{k}.<p>", f"conv{k - 1}.bn.<p>"),
        ]
    blocks = [f"layer{s}.{b}" for s, depth in enumerate(layers, 1) for b in range(depth)]
    return KeyMap(
        [
            *stem,
            ("fc.<p>", "fc.<p>"),
            *(
                (f"{block}.{ours}", f"blocks.{number}.{theirs}")
                for number, block in enumerate(blocks)
                for ours, theirs in pairs
            ),
        ]
    )


_CIFAR_STEM = [("conv1.weight", "conv1.weight"), ("bn1.<p>", "bn1.<p>")]
# github.com/kuangliu/pytorch-cifar and those after it
CIFAR = KeyMap(
    [
        ("fc.<p>", "linear.<p>"),
        ("layer<s>.<b>.downsample.<rest>", "layer<s>.<b>.shortcut.<rest>"),
        *_CIFAR_STEM,
        ("layer<s>.<b>.<rest>", "layer<s>.<b>.<rest>"),
    ]
)
# github.com/akamaster/pytorch_resnet_cifar10: three stages, shortcuts without weights
AKAMASTER = KeyMap(
    [
        ("fc.<p>", "linear.<p>"),
        *_CIFAR_STEM,
        *((f"layer{s}.<b>.{kind}<k>.<p>",) * 2 for s in (1, 2, 3) for kind in ("conv", "bn")),
    ],
    architectures=[(f"resnet{depth}_cifar", {}) for depth in (20, 32, 44, 56, 110)],
)
# github.com/weiaicunzai/pytorch-cifar100
CIFAR_100 = KeyMap(
    [
        ("conv1.weight", "conv1.0.weight"),
        ("bn1.<p>", "conv1.1.<p>"),
        ("fc.<p>", "fc.<p>"),
        *_stages(
            2,
            ("<b>.downsample.<rest>", "conv{}_x.<b>.shortcut.<rest>"),
            *(
                (f"<b>.{kind}{k}.<p>", f"conv{{}}_x.<b>.residual_function.{3 * k - 3 + shift}.<p>")
                for k in (1, 2, 3)
                for shift, kind in enumerate(("conv", "bn"))
            ),
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
