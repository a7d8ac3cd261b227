"""From micro-batches to updated weights, and the way through a run: resumable after each step.

The loop of every trainer, which stays in its engine:

    state = make_train_state(network, config, fabric, steps_per_epoch=len(loader))
    loop = TrainLoop(run, fabric, state, loader, config, num_metrics=2)
    loop.resume()
    with loop.running("title"):
        for epoch in loop.epochs():
            for step, micro_batches in loop.steps(epoch):
                state.lr_scheduler.step_update(step)
                metrics = optimizer_step(state, fabric, micro_batches, loss_function, step)
                loop.finish_step(metrics)
                loop.checkpoint()
            loop.finish_epoch({...})
            loop.checkpoint()

The state of network and optimizer, the place in the epoch and its running sums are restored, and
everything else is a function of seed, epoch and step: so a run that was stopped continues to the
same bits, on any division of the batch over processes and micro-batches up to rounding.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial, reduce
from itertools import islice
from typing import Any

import torch
from lightning_fabric import Fabric
from timm.scheduler.scheduler import Scheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from pretrain.config import TrainerConfig
from pretrain.errors import Diverged, Stopped, UsageError
from pretrain.progress import Advance, bar, log
from pretrain.run import Run
from pretrain.tensorboard import TensorBoardLog
from pretrain.training.checkpoint import CheckpointWriter, load_checkpoint
from pretrain.training.device_batches import to_device
from pretrain.training.devices import out_of_memory_hint
from pretrain.training.heartbeat import heartbeat
from pretrain.training.loader import BatchSource
from pretrain.training.optimizer import lay_out_state, make_lr_scheduler, make_optimizer
from pretrain.training.seeds import derive, seed_ambient
from pretrain.training.stopping import StopSignal

_SMALLER_STEPS = "Give a smaller --optimizer.lr, or --optimizer.clip_norm 10."
_FAR = 2
"""So many times the loss of chance are far above it: a training that does well never begins so."""


@dataclass(frozen=True)
class MicroBatch:
    """The part of a step that goes through the network at once."""

    number: int
    """Its place in the whole step, over all processes: what is drawn for it depends on this."""
    data: Any
    """On the device."""
    last: bool
    """Of this process in this step."""


@dataclass(frozen=True)
class TrainState:
    """What an optimizer step changes, on the device."""

    network: nn.Module
    """The plain module."""
    model: Any
    """The same as Fabric wrapped it; its gradients are clipped."""
    optimizer: torch.optim.Optimizer
    lr_scheduler: Scheduler
    ema: ModelEmaV3 | None
    clip_norm: float | None
    accumulate: int
    """Micro-batches of this process in a step."""
    more_models: tuple[Any, ...] = ()
    """Further parts of the network that Fabric wrapped by themselves."""

    @property
    def averaged(self) -> nn.Module:
        """What is evaluated and kept: the averaged weights, if there are such."""
        return self.network if self.ema is None else self.ema.module

    @property
    def lr(self) -> float:
        """Of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])


def make_train_state(
    network: nn.Module,
    config: TrainerConfig,
    fabric: Fabric,
    *,
    steps_per_epoch: int,
    lr_of: Callable[[str], float | None] = lambda name: None,
    parts: Sequence[nn.Module] = (),
    compiled: Sequence[nn.Module] = (),
    power: float = 1.0,
) -> TrainState:
    """Optimizer, schedule, average and what Fabric wraps.

    Args:
        network: all that is trained.
        config: of any trainer.
        fabric: device, precision and processes.
        steps_per_epoch: optimizer steps.
        lr_of: a parameter's name -> its own peak rate, or None for the optimizer's.
        parts: of the network, wrapped each by itself where it is not called as one; the first is
            the state's `model`.
        compiled: parts that torch.compile takes, if not the whole network.
        power: of the schedule poly.
    """
    options, steps = config.optimizer, partial(config.steps, steps_per_epoch)
    # on a GPU torch takes its fastest by itself; a scaler and clipping would not go with this
    fused = fabric.device.type == "cpu" and _scaler(fabric) is None
    optimizer = make_optimizer(network, options, config.batch_size, lr_of, fused)
    if config.compile:
        for module in compiled or [network]:
            module.compile()
    first, *others = parts or [network]
    model, wrapped = fabric.setup(first, optimizer)
    return TrainState(
        network=network,
        model=model,
        optimizer=wrapped,
        lr_scheduler=make_lr_scheduler(wrapped, options, steps(), steps, power),
        ema=None if options.ema is None else ModelEmaV3(network, options.ema, use_warmup=True),
        clip_norm=options.clip_norm,
        accumulate=config.accumulate,
        more_models=tuple(fabric.setup_module(module) for module in others),
    )


def optimizer_step(
    state: TrainState,
    fabric: Fabric,
    micro_batches: Iterable[MicroBatch],
    loss_function: Callable[[MicroBatch], tuple[Tensor, Tensor]],
    step: int,
) -> Tensor:
    """One step of the optimizer: forward and backward of each micro-batch, then the update.

    Args:
        state: what is changed.
        fabric: device, precision and processes.
        micro_batches: of this process.
        loss_function: micro-batch -> loss (scalar, mean over the micro-batch) and metrics (M,).
        step: of the run, for the average's warm-up.

    Returns:
        (M,): the metrics summed over the micro-batches.
    """
    metrics = []
    for micro_batch in micro_batches:
        with ExitStack() as unsynchronized:
            for model in (state.model, *state.more_models):
                waits = fabric.no_backward_sync(model, enabled=not micro_batch.last)
                unsynchronized.enter_context(waits)
            loss, values = loss_function(micro_batch)
            fabric.backward(loss / state.accumulate)
        metrics.append(values.detach().float())
    if state.clip_norm is not None:
        # not finite: with fp16 the scaler skips the step, otherwise the epoch's loss shows it
        fabric.clip_gradients(
            state.model, state.optimizer, max_norm=state.clip_norm, error_if_nonfinite=False
        )
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update(state.network, step=step)
    return reduce(torch.add, metrics)


def epochs_above_chance(losses: Iterable[float], chance: float) -> int:
    """How many mean losses of epochs are far above that of equal probabilities for all classes."""
    return sum(loss > _FAR * chance for loss in losses)


class TrainLoop:
    """Where a run stands, and how it goes on; see the module."""

    def __init__(
        self,
        run: Run,
        fabric: Fabric,
        state: TrainState,
        loader: BatchSource,
        config: TrainerConfig,
        *,
        num_metrics: int,
        stop_after: int | None = None,
        stop_after_epoch: int | None = None,
        extra_state: Mapping[str, nn.Module] | None = None,
        chance: float | None = None,
    ) -> None:
        """Begin at the first step.

        Args:
            run: the folder; started.
            fabric: device and processes.
            state: what is trained.
            loader: the training data.
            config: of any trainer: length, seed, checkpoints, TensorBoard.
            num_metrics: running sums over the micro-batches of an epoch.
            stop_after: stop after this step of the run, resumable; None goes to the end.
            stop_after_epoch: the same after this epoch, scored and logged.
            extra_state: further modules whose state is kept, by name.
            chance: the loss of equal probabilities for all classes, in nats, where the first metric
                is a cross-entropy: what is far above is logged.
        """
        self.run, self.fabric, self.state, self.loader = run, fabric, state, loader
        self.config = config
        self.num_steps = config.steps(len(loader))
        self.num_epochs = -(-self.num_steps // len(loader))
        self.epoch = self.done = 0  # epochs, and steps in the next one
        self.sums = torch.zeros(num_metrics, device=fabric.device)
        """Of the metrics over the micro-batches of this epoch."""
        self._extra_state = dict(extra_state or {})
        self._chance = chance or math.inf
        batches = loader.batches
        self._layout = {"processes": batches.ranks, "accumulate": batches.accumulate}
        self._data = {"samples": batches.count, "steps an epoch": len(loader)}
        self._stop_after, self._stop_after_epoch = stop_after, stop_after_epoch
        self._clock = 0.0  # seconds of this epoch's steps
        self._started = self._epoch_started = time.monotonic()
        self._stop = StopSignal(fabric)
        self._writer = CheckpointWriter(run.checkpoint, fabric.device)
        self._saved: int | None = None  # step of the last checkpoint
        self._advance: Advance | None = None
        self._curves: TensorBoardLog | None = None

    @property
    def steps_done(self) -> int:
        """Of the whole run."""
        return min(self.epoch * len(self.loader) + self.done, self.num_steps)

    @property
    def steps_in_epoch(self) -> int:
        """Of this epoch: the last one of a run that is given in steps may be shorter."""
        return min(len(self.loader), self.num_steps - self.epoch * len(self.loader))

    @property
    def seconds(self) -> float:
        """Since the start, without the time a stopped run lay still."""
        return time.monotonic() - self._started

    @property
    def speed(self) -> float:
        """Samples per second in this epoch's steps, over all processes."""
        return self.done * self.config.batch_size / max(self._clock, 1e-9)

    def is_due(self, period: int) -> bool:
        """Whether a multiple of `period` steps lies in this epoch; at its end always the last."""
        start = self.epoch * len(self.loader)
        end = start + self.steps_in_epoch
        return end == self.num_steps or (period > 0 and start // period != end // period)

    def resume(self) -> None:
        """Take up RUN/checkpoints/last.pth, if there is one.

        Raises:
            UsageError: it is of other data.
        """
        state = load_checkpoint(self.run.checkpoint, self.fabric.device)
        if self.fabric.is_global_zero:
            self.run.cut_log(0 if state is None else state["epoch"])
        if state is None:
            return
        if state["data"] != self._data:
            raise UsageError(
                f"{self.run.folder} was started on other data: {state['data']} there, "
                f"{self._data} here. Give the same data, or another --out."
            )
        for name, part in self._parts.items():
            if name in state:  # a scaler of mixed precision may be new
                part.load_state_dict(state[name])
        lay_out_state(self.state.optimizer)
        self.epoch, self.done, self._clock = state["epoch"], state["done"], state["clock"]
        self._started, self._saved = time.monotonic() - state["seconds"], self.steps_done
        self.loader.corrupt.update(state["corrupt"])
        here, there = self._layout, state["layout"]
        rank, sums = self.loader.batches.rank, state["sums"].to(self.fabric.device)
        if here == there:
            self.sums += sums[rank]
        elif rank == 0:  # a sum is over micro-batches, of which a step had another number
            self.sums += sums.sum(0) * (math.prod(here.values()) / math.prod(there.values()))
        if self.fabric.is_global_zero:
            place = f"epoch {self.epoch}, step {self.done} of the next"
            log(f"resuming {self.run.folder} after {place}")
            if here != there:
                log(_changed(there, here, self.config.batch_size))

    @contextmanager
    def running(self, title: str, samples: str = "images") -> Iterator[None]:
        """A progress bar; stop signals wait for the end of a step; what diverges is logged.

        Args:
            title: of the bar.
            samples: what a batch consists of, such as images of 64 pixels.

        Raises:
            UsageError: the GPU has not enough memory.
            Diverged: detectron2 found that a loss did.
        """
        config, zero = self.config, self.fabric.is_global_zero
        size = config.batch_size
        self._curves = TensorBoardLog(self.run, config.tensorboard and zero, self.steps_done)
        done, total = self.steps_done * size, self.num_steps * size
        if (beat := heartbeat()) is not None:
            beat.describe, beat.before_end = self._describe, self._writer.wait
        hint = out_of_memory_hint(self.fabric, size, config.accumulate, samples)
        with hint, self._stop, bar(title, total, "samples", done, zero) as advance:
            self._advance = advance
            try:
                yield
            except FloatingPointError as error:
                raise Diverged(f"training has diverged ({error}). {_SMALLER_STEPS}") from error
            finally:
                with suppress(UsageError):  # raised already, or another error is on its way
                    self._writer.wait()

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, from 0.

        Raises:
            Stopped: the run stands at `stop_after_epoch` already.
        """
        while self.epoch < self.num_epochs:
            if self._stop_after_epoch is not None and self.epoch >= self._stop_after_epoch:
                raise Stopped(str(self.run.folder), self._epochs_done, 0)
            yield self.epoch

    def steps(self, epoch: int) -> Iterator[tuple[int, Iterator[MicroBatch]]]:
        """(step of the run, its micro-batches) for the rest of `epoch`.

        Raises:
            Stopped: the run stands at `stop_after` already.
            UsageError: a checkpoint could not be written.
        """
        if self._stop_after is not None and self.steps_done >= self._stop_after:
            raise Stopped(str(self.run.folder), f"step {self.steps_done} of {self.num_steps}", 0)
        self._epoch_started = time.monotonic() - self._clock
        batches = self.loader.epoch(epoch, self.done)
        while self.done < self.steps_in_epoch:
            taken = list(islice(batches, self.loader.batches.accumulate))
            if not taken:
                break
            step = epoch * len(self.loader) + self.done
            yield step, micro_batches(step, taken, self.loader, self.fabric, self.config.seed)
        self._writer.wait()  # before anything else is written into the folder

    def finish_step(self, metrics: Tensor) -> None:
        """Count a step and add up its metrics, which are sums over its micro-batches."""
        self.sums += metrics
        self.done += 1
        self._clock = time.monotonic() - self._epoch_started
        if self._advance is not None:
            self._advance(self.config.batch_size, f"epoch {self.epoch + 1}/{self.num_epochs}")
        if self._curves is not None:
            self._curves.log_step(self.steps_done, self.state.lr, metrics / self.config.accumulate)

    def means(self) -> list[float]:
        """The metrics of the epoch, the mean over the micro-batches of all processes.

        Raises:
            Diverged: one is not finite.
        """
        batches = self.loader.batches
        count = self.steps_in_epoch * batches.accumulate * batches.ranks
        total: Any = self.fabric.all_reduce(self.sums.clone(), reduce_op="sum")
        means: list[float] = (total / count).tolist()
        if not all(map(math.isfinite, means)):
            where = f"the training loss is {means[0]} in epoch {self.epoch + 1}"
            raise Diverged(f"{where}: it has diverged. {_SMALLER_STEPS}")
        if self.fabric.is_global_zero and epochs_above_chance(means[:1], self._chance):
            log(
                f"note: the mean training loss of epoch {self.epoch + 1} is {means[0]:.1f}, far "
                f"above {self._chance:.1f} of chance: the steps are too large for this network. "
                f"{_SMALLER_STEPS}"
            )
        return means

    def finish_epoch(self, record: Mapping[str, Any]) -> None:
        """Count an epoch and log its record, in log.jsonl and for TensorBoard."""
        self.loader.share_corrupt()
        if self._curves is not None:
            self._curves.log_epoch(self.steps_done, dict(record))
        self.epoch, self.done, self._clock = self.epoch + 1, 0, 0.0
        self.sums = torch.zeros_like(self.sums)
        if self.fabric.is_global_zero:
            self.run.log({"epoch": self.epoch, "step": self.steps_done, **record})

    def checkpoint(self) -> None:
        """Save the state after an epoch, where its period has come, or where the run is stopped.

        It is written while the next steps are made, and on the disk when the run ends or stops.

        Raises:
            UsageError: it could not be written, or the one before.
            Stopped: a stop signal came, or the step of `stop_after`, or the epoch of
                `stop_after_epoch`; the same call continues.
        """
        between_epochs, done, every = self.done == 0, self.steps_done, self.config.checkpoints
        number = None if between_epochs else self._stop.agreed()
        stops = number is not None or (not between_epochs and done == self._stop_after)
        if between_epochs or stops or (every.every_steps and done % every.every_steps == 0):
            self._save()
        if between_epochs:
            number = self._stop.agreed(wait=True)
            is_due = number is not None or self.epoch == self._stop_after_epoch
            stops = is_due and self.epoch < self.num_epochs
        if stops or self.epoch == self.num_epochs:
            self._writer.wait()
            self.fabric.barrier()  # process 0 is not left alone with what it writes
        if stops:
            place = self._epochs_done
            if not between_epochs:
                place = f"step {done} of {self.num_steps}"
            raise Stopped(str(self.run.folder), place, number or 0)

    @property
    def _epochs_done(self) -> str:
        return f"epoch {self.epoch} of {self.num_epochs}"

    def _describe(self) -> str:
        """Where it stands, and how it goes on."""
        again = "To continue: the same torchrun command with --resume"
        place = f"It stood at step {self.steps_done} of {self.num_steps}"
        if self._saved is None:
            return f"{place}, without a checkpoint."
        return f"{place}, its last checkpoint is of step {self._saved}. {again} {self.run.folder}"

    @property
    def _parts(self) -> dict[str, Any]:
        """What has a state of its own, by its key in the checkpoint."""
        state, scaler = self.state, _scaler(self.fabric)
        parts = {"model": state.model, "optimizer": state.optimizer, **self._extra_state}
        parts |= {} if state.ema is None else {"ema": state.ema.module}
        return parts | ({} if scaler is None else {"scaler": scaler})

    def _save(self) -> None:
        """The state as process 0 has it, and every process's sums."""
        gathered: Any = self.fabric.all_gather(self.sums)
        if self.fabric.is_global_zero:
            state = {
                "epoch": self.epoch,
                "done": self.done,
                "seconds": self.seconds,
                "sums": gathered.reshape(-1, len(self.sums)),
                "clock": self._clock,
                "layout": self._layout,
                "data": self._data,
                "corrupt": dict(self.loader.corrupt),
                **{name: part.state_dict() for name, part in self._parts.items()},
            }
            self._writer.save(state)
        self._saved = self.steps_done


def micro_batches(
    step: int, batches: Sequence[Any], loader: BatchSource, fabric: Fabric, seed: int
) -> Iterator[MicroBatch]:
    """The micro-batches of a step, the ambient generators seeded for each by its place."""
    ranks, rank = loader.batches.ranks, loader.batches.rank
    for place, batch in enumerate(batches):
        number = place * ranks + rank
        seed_ambient(derive(seed, "step", step, number))
        yield MicroBatch(number, to_device(batch, fabric), place + 1 == len(batches))


def _scaler(fabric: Fabric) -> Any:
    """Of the gradients, with 16-mixed."""
    return getattr(fabric.strategy.precision, "scaler", None)


def _changed(there: Mapping[str, int], here: Mapping[str, int], batch_size: int) -> str:
    """What another division of the batch means for the run."""
    sizes = [batch_size // math.prod(layout.values()) for layout in (there, here)]
    before, now = (
        f"{layout['processes']} process(es) x {layout['accumulate']} accumulated x {size} images"
        for layout, size in zip((there, here), sizes, strict=True)
    )
    if sizes[0] == sizes[1]:
        return f"the batch was {before}, now {now}: the same steps, but for rounding."
    return (
        f"the batch was {before}, now {now}: the same images make a step, but mixing pairs them "
        f"within {sizes[1]} and BatchNorm averages over {sizes[1]}. The run continues, not to the "
        "same bits."
    )
