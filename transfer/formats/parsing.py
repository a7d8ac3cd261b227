"""From a foreign file to a Backbone: key map, architecture and preprocessing, loaded strictly.

Also NumPy archives (JAX and TensorFlow weights) of architectures that timm itself reads.
"""

import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
from transfer.formats.architectures import CAFFE, RESNET_SHAPES, infer
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
    assumed: list[str]
    """Facts that change the function, which nothing says: each with the option that decides."""


def parse(file: CheckpointFile, overrides: Overrides) -> ParsedCheckpoint:
    """Names and architecture, verified by strict loading; preprocessing as far as it is known.

    timm's config.json in the same folder counts as the file's own word.

    Raises:
        UsageError: names or shapes that fit no network, with both sides listed.
    """
    checkpoint = find_weights(
        file.content, file.path, overrides.prefix, overrides.key, overrides.leave
    )
    known = known_file(file.sha256)
    config = _find_config(file.path, overrides)
    origins = [origin for origin in (config, checkpoint, known) if origin is not None]
    own = _agree(origins, overrides, file)
    arch = overrides.arch or next((a for a in map(_stated_arch, origins) if a), None)
    given = dict(checkpoint.stated.get("model_args", {}))
    if config is not None:
        if given not in ({}, config.model_args):
            raise UsageError(
                f"{file.path} was built with {given}, {config.preprocessing.origin} states "
                f"{dict(config.model_args)}. Give --config none where that is another network's."
            )
        given = dict(config.model_args)
    for name, value in overrides.model_args.items():
        if _as_json(given.setdefault(name, value)) != _as_json(value):
            raise UsageError(
                f"{file.path} says of itself: {name} is {given[name]!r}. --model-arg "
                f"{name}={value} contradicts it: leave it away."
            )
    BackboneSpec(arch="unknown", model_args=given)  # refuses what is no argument of a network
    given = _as_json(given)
    source = SOURCES.get(overrides.source or "")
    folded = any(facts.folded for facts in (own, source) if facts)
    try:
        found = _identify(checkpoint.weights, arch, given, folded, file)
    except UsageError as error:
        hint = _suggest_prefix(checkpoint, arch, given, folded, file)
        raise UsageError(f"{error}{hint}") from error
    weights, key_map, arch, arguments, filled = found
    stated = overrides.preprocessing(arch)
    if stated and own and _differ(stated, own):
        raise UsageError(
            f"{file.path} says of itself: mean {own.mean}, std {own.std}, {own.channels} "
            f"({own.origin}). What was given contradicts it: leave it away"
            + (", or give --config none where config.json is another network's." if config else ".")
        )
    preprocessing = own or stated
    first_conv, classifier = _first_and_last(arch)
    num_classes = len(weights.get(classifier, ()))
    if overrides.bn_eps is not None:
        _fold_eps(weights, arch, arguments, overrides.bn_eps, num_classes)
    assumed = []
    if preprocessing is not None:
        if overrides.source == "timm" and overrides.arch is None and own is None:
            raise UsageError(
                f"--source timm needs --arch: several of timm's networks have the shapes of {arch}."
            )
        arch = _settle_strides(arch, preprocessing, overrides, file)
        _require_stem(arch, preprocessing, overrides, file)
        network = _outline(arch, num_classes, json.dumps(arguments))
        assumed = _list_assumed(arch, arguments, network, preprocessing.unsaid, overrides)
        if preprocessing.channels == "bgr":
            weights[first_conv] = weights[first_conv].flip(1).contiguous()
    return ParsedCheckpoint(
        weights,
        arch,
        arguments,
        num_classes,
        preprocessing,
        key_map,
        checkpoint,
        known.name if known else file.path.name,
        filled,
        KEY_MAPS[key_map].find_ignored(checkpoint.weights) if key_map in KEY_MAPS else [],
        assumed,
    )


def _as_json(arguments: Any) -> Any:
    """Tuples as lists, as a file of ours keeps them."""
    return json.loads(json.dumps(arguments))


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
    origins: Sequence[KnownFile | Checkpoint], overrides: Overrides, file: CheckpointFile
) -> Preprocessing | None:
    """The preprocessing that the file, what lies beside it and the lists state.

    Raises:
        UsageError: two of them differ, or --arch and one that says how it built its network.
    """
    stated = [origin for origin in origins if origin.preprocessing is not None]
    own = stated[0].preprocessing if stated else None
    beside = ", or give --config none where config.json is another network's"
    remedy = beside if any(isinstance(o, KnownFile) for o in stated[:1]) else ""
    for origin in stated[1:]:
        other = origin.preprocessing
        if own and other and (
            _differ(own, other) or _stated_arch(origin) not in (None, _stated_arch(stated[0]))
        ):  # fmt: skip
            raise UsageError(
                f"{file.path} is described twice and not alike: {_stated_arch(stated[0])}, mean "
                f"{own.mean}, std {own.std} ({own.origin}); {_stated_arch(origin)}, mean "
                f"{other.mean}, std {other.std} ({other.origin}). Keep one of them{remedy}."
            )
    for origin in stated:
        said = _stated_arch(origin)
        if said is not None and overrides.arch not in (None, said, origin.arch):
            where = origin.preprocessing.origin if origin.preprocessing else ""
            raise UsageError(
                f"{file.path} says of itself: {said} ({where}). --arch {overrides.arch} "
                f"contradicts it: leave it away{remedy}."
            )
    return own


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
    stated = {
        "container": file.container,
        "wrapping": layout,
        "names": parsed.key_map,
        "conventions": preprocessing.origin,
        **facts,
    }
    noted = {"filled": parsed.filled, "left": parsed.left, "assumed": parsed.assumed}
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


def _is_finite(tensor: Tensor) -> bool:
    """By the extremes, which takes no memory; NaN is one of them where there is any."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


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
    inapplicable = (overrides.prefix, overrides.key, overrides.bn_eps, overrides.config)
    if any(value is not None for value in inapplicable) or overrides.leave:
        raise UsageError(
            f"{path} is a NumPy archive: leave --prefix, --key, --leave, --bn-eps and --config "
            "away."
        )
    heads = ("head/kernel", "head/conv2d/kernel")  # as JAX programs name the classifier
    sizes = [array.shape[-1] for name, array in file.content.items() if name.endswith(heads)]
    num_classes = int(sizes[0]) if sizes else 0
    spec = preprocessing.spec(arch, num_classes, overrides.model_args)
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
    weights: Mapping[str, Tensor],
    arch: str | None,
    given: Mapping[str, Any],
    folded: bool,
    file: CheckpointFile,
) -> tuple[dict[str, Tensor], str, str, dict[str, Any], list[str]]:
    """The first names under which the weights fit a network, all of them."""
    refusal = ""
    for title, renamed in rename(weights, arch):
        family = KEY_MAPS[title].architectures if title in KEY_MAPS else ()
        candidates = sorted(family, key=lambda row: row[0] != arch)
        if not family:
            inferred, own = infer({n: t.shape for n, t in renamed.items()}) or (None, {})
            candidate = arch or inferred
            if candidate is not None:
                candidates = [(candidate, own if inferred == candidate else {})]
        for candidate, own in candidates:
            arguments = {**own, **given}
            try:
                is_folded = folded or title in _FOLDED_NAMES
                complete, filled = fit(
                    renamed, candidate, arguments, folded=is_folded, reshape=bool(family)
                )
            except UsageError as error:
                # a stem alone has the names of every family
                if not family or arch or len(renamed) > _STEM_AND_CLASSIFIER:
                    refusal = refusal or f"as {candidate} under the names of {title}: {error}"
                continue
            if arch not in (None, candidate):
                raise UsageError(
                    f"{file.path} has the names of {title}, whose network is no {arch}: give "
                    f"--arch {candidate}, or leave --arch away."
                )
            return complete, title, candidate, arguments, filled
    if refusal:
        raise UsageError(f"{file.path} is not understood. {refusal}")
    again = ASK_FOR_BACKBONE_FILE.format(path=file.path, options="--arch NAME --source NAME")
    raise UsageError(
        f"{file.path}: which network its {len(weights)} tensors belong to cannot be told from "
        f"their names ({', '.join(sorted(weights)[:4])}, ...). Give --arch, a timm architecture; "
        f"where only some names belong to it, also --prefix. {again}"
    )


def _suggest_prefix(
    checkpoint: Checkpoint,
    arch: str | None,
    given: Mapping[str, Any],
    folded: bool,
    file: CheckpointFile,
) -> str:
    """The option that takes a whole network among other names; empty where there is none."""
    for prefix in find_prefixes(checkpoint.weights):
        subset = {
            name.removeprefix(prefix): tensor
            for name, tensor in checkpoint.weights.items()
            if name.startswith(prefix)
        }
        try:
            _, _, name, _, _ = _identify(subset, arch, given, folded, file)
        except UsageError:
            continue
        whole = f"{checkpoint.stated.get('prefix', '')}{prefix}"
        return f"\nThe names that begin with {prefix} are a whole {name}: try --prefix {whole}"
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


def _fold_eps(
    weights: dict[str, Tensor],
    arch: str,
    arguments: Mapping[str, Any],
    eps: float,
    num_classes: int,
) -> None:
    """Make of BatchNorms with another eps the architecture's own: it is added to the variance."""
    own = _eps(_outline(arch, num_classes, json.dumps(arguments)))
    if not own:
        raise UsageError(f"--bn-eps is given, but a {arch} has no BatchNorm.")
    for name, value in own.items():
        weights[f"{name}.running_var"] = weights[f"{name}.running_var"] + (eps - value)


def _eps(network: torch.nn.Module) -> dict[str, float]:
    """Of the network's BatchNorms, by their names."""
    norms = (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)
    return {name: m.eps for name, m in network.named_modules() if isinstance(m, norms)}


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
    shape = RESNET_SHAPES.get(arch)
    if stride == "1x1" and arch not in twins and (shape is None or shape.block == "bottleneck"):
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


def leaves_stem_open(arch: str, arguments: Mapping[str, Any]) -> bool:
    """True for a CIFAR stem whose pool and padding nobody has stated."""
    shape = RESNET_SHAPES.get(arch)
    answered = {"stem_pool", "stem_padding"} & set(arguments)
    return shape is not None and shape.stem == "3x3" and not answered


def _require_stem(
    arch: str, preprocessing: Preprocessing, overrides: Overrides, file: CheckpointFile
) -> None:
    """Networks of CIFAR's stem, told apart by the source or an argument alone."""
    if preprocessing.stem or overrides.arch or not leaves_stem_open(arch, overrides.model_args):
        return
    raise UsageError(
        f"{file.path}: behind the 3x3 stem of a {arch} there may be a max-pool or none, and its "
        f"padding may be 1 or 2. Give --arch {arch} for none and 1, --model-arg stem_pool=max "
        "for the pool, --model-arg stem_padding=2."
    )


def _list_assumed(
    arch: str,
    arguments: Mapping[str, Any],
    network: torch.nn.Module,
    unsaid: Sequence[str],
    overrides: Overrides,
) -> list[str]:
    """What nothing says of the network's function, each fact with the option that decides it."""
    if not unsaid:
        return []
    takes = inspect.signature(type(network).__init__).parameters
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    eps = sorted(set(_eps(network).values()))
    assumed = []
    if "channels" in unsaid:
        assumed.append("the first convolution takes red, green, blue; --channels bgr turns it")
    # a strided convolution without overlap pads nothing
    if "padding" in unsaid and any(
        c.stride[0] > 1 and c.kernel_size[0] > c.stride[0] for c in convolutions
    ):
        is_same = arch.startswith("tf_")
        twin = arch.removeprefix("tf_") if is_same else f"tf_{arch}"
        pads, other = ("SAME, as TensorFlow", "PyTorch") if is_same else (
            "on both sides alike, as PyTorch", "TensorFlow and JAX (SAME)")  # fmt: skip
        option = f"--arch {twin} pads as {other}"
        if not timm.is_model(twin):
            option = f"no architecture here pads a {arch} as {other}"
        assumed.append(f"convolutions pad {pads}; {option}")
    if "dilation" in unsaid and "output_stride" in takes and "output_stride" not in arguments:
        assumed.append("no stride is replaced by dilation; --model-arg output_stride=16 or 8 is")
    if "activation" in unsaid and "act_layer" in takes and "act_layer" not in arguments:
        places = ("torch.nn.modules.activation", "timm.layers.act")
        kinds = [type(m) for m in network.modules() if type(m).__module__.startswith(places)]
        name = max(kinds, key=kinds.count).__name__ if kinds else "the architecture's own"
        assumed.append(f"the activation is {name}; --model-arg act_layer=NAME")
    if "eps" in unsaid and eps and overrides.bn_eps is None:
        assumed.append(f"BatchNorm's eps is {', '.join(map(str, eps))}; --bn-eps NUMBER")
    groups = {m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)}
    if groups - {1}:
        assumed.append(f"GroupNorm has {max(groups)} groups; no option has another number")
    return assumed


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
