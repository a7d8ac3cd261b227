"""Learning rates by timm's schedules, in optimiser steps."""

from typing import Any, Literal

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler


def schedule(
    optimizer: torch.optim.Optimizer,
    kind: Literal["cosine", "step"],
    *,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: float = 0.0,
    milestones: tuple[float, ...] = (),
) -> Scheduler:
    """From durations in epochs to timm's schedule in steps: `.step_update(step)` before each step.

    Args:
        optimizer: its learning rates are the peaks.
        kind: cosine to zero, or times 0.1 at each of `milestones`.
        steps_per_epoch: optimiser steps.
        epochs: of the whole run.
        warmup_epochs: of linear rise from a thousandth, part of `epochs`.
        milestones: in epochs, for the step schedule.
    """
    steps, warmup = epochs * steps_per_epoch, round(warmup_epochs * steps_per_epoch)
    peak = optimizer.param_groups[0]["lr"]
    rise: dict[str, Any] = {
        "warmup_prefix": False,
        "warmup_t": warmup,
        "warmup_lr_init": peak / 1000 if warmup else 0.0,
    }
    if kind == "cosine":
        return CosineLRScheduler(optimizer, t_initial=steps, t_in_epochs=False, **rise)
    # timm applies a milestone one step early, by its own convention
    decays = [round(epoch * steps_per_epoch) + 1 for epoch in milestones]
    return MultiStepLRScheduler(
        optimizer, decay_t=decays, decay_rate=0.1, t_in_epochs=False, **rise
    )
