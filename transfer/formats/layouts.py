"""Checkpoint layouts: training state, EMA copies, prefixes, and what other programs say beside.

Each layout is a row of a table: the keys that mark it, and what it tells beside the weights. A
network among others (self-supervised learning) is a row of a second table.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from pretrain.errors import UsageError
from pretrain.safe_pickle import DAMAGE
from transfer.formats.files import Arguments
from transfer.formats.sources import SOURCES, Preprocessing, of_mm_config, of_timm_training

# where the weights lie, the exponential moving average first (as timm's reader prefers)
_WEIGHT_KEYS = (
    "state_dict_ema", "model_ema", "ema_state_dict",
    "state_dict", "model_state_dict", "model_state", "model", "blobs", "module", "net",
)  # fmt: skip
_AVERAGES = _WEIGHT_KEYS[:3]
_PREFIXES = (
    "_orig_mod.", "module.", "model.", "net.", "network.", "encoder.", "ema_model.", "timm_model.",
    "backbone.timm_model.", "_backbone.", "_feature_blocks.",
)  # fmt: skip
# no weights of a network, though there are tensors in them
_TRAINING_STATE = re.compile(r"optim.*|.*scheduler.*|.*scaler.*|queue|callbacks|loops", re.I)
# a network among others: the program, how its names begin, what of the others may stay behind
_AMONG_OTHERS: Sequence[tuple[str, str, str]] = (
    ("MoCo", "encoder_q.", r"encoder_k\..*|queue.*|encoder_q\.fc\..*"),
    ("MoCo v3", "base_encoder.", r"(momentum_encoder|predictor)\..*|base_encoder\.(fc|head)\..*"),
    ("SimSiam", "encoder.", r"predictor\..*|encoder\.fc\..*"),
    ("BYOL", "online_encoder.net.", r"online_encoder\.projector\..*"),
    ("BYOL", "net.", r"(online_encoder|target_encoder|online_predictor)\..*"),
    (
        "self-supervised learning (SimCLR, DINO, Barlow Twins, VICReg, solo-learn, lightly)",
        "backbone.",
        r"backbone\.fc\.\d\..*|head\.(mlp|last_layer)\..*|(classifier|projector|projection_head|predictor|"
        r"prediction_head|prototypes|bn|queue|criterion|momentum_\w+|\w+_momentum)\..*",
    ),
    ("SimCLR", "encoder.", r"projector\..*"),
    ("SimCLR", "f.", r"g\..*"),
    ("SwAV", "", r"(projection_head|prototypes)\..*"),
    ("ema-pytorch", "ema_model.", r"online_model\..*|initted|step"),
)
# counters of averaging and PaddlePaddle's own names, no part of a network
_BESIDE = {"n_averaged", "num_updates", "initted", "step", "StructuredToParameterName@@"}
# what a layout tells beside the weights: architecture, preprocessing, plain facts
Facts = tuple[str | None, Preprocessing | None, dict[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """Weights under the file's own names, and what was around them."""

    weights: dict[str, Tensor]
    layout: str
    arch: str | None
    """As the file names it; for timm's and torchvision's programs a timm architecture."""
    preprocessing: Preprocessing | None
    stated: dict[str, Any]
    """Plain facts: epoch, errors, what was stripped or left."""


def find_weights(
    content: Any,
    path: Path,
    prefix: str | None = None,
    key: str | None = None,
    leave: Sequence[str] = (),
) -> Checkpoint:
    """The weights in a file's content.

    Args:
        content: of the file.
        path: of the file, for messages.
        prefix: names that begin so are taken, the others are left.
        key: where in the file the weights are; dots between the keys.
        leave: patterns with `*` for names that may stay behind.

    Raises:
        UsageError: no mapping of names to tensors in it, or several.
    """
    if not isinstance(content, Mapping) or not content:
        raise UsageError(
            f"{path} holds a {type(content).__name__}; a mapping from names to tensors is needed. "
            "Save model.state_dict() in the program it is from."
        )
    given = key
    key, inner = _find_place(content, path, given)
    notes = []
    if given is None and key in _AVERAGES:
        key, note = _prefer_living(content, key)
        inner, notes = content[key], [note] if note else []
    layout = "plain weights"
    facts: Facts = (None, None, {})
    if key is not None:
        layout, reader = next(row[1:] for row in _LAYOUTS if row[0] <= set(content))
        try:
            facts = reader(content)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
        except (*DAMAGE, ArithmeticError, AssertionError):
            pass  # not as that program writes it: what it would have said must be given
    weights = {str(name): value for name, value in inner.items() if name not in _BESIDE}
    left = _find_left(weights, leave, prefix, path)
    weights, stripped = _take(weights, prefix or "", left)
    if prefix is None and (row := _find_among_others(weights)):
        program, begin, expression = row
        beside = [name for name in weights if re.fullmatch(expression, name)]
        weights, more = _take(weights, begin, beside)
        left, stripped, layout = left + beside, stripped + more, f"{program}, {layout}"
    around = {"weights": key, "prefix": stripped, "left": left[:20], "notes": notes}
    arch, preprocessing, stated = facts
    stated |= {name: value for name, value in around.items() if value}
    tensors = {name: _to_tensor(name, value, path) for name, value in weights.items()}
    if any(name.endswith("._mean") for name in tensors):
        layout, tensors = "PaddlePaddle parameters", _of_paddle(tensors)
    arch = arch if isinstance(arch, str) else None
    return Checkpoint(tensors, layout, arch, preprocessing, stated)


def _find_place(
    content: Mapping[str, Any], path: Path, key: str | None
) -> tuple[str | None, Mapping[str, Any]]:
    """Where in the content the weights are, and these; None for the content itself."""
    if key is not None:
        inner = _follow(content, key)
        if not _are_weights(inner):
            what = "nothing" if inner is None else f"a {type(inner).__name__} without weights"
            known = ", ".join(place for place, _ in _search(content)) or "nowhere"
            raise UsageError(f"--key {key}: there is {what} in {path}; weights are at: {known}.")
        return key, inner
    if usual := next((k for k in _WEIGHT_KEYS if _are_weights(content.get(k))), None):
        return usual, content[usual]
    if _are_weights(content):
        return None, content
    places = dict(_search(content))
    networks = {at: inner for at, inner in places.items() if _has_convolution(inner)} or places
    if len(networks) == 1:
        return networks.popitem()
    if networks:
        raise UsageError(
            f"{path} holds weights in several places: {', '.join(networks)}. Say which: "
            f"{' or '.join(f'--key {place}' for place in [*networks][:5])}."
        )
    raise UsageError(
        f"{path} holds no weights that are known here. Its keys: "
        f"{', '.join(sorted(map(str, content))[:10])}. Save model.state_dict() in the "
        "program it is from."
    )


def _prefer_living(content: Mapping[str, Any], average: str) -> tuple[str, str]:
    """The place of the average, or of other weights where its statistics are dead; and a note.

    Averages of the parameters alone (torch's AveragedModel without use_buffers) keep BatchNorm's
    statistics of the moment when they were begun.
    """
    others = [k for k in _WEIGHT_KEYS if k not in _AVERAGES and _are_weights(content.get(k))]
    living = next((k for k in others if not has_fresh_statistics(content[k])), None)
    if living is not None and has_fresh_statistics(content[average]):
        return living, (
            f"no BatchNorm of the average ({average}) has ever seen an image (mean 0, variance 1): "
            f"{living} is taken. --key {average} takes the average"
        )
    seen, behind = (_count_batches(content[k]) if k else 0 for k in (living, average))
    if 0 <= behind < 0.9 * seen:
        return average, (
            f"the statistics of the average ({average}) have seen {behind:,} batches, those of "
            f"{living} {seen:,}: they may be older than its weights. --key {living} takes the other"
        )
    return average, ""


def has_fresh_statistics(weights: Mapping[str, Any]) -> bool:
    """True where BatchNorms are there and none has seen an image: mean 0, variance 1."""
    endings = {"running_mean": 0, "running_var": 1}
    found = [(value, endings[name.rpartition(".")[2]]) for name, value in weights.items()
             if str(name).rpartition(".")[2] in endings]  # fmt: skip
    return bool(found) and all(
        isinstance(value, (Tensor, np.ndarray)) and bool((value == start).all())
        for value, start in found
    )


def _count_batches(weights: Mapping[str, Any]) -> int:
    """What the first BatchNorm counted; -1 where none counts."""
    counters = (v for name, v in weights.items() if str(name).endswith("num_batches_tracked"))
    return int(next(counters, -1))


def _follow(content: Any, key: str) -> Any:
    """What is at a path of keys with dots between, which may hold dots themselves; or None."""
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if key == str(name):
            return value
        if key.startswith(f"{name}."):
            found = _follow(value, key.removeprefix(f"{name}."))
            if found is not None:
                return found
    return None


def _search(content: Mapping[str, Any], depth: int = 4) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The places that hold weights, but for the optimizer's state."""
    for name, value in content.items():
        if not isinstance(name, str) or _TRAINING_STATE.fullmatch(name):
            continue
        if _are_weights(value):
            yield name, value
        elif isinstance(value, Mapping) and depth:
            yield from ((f"{name}.{place}", inner) for place, inner in _search(value, depth - 1))


def _has_convolution(weights: Mapping[str, Any]) -> bool:
    return any(getattr(value, "ndim", 0) == 4 for value in weights.values())


def _find_left(
    weights: Mapping[str, Any], patterns: Sequence[str], prefix: str | None, path: Path
) -> list[str]:
    """Names that fit a pattern or do not begin as the prefix says; UsageError where one is idle."""
    left = [n for n in weights if any(fnmatchcase(n, pattern) for pattern in patterns)]
    known = f"no name in {path} {{}}; they are {', '.join(sorted(weights)[:5])}, ..."
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in left):
            raise UsageError(f"--leave {pattern}: {known.format('fits')}")
    others = sorted(name for name in weights if not name.startswith(prefix or ""))
    if prefix is not None and len(others) == len(weights):
        raise UsageError(f"--prefix {prefix}: {known.format('begins so')}")
    return list(dict.fromkeys([*left, *others]))


def _take(
    weights: Mapping[str, Any], begin: str, left: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """Weights but for those left, without `begin` and what all names then begin with; and these."""
    behind = set(left)
    taken = {n.removeprefix(begin): v for n, v in weights.items() if n not in behind}
    while shared := next(
        (p for p in _PREFIXES if taken and all(n.startswith(p) for n in taken)), ""
    ):
        taken = {name.removeprefix(shared): value for name, value in taken.items()}
        begin += shared
    return taken, begin


def _find_among_others(weights: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The row whose network and companions these are, both and nothing else."""
    for row in _AMONG_OTHERS:
        _, begin, expression = row
        others = [name for name in weights if re.fullmatch(expression, name)]
        own = sum(name.startswith(begin) for name in weights.keys() - others)
        if others and own and own + len(others) == len(weights):
            return row
    return None


def find_prefixes(names: Iterable[str]) -> list[str]:
    """What many of the names begin with, but not all; up to four parts, the shortest first."""
    names = list(names)
    counts = Counter(
        ".".join(parts[:depth]) + "."
        for parts in (name.split(".") for name in names)
        for depth in range(1, min(5, len(parts)))
    )
    many = [prefix for prefix, count in counts.items() if 10 <= count < len(names)]
    return sorted(many, key=lambda prefix: (prefix.count("."), -counts[prefix]))[:40]


def _of_paddle(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under torch's names of statistics; its matrices have the outputs last."""
    return {
        name.replace("._mean", ".running_mean").replace("._variance", ".running_var"): (
            tensor.T.contiguous() if tensor.ndim == 2 else tensor
        )
        for name, tensor in weights.items()
    }


def _are_weights(value: Any) -> bool:
    """At least one tensor, and more of them than of other things."""
    if not isinstance(value, Mapping) or not value:
        return False
    arrays = sum(isinstance(inner, (Tensor, np.ndarray)) for inner in value.values())
    return 2 * arrays > len(value)


def _to_tensor(name: str, value: Any, path: Path) -> Tensor:
    if isinstance(value, (np.generic, np.ndarray)):
        array = np.asarray(value)
        try:
            value = torch.from_numpy(array if array.flags.writeable else array.copy())
        except TypeError as error:
            raise UsageError(f"{path}: {name} is an array of {array.dtype}: no weights.") from error
    if not isinstance(value, Tensor):
        raise UsageError(
            f"{path}: {name} is a {type(value).__name__} among tensors. Save model.state_dict() "
            "alone."
        )
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise UsageError(
            f"{path}: {name} is a {value.layout} tensor of {value.dtype}; dense real numbers are "
            "needed. Convert it in the program it is from."
        )
    return value


def _select(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Those that are there, as numbers or texts; tensors of one number and NumPy's are taken."""
    values = {key: content[key] for key in keys if key in content}
    values = {k: v.item() if isinstance(v, (Tensor, np.generic)) else v for k, v in values.items()}
    return {key: value for key, value in values.items() if isinstance(value, (int, float, str))}


def _arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    arguments = content.get("args")
    if isinstance(arguments, Arguments):
        return vars(arguments)
    return dict(arguments) if isinstance(arguments, Mapping) else {}


def _read_cutmix(content: Mapping[str, Any]) -> Facts:
    """`arch` is only resnet or pyramidnet there; the data set follows from the network's stages."""
    weights = content["state_dict"]
    names = weights if isinstance(weights, Mapping) else ()
    source = "cutmix" if any("layer4." in str(name) for name in names) else "cutmix-cifar"
    stated = _select(content, "epoch", "best_err1", "best_err5")
    return None, SOURCES[source] if content["arch"] in ("resnet", "pyramidnet") else None, stated


def _read_timm(content: Mapping[str, Any]) -> Facts:
    """`arch` may carry the tag of the weights that the training began with."""
    arch, stated = str(content["arch"]).partition(".")[0], _select(content, "epoch", "metric")
    if not timm.is_model(arch) or not (arguments := _arguments(content)):
        return arch, None, stated
    preprocessing, built = of_timm_training(str(content["arch"]), arguments)
    return arch, preprocessing, stated | ({"model_args": built} if built else {})


def _read_torchvision(content: Mapping[str, Any]) -> Facts:
    """Its presets normalise with ImageNet's mean and std, whatever the arguments."""
    arguments = _arguments(content)
    preprocessing = None
    if {"val_crop_size", "val_resize_size", "interpolation"} <= set(arguments):
        size, short_side = int(arguments["val_crop_size"]), int(arguments["val_resize_size"])
        preprocessing = Preprocessing(
            size=size,
            crop_pct=min(1.0, size / short_side),
            interpolation=str(arguments["interpolation"]),
            origin="the arguments of torchvision's train.py",
        )
    return arguments.get("model"), preprocessing, _select(content, "epoch")


def _read_mm(content: Mapping[str, Any]) -> Facts:
    meta = content["meta"]
    text = meta.get("config") or meta.get("cfg")
    preprocessing = of_mm_config(text) if isinstance(text, str) else None
    return None, preprocessing, _select(meta, "epoch", "iter", "openmixup_version")


def _read_detectron2(content: Mapping[str, Any]) -> Facts:
    stated = _select(content, "__author__")  # its own converter writes "torchvision"
    author = stated.get("__author__")
    return None, SOURCES["torchvision"] if author == "torchvision" else None, {"author": author}


def _read_other(content: Mapping[str, Any]) -> Facts:
    return content.get("arch"), None, _select(content, "epoch", "iteration", "global_step")


# the first row whose keys are all there decides
_LAYOUTS: Sequence[tuple[set[str], str, Callable[[Mapping[str, Any]], Facts]]] = (
    ({"arch", "state_dict", "best_err1"}, "CutMix-PyTorch release", _read_cutmix),
    ({"pytorch-lightning_version"}, "Lightning checkpoint", _read_other),
    ({"arch", "state_dict", "version"}, "checkpoint of timm's train.py", _read_timm),
    ({"model", "args", "lr_scheduler"}, "checkpoint of torchvision's train.py", _read_torchvision),
    ({"meta", "state_dict"}, "mmpretrain or openmixup checkpoint", _read_mm),
    ({"__author__", "model"}, "detectron2 file", _read_detectron2),
    ({"blobs"}, "Detectron file", _read_other),
    (set(), "training checkpoint", _read_other),
)
