"""From a configuration to the mixing of a step: schedules are functions of the step.

Of several methods one is drawn for each batch, as timm's Mixup and CutMix.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from pretrain.config import MethodConfig, MixingConfig, steps_of
from pretrain.errors import UsageError
from pretrain.mixing.cutmix import CutMix
from pretrain.mixing.cutout import Cutout
from pretrain.mixing.mixed import Mix, Mixed, numpy_generator, unmixed
from pretrain.mixing.mixup import Mixup

_METHODS = {"cutmix": CutMix, "mixup": Mixup, "cutout": Cutout}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of `mixes` for each batch, with chances in proportion to `weights`."""

    mixes: tuple[Mix, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse weights that give no chances."""
        if not all(weight >= 0 for weight in self.weights) or not sum(self.weights) > 0:
            raise UsageError(
                f"the weights of the mixing methods are {self.weights}; none may be negative, and "
                "one must be above 0"
            )

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix."""
        chances = np.array(self.weights) / sum(self.weights)
        chosen = self.mixes[numpy_generator(generator).choice(len(self.mixes), p=chances)]
        return chosen(images, labels, num_classes, generator)


def mix_at(
    options: MixingConfig, step: float, steps_per_epoch: int = 1, batch_size: int = 1
) -> Mix:
    """The mixing of a step.

    Args:
        options: method, its `others`, and the schedule: over `ramp` the probability rises linearly
            from 0 (the paper's Scheduled CutMix, table 8, over the whole run); from `off_after` on
            nothing is mixed (timm's mixup_off_epoch).
        step: steps done before it.
        steps_per_epoch: turns epochs of the schedule into steps.
        batch_size: turns images of the schedule into steps.
    """
    length = {"steps_per_epoch": steps_per_epoch, "batch_size": batch_size}
    ramp = steps_of(options.ramp, **length)
    share = min(1.0, step / ramp) if ramp else 1.0
    if options.off_after is not None and step >= steps_of(options.off_after, **length):
        share = 0.0
    methods = [options, *options.others]
    mixes = tuple(_build(method, share * method.probability) for method in methods)
    if len(mixes) == 1:
        return mixes[0]
    return Choice(mixes=mixes, weights=tuple(method.weight for method in methods))


def _build(options: MethodConfig, probability: float) -> Mix:
    """A method whose fields are those of the same names in its configuration."""
    if options.method == "none":
        return lambda images, labels, num_classes, _: unmixed(images, labels, num_classes)
    method = _METHODS[options.method]
    arguments = {entry.name: getattr(options, entry.name) for entry in fields(method)}
    return method(**{**arguments, "probability": probability})
