"""The order of an epoch: shards shuffled, samples shuffled within a window of shards.

A function of (seed, epoch) and of the shards alone: the same for any number of processes and
loader workers, from any step on, wherever the shards lie. It is made window by window, so that an
epoch of any length begins at once and is never in memory as a whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pretrain.training.seeds import generator

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class WindowOrder:
    """Makes the order of each epoch."""

    starts: Indices
    """(shards + 1,): see `ShardIndex.starts`."""
    window: int
    """Shards whose samples are mixed with each other; as many as there are mixes all."""
    seed: int
    epochs: int | None = None
    """Behind the last of so many none is expected."""
    expect: Callable[[Indices], None] | None = None
    """Is told the shards of a window and of the next one, when samples of the first are drawn."""

    def __call__(self, epoch: int) -> "EpochOrder":
        """The order of an epoch, from 0."""
        return EpochOrder(self, epoch)


class EpochOrder:
    """Sample numbers by their place in an epoch; slices are read, (N,) int64."""

    def __init__(self, order: WindowOrder, epoch: int) -> None:
        self.order, self.epoch = order, epoch
        shards = len(order.starts) - 1
        draw = generator(order.seed, "order", epoch)
        self.shards = torch.randperm(shards, generator=draw).numpy()
        """The shards in the order in which they are needed."""
        counts = np.diff(order.starts)[self.shards]
        # where each window begins in the epoch
        per_window = np.add.reduceat(counts, np.arange(0, shards, order.window))
        self._begins = np.cumsum([0, *per_window])
        self._window = lru_cache(maxsize=2)(self._make)
        self._told = -1

    def __len__(self) -> int:
        return int(self._begins[-1])

    def __getitem__(self, places: slice) -> Indices:
        first, end, step = places.indices(len(self))
        assert step == 1
        begins = self._begins
        parts = []
        number = int(np.searchsorted(begins, first, side="right")) - 1
        if number != self._told and first < end:
            self._expect(number)
        while first < end:
            start, stop = int(begins[number]), min(end, int(begins[number + 1]))
            parts.append(self._window(number)[first - start : stop - start])
            first, number = stop, number + 1
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def shards_from(self, place: int) -> Indices:
        """The shards that are needed from a place of the epoch on, in the order of their need."""
        window = int(np.searchsorted(self._begins, place, side="right")) - 1
        return self.shards[window * self.order.window :]

    def _expect(self, number: int) -> None:
        """Tell once what is read from a window on; behind the last one comes the next epoch."""
        self._told, order = number, self.order
        if order.expect is not None:
            shards = self.shards_from(int(self._begins[number]))
            is_last = order.epochs is not None and self.epoch + 1 >= order.epochs
            if len(shards) <= order.window and not is_last:
                shards = np.concatenate([shards, order(self.epoch + 1).shards])
            order.expect(shards[: 2 * order.window])

    def _make(self, number: int) -> Indices:
        order, starts = self.order, self.order.starts
        shards = self.shards[number * order.window : (number + 1) * order.window]
        samples: Any = np.concatenate([np.arange(starts[one], starts[one + 1]) for one in shards])
        draw = generator(order.seed, "window", self.epoch, number)
        return samples[torch.randperm(len(samples), generator=draw).numpy()]
