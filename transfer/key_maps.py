"""Key maps: how other programs name the tensors of a ResNet, as rows of which one fits each name.

A row is (ours, theirs). `<b>` is the number of a block, `<k>` of a convolution, `<p>` a parameter
or statistic, `<rest>` anything; each stands on both sides. Both directions are derived from the
rows, and the tests hold each map against lists of names from the libraries themselves. Ours are
timm's names, which for ResNets are torchvision's and the CutMix release's.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

Value = TypeVar("Value")
Row = tuple[str, str]

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

    def ours(self, theirs: str) -> str | None:
        """Our name for one of theirs; None where no row fits."""
        return _translate(theirs, tuple((right, left) for left, right in self.rows))

    def theirs(self, ours: str) -> str | None:
        """Their name for one of ours; None where no row fits."""
        return _translate(ours, tuple(self.rows))

    def rename(self, weights: Mapping[str, Value]) -> dict[str, Value] | None:
        """Weights under our names; None where a name has no row, or two become one."""
        ignored = self.find_ignored(weights)
        kept = {self.ours(name): value for name, value in weights.items() if name not in ignored}
        if None in kept or len(kept) + len(ignored) != len(weights):
            return None
        return kept  # type: ignore[return-value]

    def find_ignored(self, names: Iterable[str]) -> list[str]:
        """Their names that `rename` leaves out."""
        return [n for n in names if any(re.fullmatch(pattern, n) for pattern in self.ignored)]


def _translate(name: str, rows: tuple[Row, ...]) -> str | None:
    """From the left side of the first row that fits to its right side."""
    for pattern, template in _compile(rows):
        if match := pattern.fullmatch(name):
            return template.format(**match.groupdict())
    return None


@lru_cache
def _compile(rows: tuple[Row, ...]) -> list[tuple[re.Pattern[str], str]]:
    compiled = []
    for left, right in rows:
        pattern = re.escape(left)
        for placeholder, expression in _PLACEHOLDERS.items():
            pattern = pattern.replace(re.escape(placeholder), expression)
        compiled.append((re.compile(pattern), re.sub(r"<(\w+)>", r"{\1}", right)))
    return compiled


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

KEY_MAPS: dict[str, KeyMap] = {
    "timm and torchvision": PLAIN,
    "detectron2": DETECTRON2,
    "detectron2, MSRA's classifier": DETECTRON2_MSRA,
    "Caffe2 of MSRA": CAFFE2_MSRA,
    "Caffe2 of FAIR": CAFFE2_FAIR,
    "mmpretrain and openmixup": MMPRETRAIN,
    "mmpretrain and openmixup, deep stem": MMPRETRAIN_DEEP_STEM,
}
