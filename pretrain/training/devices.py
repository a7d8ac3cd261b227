"""Lightning Fabric on the device a user asked for, alone or as one of torchrun's processes."""

import copy
import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from lightning_fabric import Fabric
from torch import distributed, nn

from pretrain.config import Precision
from pretrain.data_digest import DataFiles, Digest, describe_changes
from pretrain.errors import UsageError
from pretrain.run import Run
from pretrain.training.heartbeat import heartbeat

T = TypeVar("T")
Device = Literal["auto", "cpu", "cuda", "mps"]
_NFS_SECONDS = 40  # in which a new file is seen by all


def make_fabric(
    device: Device, precision: Precision = "32-true", deterministic: bool = False
) -> Fabric:
    """Lightning Fabric on one device, or on one of several under `torchrun`.

    Args:
        device: auto takes CUDA, then Apple's GPU, then the CPU.
        precision: 16-mixed needs a GPU.
        deterministic: on CUDA, algorithms that give the same bits each time.

    Raises:
        UsageError: that device is not there, or cannot do that precision.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is cuda, but torch sees no CUDA device. Use --device cpu.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device is mps, but torch sees no Apple GPU. Use --device cpu.")
    on_cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    if precision == "16-mixed" and not on_cuda:
        raise UsageError("precision is 16-mixed, which needs a CUDA device. Use bf16-mixed.")
    if deterministic and on_cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    elif on_cuda:
        torch.backends.cudnn.benchmark = True
    else:
        _keep_freed_memory()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    machines = int(os.environ.get("GROUP_WORLD_SIZE", processes // local))
    if machines * local != processes:
        raise UsageError(
            f"torchrun started {processes} processes on {machines} machines, {local} of them on "
            f"{socket.gethostname()}; each machine must have as many. Give all the same "
            "--nproc_per_node."
        )
    if on_cuda and local > torch.cuda.device_count():
        raise UsageError(
            f"torchrun started {local} processes on this machine, which has "
            f"{torch.cuda.device_count()} GPUs. Give --nproc_per_node {torch.cuda.device_count()}."
        )
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=machines,
        strategy="ddp" if processes > 1 else "auto",
        precision=precision,
    )
    if processes > 1:
        heartbeat()
        fabric.launch()
    return fabric


def _keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one.

    It would return large blocks to the system, which clears every page before it gives it anew:
    8 to 14 % of a step's time. The peak stays as it was.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # other C libraries have none
        for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):
            mallopt(parameter, value)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def from_rank_zero(fabric: Fabric, compute: Callable[[], T]) -> T:
    """What process 0 computes, in every process, however long they wait for it.

    A UsageError that it meets is raised in every process.
    """
    value: T | None = None
    error: UsageError | None = None
    with fabric.rank_zero_first():
        if fabric.is_global_zero:
            try:
                value = compute()
            except UsageError as met:
                error = met
    value, error = fabric.broadcast((value, error))
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def admit(
    fabric: Fabric,
    run: Run,
    config: Mapping[str, Any],
    backbone: str | None,
    files: DataFiles,
) -> Callable[[], None]:
    """Refuse a run in every process that its folder is not free for: see `Run.refuse`.

    The data is read once nothing else is in the way. Returns what starts the run: each process
    calls it, before anything is written.
    """

    def refuse() -> Digest:
        run.refuse(config, backbone)
        run.refuse(config, backbone, files.digest)
        return files.digest

    digest = from_rank_zero(fabric, refuse)
    for host, other in _of_each_machine(fabric, lambda: files.digest):
        if changed := describe_changes(digest, other):
            raise UsageError(
                f"the data on {host} is not that of process 0 ({'; '.join(changed)}). Every "
                "machine must have the same data: copy it anew, or give a shared folder."
            )

    def start() -> None:
        owner = from_rank_zero(fabric, lambda: _start(run, config, backbone, digest))
        for host, is_same in _of_each_machine(fabric, lambda: _is_owner(run, owner)):
            if not is_same:
                raise UsageError(
                    f"{run.folder} on {host} is another folder than that of process 0. Give --out "
                    "a folder that all machines share (NFS, Lustre, ...), by the same path."
                )

    return start


def _start(run: Run, config: Mapping[str, Any], backbone: str | None, digest: Digest) -> str:
    """Start the run; the text by which its folder is known."""
    run.start(config, backbone, digest)
    return run.lock_file.read_text(encoding="utf-8")


def _is_owner(run: Run, owner: str) -> bool:
    """Whether the folder is locked by who says so; NFS may show that late."""
    for _ in range(_NFS_SECONDS):
        with suppress(OSError):
            if run.lock_file.read_text(encoding="utf-8") == owner:
                return True
        time.sleep(1)
    return False


def _of_each_machine(fabric: Fabric, compute: Callable[[], T]) -> list[tuple[str, T]]:
    """(host, value) as the first process of each machine computes it, however long that takes.

    Nothing where there is one machine.
    """
    if int(os.environ.get("GROUP_WORLD_SIZE", "1")) < 2:
        return []
    mine = (socket.gethostname(), compute()) if fabric.local_rank == 0 else None
    everywhere: list[Any] = [None] * fabric.world_size
    patient = distributed.new_group(backend="gloo", timeout=timedelta(days=1000))
    distributed.all_gather_object(everywhere, mine, group=patient)
    distributed.destroy_process_group(patient)
    return [one for one in everywhere if one is not None]


def share_buffers(network: nn.Module, fabric: Fabric) -> None:
    """Give every process the buffers of process 0, so that all score what will be saved.

    In training each process normalises by its own micro-batches, and of their running means and
    variances those of process 0 count: DistributedDataParallel copies them to all before the
    forward pass, the average of the weights takes them in, last.pth and the backbone hold them.
    They are an unbiased estimate from one N-th of the images, as detectron2 keeps it; timm's
    --dist-bn reduce takes the mean over processes after an epoch, its broadcast does this. Where a
    micro-batch has few images, --sync_batch_norm computes them over all processes.
    """
    if fabric.world_size > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)


@contextmanager
def out_of_memory_hint(
    fabric: Fabric, batch_size: int, accumulate: int, what: str = "images"
) -> Iterator[None]:
    """A GPU that runs out of memory becomes a message with the way out.

    Args:
        fabric: for the number of processes.
        batch_size: images of a step, over all processes.
        accumulate: micro-batches of a step.
        what: what there are so many of at once.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        micro = batch_size // (accumulate * fabric.world_size)
        raise UsageError(
            f"the GPU has not enough memory for {micro} {what} at once (batch_size {batch_size}, "
            f"accumulate {accumulate}, {fabric.world_size} process(es)). --accumulate "
            f"{2 * accumulate} halves what is in memory and keeps the batch of a step; --precision "
            "bf16-mixed needs about half."
        ) from error


def refuse_single_values(
    network: nn.Module, size: int, config: Any, fabric: Fabric, *, halved: bool = False
) -> None:
    """Raise UsageError where BatchNorm would see one value a channel: one image, to its last pixel.

    Args:
        network: of images, in training.
        size: their side in pixels.
        config: with batch_size and accumulate.
        fabric: for the number of processes.
        halved: mixing leaves half of a micro-batch.
    """
    if config.batch_size // (config.accumulate * fabric.world_size) not in (1, 1 + halved):
        return
    copied = copy.deepcopy(network).to("meta").train()
    try:
        copied(torch.empty(1, 3, size, size, device="meta"))
    except ValueError as error:
        raise UsageError(
            f"a micro-batch is one image of {size} pixels{', once halved' * halved} "
            f"(batch_size {config.batch_size}, accumulate {config.accumulate}, "
            f"{fabric.world_size} process(es)): in training, BatchNorm needs more than one value a "
            "channel. Give a larger --batch_size, or larger images."
        ) from error
