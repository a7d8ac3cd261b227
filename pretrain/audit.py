"""Strict loading: every tensor has its counterpart or is named as new or left out; or nothing is.

Other libraries (detectron2, `strict=False`) warn and train from random weights. Here the caller
says beforehand which names may be new and which may be left out; any other difference raises with
both sides listed, and the module is untouched.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pretrain.errors import UsageError


def load_strict(
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
        left: regular expressions for names of `weights` that are not loaded.

    Raises:
        UsageError: a name on one side only that no expression covers, or a shape that differs.
    """
    own = module.state_dict()
    # an empty list of patterns becomes one that matches nothing
    is_new, is_left = (
        re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)").fullmatch
        for patterns in (new, left)
    )
    shared = [name for name in weights if name in own and not is_left(name) and not is_new(name)]
    differences = {
        "in the network, not in the file": [
            name for name in own if name not in weights and not is_new(name)
        ],
        "in the file, not in the network": [
            name for name in weights if name not in own and not is_left(name)
        ],
        "of another shape": [
            f"{name}: file {tuple(weights[name].shape)}, network {tuple(own[name].shape)}"
            for name in shared
            if weights[name].shape != own[name].shape
        ],
    }
    if any(differences.values()):
        message = "the weights do not fit the network:"
        for title, names in differences.items():
            if names:
                more = [f"... and {len(names) - 8} more"] if len(names) > 8 else []
                message += "\n    ".join([f"\n  {title} ({len(names)}):", *names[:8], *more])
        raise UsageError(message)
    with torch.no_grad():
        for name in shared:
            own[name].copy_(weights[name])
