"""The way through a run: its epochs and steps, resumable after each of them, on any ranks."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from timm.scheduler.scheduler import Scheduler
from torch import nn

from pretrain.errors import Stopped, UsageError
from pretrain.progress import Advance, bar, log
from pretrain.run import Run
from pretrain.training.checkpoint import load_checkpoint, save_checkpoint
from pretrain.training.loader import BatchSampler
from pretrain.training.seeds import derive, seed_ambient
from pretrain.training.stopping import StopSignal


class Source(Protocol):
    """What gives the training batches: Loader, InMemoryLoader, or a task's own."""

    batches: BatchSampler
    broken: dict[int, str]

    def __len__(self) -> int:
        """Steps in an epoch."""
        ...

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        """The micro-batches of `epoch` (from 0), beginning with step `first`."""
        ...

    def share_corrupt(self) -> None:
        """Let every process know what the others could not read."""
        ...


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch of a step."""

    number: int
    """Its place in the whole step, over all processes: what is drawn for it depends on this."""
    batch: Any
    """On the device."""
    last: bool
    """Of this process in this step."""


class TrainLoop:
    """Where a run stands, and how it goes on.

    The loop itself stays in the engine:

        with loop.running("title"):
            for epoch in loop.epochs():
                for step, parts in loop.steps(epoch):
                    for part in parts:
                        ...forward, backward...
                        loop.sums += ...
                    ...one optimiser step...
                loop.finish_epoch({...})

    Made with the checkpoint of a stopped run in the folder, it continues where that stood, to the
    same bits: state of network and optimiser, place in the epoch and its running sums are restored,
    and everything else is a function of seed, epoch and step.
    """

    def __init__(
        self,
        run: Run,
        fabric: Fabric,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        rates: Scheduler,
        loader: Source,
        *,
        epochs: int,
        seed: int,
        num_sums: int,
        also: Mapping[str, nn.Module] | None = None,
        save_every: int = 0,
        stop_after: int | None = None,
    ) -> None:
        """Restore the checkpoint of the run, if there is one.

        Args:
            run: the folder; started.
            fabric: device and processes.
            model: as Fabric set it up.
            optimizer: likewise.
            rates: learning rates by step.
            loader: the training data.
            epochs: of the whole run.
            seed: of what libraries draw in a step.
            num_sums: running sums over the micro-batches of an epoch.
            also: further modules whose state is kept, by name (an average of the weights).
            save_every: save after so many steps within an epoch too; 0 never.
            stop_after: stop after this step of the run, resumable; None goes to the end.
        """
        self.run, self.fabric, self.loader, self.rates = run, fabric, loader, rates
        self.model, self.optimizer, self.also = model, optimizer, dict(also or {})
        self.num_epochs, self.seed = epochs, seed
        self.epoch = self.done = 0  # epochs, and steps in the next one
        self.sums = torch.zeros(num_sums, device=fabric.device)
        """Added to by the loop in each micro-batch; cleared by `finish_epoch`."""
        self._save_every, self._stop_after = save_every, stop_after
        self._clock = 0.0  # seconds of this epoch's steps
        seconds = self._restore()
        if fabric.is_global_zero:
            run.cut_log(self.epoch)
        self._started = time.monotonic() - seconds
        self._stop = StopSignal(fabric)
        self._advance: Advance | None = None

    @property
    def num_steps(self) -> int:
        """Of the whole run."""
        return self.num_epochs * len(self.loader)

    @property
    def steps_done(self) -> int:
        """Of the whole run."""
        return self.epoch * len(self.loader) + self.done

    @property
    def seconds(self) -> float:
        """Since the start, without the time a stopped run lay still."""
        return time.monotonic() - self._started

    @property
    def speed(self) -> float:
        """Samples per second in this epoch's steps, over all processes."""
        return self.done * self.loader.batches.batch_size / max(self._clock, 1e-9)

    @contextmanager
    def running(self, title: str) -> Iterator[None]:
        """A progress bar in samples; stop signals wait for the end of a step."""
        size = self.loader.batches.batch_size
        done = self.steps_done * size
        shown = self.fabric.is_global_zero
        with self._stop, bar(title, self.num_steps * size, "samples", done, shown) as advance:
            self._advance = advance
            yield

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, from 0."""
        while self.epoch < self.num_epochs:
            yield self.epoch

    def steps(self, epoch: int) -> Iterator[tuple[int, Iterator[MicroBatch]]]:
        """(step, its micro-batches) for the rest of `epoch`.

        Raises:
            Stopped: a stop signal came; the checkpoint holds everything up to the last step.
        """
        if self._stop_after is not None and self.steps_done >= self._stop_after:
            raise Stopped(str(self.run.folder), f"step {self.steps_done} of {self.num_steps}", 0)
        started = time.monotonic() - self._clock
        batches = self.loader.epoch(epoch, self.done)
        while parts := list(islice(batches, self.loader.batches.accumulate)):
            step = epoch * len(self.loader) + self.done
            self.rates.step_update(step)
            yield step, micro_batches(step, parts, self.loader, self.fabric, self.seed)
            self.done += 1
            self._clock = time.monotonic() - started
            if self._advance is not None:
                self._advance(
                    self.loader.batches.batch_size, f"epoch {epoch + 1}/{self.num_epochs}"
                )
            number = self._stop.agreed()
            if number is not None or step + 1 == self._stop_after:
                self._save()
                done = f"step {step + 1} of {self.num_steps}"
                raise Stopped(str(self.run.folder), done, number or 0)
            if self._save_every and (step + 1) % self._save_every == 0:
                self._save()

    def means(self) -> list[float]:
        """The sums over the micro-batches of the epoch, of all processes, divided by their number.

        Raises:
            UsageError: one is not finite: the training has diverged.
        """
        batches = self.loader.batches
        total: Any = self.fabric.all_reduce(self.sums.clone(), reduce_op="sum")
        means: list[float] = (total / (batches.steps * batches.accumulate * batches.ranks)).tolist()
        if not all(map(math.isfinite, means)):
            raise UsageError(
                f"the training loss is {means[0]} in epoch {self.epoch + 1}: it has diverged. "
                "Give a smaller learning rate."
            )
        return means

    def finish_epoch(self, record: dict[str, Any]) -> None:
        """Log the epoch and save the state after it.

        Raises:
            Stopped: a stop signal came while the epoch was being scored.
        """
        self.loader.share_corrupt()
        self.epoch, self.done, self._clock = self.epoch + 1, 0, 0.0
        self.sums = torch.zeros_like(self.sums)
        if self.fabric.is_global_zero:
            self.run.log({"epoch": self.epoch, "step": self.steps_done, **record})
        self._save()
        number = self._stop.agreed_now()
        if number is not None and self.epoch < self.num_epochs:
            raise Stopped(str(self.run.folder), f"epoch {self.epoch} of {self.num_epochs}", number)

    def _layout(self) -> dict[str, int]:
        batches = self.loader.batches
        return {"processes": batches.ranks, "accumulate": batches.accumulate}

    def _data(self) -> dict[str, int]:
        return {"samples": self.loader.batches.count, "steps an epoch": len(self.loader)}

    def _save(self) -> None:
        """The state as process 0 has it, and every process's sums."""
        gathered: Any = self.fabric.all_gather(self.sums)
        sums = gathered.reshape(-1, len(self.sums))
        if self.fabric.is_global_zero:
            scaler = _scaler(self.fabric)
            state = {
                "epoch": self.epoch,
                "done": self.done,
                "seconds": self.seconds,
                "sums": sums.cpu(),
                "clock": self._clock,
                "layout": self._layout(),
                "data": self._data(),
                "broken": dict(self.loader.broken),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "also": {name: module.state_dict() for name, module in self.also.items()},
            }
            save_checkpoint(self.run.checkpoint, state, self.fabric.device)
        self.fabric.barrier()

    def _restore(self) -> float:
        """Take up the checkpoint, if there is one; the seconds it had run."""
        state = load_checkpoint(self.run.checkpoint, self.fabric.device)
        if state is None:
            return 0.0
        if state["data"] != self._data():
            raise UsageError(
                f"{self.run.folder} was started on other data: {state['data']} there, "
                f"{self._data()} here. Give the same data, or another --out."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, module in self.also.items():
            module.load_state_dict(state["also"][name])
        if (scaler := _scaler(self.fabric)) is not None and state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        self.epoch, self.done = state["epoch"], state["done"]
        self._clock = state["clock"]
        self.loader.broken.update(state["broken"])
        here, there = self._layout(), state["layout"]
        rank, sums = self.loader.batches.rank, state["sums"].to(self.fabric.device)
        if here == there:
            self.sums += sums[rank]
        elif rank == 0:  # a sum is over micro-batches, of which a step had another number
            self.sums += sums.sum(0) * (math.prod(here.values()) / math.prod(there.values()))
        if self.fabric.is_global_zero:
            place = f"after epoch {self.epoch}, step {self.done} of the next"
            log(f"resuming {self.run.folder} {place}")
            if here != there:
                log(_changed(there, here, self.loader.batches.batch_size))
        return float(state["seconds"])


def micro_batches(
    step: int, batches: list[Any], loader: Source, fabric: Fabric, seed: int
) -> Iterator[MicroBatch]:
    """The micro-batches of a step, the ambient generators seeded for each by its place."""
    ranks, rank = loader.batches.ranks, loader.batches.rank
    for place, batch in enumerate(batches):
        number = place * ranks + rank
        seed_ambient(derive(seed, "step", step, number))
        yield MicroBatch(number, fabric.to_device(batch), place + 1 == len(batches))


def _scaler(fabric: Fabric) -> Any:
    """The gradient scaler of 16-mixed, or None."""
    return getattr(fabric.strategy.precision, "scaler", None)


def _changed(there: dict[str, int], here: dict[str, int], batch_size: int) -> str:
    """What another division of the batch means for the run."""

    def words(layout: dict[str, int]) -> tuple[str, int]:
        micro = batch_size // (layout["processes"] * layout["accumulate"])
        return (
            f"{layout['processes']} process(es) x {layout['accumulate']} accumulated x {micro} "
            "images",
            micro,
        )

    (before, old), (now, new) = words(there), words(here)
    if old == new:
        return f"the batch was {before}, now {now}: the same steps, but for rounding."
    return (
        f"the batch was {before}, now {now}: the same images make a step, but mixing pairs them "
        f"within {new} and BatchNorm averages over {new}. The run continues, not to the same bits."
    )
