"""What resuming needs, and the networks kept on the way, in files that are complete or absent."""

import os
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pretrain import torch_file
from pretrain.config import CheckpointsConfig
from pretrain.errors import UsageError
from pretrain.run import Run

CHECKPOINT_FORMAT = "checkpoint/2"


def save_checkpoint(path: Path, state: dict[str, Any], device: torch.device) -> None:
    """Write plain values and tensors, whole or not at all, with what the bits depend on."""
    torch_file.write(path, {**state, "format": CHECKPOINT_FORMAT, "facts": _facts(device)})


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state at `path`, or None where there is none; warns where the bits may now differ."""
    if not os.path.lexists(path):
        return None
    state = torch_file.read(path)
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found != CHECKPOINT_FORMAT:
        raise UsageError(
            f"{path} is no checkpoint of this version (format {found!r}, expected "
            f"{CHECKPOINT_FORMAT!r}). Give another --out to begin anew."
        )
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


def save_epoch(
    run: Run, options: CheckpointsConfig, epoch: int, is_best: bool, make: Callable[[], Any]
) -> None:
    """Keep the network of an epoch where it is the best so far, or its turn has come.

    Args:
        run: the folder.
        options: what is kept.
        epoch: from 1.
        is_best: so far.
        make: the backbone, detector or captioner; its `save(path)` writes it whole or not at all.
    """
    if options.best and is_best:
        make().save(run.checkpoint.with_name("best.pth"))
    if options.every_epochs and epoch % options.every_epochs == 0:
        make().save(run.checkpoint.with_name(f"epoch-{epoch:04d}.pth"))


def _facts(device: torch.device) -> dict[str, Any]:
    """What the bits depend on, beside configuration, data and state."""
    on_cuda = device.type == "cuda"
    facts = {"device": torch.cuda.get_device_name(device) if on_cuda else device.type}
    threads = {"threads": torch.get_num_threads()} if device.type == "cpu" else {}
    libraries = ("torch", "torchvision", "timm", "numpy")
    return {**facts, **threads, **{name: metadata.version(name) for name in libraries}}
