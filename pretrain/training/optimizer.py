"""Optimizers and learning rates of every trainer, by timm; durations become optimizer steps."""

from collections.abc import Callable
from typing import Any

import torch
from timm.optim._optim_factory import create_optimizer_v2, list_optimizers
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.poly_lr import PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.tanh_lr import TanhLRScheduler
from torch import nn

from pretrain.config import Duration, OptimizerConfig
from pretrain.errors import UsageError

_CURVES: dict[str, Callable[..., Scheduler]] = {
    "cosine": CosineLRScheduler,
    "poly": PolyLRScheduler,
    "tanh": TanhLRScheduler,
}
_WITH_FUSED_STEP = ("sgd", "momentum", "adam", "adamw")
_OTHER_STEPS = {"fused", "foreach", "capturable", "differentiable"}
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def check_optimizer(config: OptimizerConfig) -> None:
    """Raise UsageError for an optimizer that timm does not have."""
    known = [str(name) for name in list_optimizers()]
    if config.name not in known:
        raise UsageError(f"optimizer.name is {config.name!r}; timm has {', '.join(sorted(known))}")


def make_optimizer(
    network: nn.Module,
    config: OptimizerConfig,
    batch_size: int,
    lr_of: Callable[[str], float | None] = lambda name: None,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """Make timm's optimizer of all parameters that are trained.

    Args:
        network: its parameters without requires_grad are left out.
        config: name, peak rate, decay.
        batch_size: samples in a step; scales the rate where lr_batch is given.
        lr_of: a parameter's name -> its own peak rate, or None for config.lr.
        fused: torch's update in one pass over the weights, where the optimizer has one.

    Raises:
        UsageError: no such optimizer, or arguments it does not take.
    """
    check_optimizer(config)
    norms = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, _NORMS)
        for parameter in module.parameters(recurse=False)
    }
    scale = 1.0 if config.lr_batch is None else batch_size / config.lr_batch
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        spared = config.no_decay != "nothing" and id(parameter) in norms
        spared |= config.no_decay == "norms_and_biases" and parameter.ndim <= 1
        own = lr_of(name)
        lr = scale * (config.lr if own is None else own)
        decay = 0.0 if spared else config.weight_decay
        group = {"params": [], "lr": lr, "weight_decay": decay}
        groups.setdefault((lr, decay), group)["params"].append(parameter)
    args: dict[str, Any] = dict(config.args)
    if fused and config.name in _WITH_FUSED_STEP and not _OTHER_STEPS & args.keys():
        args["fused"] = True
    try:
        return create_optimizer_v2(
            [*groups.values()],
            opt=config.name,
            lr=config.lr * scale,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            **args,
        )
    except TypeError as error:
        raise UsageError(f"optimizer.args do not fit {config.name}: {error}") from error


def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Give what an optimizer has loaded the memory layout of its parameters.

    A run may go on in another one; torch's update in one pass reads all as it lies.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(
                    parameter, dtype=value.dtype, device=value.device
                ).copy_(value)


def make_lr_scheduler(
    optimizer: torch.optim.Optimizer,
    config: OptimizerConfig,
    num_steps: int,
    steps: Callable[[Duration], int],
    power: float = 1.0,
) -> Scheduler:
    """Make timm's schedule in steps: `.step_update(step)` before each step.

    Args:
        optimizer: its learning rates are the peaks.
        config: kind, milestones, warm-up.
        num_steps: of the whole run, the warm-up included.
        steps: turns a duration into steps.
        power: of poly (timm's own default is 0.5).
    """
    warmup, peak = steps(config.warmup), optimizer.param_groups[0]["lr"]
    shared: dict[str, Any] = {
        "warmup_prefix": False,
        "warmup_t": warmup,
        "warmup_lr_init": peak / 1000 if warmup else 0.0,
        "t_in_epochs": False,
    }
    if curve := _CURVES.get(config.schedule):
        if config.schedule == "poly":
            shared["power"] = power
        return curve(optimizer, t_initial=num_steps, lr_min=config.min_lr, **shared)
    milestones = config.milestones if config.schedule == "step" else ()
    # timm applies a milestone one step early, by its own convention
    decays = [steps(milestone) + 1 for milestone in milestones]
    return MultiStepLRScheduler(optimizer, decay_t=decays, decay_rate=config.decay_rate, **shared)
