"""A checkpoint's passport, each fact in a line that a person understands."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.models import register
from transfer.formats import files, passports, reading, to_detectron2
from transfer.formats.files import Opened
from transfer.formats.sources import Given

Line = tuple[str, str]


@dataclass(frozen=True)
class Inspected:
    """What is known of a file; `open_questions` must be answered before it can be used."""

    lines: tuple[Line, ...]
    open_questions: tuple[str, ...]
    warnings: tuple[str, ...]

    def text(self) -> str:
        """Aligned, questions and warnings last."""
        width = max(len(title) for title, _ in self.lines)
        shown = [f"{title.ljust(width)}  {words}" for title, words in self.lines]
        shown += [f"{'UNKNOWN'.ljust(width)}  {words}" for words in self.open_questions]
        shown += [f"{'WARNING'.ljust(width)}  {words}" for words in self.warnings]
        return "\n".join(shown)


def inspect(path: Path, given: Given, name: str | None = None) -> Inspected:
    """Look at a checkpoint file of any kind.

    Args:
        path: the file or folder.
        given: what it does not say of itself.
        name: what the user called it, where that is no path.

    Raises:
        UsageError: not understood at all.
    """
    from transfer.formats import is_ours, locate, read

    register()
    file = locate(path)
    opened = files.open_file(file)
    stands = is_ours(opened) or passports.find(opened) is not None or opened.container == "npz"
    if stands:
        backbone = read(file, given)
        return _inspected(opened, backbone, tuple(_of_backbone(backbone, name)), ())
    beside = passports.timm_config(file.parent / "config.json")
    found = reading.understand(opened, given, beside)
    lines = tuple(_of_reading(found))
    questions: tuple[str, ...] = ()
    if found.convention is None:
        questions = (
            "mean, std, channel order and the place of the strides: neither the file nor a list "
            "that is known here says so. Give --source, or --arch, --mean and --std.",
        )
        sane = tuple(_sanity(found.weights, "running statistics" in found.filled))
        head = _head(found.num_classes)
        return Inspected(
            (*_of_file(opened), *lines, head, _parameters(found.weights)),
            questions,
            sane,
        )
    try:
        backbone = reading.finish(found, opened)
    except UsageError as error:  # NaN: the other facts are still worth a line
        return Inspected((*_of_file(opened), *lines), (), (str(error),))
    return _inspected(opened, backbone, (*lines, *_of_backbone(backbone, name)), questions)


def _inspected(
    opened: Opened, backbone: Backbone, lines: tuple[Line, ...], questions: tuple[str, ...]
) -> Inspected:
    stated = backbone.provenance.stated or {}
    warnings = tuple(_sanity(backbone.weights, "running statistics" in stated.get("filled", ())))
    sane = ("weights", "no NaN, no infinity, no dead BatchNorm, no untrained classifier")
    everything = (*_of_file(opened), *lines, *((sane,) if not warnings else ()))
    return Inspected(everything, questions, warnings)


def _of_file(opened: Opened) -> Iterator[Line]:
    yield "file", f"{opened.path} ({opened.size / 1e6:,.1f} MB, {opened.container})"
    yield "SHA-256", opened.sha256


def _of_reading(found: reading.Reading) -> Iterator[Line]:
    yield "written as", f"{found.unwrapped.wrapping}, names of {found.names}"
    words = ", ".join(f"{key} {_short(value)}" for key, value in found.unwrapped.stated.items())
    if words:
        yield "says of itself", words
    if found.source.startswith(("torchvision:", "timm:")):
        yield "known as", f"{found.source}, by its hash"
    if found.filled:
        yield "filled in", ", ".join(found.filled) + " (left out by the file, of one value only)"
    if found.left:
        yield "left", ", ".join(found.left)
    if found.convention is None:
        yield "network", found.arch


def _of_backbone(backbone: Backbone, name: str | None) -> Iterator[Line]:
    spec, provenance = backbone.spec, backbone.provenance
    arguments = f" {spec.model_args}" if spec.model_args else ""
    yield "network", f"{spec.arch}{arguments}"
    yield _parameters(backbone.weights)
    levels = ", ".join(f"{level.channels} at 1/{level.stride}" for level in spec.levels())
    yield "feature levels", levels
    yield _head(spec.num_classes)
    yield "fed with", _fed(backbone)
    stated = provenance.stated or {}
    if "conventions" in stated:
        yield "which is from", str(stated["conventions"])
    yield "trained", _trained(backbone)
    source = name or provenance.source or "this project"
    yield "from", " ".join(filter(None, (source, provenance.created)))
    yield "fits", _fits(backbone)
    yield "fingerprint", backbone.fingerprint()


def _parameters(weights: Mapping[str, Tensor]) -> Line:
    count = sum(tensor.numel() for tensor in weights.values() if tensor.is_floating_point())
    return "size", f"{count / 1e6:.2f} M numbers in {len(weights)} tensors"


def _head(num_classes: int) -> Line:
    return "classifier", f"{num_classes:,} classes" if num_classes else "none"


def _fed(backbone: Backbone) -> str:
    spec = backbone.spec
    mean, std = (", ".join(f"{x:.4g}" for x in group) for group in (spec.mean, spec.std))
    _, height, width = spec.input_size
    return (
        f"RGB in [0, 1], mean ({mean}), std ({std}); {height} x {width}, {spec.interpolation}, "
        f"crop {spec.crop_pct:.3f}"
    )


def _trained(backbone: Backbone) -> str:
    provenance = backbone.provenance
    known = {
        "by": backbone.method if provenance.recipe else None,
        "on": provenance.dataset,
        "epochs": provenance.epochs,
        "seed": provenance.seed,
        "top-1 %": provenance.top1,
    }
    said = [f"{key} {value}" for key, value in known.items() if value is not None]
    unsaid = [key for key, value in known.items() if value is None]
    return ", ".join(said) + ("; " if said else "") + f"unknown: {', '.join(unsaid) or 'nothing'}"


def _fits(backbone: Backbone) -> str:
    strides = [level.stride for level in backbone.spec.levels()]
    uses = ["classification", "captioning"]
    if set(strides) >= {4, 8, 16, 32}:
        uses.append("detection with a feature pyramid")
    try:
        heads = to_detectron2.heads_of(backbone, None)
        uses.append(f"stock detectron2 ({', '.join(heads)})")
    except UsageError:
        pass
    return ", ".join(uses)


def _short(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _sanity(weights: Mapping[str, Tensor], folded: bool = False) -> Iterator[str]:
    """What makes a network suspect, in words; `folded` statistics are known to be trivial."""
    bad = [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if bad:
        yield f"NaN or infinite numbers in {_some(bad)}"
    norms = [n.removesuffix(".running_mean") for n in weights if n.endswith(".running_mean")]
    fresh = [
        name
        for name in norms
        if not bool(weights[f"{name}.running_mean"].any())
        and _all_one(weights.get(f"{name}.running_var"))
    ]
    if fresh and not folded:
        which = "no BatchNorm has" if len(fresh) == len(norms) else f"{_some(fresh)} have"
        yield f"{which} ever seen an image (mean 0, variance 1): not trained"
    silent = [
        n for n in norms if f"{n}.weight" in weights and not bool(weights[f"{n}.weight"].any())
    ]
    if silent:
        yield f"{_some(silent)}: weight zero throughout, so that branch says nothing"
    variances = {
        name: weights[f"{name}.running_var"] for name in norms if f"{name}.running_var" in weights
    }
    negative = [name for name, value in variances.items() if bool((value < 0).any())]
    if negative:
        yield f"{_some(negative)}: a negative variance, which cannot be"
    dead = [
        n for n, value in variances.items() if float((value.abs() < 1e-10).float().mean()) > 0.5
    ]
    if dead:
        yield f"{_some(dead)}: more than half of the channels are dead (variance 0)"
    yield from _classifier(weights)


def _some(names: Sequence[str]) -> str:
    """`a, b and 14 more`."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _all_one(variance: Tensor | None) -> bool:
    return variance is not None and bool(((variance - 1).abs() < 2e-5).all())


def _classifier(weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Drawn as PyTorch draws a Linear (uniform up to 1/sqrt(inputs)), or constant."""
    heads = ("fc.weight", "head.fc.weight", "classifier.weight", "head.weight")
    found = next((weights[name] for name in heads if name in weights), None)
    if found is None or found.ndim != 2 or found.numel() < 1000:
        return
    if float(found.std()) == 0:
        yield "the classifier is constant: untrained"
        return
    bound = 1 / math.sqrt(found.shape[1])
    largest, spread = float(found.abs().max()), float(found.std())
    is_uniform = 0.99 * bound < largest <= bound and abs(spread / (bound / math.sqrt(3)) - 1) < 0.05
    if is_uniform:
        yield "the classifier looks untrained: spread as PyTorch draws a new one"
