"""The way through a run: its epochs and steps, resumable after each of them."""

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.fabric import Fabric
from timm.scheduler.scheduler import Scheduler
from torch import nn

from pretrain.errors import Stopped, UserError
from pretrain.progress import Advance, bar, say
from pretrain.run import Run
from pretrain.training.checkpoint import load_checkpoint, save_checkpoint
from pretrain.training.loader import Loader
from pretrain.training.seeds import derive, seed_ambient


class Course:
    """Where a run stands, and how it goes on.

    The loop itself stays in the engine:

        with course.running("title"):
            for epoch in course.epochs():
                for step, batch in course.steps(epoch):
                    ...one optimiser step...
                    course.sums += ...
                course.finish_epoch({...})

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
        loader: Loader,
        *,
        epochs: int,
        seed: int,
        num_sums: int,
    ) -> None:
        self.run, self.fabric, self.loader, self.rates = run, fabric, loader, rates
        self.model, self.optimizer = model, optimizer
        self.num_epochs, self.seed = epochs, seed
        self.epoch = self.batch = 0
        self.sums = torch.zeros(num_sums, device=fabric.device)
        """Added to by the loop in each step; cleared by `finish_epoch`."""
        seconds = 0.0
        if (state := load_checkpoint(run.checkpoint)) is not None:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            self.epoch, self.batch, seconds = state["epoch"], state["batch"], state["seconds"]
            self.sums += state["sums"].to(fabric.device)
            say(f"resuming {run.folder} after epoch {self.epoch}, step {self.batch} of the next")
        run.cut_log(self.epoch)
        self._started = time.monotonic() - seconds
        self._stop = StopSignal()
        self._advance: Advance | None = None
        self._steps_timed, self._clock = 0, 0.0

    @property
    def num_steps(self) -> int:
        """Of the whole run."""
        return self.num_epochs * len(self.loader)

    @property
    def seconds(self) -> float:
        """Since the start, without the time a stopped run lay still."""
        return time.monotonic() - self._started

    @property
    def speed(self) -> float:
        """Samples per second in this epoch's steps."""
        return self._steps_timed * self.loader.batch_size / max(self._clock, 1e-9)

    @contextmanager
    def running(self, title: str) -> Iterator[None]:
        """A progress bar in samples; stop signals wait for the end of a step."""
        size = self.loader.batch_size
        done = self.epoch * len(self.loader) + self.batch
        with self._stop, bar(title, self.num_steps * size, "samples", done * size) as advance:
            self._advance = advance
            yield

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, from 0."""
        while self.epoch < self.num_epochs:
            yield self.epoch

    def steps(self, epoch: int) -> Iterator[tuple[int, Any]]:
        """(step, batch on the device) for the rest of `epoch`, ambient generators seeded for each.

        Raises:
            Stopped: a stop signal came; the checkpoint holds everything up to the last step.
        """
        started, first = time.monotonic(), self.batch
        for batch in self.loader.epoch(epoch, first):
            step = epoch * len(self.loader) + self.batch
            seed_ambient(derive(self.seed, "step", step))
            self.rates.step_update(step)
            yield step, self.fabric.to_device(batch)
            self.batch += 1
            self._steps_timed, self._clock = self.batch - first, time.monotonic() - started
            if self._advance is not None:
                self._advance(self.loader.batch_size, f"epoch {epoch + 1}/{self.num_epochs}")
            if self._stop.number is not None:
                self._save()
                done = f"step {step + 1} of {self.num_steps}"
                raise Stopped(str(self.run.folder), done, self._stop.number)

    def means(self) -> list[float]:
        """The sums over the steps of the epoch, divided by their number.

        Raises:
            UserError: one is not finite: the training has diverged.
        """
        means: list[float] = (self.sums / len(self.loader)).tolist()
        if not all(map(math.isfinite, means)):
            raise UserError(
                f"the training loss is {means[0]} in epoch {self.epoch + 1}: it has diverged. "
                "Give a smaller learning rate."
            )
        return means

    def finish_epoch(self, record: dict[str, Any]) -> None:
        """Log the epoch and save the state after it."""
        self.epoch, self.batch = self.epoch + 1, 0
        self.sums = torch.zeros_like(self.sums)
        self.run.log({"epoch": self.epoch, "step": self.epoch * len(self.loader), **record})
        self._save()

    def _save(self) -> None:
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "seconds": self.seconds,
            "sums": self.sums.cpu(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.run.checkpoint, state)


class StopSignal:
    """Within the block SIGINT and SIGTERM only set `number`; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        print("stopping after this step ...", file=sys.stderr, flush=True)
