"""From a foreign file to a Backbone: key map, architecture and preprocessing, loaded strictly.

Also NumPy archives (JAX and TensorFlow weights) of architectures that timm itself reads.
"""

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from pretrain.audit import load_strict
from pretrain.backbone import Backbone, Provenance
from pretrain.errors import UsageError
from pretrain.spec import BackboneSpec, create_model, create_outline
from transfer.formats.architectures import CAFFE, infer
from transfer.formats.assumptions import eps_of, list_assumed, require_stem, settle_strides
from transfer.formats.files import CheckpointFile
from transfer.formats.layouts import Checkpoint, find_prefixes, find_weights
from transfer.formats.sources import (
    SOURCES,
    KnownFile,
    Overrides,
    Preprocessing,
    known_file,
    read_timm_config,
)
from transfer.formats.transformers_config import read_transformers_config
from transfer.network_maps import KEY_MAPS

ASK_FOR_BACKBONE_FILE = (
    "python tools/export.py --backbone {path} {options} --to backbone --out FILE.pth makes a "
    "backbone file that says so itself."
)
_STEM_AND_CLASSIFIER = 8  # tensors
_STATISTICS = (".running_mean", ".running_var")
# key maps whose names say that a norm is a BatchNorm, kept as an affine map alone
_FOLDED_NAMES = ("Caffe2 of MSRA", "Caffe2 of FAIR")


@dataclass(frozen=True)
class ParsedCheckpoint:
    """A foreign file as far as it is understood."""

    weights: dict[str, Tensor]
    """Under timm's names, whole."""
    key_map: str
    """Whose names the file has."""
    arch: str
    model_args: dict[str, Any]
    filled: list[str]
    """What the file left out and has only one value: BatchNorm's counters, folded statistics."""
    checkpoint: Checkpoint
    left: list[str] = field(default_factory=list)
    """Names of the file that are no part of the network."""
    preprocessing: Preprocessing | None = None
    """None where it must be given."""
    source: str = ""
    assumed: list[str] = field(default_factory=list)
    """Facts that change the function, which nothing says: each with the option that decides."""

    @property
    def num_classes(self) -> int:
        """Of the classifier; 0 where the file has none."""
        return len(self.weights.get(_first_and_last(self.arch)[1], ()))

    @property
    def outline(self) -> torch.nn.Module:
        """The network without weights, which must not be changed."""
        return _outline(self.arch, self.num_classes, json.dumps(self.model_args))


def parse(file: CheckpointFile, overrides: Overrides) -> ParsedCheckpoint:
    """Names and architecture, verified by strict loading; preprocessing as far as it is known.

    timm's config.json in the same folder counts as the file's own word.

    Raises:
        UsageError: names or shapes that fit no network, with both sides listed.
    """
    path, known, config = file.path, known_file(file.sha256), None
    if file.container == "npz":
        found, own = _read_npz(file, overrides), None
    else:
        checkpoint = find_weights(
            file.content, path, overrides.prefix, overrides.key, overrides.leave
        )
        config = _find_config(path, overrides)
        origins = [origin for origin in (config, checkpoint, known) if origin is not None]
        own = _agree(origins, overrides, path)
        arch = overrides.arch or next(filter(None, map(_stated_arch, origins)), None)
        given = _arguments(checkpoint, config, overrides, path)
        source = SOURCES.get(overrides.source or "")
        folded = any(facts.folded for facts in (own, source) if facts)
        identify = partial(_identify, arch=arch, given=given, folded=folded, path=path)
        try:
            found = identify(checkpoint)
        except UsageError as error:
            raise UsageError(f"{error}{_suggest_prefix(checkpoint, identify)}") from error
    stated = overrides.preprocessing(found.arch)
    if stated and own and _differ(stated, own):
        remedy = ", or give --config none where config.json is another network's" if config else ""
        raise UsageError(
            f"{path} says of itself: {_words(own)}. What was given contradicts it: leave it away"
            f"{remedy}."
        )
    source_name = known.name if known else path.name
    found = replace(found, preprocessing=own or stated, source=source_name)
    if overrides.bn_eps is not None:
        _fold_eps(found, overrides.bn_eps)
    return _settle(found, overrides, path) if found.preprocessing else found


def _settle(found: ParsedCheckpoint, overrides: Overrides, path: Path) -> ParsedCheckpoint:
    """With what the preprocessing's origin says of the network, or leaves to be assumed."""
    preprocessing = found.preprocessing
    assert preprocessing is not None
    if overrides.source == "timm" and overrides.arch is None and preprocessing.unsaid:
        raise UsageError(
            f"--source timm needs --arch: several of timm's networks have the shapes of "
            f"{found.arch}."
        )
    found = replace(found, arch=settle_strides(found.arch, preprocessing, overrides, path))
    require_stem(found.arch, preprocessing, overrides, path)
    if preprocessing.channels == "bgr":
        first = _first_and_last(found.arch)[0]
        found.weights[first] = found.weights[first].flip(1).contiguous()
    assumed = list_assumed(
        found.arch, found.model_args, found.outline, preprocessing.unsaid, overrides
    )
    return replace(found, assumed=assumed)


def _arguments(
    checkpoint: Checkpoint, config: KnownFile | None, overrides: Overrides, path: Path
) -> dict[str, Any]:
    """Of the network's constructor: by the file's program, config.json and --model-arg."""
    given = _as_json(checkpoint.stated.get("model_args", {}))
    if config is not None:
        if given not in ({}, beside := _as_json(config.model_args)):
            raise UsageError(
                f"{path} was built with {given}, {config.preprocessing.origin} states {beside}. "
                "Give --config none where that is another network's."
            )
        given = beside
    for name, value in _as_json(overrides.model_args).items():
        if given.setdefault(name, value) != value:
            raise UsageError(
                f"{path} says of itself: {name} is {given[name]!r}. --model-arg {name}={value} "
                "contradicts it: leave it away."
            )
    BackboneSpec(arch="unknown", model_args=given)  # refuses what is no argument of a network
    return given


def _as_json(arguments: Any) -> Any:
    """A copy, tuples as lists, as a file of ours keeps them."""
    return json.loads(json.dumps(dict(arguments)))


def _find_config(path: Path, overrides: Overrides) -> KnownFile | None:
    """What --config names, or else the config.json beside the file."""
    if overrides.config is None:
        beside = path.parent / "config.json"
        return read_timm_config(beside) or read_transformers_config(beside)
    if overrides.config == "none":
        return None
    if (config := read_timm_config(Path(overrides.config))) is None:
        raise UsageError(f"--config {overrides.config} is no configuration of timm; none for none.")
    return config


def _stated_arch(origin: KnownFile | Checkpoint) -> str | None:
    """As timm calls it; None for other programs' words, such as the CutMix release's families."""
    arch = origin.arch
    return arch if arch and arch != "pyramidnet" and timm.is_model(arch) else None


def _agree(
    origins: Sequence[KnownFile | Checkpoint], overrides: Overrides, path: Path
) -> Preprocessing | None:
    """The preprocessing that the file, what lies beside it and the lists state.

    Raises:
        UsageError: two of them differ, or --arch and one that says how it built its network.
    """
    stated = [(o, o.preprocessing) for o in origins if o.preprocessing is not None]
    if not stated:
        return None
    first, own = stated[0]
    remedy = ", or give --config none where config.json is another network's"
    remedy = remedy if isinstance(first, KnownFile) else ""
    for origin, other in stated:
        arch = _stated_arch(origin)
        if _differ(own, other) or arch not in (None, _stated_arch(first)):
            raise UsageError(
                f"{path} is described twice and not alike: {_stated_arch(first)}, {_words(own)}; "
                f"{arch}, {_words(other)}. Keep one of them{remedy}."
            )
        if arch is not None and overrides.arch not in (None, arch, origin.arch):
            raise UsageError(
                f"{path} says of itself: {arch} ({other.origin}). --arch {overrides.arch} "
                f"contradicts it: leave it away{remedy}."
            )
    return own


def _words(preprocessing: Preprocessing) -> str:
    one = preprocessing
    return f"mean {one.mean}, std {one.std}, {one.channels} ({one.origin})"


def _differ(one: Preprocessing, other: Preprocessing) -> bool:
    numbers = (*one.mean, *one.std), (*other.mean, *other.std)
    return one.channels != other.channels or not np.allclose(*numbers, rtol=0, atol=1e-3)


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
            f"that is known here. {again} NAME is whose preprocessing it follows: "
            f"{', '.join((*SOURCES, 'timm'))}; --arch, --mean and --std say it in numbers."
        )
    bad = [name for name, tensor in parsed.weights.items() if not _is_finite(tensor)]
    if bad:
        raise UsageError(
            f"{file.path} holds NaN or infinite numbers in {len(bad)} tensors ({bad[0]}, ...): "
            "the training it is from has diverged, or the file is damaged."
        )
    stated = {"container": file.container, "wrapping": layout, "names": parsed.key_map,
              "conventions": preprocessing.origin, **facts}  # fmt: skip
    noted = {"filled": parsed.filled, "left": parsed.left, "assumed": parsed.assumed}
    stated |= {name: value for name, value in noted.items() if value}
    epoch = facts.get("epoch")
    epochs = epoch + 1 if isinstance(epoch, int) and "release" in layout else None
    return Backbone(
        spec=preprocessing.spec(parsed.arch, parsed.num_classes, parsed.model_args),
        provenance=Provenance(
            source=parsed.source, source_sha256=file.sha256, epochs=epochs, stated=stated
        ),
        weights=parsed.weights,
    )


def _is_finite(tensor: Tensor) -> bool:
    """By the extremes, which takes no memory; NaN is one of them where there is any."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def _read_npz(file: CheckpointFile, overrides: Overrides) -> ParsedCheckpoint:
    """A network filled by timm's own reader for its architecture, verified to be all of it.

    Every parameter is NaN beforehand, so what the reader leaves is seen; what the file has beyond
    the network is counted.
    """
    path, arch, arguments = file.path, overrides.arch, _as_json(overrides.model_args)
    if arch is None:
        raise UsageError(
            f"{path} is a NumPy archive, which says neither what network it is of nor how that is "
            "fed: give --arch, a timm architecture, and --source, or --mean and --std."
        )
    if overrides.prefix or overrides.key or overrides.leave or overrides.config:
        raise UsageError(
            f"{path} is a NumPy archive: leave --prefix, --key, --leave and --config away."
        )
    heads = ("head/kernel", "head/conv2d/kernel")  # as JAX programs name the classifier
    sizes = [array.shape[-1] for name, array in file.content.items() if name.endswith(heads)]
    network: Any = create_model(arch, num_classes=int(sizes[0]) if sizes else 0, **arguments)
    if not hasattr(network, "load_pretrained"):
        raise UsageError(f"timm has no reader of NumPy archives for {arch}.")
    network.requires_grad_(False)
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
    names, nothing = f"timm's own reader of {arch}", Checkpoint({}, "NumPy archive", None, None, {})
    return ParsedCheckpoint(network.state_dict(), names, arch, arguments, [], nothing)


def _identify(
    checkpoint: Checkpoint,
    *,
    arch: str | None,
    given: Mapping[str, Any],
    folded: bool,
    path: Path,
) -> ParsedCheckpoint:
    """The first names under which the weights fit a network, all of them."""
    refusal, weights = "", checkpoint.weights
    for title, renamed in rename(weights, arch):
        family = KEY_MAPS[title].architectures if title in KEY_MAPS else ()
        candidates = sorted(family, key=lambda row: row[0] != arch)
        if not family:
            inferred, own = infer({n: t.shape for n, t in renamed.items()}) or (None, {})
            if candidate := arch or inferred:
                candidates = [(candidate, own if inferred == candidate else {})]
        is_folded = folded or title in _FOLDED_NAMES
        for candidate, own in candidates:
            built = {**own, **given}
            try:
                whole, filled = fit(
                    renamed, candidate, built, folded=is_folded, reshape=bool(family)
                )
            except UsageError as error:
                # a stem alone has the names of every family
                if not family or arch or len(renamed) > _STEM_AND_CLASSIFIER:
                    refusal = refusal or f"as {candidate} under the names of {title}: {error}"
                continue
            if arch not in (None, candidate):
                raise UsageError(
                    f"{path} has the names of {title}, whose network is no {arch}: give "
                    f"--arch {candidate}, or leave --arch away."
                )
            left = KEY_MAPS[title].find_ignored(weights) if title in KEY_MAPS else []
            return ParsedCheckpoint(whole, title, candidate, built, filled, checkpoint, left)
    if refusal:
        raise UsageError(f"{path} is not understood. {refusal}")
    again = ASK_FOR_BACKBONE_FILE.format(path=path, options="--arch NAME --source NAME")
    raise UsageError(
        f"{path}: which network its {len(weights)} tensors belong to cannot be told from "
        f"their names ({', '.join(sorted(weights)[:4])}, ...). Give --arch, a timm architecture; "
        f"where only some names belong to it, also --prefix. {again}"
    )


def _suggest_prefix(
    checkpoint: Checkpoint, identify: Callable[[Checkpoint], ParsedCheckpoint]
) -> str:
    """The option that takes a whole network among other names; empty where there is none."""
    for prefix in find_prefixes(checkpoint.weights):
        begun = [name for name in checkpoint.weights if name.startswith(prefix)]
        subset = {name.removeprefix(prefix): checkpoint.weights[name] for name in begun}
        with suppress(UsageError):
            arch = identify(replace(checkpoint, weights=subset)).arch
            whole = f"{checkpoint.stated.get('prefix', '')}{prefix}"
            return f"\nThe names that begin with {prefix} are a whole {arch}: try --prefix {whole}"
    return ""


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
    folded: bool = False,
    reshape: bool = False,
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights in the network's order and dtypes, all of them; and what was filled in.

    Args:
        weights: under timm's names.
        arch: the architecture.
        arguments: of its constructor.
        num_classes: of its classifier; None for as many as the weights have.
        folded: BatchNorm's statistics may be left out, having been folded into the affine map.
        reshape: a linear layer may stand for a convolution of one place, and the like.

    Raises:
        UsageError: a name on one side only, another shape, or numbers of another kind.
    """
    if num_classes is None:
        head = weights.get(_first_and_last(arch)[1], torch.empty(0))
        num_classes = head.shape[0] if head.ndim else 1
    network = _outline(arch, num_classes, json.dumps(arguments))
    own = network.state_dict()
    complete, filled = _fill(weights, own, folded, arch)
    for name in own if reshape else ():
        if name in complete and complete[name].numel() == own[name].numel():
            complete[name] = complete[name].reshape(own[name].shape)
    load_strict(network, complete)
    return {name: _cast(name, complete[name], own[name].dtype) for name in own}, filled


@lru_cache(maxsize=2)
def _outline(arch: str, num_classes: int, arguments: str) -> torch.nn.Module:
    """The network without weights, which must not be changed; its arguments as JSON."""
    return create_outline(arch, num_classes=num_classes, **json.loads(arguments))


def _fill(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], folded: bool, arch: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Add what old files leave out: BatchNorm's counter; statistics folded into an affine map.

    Only where all of them are missing: one alone is damage. Norms without statistics are as often
    no BatchNorm at all, so these are filled in only where the source says that they were folded.
    """
    complete, filled = dict(weights), []
    for title, suffixes in (
        ("num_batches_tracked", ("num_batches_tracked",)),
        ("running statistics", _STATISTICS),
    ):
        names = [name for name in own if name.endswith(suffixes)]
        if not names or not weights.keys().isdisjoint(names):
            continue
        if suffixes == _STATISTICS and not folded:
            _refuse_other_norms(weights, own, arch)
        filled.append(title)
        for name in names:
            # less BatchNorm's eps, as detectron2 does: the division is then by one
            value = 1 - 1e-5 if name.endswith("running_var") else 0
            complete[name] = torch.full(own[name].shape, value, dtype=own[name].dtype)
    return complete, filled


def _refuse_other_norms(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], arch: str
) -> None:
    """Raise UsageError where all is there but the statistics: such norms are other norms."""
    omitted = (*_STATISTICS, "num_batches_tracked")
    if {name for name in own if not name.endswith(omitted)} != weights.keys():
        return  # the names differ in more: strict loading lists them
    named = f"--arch {arch}_gn, or " if timm.is_model(f"{arch}_gn") else ""
    raise UsageError(
        "its norms have no running statistics, so they are hardly BatchNorms. Usually they are "
        f"GroupNorm ({named}--arch {arch} --model-arg norm_layer=groupnorm reads them in 32 "
        "groups) or InstanceNorm (not supported). Where "
        "they are BatchNorms whose statistics were folded into weight and bias, --source msra, "
        "detectron1 or fair say so."
    )


def _fold_eps(found: ParsedCheckpoint, eps: float) -> None:
    """Make of BatchNorms with another eps the architecture's own: it is added to the variance."""
    own = eps_of(found.outline)
    if not own:
        raise UsageError(f"--bn-eps is given, but a {found.arch} has no BatchNorm.")
    for name, value in own.items():
        variance = f"{name}.running_var"
        found.weights[variance] = found.weights[variance] + (eps - value)


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


def _filter_by_timm(weights: Mapping[str, Tensor], arch: str) -> dict[str, Tensor] | None:
    """The weights through timm's reader of foreign names for this architecture, if it has one."""
    if not timm.is_model(arch):
        return None
    module = sys.modules[timm.models.model_entrypoint(arch).__module__]
    names = ("checkpoint_filter_fn", "_checkpoint_filter_fn")
    function: Any = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    if function is None or "model" not in inspect.signature(function).parameters:
        return None
    try:
        filtered = function(dict(weights), create_outline(arch))
    except (KeyError, ValueError, RuntimeError, AttributeError, IndexError, TypeError):
        return None  # names or shapes that it does not know either
    return {k: v for k, v in filtered.items() if isinstance(v, Tensor) and not v.is_meta}
