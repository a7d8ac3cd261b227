"""Several methods in one run: one is drawn for each batch, as timm's Mixup and CutMix."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.errors import UsageError
from pretrain.mixing.mixed import Mix, Mixed, numpy_generator


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of `mixes` for each batch, with chances in proportion to `weights`."""

    mixes: tuple[Mix, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse chances that are none."""
        if not all(weight >= 0 for weight in self.weights) or not sum(self.weights) > 0:
            raise UsageError(
                f"the weights of the mixing methods are {self.weights}; none may be negative, and "
                "one must be above 0"
            )

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix."""
        total = sum(self.weights)
        chances = [weight / total for weight in self.weights]
        chosen = self.mixes[numpy_generator(generator).choice(len(self.mixes), p=chances)]
        return chosen(images, labels, num_classes, generator)
