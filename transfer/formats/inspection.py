"""What a checkpoint is: each fact in a line that a person understands."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pretrain.backbone import Backbone, BackboneSpec
from pretrain.errors import UsageError, shorten
from pretrain.models import register
from transfer.detectron2_resnet import heads_of
from transfer.formats import sidecar
from transfer.formats.assumptions import leaves_stem_open
from transfer.formats.parsing import ParsedCheckpoint, parse, to_backbone
from transfer.formats.reading import is_ours, open_checkpoint, read
from transfer.formats.sources import Overrides

Line = tuple[str, str]
_LEFT_OPEN = (
    "mean, std, channel order and where the strides are: neither the file nor a list that is "
    "known here says so. Give --source, or --arch, --mean R,G,B and --std R,G,B."
)

_STEM_OPEN = (
    "whether a max-pool follows its 3x3 stem, and how that is padded: --arch as above says none "
    "and 1; --model-arg stem_pool=max, stem_padding=2."
)


@dataclass(frozen=True)
class Inspection:
    """What is known of a file, line by line; UNKNOWN is what must be answered before it is used."""

    lines: Sequence[Line]

    @property
    def flaws(self) -> list[str]:
        """What is UNKNOWN, and every WARNING."""
        return [text for title, text in self.lines if title in ("UNKNOWN", "WARNING")]

    def text(self) -> str:
        """Aligned."""
        width = max(len(title) for title, _ in self.lines)
        return "\n".join(f"{title.ljust(width)}  {text}" for title, text in self.lines)


def inspect(path: Path, overrides: Overrides, name: str | None = None) -> Inspection:
    """Look at a checkpoint file of any kind.

    Args:
        path: the file or folder.
        overrides: what it does not say of itself.
        name: what the user called it, where that is no path.

    Raises:
        UsageError: not understood at all.
    """
    register()
    file = open_checkpoint(path)
    kind = f"{file.size / 1e6:,.1f} MB, {file.container}"
    lines: list[Line] = [("file", f"{file.path} ({kind})"), ("SHA-256", file.sha256)]
    if is_ours(file) or sidecar.find(file) is not None:
        backbone = read(file.path, overrides)
    else:
        parsed = parse(file, overrides)
        lines += _describe_parsed(parsed)
        if parsed.preprocessing is None:
            lines += _describe_network(parsed, parsed.num_classes, parsed.weights)
            lines.append(("UNKNOWN", _LEFT_OPEN))
            if leaves_stem_open(parsed.arch, parsed.model_args):
                lines.append(("UNKNOWN", _STEM_OPEN))
            lines += [("note", text) for text in parsed.checkpoint.stated.get("notes", ())]
            lines += [("WARNING", text) for text in find_flaws(parsed.weights, parsed.filled)]
            return Inspection(lines)
        try:
            backbone = to_backbone(parsed, file)
        except UsageError as error:  # NaN: the other facts are still worth a line
            return Inspection([*lines, ("WARNING", str(error))])
    lines += _describe_backbone(backbone, name)
    filled = (backbone.provenance.stated or {}).get("filled", ())
    fine = ("weights", "no NaN, no infinity, no dead BatchNorm, no untrained classifier")
    flaws = [("WARNING", flaw) for flaw in find_flaws(backbone.weights, filled)]
    return Inspection([*lines, *(flaws or [fine])])


def _describe_parsed(parsed: ParsedCheckpoint) -> Iterator[Line]:
    yield "written as", f"{parsed.checkpoint.layout}, names of {parsed.key_map}"
    if stated := {k: v for k, v in parsed.checkpoint.stated.items() if k != "notes"}:
        yield "says of itself", ", ".join(f"{key} {_shorten(v)}" for key, v in stated.items())
    if parsed.source.startswith(("torchvision:", "timm:")):
        yield "known as", f"{parsed.source}, by its hash"
    if parsed.filled:
        yield "filled in", ", ".join(parsed.filled) + " (left out by the file)"
    if parsed.left:
        yield "left", ", ".join(parsed.left)


def _describe_backbone(backbone: Backbone, name: str | None) -> Iterator[Line]:
    spec, provenance = backbone.spec, backbone.provenance
    yield from _describe_network(spec, spec.num_classes, backbone.weights)
    levels = spec.levels()
    yield "feature levels", ", ".join(f"{level.channels} at 1/{level.stride}" for level in levels)
    mean, std = (", ".join(f"{x:.4g}" for x in group) for group in (spec.mean, spec.std))
    _, height, width = spec.input_size
    resized = f"{height} x {width}, {spec.interpolation}, crop {spec.crop_pct:.3f}"
    yield "fed with", f"RGB in [0, 1], mean ({mean}), std ({std}); {resized}"
    if "conventions" in (stated := provenance.stated or {}):
        yield "which is from", str(stated["conventions"])
    yield from (("note", text) for text in stated.get("notes", ()))
    yield from (("assumed", text) for text in stated.get("assumed", ()))
    training = {
        "by": backbone.method if provenance.recipe else None,
        "on": provenance.dataset,
        "epochs": provenance.epochs,
        "seed": provenance.seed,
        "top-1 %": provenance.top1,
    }
    known = ", ".join(f"{key} {value}" for key, value in training.items() if value is not None)
    unknown = ", ".join(key for key, value in training.items() if value is None)
    yield "trained", f"{known}{'; ' if known else ''}unknown: {unknown or 'nothing'}"
    source = name or provenance.source or "this project"
    yield "from", " ".join(filter(None, (source, provenance.created)))
    uses = ["classification", "captioning"]
    if {level.stride for level in levels} >= {4, 8, 16, 32}:
        uses.append("detection with a feature pyramid")
    with suppress(UsageError):
        uses.append(f"stock detectron2 ({', '.join(heads_of(backbone))})")
    yield "fits", ", ".join(uses)
    yield "fingerprint", backbone.fingerprint()


def _describe_network(
    built: ParsedCheckpoint | BackboneSpec, num_classes: int, weights: Mapping[str, Tensor]
) -> Iterator[Line]:
    yield "network", f"{built.arch} {dict(built.model_args) or ''}".rstrip()
    count = sum(tensor.numel() for tensor in weights.values() if tensor.is_floating_point())
    yield "size", f"{count / 1e6:.2f} M numbers in {len(weights)} tensors"
    yield "classifier", f"{num_classes:,} classes" if num_classes else "none"


def _shorten(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def find_flaws(weights: Mapping[str, Tensor], filled: Sequence[str]) -> Iterator[str]:
    """What makes a network suspect; running statistics that were `filled` in are trivial."""
    if bad := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        yield f"NaN or infinite numbers in {shorten(bad, 2)}"

    def norms(holds: Callable[..., Any]) -> list[str]:
        """The batch norms of whose weight (or None), mean and variance something holds."""
        parts = ("weight", "running_mean", "running_var")
        return [name for name in names if holds(*(weights.get(f"{name}.{part}") for part in parts))]

    names = [n.removesuffix(".running_var") for n in weights if n.endswith(".running_var")]
    fresh = norms(lambda _, mean, var: not mean.any() and ((var - 1).abs() < 2e-5).all())
    if fresh and "running statistics" not in filled:
        which = "no BatchNorm has" if len(fresh) == len(names) else f"{shorten(fresh, 2)} have"
        yield f"{which} ever seen an image (mean 0, variance 1): not trained"
    if silent := norms(lambda weight, *_: weight is not None and not weight.any()):
        yield f"{shorten(silent, 2)}: weight zero throughout, so that branch adds nothing"
    if negative := norms(lambda _, mean, var: (var < 0).any()):
        yield f"{shorten(negative, 2)}: a negative variance, which cannot be"
    if dead := norms(lambda _, mean, var: (var.abs() < 1e-10).float().mean() > 0.5):
        yield f"{shorten(dead, 2)}: more than half of the channels are dead (variance 0)"
    heads = ("fc.weight", "head.fc.weight", "classifier.weight", "head.weight")
    head = next((weights[name] for name in heads if name in weights), None)
    if head is None or head.ndim != 2 or head.numel() < 1000:
        return
    # PyTorch draws a new Linear uniformly up to 1 / sqrt(inputs)
    bound, spread, largest = head.shape[1] ** -0.5, float(head.std()), float(head.abs().max())
    is_uniform = abs(spread / (bound / math.sqrt(3)) - 1) < 0.05
    if spread == 0:
        yield "the classifier is constant: untrained"
    elif is_uniform and 0.99 * bound < largest <= bound:
        yield "the classifier looks untrained: spread as PyTorch draws a new one"
