"""Learning rates by timm's schedules, in optimiser steps."""

from typing import Any, Literal

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.poly_lr import PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.tanh_lr import TanhLRScheduler

Kind = Literal["step", "cosine", "poly", "tanh", "constant"]


def schedule(
    optimizer: torch.optim.Optimizer,
    kind: Kind,
    *,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: float = 0.0,
    milestones: tuple[float, ...] = (),
    decay_rate: float = 0.1,
    min_lr: float = 0.0,
) -> Scheduler:
    """From durations in epochs to timm's schedule in steps: `.step_update(step)` before each step.

    Args:
        optimizer: its learning rates are the peaks.
        kind: times `decay_rate` at each of `milestones`, one of timm's curves, or constant.
        steps_per_epoch: optimiser steps.
        epochs: of the whole run.
        warmup_epochs: of linear rise from a thousandth, part of `epochs`.
        milestones: in epochs, for the step schedule.
        decay_rate: factor at a milestone.
        min_lr: end of the curves.
    """
    steps, warmup = epochs * steps_per_epoch, round(warmup_epochs * steps_per_epoch)
    peak = optimizer.param_groups[0]["lr"]
    rise: dict[str, Any] = {
        "warmup_prefix": False,
        "warmup_t": warmup,
        "warmup_lr_init": peak / 1000 if warmup else 0.0,
        "t_in_epochs": False,
    }
    match kind:
        case "cosine":
            return CosineLRScheduler(optimizer, t_initial=steps, lr_min=min_lr, **rise)
        case "poly":
            return PolyLRScheduler(optimizer, t_initial=steps, lr_min=min_lr, power=1.0, **rise)
        case "tanh":
            return TanhLRScheduler(optimizer, t_initial=steps, lr_min=min_lr, **rise)
        case "step" | "constant":
            # timm applies a milestone one step early, by its own convention
            at = milestones if kind == "step" else ()
            decays = [round(epoch * steps_per_epoch) + 1 for epoch in at]
            return MultiStepLRScheduler(optimizer, decay_t=decays, decay_rate=decay_rate, **rise)
