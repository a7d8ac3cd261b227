"""Batches of a data set, a function of seed and epoch, from any step on, for any workers."""

import signal
from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from pretrain.errors import UserError
from pretrain.training.seeds import derive, generator, seed_ambient


class Samples(Sized, Protocol):
    """Anything with a length whose samples are read by number."""

    def __getitem__(self, index: int, /) -> Any: ...


class _Seeded(Dataset):
    """Reads (epoch, index): seeds the ambient generators for that place, then reads the sample.

    A user's mistake (a broken image) travels as a value, so that its message survives the worker.
    """

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples = samples
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> Any:
        seed_ambient(derive(self.seed, "sample", *key))
        try:
            return self.samples[key[1]]
        except UserError as error:
            return error


class _Batches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), in an order that is a function of (seed, epoch)."""

    def __init__(self, count: int, batch_size: int, seed: int, shuffle: bool, drop_last: bool):
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self.drop_last = drop_last
        self.epoch = self.first = 0

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = list(range(self.count))
        if self.shuffle:
            draw = generator(self.seed, "order", self.epoch)
            order = torch.randperm(self.count, generator=draw).tolist()
        for number in range(self.first, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(self.epoch, index) for index in batch]


class _Collate:
    """Hands the first error of a batch on; otherwise collates."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        return next((s for s in samples if isinstance(s, UserError)), None) or self.collate(samples)


def _leave_signals_to_parent(_: int) -> None:
    # Ctrl-C reaches the whole process group; the parent stops at a step boundary and ends us
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Loader:
    """Batches of a data set, epoch by epoch, from any step on; the same for any `workers`."""

    def __init__(
        self,
        samples: Samples,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        shuffle: bool,
        drop_last: bool = False,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        if drop_last and len(samples) < batch_size:
            raise UserError(
                f"batch_size is {batch_size}, but there are only {len(samples)} "
                "training samples. Give a smaller batch_size."
            )
        self.batch_size = batch_size
        self._batches = _Batches(len(samples), batch_size, seed, shuffle, drop_last)
        self._loader: DataLoader = DataLoader(
            _Seeded(samples, seed),
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=_Collate(collate),
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_parent,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # the loader's own draw stays off the ambient generator
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._batches)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """The batches of `epoch` (from 0), beginning with number `first`."""
        self._batches.epoch, self._batches.first = epoch, first
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch
