"""How the field names the tensors of a ResNet: tables of rows, one of which fits each name.

A row is (ours, theirs). `<b>` is the number of a block, `<k>` of a convolution, `<p>` a parameter
or statistic, `<rest>` anything; each stands on both sides. Both directions are
derived from the rows, and the tests hold each table against lists of names from the libraries
themselves. Ours are timm's names, which for ResNets are torchvision's and the CutMix release's.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

Value = TypeVar("Value")

_PLACES = {
    "<b>": r"(?P<b>\d+)",
    "<k>": r"(?P<k>[1-3])",
    "<p>": r"(?P<p>weight|bias|running_mean|running_var|num_batches_tracked)",
    "<rest>": r"(?P<rest>.+)",
}


@dataclass(frozen=True)
class Names:
    """One table. `ignored` are expressions for their names that carry nothing of the network."""

    rows: Sequence[tuple[str, str]]
    ignored: Sequence[str] = field(default=())

    @cached_property
    def _to_ours(self) -> Callable[[str], str | None]:
        return _rewriter([(theirs, ours) for ours, theirs in self.rows])

    @cached_property
    def _to_theirs(self) -> Callable[[str], str | None]:
        return _rewriter(self.rows)

    def ours(self, theirs: str) -> str | None:
        """Our name for one of theirs; None where no row fits."""
        return self._to_ours(theirs)

    def theirs(self, ours: str) -> str | None:
        """Their name for one of ours; None where no row fits."""
        return self._to_theirs(ours)

    def read(self, weights: Mapping[str, Value]) -> dict[str, Value] | None:
        """Weights under our names; None where a name has no row, or two have one."""
        kept = {name: value for name, value in weights.items() if not self._is_ignored(name)}
        renamed = {self.ours(name): value for name, value in kept.items()}
        if None in renamed or len(renamed) != len(kept):
            return None
        return renamed  # type: ignore[return-value]

    def left(self, weights: Mapping[str, Value]) -> list[str]:
        """Their names that `read` leaves."""
        return [name for name in weights if self._is_ignored(name)]

    def _is_ignored(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


def _rewriter(rows: Sequence[tuple[str, str]]) -> Callable[[str], str | None]:
    """A function from names of the left side to the right, the first fitting row deciding."""
    compiled = []
    for left, right in rows:
        pattern = re.escape(left)
        for place, expression in _PLACES.items():
            pattern = pattern.replace(re.escape(place), expression)
        compiled.append((re.compile(pattern), re.sub(r"<(\w+)>", r"{\1}", right)))

    def rewrite(name: str) -> str | None:
        for pattern, template in compiled:
            if found := pattern.fullmatch(name):
                return template.format(**found.groupdict())
        return None

    return rewrite


def _stages(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows for `layer1` to `layer4`, which Caffe2 and detectron2 call `res2` to `res5`."""
    return [
        (f"layer{stage}.<b>.{ours}", theirs.replace("RES", f"res{stage + 1}"))
        for stage in (1, 2, 3, 4)
        for ours, theirs in rows
    ]


PLAIN = Names([("<rest>", "<rest>")])


def _detectron2(classifier: str) -> Names:
    return Names(
        [
            ("conv1.weight", "stem.conv1.weight"),
            ("bn1.<p>", "stem.conv1.norm.<p>"),
            ("fc.<p>", f"{classifier}.<p>"),
            *_stages(
                [
                    ("conv<k>.weight", "RES.<b>.conv<k>.weight"),
                    ("bn<k>.<p>", "RES.<b>.conv<k>.norm.<p>"),
                    ("downsample.0.weight", "RES.<b>.shortcut.weight"),
                    ("downsample.1.<p>", "RES.<b>.shortcut.norm.<p>"),
                ]
            ),
        ],
        ignored=[r"stem\.conv1\.bias"],  # of MSRA's ResNet-50; detectron2 leaves it too
    )


DETECTRON2 = _detectron2("stem.fc")  # what its own converter makes of a classifier
DETECTRON2_MSRA = _detectron2("fc1000")

_BN = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
_BRANCH = {"1": "2a", "2": "2b", "3": "2c"}


def _caffe2(classifier: str) -> Names:
    return Names(
        [
            ("conv1.weight", "conv1_w"),
            ("fc.weight", f"{classifier}_w"),
            ("fc.bias", f"{classifier}_b"),
            *((f"bn1.{ours}", f"res_conv1_bn_{theirs}") for ours, theirs in _BN.items()),
            *_stages(
                [
                    ("downsample.0.weight", "RES_<b>_branch1_w"),
                    *((f"downsample.1.{o}", f"RES_<b>_branch1_bn_{t}") for o, t in _BN.items()),
                    *((f"conv{n}.weight", f"RES_<b>_branch{b}_w") for n, b in _BRANCH.items()),
                    *(
                        (f"bn{n}.{o}", f"RES_<b>_branch{b}_bn_{t}")
                        for n, b in _BRANCH.items()
                        for o, t in _BN.items()
                    ),
                ]
            ),
        ],
        # training state; and the bias that detectron2 leaves too
        ignored=[r".*_momentum", r"lr", r"model_iter", r"weight_order", r"conv1_b"],
    )


CAFFE2_MSRA = _caffe2("fc1000")
CAFFE2_FAIR = _caffe2("pred")

_MM_HEAD = [("fc.<p>", "head.fc.<p>")]
MMPRETRAIN = Names(
    [
        *_MM_HEAD,
        *(
            (f"layer{s}.<b>.se.fc{n}.<p>", f"backbone.layer{s}.<b>.se_layer.conv{n}.conv.<p>")
            for s in (1, 2, 3, 4)
            for n in (1, 2)
        ),
        ("<rest>", "backbone.<rest>"),
    ]
)
# ResNetV1d: three convolutions in the stem, a pooled shortcut that the first stage does without
MMPRETRAIN_DEEP_STEM = Names(
    [
        *_MM_HEAD,
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

TABLES: dict[str, Names] = {
    "timm and torchvision": PLAIN,
    "detectron2": DETECTRON2,
    "detectron2, MSRA's classifier": DETECTRON2_MSRA,
    "Caffe2 of MSRA": CAFFE2_MSRA,
    "Caffe2 of FAIR": CAFFE2_FAIR,
    "mmpretrain and openmixup": MMPRETRAIN,
    "mmpretrain and openmixup, deep stem": MMPRETRAIN_DEEP_STEM,
}
