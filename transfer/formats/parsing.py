"""From a foreign file to a Backbone: key map, architecture and preprocessing, loaded strictly.

Also NumPy archives (JAX and TensorFlow weights) of architectures that timm itself reads.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from pretrain.audit import load_strict
from pretrain.backbone import Backbone, Provenance
from pretrain.errors import UsageError
from pretrain.spec import create_model
from transfer.formats.architectures import CAFFE, infer
from transfer.formats.files import CheckpointFile
from transfer.formats.layouts import Checkpoint, find_weights
from transfer.formats.sources import SOURCES, Overrides, Preprocessing, known_file, read_timm_config
from transfer.key_maps import KEY_MAPS

ASK_FOR_BACKBONE_FILE = (
    "A backbone file that says so itself: python tools/export.py --backbone {path} {options} "
    "--to backbone --out FILE.pth"
)
# what a file may leave out, by the endings of the names
_OMITTED = {
    "num_batches_tracked": ("num_batches_tracked",),
    "running statistics": (".running_mean", ".running_var"),
}


@dataclass(frozen=True)
class ParsedCheckpoint:
    """A foreign file as far as it is understood."""

    weights: dict[str, Tensor]
    """Under timm's names, whole."""
    arch: str
    model_args: dict[str, Any]
    num_classes: int
    preprocessing: Preprocessing | None
    """None where it must be given."""
    key_map: str
    """Whose names the file has."""
    checkpoint: Checkpoint
    source: str
    filled: list[str]
    """What the file left out and has only one value: BatchNorm's counters, folded statistics."""
    left: list[str]
    """Names of the file that are no part of the network."""


def parse(file: CheckpointFile, overrides: Overrides) -> ParsedCheckpoint:
    """Names and architecture, verified by strict loading; preprocessing as far as it is known.

    timm's config.json in the same folder counts as the file's own word.

    Raises:
        UsageError: names or shapes that fit no network, with both sides listed.
    """
    checkpoint = find_weights(file.content, file.path, overrides.prefix)
    config = read_timm_config(file.path.parent / "config.json")
    known = known_file(file.sha256)
    origins = [origin for origin in (config, checkpoint, known) if origin is not None]
    arch = next((origin.arch for origin in origins if origin.arch), None)
    if arch == "pyramidnet" or not (arch and timm.is_model(arch)):
        arch = None  # other programs' words, such as the CutMix release's for families
    given = config.model_args if config else {}
    weights, key_map, arch, arguments, filled = _identify(
        checkpoint.weights, overrides.arch or arch, given, file
    )
    own = next((origin.preprocessing for origin in origins if origin.preprocessing), None)
    stated = overrides.preprocessing(arch)
    if stated and own and _differ(stated, own):
        raise UsageError(
            f"{file.path} says of itself: mean {own.mean}, std {own.std}, {own.channels} "
            f"({own.origin}). What was given contradicts it: leave it away."
        )
    preprocessing = own or stated
    first_conv, classifier = _first_and_last(arch)
    if preprocessing is not None:
        if overrides.source == "timm" and overrides.arch is None and own is None:
            raise UsageError(
                f"--source timm needs --arch: several of timm's networks have the shapes of {arch}."
            )
        arch = _settle_strides(arch, preprocessing, overrides, file)
        if preprocessing.channels == "bgr":
            weights[first_conv] = weights[first_conv].flip(1).contiguous()
    return ParsedCheckpoint(
        weights,
        arch,
        arguments,
        len(weights.get(classifier, ())),
        preprocessing,
        key_map,
        checkpoint,
        known.name if known else file.path.name,
        filled,
        KEY_MAPS[key_map].find_ignored(checkpoint.weights) if key_map in KEY_MAPS else [],
    )


def to_backbone(parsed: ParsedCheckpoint, file: CheckpointFile) -> Backbone:
    """The backbone; UsageError where its preprocessing is unknown or it holds NaN or infinity."""
    preprocessing = parsed.preprocessing
    layout, facts = parsed.checkpoint.layout, parsed.checkpoint.stated
    if preprocessing is None:
        strides = ", where its strides are" if parsed.arch in CAFFE else ""
        again = ASK_FOR_BACKBONE_FILE.format(path=file.path, options="--source NAME")
        raise UsageError(
            f"{file.path} holds the weights of a {parsed.arch} ({layout}), but does not say how "
            f"the network is fed (mean, std, channel order{strides}), and its hash is in no list "
            "that is known here. Say whose preprocessing it follows (--source "
            f"{', '.join((*SOURCES, 'timm'))}) or give --arch, --mean and --std. {again}"
        )
    bad = [name for name, tensor in parsed.weights.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise UsageError(
            f"{file.path} holds NaN or infinite numbers in {len(bad)} tensors ({bad[0]}, ...): "
            "the training it is from has diverged, or the file is damaged."
        )
    stated = {
        "container": file.container,
        "wrapping": layout,
        "names": parsed.key_map,
        "conventions": preprocessing.origin,
        **facts,
    }
    noted = {"filled": parsed.filled, "left": parsed.left}
    epoch = facts.get("epoch")
    return Backbone(
        spec=preprocessing.spec(parsed.arch, parsed.num_classes, parsed.model_args),
        provenance=Provenance(
            source=parsed.source,
            source_sha256=file.sha256,
            epochs=epoch + 1 if isinstance(epoch, int) and "release" in layout else None,
            stated=stated | {name: value for name, value in noted.items() if value},
        ),
        weights=parsed.weights,
    )


def read_npz(file: CheckpointFile, overrides: Overrides) -> Backbone:
    """A network filled by timm's own reader for its architecture, verified to be all of it.

    Every parameter is NaN beforehand, so what the reader leaves is seen; what the file has beyond
    the network is counted.

    Raises:
        UsageError: no --arch, no preprocessing, an architecture without such a reader, or not all.
    """
    path, arch = file.path, overrides.arch
    preprocessing = overrides.preprocessing(arch) if arch else None
    if arch is None or preprocessing is None:
        raise UsageError(
            f"{path} is a NumPy archive, which says neither what network it is of nor how that is "
            "fed: give --arch, a timm architecture, and --source, or --mean and --std."
        )
    heads = ("head/kernel", "head/conv2d/kernel")  # as JAX programs name the classifier
    sizes = [array.shape[-1] for name, array in file.content.items() if name.endswith(heads)]
    num_classes = int(sizes[0]) if sizes else 0
    spec = preprocessing.spec(arch, num_classes, {})
    network: Any = spec.create(num_classes, seed=0)
    if not hasattr(network, "load_pretrained"):
        raise UsageError(f"timm has no reader of NumPy archives for {arch}.")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    try:
        network.load_pretrained(str(path))
    except (KeyError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        raise UsageError(f"{path} does not fit {arch}: {error}") from error
    empty = [name for name, value in network.named_parameters() if bool(value.isnan().any())]
    if empty:
        raise UsageError(f"{path} does not fill {arch}: {len(empty)} tensors, first {empty[0]}.")
    total = sum(array.size for array in file.content.values())
    loaded = sum(parameter.numel() for parameter in network.parameters())
    if total != loaded:
        raise UsageError(
            f"{path} holds {total:,} numbers, {arch} has {loaded:,}: not all were loaded."
        )
    stated = {"container": "npz", "names": f"timm's own reader of {arch}",
              "conventions": preprocessing.origin}  # fmt: skip
    provenance = Provenance(source=path.name, source_sha256=file.sha256, stated=stated)
    return Backbone.of(network, spec, provenance)


def _identify(
    weights: Mapping[str, Tensor], arch: str | None, given: Mapping[str, Any], file: CheckpointFile
) -> tuple[dict[str, Tensor], str, str, dict[str, Any], list[str]]:
    """The first names under which the weights fit a network, all of them."""
    refusal = ""
    for title, renamed in rename(weights, arch):
        inferred, arguments = infer({n: t.shape for n, t in renamed.items()}) or (None, {})
        candidate = arch or inferred
        if candidate is None:
            continue
        arguments = {**(arguments if inferred == candidate else {}), **given}
        try:
            complete, filled = fit(renamed, candidate, arguments)
            return complete, title, candidate, arguments, filled
        except UsageError as error:
            refusal = refusal or f"as {candidate} under the names of {title}: {error}"
    if refusal:
        raise UsageError(f"{file.path} is not understood. {refusal}")
    again = ASK_FOR_BACKBONE_FILE.format(path=file.path, options="--arch NAME --source NAME")
    raise UsageError(
        f"{file.path}: which network its {len(weights)} tensors belong to cannot be told from "
        f"their names ({', '.join(sorted(weights)[:4])}, ...). Give --arch, a timm architecture; "
        f"where only some names belong to it, also --prefix. {again}"
    )


def rename(
    weights: Mapping[str, Tensor], arch: str | None = None
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The weights under timm's names, by every key map that covers theirs: title and weights.

    Args:
        weights: under the names of any program.
        arch: where it is given, timm's own reader of foreign names for it is tried too.
    """
    for title, key_map in KEY_MAPS.items():
        if (renamed := key_map.rename(weights)) is not None:
            yield title, renamed
            if arch is not None and (filtered := _filter_by_timm(renamed, arch)) is not None:
                yield f"timm's own filter of {arch}", filtered


def fit(
    weights: Mapping[str, Tensor],
    arch: str,
    arguments: Mapping[str, Any],
    num_classes: int | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights in the network's order and dtypes, all of them; and what was filled in.

    Args:
        weights: under timm's names.
        arch: the architecture.
        arguments: of its constructor.
        num_classes: of its classifier; None for as many as the weights have.

    Raises:
        UsageError: a name on one side only, another shape, or numbers of another kind.
    """
    if num_classes is None:
        head = weights.get(_first_and_last(arch)[1], torch.empty(0))
        num_classes = head.shape[0] if head.ndim else 1
    with torch.device("meta"):
        network = create_model(arch, num_classes=num_classes, **arguments)
    own = network.state_dict()
    complete, filled = _fill(weights, own)
    load_strict(network, complete)
    return {name: _cast(name, complete[name], own[name].dtype) for name in own}, filled


def _fill(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Add what old files leave out: BatchNorm's counter; statistics folded into an affine map.

    Only where all of them are missing: one alone is damage.
    """
    complete, filled = dict(weights), []
    for title, suffixes in _OMITTED.items():
        names = [name for name in own if name.endswith(suffixes)]
        if names and weights.keys().isdisjoint(names):
            filled.append(title)
            for name in names:
                # less BatchNorm's eps, as detectron2 does: the division is then by one
                value = 1 - 1e-5 if name.endswith("running_var") else 0
                complete[name] = torch.full(own[name].shape, value, dtype=own[name].dtype)
    return complete, filled


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats to float32, contiguous, in storage of their own."""
    if dtype.is_floating_point != tensor.is_floating_point():
        raise UsageError(f"{name} holds {tensor.dtype}; {dtype} is needed")
    tensor = tensor.detach().to(torch.float32 if dtype.is_floating_point else dtype).contiguous()
    owned = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if owned else tensor.clone()


def _first_and_last(arch: str) -> tuple[str, str]:
    """The weights of the first convolution and of the classifier, as timm describes them."""
    if not timm.is_model(arch):
        create_model(arch)  # refuses, and names its neighbours
    described: Any = timm.get_pretrained_cfg(arch)
    first, last = described.first_conv or "", described.classifier or ""
    if not isinstance(first, str) or not isinstance(last, str):
        raise UsageError(f"{arch} has several stems or classifiers, which is not supported")
    return f"{first}.weight", f"{last}.weight"


def _differ(one: Preprocessing, other: Preprocessing) -> bool:
    numbers = (*one.mean, *one.std), (*other.mean, *other.std)
    return one.channels != other.channels or not np.allclose(*numbers, rtol=0, atol=1e-3)


def _settle_strides(
    arch: str, preprocessing: Preprocessing, overrides: Overrides, file: CheckpointFile
) -> str:
    """resnet50 or resnet50_caffe: the same shapes, told apart by the source alone."""
    stride, twins = preprocessing.stride, CAFFE | {caffe: stock for stock, caffe in CAFFE.items()}
    if stride is None and arch in CAFFE:
        raise UsageError(
            f"{file.path}: a {arch} may have its strides in the 3x3 convolutions (torchvision, "
            f"timm) or in the 1x1 (MSRA, Caffe). Give --arch {arch} or --arch {CAFFE[arch]}."
        )
    if stride == "1x1" and ("next" in arch or "wide" in arch):
        raise UsageError(f"{file.path}: a {arch} with its strides in the 1x1 is not supported.")
    own = "3x3" if arch in CAFFE else "1x1"
    if stride in (None, own) or arch not in twins:
        return arch
    if overrides.arch is not None or own == "1x1":
        raise UsageError(
            f"--arch {arch} has its strides in the {own} convolutions, {preprocessing.origin} in "
            f"the {stride}: give --arch {twins[arch]}, or leave --arch away."
        )
    return twins[arch]


def _filter_by_timm(weights: Mapping[str, Tensor], arch: str) -> dict[str, Tensor] | None:
    """The weights through timm's reader of foreign names for this architecture, if it has one."""
    if not timm.is_model(arch):
        return None
    module = sys.modules[timm.models.model_entrypoint(arch).__module__]
    names = ("checkpoint_filter_fn", "_checkpoint_filter_fn")
    function: Any = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    if function is None or "model" not in inspect.signature(function).parameters:
        return None
    with torch.device("meta"):
        network = create_model(arch)
    try:
        filtered = function(dict(weights), network)
    except (KeyError, ValueError, RuntimeError, AttributeError, IndexError, TypeError):
        return None  # names or shapes that it does not know either
    return {k: v for k, v in filtered.items() if isinstance(v, Tensor) and not v.is_meta}
