"""What resuming needs, in a file that is whole or absent."""

import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pretrain import torch_file
from pretrain.errors import UsageError

CHECKPOINT_FORMAT = "checkpoint/1"


def save_checkpoint(path: Path, state: dict[str, Any], device: torch.device) -> None:
    """Write plain values and tensors, whole or not at all, with what the bits depend on."""
    torch_file.write(path, {**state, "format": CHECKPOINT_FORMAT, "facts": _facts(device)})


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state at `path`, or None where there is none; warns where the bits may now differ."""
    if not path.exists():
        return None
    state = torch_file.read(path)
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise UsageError(f"{path} is no checkpoint of this project ({CHECKPOINT_FORMAT!r}).")
    here, there = _facts(device), state["facts"]
    changed = [
        f"{fact} {there.get(fact)}, now {here.get(fact)}"
        for fact in sorted(here.keys() | there.keys())
        if here.get(fact) != there.get(fact)
    ]
    if changed:
        warnings.warn(
            f"{path} was written with {'; '.join(changed)}: the run continues, but not to the same "
            "bits.",
            stacklevel=2,
        )
    return state


def _facts(device: torch.device) -> dict[str, Any]:
    """What the bits depend on, beside configuration, data and state."""
    on_cpu = device.type == "cpu"
    facts: dict[str, Any] = {
        "device": device.type if on_cpu else _name(device),
        **({"threads": torch.get_num_threads()} if on_cpu else {}),
    }
    for library in ("torch", "torchvision", "timm", "numpy"):
        facts[library] = metadata.version(library)
    return facts


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
