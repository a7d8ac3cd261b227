"""What a run will cost, measured on ten of its steps; nothing is written."""

import time
from dataclasses import dataclass
from itertools import islice

import torch
from lightning.fabric import Fabric

from pretrain.config import PretrainConfig
from pretrain.engine import train_step
from pretrain.preparation import Prepared, equip
from pretrain.run import peak_memory_mib
from pretrain.training import parts_of

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


def project(ready: Prepared, config: PretrainConfig, fabric: Fabric) -> Projection:
    """Make ten steps with the run's own data and network.

    Raises:
        UserError: as the run itself would.
    """
    gear = equip(ready, config, fabric)
    gear.model.train()
    batches, accumulate = gear.train.epoch(0), gear.train.batches.accumulate
    clock = [time.monotonic()]
    for step in range(min(_STEPS + 1, ready.steps_per_epoch)):
        parts = parts_of(step, list(islice(batches, accumulate)), gear.train, fabric, config.seed)
        train_step(gear, ready, config, fabric, step, parts)
        if fabric.device.type == "cuda":
            torch.cuda.synchronize(fabric.device)
        clock.append(time.monotonic())
    if len(clock) > 2:
        del clock[0]
    steps = len(clock) - 1
    seconds = (clock[-1] - clock[0]) / steps
    validation = len(ready.data.val) / config.batch_size * seconds / 3
    return Projection(
        steps=steps,
        seconds_per_step=seconds,
        images_per_second=config.batch_size / seconds,
        hours=config.epochs * (ready.steps_per_epoch * seconds + validation) / 3600,
        memory_mib=peak_memory_mib(fabric.device),
    )
