"""What a run will cost, measured on ten of its steps; nothing is written."""

import time
from dataclasses import dataclass
from itertools import islice

import torch
from lightning.fabric import Fabric

from pretrain.config import PretrainConfig
from pretrain.engine import train_step
from pretrain.run import peak_memory_mib
from pretrain.setup import Loaders, PretrainSetup, setup_training
from pretrain.training import TrainState, micro_batches
from pretrain.training.devices import out_of_memory_hint

_STEPS = 10


@dataclass(frozen=True)
class Projection:
    """The cost of a whole run."""

    steps: int
    """Measured, behind one that warms up."""
    seconds_per_step: float
    images_per_second: float
    hours: float
    """All steps, and the validations at three times a step's speed: no backward pass."""
    memory_mib: float
    """Peak: of the GPU, or of this process."""


def project(setup: PretrainSetup, config: PretrainConfig, fabric: Fabric) -> Projection:
    """Make ten steps with the run's own data and network.

    Raises:
        UsageError: as the run itself would.
    """
    images = f"images of {config.dataset.image_size} pixels"
    with out_of_memory_hint(fabric, config.batch_size, config.accumulate, images):
        state, loaders = setup_training(setup, config, fabric)
        state.model.train()
        clock = _measure(state, loaders, setup, config, fabric)
    steps = len(clock) - 1
    seconds = (clock[-1] - clock[0]) / steps
    networks = 1 if state.ema is None else 2
    validation = networks * len(setup.data.val) / config.batch_size * seconds / 3
    total = config.steps(setup.steps_per_epoch)
    epochs = -(-total // setup.steps_per_epoch)
    return Projection(
        steps=steps,
        seconds_per_step=seconds,
        images_per_second=config.batch_size / seconds,
        hours=(total * seconds + epochs * validation) / 3600,
        memory_mib=peak_memory_mib(fabric.device),
    )


def _measure(
    state: TrainState,
    loaders: Loaders,
    setup: PretrainSetup,
    config: PretrainConfig,
    fabric: Fabric,
) -> list[float]:
    """The clock before the first measured step and behind each."""
    loader, accumulate = loaders.train, config.accumulate
    batches = loader.epoch(0)
    clock: list[float] = []

    def step(number: int) -> bool:
        taken = list(islice(batches, accumulate))
        if len(taken) == accumulate:
            cut = micro_batches(number, taken, loader, fabric, config.seed)
            train_step(state, loaders, setup, config, fabric, number, cut)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize(fabric.device)
            clock.append(time.monotonic())
        return len(taken) == accumulate

    began = time.monotonic()
    step(0)
    # what the loader has read ahead meanwhile would make it look faster than it is
    spare = len(loader) - 1 - _STEPS
    ahead = min(max(spare, 0), -(-config.loader.prefetch * config.loader.workers // accumulate))
    for _ in islice(batches, ahead * accumulate):
        pass
    clock[:] = [time.monotonic()] if len(loader) > 1 else [began, clock[0]]
    for number in range(1, _STEPS + 1):
        if not step(number):
            break
    return clock
