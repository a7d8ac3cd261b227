"""What resuming needs, and the networks kept on the way, in files that are complete or absent."""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as concurrent_wait
from copy import copy
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
    torch_file.write(path, _described(state, device))


class CheckpointWriter:
    """Writes checkpoints beside the steps that follow: a snapshot is taken, a thread writes it.

    On a GPU the snapshot is copies into pinned host memory that the device makes between two steps,
    so that the host need not wait; elsewhere a copy. Its memory, as much as the state's, is used
    again for the next. One is under way at most: the next waits for it, so that a kill costs no
    more than the period and what was being written.

    A failure to write is raised by the call that follows.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[None] | None = None
        self._buffers: dict[tuple[Any, ...], torch.Tensor] = {}

    def save(self, state: dict[str, Any]) -> None:
        """Begin to write plain values and tensors; see `save_checkpoint`.

        Raises:
            UsageError: the one before could not be written.
        """
        self.wait()
        snapshot, copied = self._copy(_described(state, self._device)), None
        if self._device.type == "cuda":
            copied = torch.cuda.Event()
            copied.record()
        self._under_way = self._thread.submit(_write, self._path, snapshot, copied)

    def wait(self) -> None:
        """Until what was begun is on the disk.

        Raises:
            UsageError: it could not be written.
        """
        if (under_way := self._under_way) is not None:
            concurrent_wait([under_way])  # until then another thread may wait as well
            self._under_way = None
            under_way.result()

    def _copy(self, value: Any, place: tuple[Any, ...] = ()) -> Any:
        if isinstance(value, dict | list):
            copied = copy(value)  # with the versions that a state_dict has beside its tensors
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                copied[key] = self._copy(inner, (*place, key))
            return copied
        if not isinstance(value, torch.Tensor):
            return value
        buffer = self._buffers.get(place)
        if buffer is None or not _fits(buffer, value):
            pinned = value.device.type == "cuda"
            buffer = torch.empty_like(value, device="cpu", pin_memory=pinned, requires_grad=False)
            self._buffers[place] = buffer
        return buffer.copy_(value.detach(), non_blocking=value.device.type == "cuda")


def _described(state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {**state, "format": CHECKPOINT_FORMAT, "facts": _facts(device)}


def _fits(buffer: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a tensor can be copied there as it lies in memory."""
    described = [(one.dtype, one.shape, one.stride()) for one in (buffer, value)]
    return described[0] == described[1]


def _write(path: Path, content: dict[str, Any], copied: torch.cuda.Event | None) -> None:
    if copied is not None:
        copied.synchronize()
    torch_file.write(path, content)


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
