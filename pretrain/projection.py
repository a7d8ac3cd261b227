"""What a run will cost, measured on a few of its steps; nothing is written."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from lightning_fabric import Fabric

from pretrain.config import TrainerConfig
from pretrain.run import peak_memory_mib
from pretrain.training import BatchSource, MicroBatch, micro_batches
from pretrain.training.devices import out_of_memory_hint

_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A run, set up to make some of its steps, and what there is to do in the whole of it."""

    config: TrainerConfig
    """Of the steps that are measured: possibly smaller ones than the run's."""
    loader: BatchSource
    train_step: Callable[[int, Iterator[MicroBatch]], Any]
    """(step, its micro-batches)"""
    trained: float
    """Samples in all steps of the run."""
    scored: float = 0.0
    """Samples that go through the network without a backward pass, counted each time."""
    cost: float = 1.0
    """Of a sample of the run on average, in those that are measured."""
    seconds: float = 0.0
    """What is done once, such as to encode images."""
    samples: str = "images"
    """What they are, for a message."""


@dataclass(frozen=True)
class Projection:
    """The cost of a whole run."""

    steps: int
    """Measured, behind one that warms up."""
    seconds_per_step: float
    samples_per_second: float
    hours: float
    """All steps, what is scored at three times a step's speed (no backward pass), and the rest."""
    hours_once: float
    """Those of it that do not depend on the number of epochs."""
    epochs: float
    memory_mib: float
    """Peak: of the GPU, or of this process."""

    @property
    def duration(self) -> str:
        """In words."""
        if self.hours < 1:
            return f"{60 * self.hours:.1f} minutes"
        return f"{self.hours:.1f} hours" if self.hours < 48 else f"{self.hours / 24:,.1f} days"

    def epochs_within(self, hours: float) -> float:
        """How many epochs are done by then."""
        rest = self.hours - self.hours_once
        return self.epochs * max(0.0, hours - self.hours_once) / rest if rest else 0.0


def project(run: Rehearsal, fabric: Fabric, most_seconds: float = float("inf")) -> Projection:
    """Make ten steps with the run's own data and network.

    Args:
        run: see Rehearsal; its network is trained by this.
        fabric: device, precision and processes.
        most_seconds: no further step is begun after so many.

    Raises:
        UsageError: as the run itself would.
    """
    config, loader = run.config, run.loader
    accumulate, steps = config.accumulate, min(1 + _STEPS, len(loader))
    with out_of_memory_hint(fabric, config.batch_size, accumulate, run.samples):
        # the clock before the first measured step and behind each
        batches, clock = loader.epoch(0), [time.monotonic()]
        for step in range(steps):
            taken = list(islice(batches, accumulate))
            run.train_step(step, micro_batches(step, taken, loader, fabric, config.seed))
            if fabric.device.type == "cuda":
                torch.cuda.synchronize(fabric.device)
            if step == 0 and steps > 1:  # it warms up
                # what the loader has read ahead meanwhile would make it look faster than it is
                ahead = -(-config.loader.prefetch * config.loader.workers // accumulate)
                for _ in islice(batches, min(len(loader) - steps, ahead) * accumulate):
                    pass
                clock.clear()
            clock.append(time.monotonic())
            if step and fabric.broadcast(clock[-1] - clock[0] > most_seconds):
                break
    seconds = (clock[-1] - clock[0]) / (len(clock) - 1)
    speed = config.batch_size / seconds
    once = run.seconds / 3600
    hours = once + (run.trained * run.cost + run.scored / 3) / speed / 3600
    epochs = run.trained / (len(loader) * config.batch_size)
    memory = peak_memory_mib(fabric.device)
    return Projection(len(clock) - 1, seconds, speed, hours, once, epochs, memory)
