"""Strict loading: every tensor is placed, or named as new or left over on purpose, or nothing is.

The field's habit (detectron2, `strict=False`) is to warn and train from random weights. Here the
caller says beforehand which names may be new and which may stay behind; any other difference
raises with both sides listed, and the module is untouched.
"""

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from pretrain.errors import UsageError


def place(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    new: Iterable[str] = (),
    left: Iterable[str] = (),
) -> None:
    """Copy `weights` into `module`, all of them, into all of it.

    Args:
        module: the network; its parameters and buffers keep their dtype and device.
        weights: name -> tensor.
        new: regular expressions (full match) for names of `module` that keep their own values.
        left: regular expressions for names of `weights` that are not carried over.

    Raises:
        UsageError: a name on one side only that no expression covers, or a shape that differs.
    """
    own = module.state_dict()
    is_new, is_left = _matcher(new), _matcher(left)
    missing = [name for name in own if name not in weights and not is_new(name)]
    surplus = [name for name in weights if name not in own and not is_left(name)]
    placed = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and not is_left(name) and not is_new(name)
    }
    misfit = [
        f"{name}: file {tuple(tensor.shape)}, network {tuple(own[name].shape)}"
        for name, tensor in placed.items()
        if tensor.shape != own[name].shape
    ]
    if missing or surplus or misfit:
        raise UsageError(
            "the weights do not fit the network:"
            + _listing("in the network, not in the file", missing)
            + _listing("in the file, not in the network", surplus)
            + _listing("of another shape", misfit)
        )
    with torch.no_grad():
        for name, tensor in placed.items():
            own[name].copy_(tensor)


def _matcher(patterns: Iterable[str]) -> Callable[[str], object]:
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    return re.compile(joined or r"(?!)").fullmatch


def _listing(title: str, names: list[str], most: int = 8) -> str:
    if not names:
        return ""
    more = f"\n    ... and {len(names) - most} more" if len(names) > most else ""
    return f"\n  {title} ({len(names)}):" + "".join(f"\n    {n}" for n in names[:most]) + more
