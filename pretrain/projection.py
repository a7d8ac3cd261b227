"""What a run will cost, measured on ten of its steps; nothing is written."""

import time
from dataclasses import dataclass
from itertools import islice

import torch
from lightning.fabric import Fabric

from pretrain.config import PretrainConfig
from pretrain.engine import train_step
from pretrain.run import peak_memory_mib
from pretrain.setup import PretrainSetup, setup_training
from pretrain.training import micro_batches
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
    samples, accumulate = f"images of {config.dataset.image_size} pixels", config.accumulate
    with out_of_memory_hint(fabric, config.batch_size, accumulate, samples):
        state, loaders = setup_training(setup, config, fabric)
        state.model.train()
        # the clock before the first measured step and behind each
        batches, clock = loaders.train.epoch(0), [time.monotonic()]
        steps = min(1 + _STEPS, setup.steps_per_epoch)
        for step in range(steps):
            taken = list(islice(batches, accumulate))
            parts = micro_batches(step, taken, loaders.train, fabric, config.seed)
            train_step(state, loaders, setup, config, fabric, step, parts)
            if fabric.device.type == "cuda":
                torch.cuda.synchronize(fabric.device)
            if step == 0 and steps > 1:  # it warms up
                # what the loader has read ahead meanwhile would make it look faster than it is
                ahead = -(-config.loader.prefetch * config.loader.workers // accumulate)
                for _ in islice(batches, min(setup.steps_per_epoch - steps, ahead) * accumulate):
                    pass
                clock.clear()
            clock.append(time.monotonic())
    seconds = (clock[-1] - clock[0]) / (len(clock) - 1)
    networks = 1 if state.ema is None else 2
    validation = networks * len(setup.data.val) / config.batch_size * seconds / 3
    total = config.steps(setup.steps_per_epoch)
    hours = (total * seconds + -(-total // setup.steps_per_epoch) * validation) / 3600
    memory = peak_memory_mib(fabric.device)
    return Projection(len(clock) - 1, seconds, config.batch_size / seconds, hours, memory)
