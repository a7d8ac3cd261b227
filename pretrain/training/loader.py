"""Batches of a data set, a function of seed and epoch, from any step on.

N samples in the data set, B in a micro-batch. A step of the optimiser takes `batch_size` samples,
which are cut into ranks x accumulate micro-batches; micro-batch number `part * ranks + rank` goes
to process `rank` as its `part`. So two processes with B see what one sees that accumulates two B.
"""

import signal
import weakref
from collections.abc import Callable, Iterator, Sized
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from pretrain.config import TrainerConfig
from pretrain.errors import UsageError
from pretrain.progress import log
from pretrain.torch_file import size_of
from pretrain.training.seeds import derive_each, generator, seed_ambient

_MOST_KEPT = 2**28  # bytes


class Samples(Sized, Protocol):
    """Anything with a length whose samples are read by number.

    One that has a method `ready`, from several numbers to the same by these numbers, is asked for a
    batch at once: what lies in shards is read there together.

    One that has a method `draw`, for a sample's random numbers, draws nowhere else. It is called
    for all samples of a batch before any is read, and `ready` gets what it returned: between two
    images the code that seeds and draws would have left the processor's cache, at four times the
    price.
    """

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(eq=False)
class BatchSampler(Sampler[list[tuple[int, int]]]):
    """Micro-batches of (epoch, index) for one process.

    With `shuffle` the order is a function of (seed, epoch), every process takes its part of each
    step, and what does not fill a step is left to other epochs where `drop_last`. Without, process
    `rank` takes samples rank, rank + ranks, ...: each sample once, whatever divides.
    """

    count: int
    """Samples in the data set."""
    _: KW_ONLY
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    drop_last: bool = False
    accumulate: int = 1
    rank: int = 0
    ranks: int = 1
    order: Callable[[int], Any] | None = None
    """Epoch -> indices, in place of a permutation: what slices are taken of, such as an array."""
    epoch: int = field(default=0, init=False)
    first: int = field(default=0, init=False)
    """Step of the epoch to begin with."""

    def __post_init__(self) -> None:
        """Refuse a batch that cannot be filled, or not be cut evenly."""
        size, parts = self.batch_size, self.accumulate * self.ranks
        if self.drop_last and self.count < size:
            raise UsageError(
                f"batch_size is {size}, but there are only {self.count} training samples. "
                "Give a smaller batch_size."
            )
        if self.shuffle and size % parts:
            raise UsageError(
                f"batch_size is {size}; it must be a multiple of {parts} (accumulate "
                f"{self.accumulate} x {self.ranks} processes). The nearest are "
                f"{size // parts * parts} and {-(-size // parts) * parts}."
            )
        full = self.drop_last or not self.shuffle or parts == 1
        assert full, "a step that is not full cannot be shared"

    @property
    def steps(self) -> int:
        """In an epoch."""
        own = self.count if self.shuffle else len(range(self.rank, self.count, self.ranks))
        whole, rest = divmod(own, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: Any = range(self.rank, self.count, self.ranks)
        if self.shuffle and self.order is not None:
            order = self.order(self.epoch)
        elif self.shuffle:
            draw = generator(self.seed, "order", self.epoch)
            order = torch.randperm(self.count, generator=draw).numpy()
        size = self.batch_size
        micro = size // (self.accumulate * self.ranks) if self.shuffle else size
        for step in range(self.first, self.steps):
            for part in range(self.accumulate):
                number = part * self.ranks + self.rank if self.shuffle else 0
                start = step * size + number * micro
                chosen = np.asarray(order[start : start + micro], np.int64)
                yield [(self.epoch, index) for index in chosen.tolist()]


def train_batching(config: TrainerConfig, fabric: Fabric) -> dict[str, Any]:
    """The arguments of BatchSampler and Loader for the training of a process."""
    return {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "shuffle": True,
        "drop_last": True,
        "accumulate": config.accumulate,
        "rank": fabric.global_rank,
        "ranks": fabric.world_size,
    }


def scoring_batching(config: TrainerConfig, fabric: Fabric) -> dict[str, Any]:
    """The same where a process scores: as many samples at once as training has in memory."""
    micro = config.batch_size // (config.accumulate * fabric.world_size)
    place = {"rank": fabric.global_rank, "ranks": fabric.world_size}
    return {"batch_size": max(1, micro), "seed": config.seed, **place}


class _Seeded(Dataset):
    """Reads (epoch, index): seeds the ambient generators for that place, then reads the sample.

    A user's mistake (a corrupt image) travels as a value, so that its message survives the worker.
    """

    def __init__(self, at_epoch: Callable[[int], Samples], seed: int) -> None:
        self.at_epoch = at_epoch
        self.seed = seed

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Any]:
        epoch, numbers = keys[0][0], [number for _, number in keys]
        samples: Any = self.at_epoch(epoch)
        seeds = derive_each(self.seed, "sample", epoch, numbers)
        draw = getattr(samples, "draw", None)
        if draw is not None:
            samples = samples.ready(numbers, [_seeded(seed, draw) for seed in seeds])
            return [_read(samples, number) for number in numbers]
        if hasattr(samples, "ready"):
            samples = samples.ready(numbers)
        reads = [partial(_read, samples, number) for number in numbers]
        return [_seeded(seed, read) for seed, read in zip(seeds, reads, strict=True)]


def _seeded(seed: int, call: Callable[[], Any]) -> Any:
    seed_ambient(seed)
    return call()


def _read(samples: Samples, number: int) -> Any:
    try:
        return samples[number]
    except UsageError as error:
        return _Corrupt(number, str(error))


def _same(samples: Samples, epoch: int) -> Samples:
    return samples


class _Corrupt:
    def __init__(self, index: int, message: str) -> None:
        self.index, self.message = index, message


class _Collate:
    """From samples to (batch, corrupt samples).

    In training the place of a corrupt sample is taken by a readable neighbour, so that every batch
    has its size; otherwise it is left out. A batch of nothing but corrupt samples is None.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], fill: bool) -> None:
        self.collate = collate
        self.fill = fill

    def __call__(self, samples: list[Any]) -> tuple[Any, list[tuple[int, str]]]:
        corrupt = [(s.index, s.message) for s in samples if isinstance(s, _Corrupt)]
        good = [sample for sample in samples if not isinstance(sample, _Corrupt)]
        if self.fill:
            good += [good[place % len(good)] for place in range(len(corrupt) if good else 0)]
        return (self.collate(good) if good else None), corrupt


def _leave_signals_to_parent(_: int) -> None:
    # Ctrl-C, torchrun and clusters signal every process; the parent stops at a step boundary
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end_workers(loader: DataLoader) -> None:
    """By torch's own word to them: the signal with which Python ends its children is ignored."""
    iterator: Any = loader._iterator
    if iterator is not None:
        iterator._shutdown_workers()


class BatchSource:
    """Micro-batches of a data set, epoch by epoch, from any step on: what a training loop reads."""

    def __init__(
        self,
        batches: BatchSampler,
        max_corrupt: int = 0,
        max_corrupt_option: str = "--dataset.max_corrupt",
    ) -> None:
        """Nothing is read yet.

        Args:
            batches: which samples when.
            max_corrupt: samples that may be left out, over all processes.
            max_corrupt_option: how a user allows for more, for the message.
        """
        self.batches, self.max_corrupt = batches, max_corrupt
        self.max_corrupt_option = max_corrupt_option
        self.corrupt: dict[int, str] = {}
        """What could not be read so far: index of the sample -> message."""

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self.batches.steps

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """The micro-batches of `epoch` (from 0), beginning with step `first`.

        Raises:
            UsageError: more samples are corrupt than may be, or a worker process was killed.
        """
        self.batches.epoch, self.batches.first = epoch, first
        return self.read()

    def read(self) -> Iterator[Any]:
        """The micro-batches of the sampler's epoch, from its first step on."""
        raise NotImplementedError

    def share_corrupt(self) -> None:
        """Let every process know what the others could not read; called by all of them.

        Raises:
            UsageError: together they are more than may be.
        """
        if self.batches.ranks > 1:
            everywhere: list[Any] = [None] * self.batches.ranks
            torch.distributed.all_gather_object(everywhere, self.corrupt)
            for corrupt in everywhere:
                self.corrupt.update(corrupt)
            if self.corrupt:
                self._check_corrupt(next(reversed(self.corrupt.values())))

    def _check_corrupt(self, message: str) -> None:
        count, most = len(self.corrupt), self.max_corrupt
        if count > most:
            more = f"It is number {count}; {most} may be left out. " if most else ""
            remedy = f"{self.max_corrupt_option} N leaves out up to N such images."
            raise UsageError(f"{message.rstrip('.')}. {more}{remedy}")


class Loader(BatchSource):
    """Reads samples in worker processes; the same batches for any number of them."""

    def __init__(
        self,
        samples: Samples,
        *,
        workers: int,
        prefetch: int = 2,
        collate: Callable[[list[Any]], Any] = default_collate,
        at_epoch: Callable[[int], Samples] | None = None,
        max_corrupt: int = 0,
        max_corrupt_option: str = "--dataset.max_corrupt",
        pin_memory: bool | None = None,
        keep: bool = False,
        **batching: Any,
    ) -> None:
        """Start the processes that read.

        Args:
            samples: the data set.
            workers: processes that read; 0 reads in this one.
            prefetch: batches that each of the workers reads ahead.
            collate: list of samples -> batch.
            at_epoch: epoch (from 0) -> the data set in that epoch, of as many samples; None where
                it is always `samples`.
            max_corrupt: samples that may raise UsageError and are then named and left out.
            max_corrupt_option: how a user allows for more, for the message.
            pin_memory: for a GPU; None pins where there is one.
            keep: epochs are alike, as in scoring: up to 256 MiB of batches are read once.
            batching: see BatchSampler; without shuffle, batch_size is of one process.
        """
        batches = BatchSampler(len(samples), **batching)
        super().__init__(batches, max_corrupt, max_corrupt_option)
        assert not (keep and batches.shuffle)
        self._keep, self._kept = keep, list[Any]()
        pinned = torch.cuda.is_available() if pin_memory is None else pin_memory
        self._is_shared = workers > 0 and not pinned
        self._loader: DataLoader = DataLoader(
            _Seeded(at_epoch or partial(_same, samples), self.batches.seed),
            batch_sampler=self.batches,
            num_workers=workers,
            collate_fn=_Collate(collate, fill=self.batches.shuffle),
            persistent_workers=workers > 0,
            prefetch_factor=prefetch if workers > 0 else None,
            worker_init_fn=_leave_signals_to_parent,
            pin_memory=pinned,
            generator=torch.Generator(),  # the loader's own draw stays off the ambient generator
        )
        # with this object, or as the first thing when Python exits
        weakref.finalize(self, _end_workers, self._loader)

    def read(self) -> Iterator[Any]:
        """See BatchSource."""
        if self._kept:
            yield from self._kept
            return
        kept, room = list[Any](), _MOST_KEPT if self._keep else 0
        try:
            for batch, corrupt in self._loader:
                for index, message in corrupt:
                    if index not in self.corrupt:
                        self.corrupt[index] = message
                        self._check_corrupt(message)
                        count = f"{len(self.corrupt)} of at most {self.max_corrupt}"
                        log(f"left out ({count}): {message}")
                if batch is not None:
                    if room > 0 and (room := room - size_of(batch)) > 0:
                        # a worker's tensor holds two open files, and its share of /dev/shm
                        kept.append(deepcopy(batch) if self._is_shared else batch)
                    else:
                        kept.clear()
                    yield batch
                elif self.batches.shuffle:
                    raise UsageError(f"a whole batch cannot be read. Its first: {corrupt[0][1]}")
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):  # an error inside a worker, our bug
                raise
            raise UsageError(
                f"a loader process died ({str(error).splitlines()[0]}). The machine may be out of "
                "memory, or of shared memory (/dev/shm): give fewer workers and resume the run."
            ) from error
        if kept:
            self._kept = kept
            _end_workers(self._loader)


class InMemoryLoader(BatchSource):
    """For images that lie in memory (on any device) and need no reading.

    Args:
        images: (N, ...) tensor.
        labels: (N,) tensor on the same device.
        batches: which samples when.
        max_corrupt: samples that may have been left out.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, batches: BatchSampler, max_corrupt: int = 0
    ) -> None:
        super().__init__(batches, max_corrupt)
        self.images, self.labels = images, labels

    def read(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See BatchSource."""
        for keys in self.batches:
            index = torch.tensor([index for _, index in keys]).to(self.images.device)
            yield self.images[index], self.labels[index]
