"""What every mix takes and gives. N images, C channels, H height, W width, K classes."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Mixed:
    """A mixed batch."""

    images: Tensor
    """(N, C, H, W), the dtype and device of the input."""
    targets: Tensor
    """(N, K) float32, rows summing to 1."""
    lam: Tensor
    """(N,) float32 on the CPU: the weight of an image's own label."""
    partner: Tensor
    """(N,) int64 on the CPU: whose label has the rest of the weight."""


class Mix(Protocol):
    """A mixing method."""

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """Mix a batch of any size on any device; the inputs stay as they are.

        Args:
            images: (N, C, H, W).
            labels: (N,) integers or (N, K) soft labels, on the device of the images.
            num_classes: K.
            generator: a CPU generator; all random numbers are drawn there and sent once, so that
                CPU and CUDA mix alike.
        """
        ...


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """A NumPy generator that continues `generator`: torch's own Beta takes no generator."""
    return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))


def soft(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (N,) or (N, K) as rows of weights (N, K), float32."""
    if labels.ndim == 2:
        return labels.float()
    return functional.one_hot(labels, num_classes).float()


def blend(targets: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """Lam * own + (1 - lam) * partner's, row by row (paper, equation 1)."""
    weight = lam.to(targets.device)[:, None]
    return weight * targets + (1 - weight) * targets[partner.to(targets.device)]


def unmixed(images: Tensor, labels: Tensor, num_classes: int) -> Mixed:
    """The batch as it is: every lam 1, every image its own partner."""
    count = len(images)
    return Mixed(images, soft(labels, num_classes), torch.ones(count), torch.arange(count))
