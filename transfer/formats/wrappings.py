"""What the field wraps around weights: training state, EMA copies, prefixes, other programs' facts.

Each wrapping is a row of the table: the keys that mark it, and what it tells beside the weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from pretrain.errors import UsageError
from transfer.formats.files import Arguments
from transfer.formats.sources import SOURCES, Convention, described, of_mm_config, of_timm

# where the weights lie, the exponential moving average first (as timm's reader prefers)
_PLACES = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "blobs",
)
_PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.", "encoder.", "ema_model.")
# counters of averaging, no part of a network
_COUNTERS = {"n_averaged", "num_updates", "initted", "step"}


@dataclass(frozen=True)
class Unwrapped:
    """Weights under the file's own names, and what lay around them."""

    weights: dict[str, Tensor]
    wrapping: str
    arch: str | None = None
    """As the file names it; for timm's and torchvision's programs a timm architecture."""
    convention: Convention | None = None
    stated: dict[str, Any] = field(default_factory=dict)
    """Plain facts: epoch, errors, what was stripped or left."""


@dataclass(frozen=True)
class _Facts:
    arch: str | None = None
    convention: Convention | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)


def unwrap(content: Any, path: Path, prefix: str | None = None) -> Unwrapped:
    """Find the weights in a file's content.

    Raises:
        UsageError: no mapping of names to tensors in it.
    """
    if not isinstance(content, Mapping) or not content:
        raise UsageError(
            f"{path} holds {_kind(content)}; a mapping from names to tensors is needed. "
            "Save model.state_dict() in the program it is from."
        )
    place = next((key for key in _PLACES if _is_weights(content.get(key))), None)
    inner = content if place is None else content[place]
    if not _is_weights(inner):
        raise UsageError(
            f"{path} holds no weights that are known here. Its keys: "
            f"{', '.join(sorted(map(str, content))[:10])}. Save model.state_dict() in the "
            "program it is from."
        )
    wrapping, facts = "plain weights", _Facts()
    if place is not None:
        wrapping, tell = next(
            (words, tell) for marks, words, tell in _WRAPPINGS if marks <= set(content)
        )
        facts = tell(content)
    weights = {str(name): value for name, value in inner.items() if name not in _COUNTERS}
    weights, stripped, left = _strip(weights, path, prefix)
    stated = {
        **facts.stated,
        **({"weights": place} if place else {}),
        **({"prefix": stripped} if stripped else {}),
        **({"left": left} if left else {}),
    }
    tensors = {name: _tensor(name, value, path) for name, value in weights.items()}
    return Unwrapped(tensors, wrapping, facts.arch, facts.convention, stated)


def _is_weights(value: Any) -> bool:
    """At least one tensor, and more of them than of other things."""
    if not isinstance(value, Mapping) or not value:
        return False
    arrays = sum(isinstance(inner, (Tensor, np.ndarray)) for inner in value.values())
    return 2 * arrays > len(value)


def _strip(
    weights: dict[str, Any], path: Path, prefix: str | None
) -> tuple[dict[str, Any], str, list[str]]:
    """Weights without the prefixes that all names share, those prefixes, and what was left."""
    left: list[str] = []
    if prefix is not None:
        left = sorted(name for name in weights if not name.startswith(prefix))
        weights = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
        if not weights:
            raise UsageError(
                f"--prefix {prefix}: no name in {path} begins so; they are "
                f"{', '.join(left[:5])}, ..."
            )
    stripped = prefix or ""
    while shared := next((p for p in _PREFIXES if all(n.startswith(p) for n in weights)), None):
        weights = {name.removeprefix(shared): value for name, value in weights.items()}
        stripped += shared
    return weights, stripped, left[:20]


def _tensor(name: str, value: Any, path: Path) -> Tensor:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        try:
            value = torch.from_numpy(value if value.flags.writeable else value.copy())
        except TypeError as error:
            raise UsageError(f"{path}: {name} is an array of {value.dtype}: no weights.") from error
    if not isinstance(value, Tensor):
        raise UsageError(
            f"{path}: {name} is {_kind(value)} among tensors. Save model.state_dict() alone."
        )
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        raise UsageError(
            f"{path}: {name} is a {value.layout} tensor of {value.dtype}; dense real numbers are "
            "needed. Convert it in the program it is from."
        )
    return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _plain(value: Any) -> Any:
    """A number from what may be a tensor or a NumPy scalar; None where it is none."""
    if isinstance(value, (Tensor, np.generic)):
        value = value.item() if value.size == 1 or getattr(value, "ndim", 0) == 0 else None
    return value if isinstance(value, (int, float, str)) else None


def _numbers(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    found = {key: _plain(content.get(key)) for key in keys}
    return {key: value for key, value in found.items() if value is not None}


def _arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    given = content.get("args")
    return vars(given) if isinstance(given, Arguments) else dict(given or {})


def _cutmix(content: Mapping[str, Any]) -> _Facts:
    """`arch` is only resnet or pyramidnet there; the data set follows from the network."""
    is_cifar = content["arch"] == "pyramidnet"
    stated = _numbers(content, "epoch", "best_err1", "best_err5")
    known = SOURCES["cutmix-cifar" if is_cifar else "cutmix"]
    return _Facts(None, known if content["arch"] in ("resnet", "pyramidnet") else None, stated)


def _lightning(content: Mapping[str, Any]) -> _Facts:
    return _Facts(None, None, _numbers(content, "epoch", "global_step"))


def _timm_training(content: Mapping[str, Any]) -> _Facts:
    arch, arguments = str(content["arch"]), _arguments(content)
    convention = None
    if "crop_pct" in arguments and timm.is_model(arch):
        said = {k: v for k, v in arguments.items() if k in _FED and v is not None}
        own = described(arch).to_dict()
        convention = of_timm(arch, {**own, **said}, "the arguments of timm's train.py")
    return _Facts(arch, convention, _numbers(content, "epoch", "metric"))


_FED = ("mean", "std", "interpolation", "crop_pct", "input_size", "img_size")


def _torchvision_training(content: Mapping[str, Any]) -> _Facts:
    """Its presets normalise with ImageNet's mean and std, whatever the arguments."""
    arguments = _arguments(content)
    arch = arguments.get("model")
    convention = None
    if {"val_crop_size", "val_resize_size", "interpolation"} <= set(arguments):
        size, short = int(arguments["val_crop_size"]), int(arguments["val_resize_size"])
        convention = replace(
            SOURCES["torchvision"],
            size=size,
            crop_pct=min(1.0, size / short),
            interpolation=str(arguments["interpolation"]),
            origin="the arguments of torchvision's train.py",
        )
    return _Facts(arch if isinstance(arch, str) else None, convention, _numbers(content, "epoch"))


def _mm(content: Mapping[str, Any]) -> _Facts:
    meta = content["meta"] if isinstance(content["meta"], Mapping) else {}
    text = meta.get("config") or meta.get("cfg")
    convention = of_mm_config(text) if isinstance(text, str) else None
    return _Facts(None, convention, _numbers(meta, "epoch", "iter", "openmixup_version"))


def _detectron2(content: Mapping[str, Any]) -> _Facts:
    author = _plain(content["__author__"])
    known = SOURCES["torchvision"] if author == "torchvision" else None  # its own converter's word
    return _Facts(None, known, {"author": author})


def _unknown(content: Mapping[str, Any]) -> _Facts:
    arch = content.get("arch")
    return _Facts(
        arch if isinstance(arch, str) else None, None, _numbers(content, "epoch", "iteration")
    )


# the first row whose keys are all there decides
_WRAPPINGS: Sequence[tuple[set[str], str, Callable[[Mapping[str, Any]], _Facts]]] = (
    ({"arch", "state_dict", "best_err1"}, "CutMix-PyTorch release", _cutmix),
    ({"pytorch-lightning_version"}, "Lightning checkpoint", _lightning),
    ({"arch", "state_dict", "version"}, "checkpoint of timm's train.py", _timm_training),
    (
        {"model", "args", "lr_scheduler"},
        "checkpoint of torchvision's train.py",
        _torchvision_training,
    ),
    ({"meta", "state_dict"}, "mmpretrain or openmixup checkpoint", _mm),
    ({"__author__", "model"}, "detectron2 file", _detectron2),
    ({"blobs"}, "Detectron file", _unknown),
    (set(), "training checkpoint", _unknown),
)
