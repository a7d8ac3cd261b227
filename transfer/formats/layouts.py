"""Checkpoint layouts: training state, EMA copies, prefixes, and what other programs say beside.

Each layout is a row of a table: the keys that mark it, and what it tells beside the weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from pretrain.errors import UsageError
from pretrain.safe_pickle import DAMAGE
from transfer.formats.files import Arguments
from transfer.formats.sources import SOURCES, Preprocessing, of_mm_config, of_timm

# where the weights lie, the exponential moving average first (as timm's reader prefers)
_WEIGHT_KEYS = (
    "state_dict_ema", "model_ema", "ema_state_dict",
    "state_dict", "model_state_dict", "model_state", "model", "blobs",
)  # fmt: skip
_PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.", "encoder.", "ema_model.")
# counters of averaging, no part of a network
_COUNTERS = {"n_averaged", "num_updates", "initted", "step"}
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


def find_weights(content: Any, path: Path, prefix: str | None = None) -> Checkpoint:
    """The weights in a file's content.

    Raises:
        UsageError: no mapping of names to tensors in it.
    """
    if not isinstance(content, Mapping) or not content:
        raise UsageError(
            f"{path} holds a {type(content).__name__}; a mapping from names to tensors is needed. "
            "Save model.state_dict() in the program it is from."
        )
    key = next((key for key in _WEIGHT_KEYS if _are_weights(content.get(key))), None)
    inner = content if key is None else content[key]
    if not _are_weights(inner):
        raise UsageError(
            f"{path} holds no weights that are known here. Its keys: "
            f"{', '.join(sorted(map(str, content))[:10])}. Save model.state_dict() in the "
            "program it is from."
        )
    layout = "plain weights"
    facts: Facts = (None, None, {})
    if key is not None:
        layout, reader = next(row[1:] for row in _LAYOUTS if row[0] <= set(content))
        try:
            facts = reader(content)
        except UsageError:
            raise
        except (*DAMAGE, ArithmeticError, AssertionError):
            pass  # not as that program writes it: what it would have said must be given
    weights = {str(name): value for name, value in inner.items() if name not in _COUNTERS}
    weights, stripped, left = _strip_prefixes(weights, path, prefix)
    around = {"weights": key, "prefix": stripped, "left": left}
    arch, preprocessing, stated = facts
    stated |= {name: value for name, value in around.items() if value}
    tensors = {name: _to_tensor(name, value, path) for name, value in weights.items()}
    arch = arch if isinstance(arch, str) else None
    return Checkpoint(tensors, layout, arch, preprocessing, stated)


def _are_weights(value: Any) -> bool:
    """At least one tensor, and more of them than of other things."""
    if not isinstance(value, Mapping) or not value:
        return False
    arrays = sum(isinstance(inner, (Tensor, np.ndarray)) for inner in value.values())
    return 2 * arrays > len(value)


def _strip_prefixes(
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
    return vars(arguments) if isinstance(arguments, Arguments) else dict(arguments or {})


def _read_cutmix(content: Mapping[str, Any]) -> Facts:
    """`arch` is only resnet or pyramidnet there; the data set follows from the network."""
    source = {"resnet": "cutmix", "pyramidnet": "cutmix-cifar"}.get(str(content["arch"]), "")
    return None, SOURCES.get(source), _select(content, "epoch", "best_err1", "best_err5")


def _read_timm(content: Mapping[str, Any]) -> Facts:
    arch, arguments = str(content["arch"]), _arguments(content)
    preprocessing = None
    if "crop_pct" in arguments and timm.is_model(arch):
        keys = ("mean", "std", "interpolation", "crop_pct", "input_size", "img_size")
        own = {k: arguments[k] for k in keys if arguments.get(k) is not None}
        config = {**timm.get_pretrained_cfg(arch).to_dict(), **own}  # type: ignore[union-attr]
        preprocessing = of_timm(arch, config, "the arguments of timm's train.py")
    return arch, preprocessing, _select(content, "epoch", "metric")


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
