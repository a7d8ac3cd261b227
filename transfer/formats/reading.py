"""From unwrapped weights to a Backbone: names, architecture, conventions, and the strict proof."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor

from pretrain.audit import place
from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from pretrain.spec import create_model
from transfer.formats.architectures import CAFFE, infer, strides_are_open
from transfer.formats.files import Opened
from transfer.formats.names import TABLES
from transfer.formats.sources import SOURCES, Convention, Given, described, known_file
from transfer.formats.wrappings import Unwrapped, unwrap


@dataclass(frozen=True)
class Beside:
    """timm's config.json."""

    arch: str
    model_args: Mapping[str, Any]
    convention: Convention
    classes: list[str] | None


@dataclass(frozen=True)
class Reading:
    """A foreign file as far as it is understood; `convention` is None where it must be given."""

    weights: dict[str, Tensor]
    arch: str
    model_args: dict[str, Any]
    num_classes: int
    convention: Convention | None
    names: str
    unwrapped: Unwrapped
    source: str
    filled: list[str]
    """What the file left out and has only one value: BatchNorm's counters, folded statistics."""
    left: list[str]
    """Names of the file that are no part of the network."""


def understand(opened: Opened, given: Given, beside: Beside | None = None) -> Reading:
    """Names and architecture, proved by strict loading; conventions as far as they are known.

    Args:
        opened: the file.
        given: what the user says of it.
        beside: what timm's config.json in the same folder says of it.

    Raises:
        UsageError: names or shapes that fit no network, with both sides listed.
    """
    unwrapped = unwrap(opened.content, opened.path, given.prefix)
    known = known_file(opened.sha256)
    hint = given.arch or unwrapped.arch or (known.arch if known else None)
    if beside is not None:
        hint = given.arch or beside.arch
    if given.arch is None and hint and (hint == "pyramidnet" or not timm.is_model(hint)):
        hint = None  # other programs' words, such as the CutMix release's for families
    arguments = dict(beside.model_args) if beside is not None else {}
    weights, names, arch, model_args, filled = _identify(unwrapped.weights, hint, arguments, opened)
    first, classifier = _ends(arch)
    own = unwrapped.convention or (known.convention if known else None)
    own = beside.convention if beside is not None else own
    said = given.convention(arch)
    if said and own and _differ(said, own):
        raise UsageError(
            f"{opened.path} says of itself: mean {own.mean}, std {own.std}, {own.channels} "
            f"({own.origin}). What was given contradicts it: leave it away."
        )
    convention = own or said
    if convention is not None:
        if given.source == "timm" and given.arch is None and own is None:
            raise UsageError(
                f"--source timm needs --arch: several of timm's networks have the shapes of {arch}."
            )
        arch = _settle_strides(arch, convention, given, opened)
        if convention.channels == "bgr":
            weights[first] = weights[first].flip(1).contiguous()
    head = weights.get(f"{classifier}.weight")
    return Reading(
        weights,
        arch,
        model_args,
        0 if head is None else head.shape[0],
        convention,
        names,
        unwrapped,
        known.name if known else opened.path.name,
        filled,
        TABLES[names].left(unwrapped.weights) if names in TABLES else [],
    )


def finish(reading: Reading, opened: Opened) -> Backbone:
    """The backbone; UsageError where its conventions are unknown or its numbers are no numbers."""
    convention = reading.convention
    if convention is None:
        raise UsageError(unknown_convention(opened, reading))
    bad = [name for name, tensor in reading.weights.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise UsageError(
            f"{opened.path} holds NaN or infinite numbers in {len(bad)} tensors ({bad[0]}, ...): "
            "the training it is from has diverged, or the file is damaged."
        )
    spec = BackboneSpec(
        arch=reading.arch,
        model_args=reading.model_args,
        input_size=(3, convention.size, convention.size),
        mean=convention.mean,
        std=convention.std,
        interpolation=convention.interpolation,
        crop_pct=convention.crop_pct,
        num_classes=reading.num_classes,
    )
    stated = {
        "container": opened.container,
        "wrapping": reading.unwrapped.wrapping,
        "names": reading.names,
        "conventions": convention.origin,
        **reading.unwrapped.stated,
        **({"filled": reading.filled} if reading.filled else {}),
        **({"left": reading.left} if reading.left else {}),
    }
    epoch = reading.unwrapped.stated.get("epoch")
    provenance = Provenance(
        source=reading.source,
        source_sha256=opened.sha256,
        epochs=epoch + 1 if isinstance(epoch, int) and "release" in stated["wrapping"] else None,
        stated=stated,
    )
    return Backbone(spec=spec, provenance=provenance, weights=reading.weights)


def unknown_convention(opened: Opened, reading: Reading) -> str:
    """The message where a file does not say how its network is fed."""
    return (
        f"{opened.path} holds the weights of a {reading.arch} ({reading.unwrapped.wrapping}), but "
        "does not say how the network is fed (mean, std, channel order"
        + (", where its strides are" if strides_are_open(reading.arch) else "")
        + "), and its hash is in no list that is known here. Say whose conventions it follows "
        f"(--source {', '.join((*SOURCES, 'timm'))}) or give --arch, --mean and --std. A backbone "
        f"file that says so itself: python tools/export.py --backbone {opened.path} --source NAME "
        "--to backbone --out FILE.pth"
    )


def _identify(
    weights: Mapping[str, Tensor], hint: str | None, given: Mapping[str, Any], opened: Opened
) -> tuple[dict[str, Tensor], str, str, dict[str, Any], list[str]]:
    """The first table of names under which the weights fit a network, whole."""
    refusals: list[str] = []
    for title, table in TABLES.items():
        renamed = table.read(weights)
        if renamed is None:
            continue
        found = infer({name: tensor.shape for name, tensor in renamed.items()})
        inferred = found.arch if found else None
        arch = hint or inferred
        if arch is None:
            continue
        arguments = {**(found.model_args if found and found.arch == arch else {}), **given}
        try:
            complete, filled = fit(renamed, arch, arguments)
            return complete, title, arch, arguments, filled
        except UsageError as error:
            refusals.append(f"as {arch} under the names of {title}: {error}")
        if hint is not None and (filtered := _timm_filter(renamed, arch)) is not None:
            try:
                complete, filled = fit(filtered, arch, arguments)
                return complete, f"timm's own filter of {arch}", arch, arguments, filled
            except UsageError:
                pass
    if refusals:
        raise UsageError(f"{opened.path} is not understood. " + refusals[0])
    raise UsageError(
        f"{opened.path}: which network its {len(weights)} tensors belong to cannot be told from "
        f"their names ({', '.join(sorted(weights)[:4])}, ...). Give --arch, a timm architecture; "
        "where only some names belong to it, also --prefix. A backbone file that says so itself: "
        f"python tools/export.py --backbone {opened.path} --arch NAME --source NAME --to backbone "
        "--out FILE.pth"
    )


def fit(
    weights: Mapping[str, Tensor], arch: str, arguments: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights in the network's order and dtypes, all of them; and what was filled in.

    Raises:
        UsageError: a name on one side only, another shape, or numbers of another kind.
    """
    _, classifier = _ends(arch)
    head = weights.get(f"{classifier}.weight")
    num_classes = 0 if head is None else head.shape[0] if head.ndim else 1
    with torch.device("meta"):
        network = create_model(arch, num_classes=num_classes, **arguments)
    own = network.state_dict()
    complete, filled = _fill(weights, own)
    place(network, complete)
    return {name: _cast(name, complete[name], own[name].dtype) for name in own}, filled


def _fill(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Add what old files leave out: BatchNorm's counter; statistics folded into an affine map."""
    complete = dict(weights)
    counters = [n for n in own if n.endswith("num_batches_tracked") and n not in weights]
    folded = [
        name.removesuffix(".running_mean")
        for name in own
        if name.endswith(".running_mean") and name not in weights
    ]
    if len(counters) == sum(name.endswith("num_batches_tracked") for name in own):
        complete |= {name: torch.zeros((), dtype=torch.int64) for name in counters}
    else:
        counters = []
    is_folded = len(folded) == sum(name.endswith(".running_mean") for name in own)
    if folded and is_folded and not any(n.endswith(".running_var") for n in weights):
        for name in folded:
            if name + ".weight" not in weights:
                continue
            size = own[name + ".running_mean"].shape
            complete[name + ".running_mean"] = torch.zeros(size)
            # less BatchNorm's eps, as detectron2 does: the division is then by one
            complete[name + ".running_var"] = torch.ones(size) - 1e-5
        return complete, [*(["num_batches_tracked"] if counters else []), "running statistics"]
    return complete, ["num_batches_tracked"] if counters else []


def _cast(name: str, tensor: Tensor, wanted: torch.dtype) -> Tensor:
    """Floats to float32, contiguous, in storage of their own."""
    if wanted.is_floating_point != tensor.is_floating_point():
        raise UsageError(f"{name} holds {tensor.dtype}; {wanted} is needed")
    tensor = tensor.detach().to(torch.float32 if wanted.is_floating_point else wanted)
    tensor = tensor.contiguous()
    owned = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if owned else tensor.clone()


def _ends(arch: str) -> tuple[str, str]:
    """Names of the first convolution and of the classifier, as timm describes them."""
    if not timm.is_model(arch):
        create_model(arch)  # refuses, and names its neighbours
    own = described(arch)
    first, head = own.first_conv or "", own.classifier or ""
    if isinstance(first, (tuple, list)) or isinstance(head, (tuple, list)):
        raise UsageError(f"{arch} has several stems or classifiers, which is not supported")
    return f"{first}.weight", head


def _differ(one: Convention, other: Convention) -> bool:
    numbers = zip((*one.mean, *one.std), (*other.mean, *other.std), strict=True)
    return one.channels != other.channels or any(abs(a - b) > 1e-3 for a, b in numbers)


def _settle_strides(arch: str, convention: Convention, given: Given, opened: Opened) -> str:
    """resnet50 or resnet50_caffe: the same shapes, told apart by the source alone."""
    if convention.stride is None and strides_are_open(arch):
        raise UsageError(
            f"{opened.path}: a {arch} may have its strides in the 3x3 convolutions (torchvision, "
            f"timm) or in the 1x1 (MSRA, Caffe). Give --arch {arch} or --arch {CAFFE[arch]}."
        )
    if convention.stride == "1x1" and arch in CAFFE:
        if given.arch is not None:
            raise UsageError(
                f"--arch {arch} has its strides in the 3x3 convolutions, {convention.origin} in "
                f"the 1x1: give --arch {CAFFE[arch]}, or leave --arch away."
            )
        return CAFFE[arch]
    if convention.stride == "1x1" and ("next" in arch or "wide" in arch):
        raise UsageError(f"{opened.path}: a {arch} with its strides in the 1x1 is not supported.")
    if convention.stride == "3x3" and arch in CAFFE.values():
        raise UsageError(
            f"--arch {arch} has its strides in the 1x1 convolutions, {convention.origin} in the "
            "3x3: give another --arch, or leave it away."
        )
    return arch


def _timm_filter(weights: Mapping[str, Tensor], arch: str) -> dict[str, Tensor] | None:
    """The weights through timm's reader of foreign names for this architecture, if it has one."""
    if not timm.is_model(arch):
        return None
    entry = timm.models.model_entrypoint(arch)
    module = sys.modules[entry.__module__]
    function = getattr(module, "checkpoint_filter_fn", None) or getattr(
        module, "_checkpoint_filter_fn", None
    )
    if function is None or "model" not in inspect.signature(function).parameters:
        return None
    with torch.device("meta"):
        network = create_model(arch)
    try:
        filtered = function(dict(weights), network)
    except (KeyError, ValueError, RuntimeError, AttributeError, IndexError, TypeError):
        return None  # names or shapes that it does not know either
    return {k: v for k, v in filtered.items() if isinstance(v, Tensor) and not v.is_meta}


__all__ = ["Reading", "finish", "fit", "understand"]
