"""What resuming needs, in a file that is whole or absent."""

import warnings
from pathlib import Path
from typing import Any

import torch

from pretrain import torch_file
from pretrain.errors import UserError

CHECKPOINT_FORMAT = "checkpoint/1"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write plain values and tensors, whole or not at all, with the thread count and versions."""
    facts = {
        "format": CHECKPOINT_FORMAT,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
    torch_file.write(path, {**state, **facts})


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state at `path`, or None where there is none; warns where the bits may now differ."""
    if not path.exists():
        return None
    state = torch_file.read(path)
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is no checkpoint of this project ({CHECKPOINT_FORMAT!r}).")
    here = {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}
    for fact, value in here.items():
        if state[fact] != value:
            warnings.warn(
                f"{path} was written with {fact} {state[fact]}, now {value}: "
                "the run continues, but not to the same bits.",
                stacklevel=2,
            )
    return state
