"""What every mix takes and gives, and who is mixed with whom.

N images in, M rows out (M = N, but for granularity "half"), C channels, H height, W width,
K classes.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pretrain.errors import UsageError

Granularity = Literal["batch", "pair", "half", "sample"]
Partner = Literal["any", "other"]


@dataclass(frozen=True)
class Mixed:
    """A mixed batch."""

    images: Tensor
    """(M, C, H, W), the dtype and device of the input."""
    targets: Tensor
    """(M, K) float32, rows summing to 1."""
    lam: Tensor
    """(M,) float32 on the CPU: the weight of an image's own label."""
    partner: Tensor
    """(M,) int64 on the CPU: the input row whose label has the rest of the weight."""


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


@dataclass(frozen=True)
class Plan:
    """Who meets whom: row i of the result is image i with its partner, by draw `group[i]`."""

    partner: np.ndarray
    """(M,) rows of the input."""
    group: np.ndarray
    """(M,) which random draw a row uses."""
    mixed: np.ndarray
    """(groups,) whether that draw mixes at all."""

    @property
    def groups(self) -> int:
        """Number of draws."""
        return len(self.mixed)

    def spread(self, drawn: np.ndarray, unmixed: float) -> np.ndarray:
        """Draws (groups, ...) to rows (M, ...), `unmixed` where a draw does not mix."""
        shape = (-1,) + (1,) * (drawn.ndim - 1)
        return np.where(self.mixed.reshape(shape), drawn, unmixed)[self.group]


def plan(
    count: int,
    granularity: Granularity,
    partner: Partner,
    probability: float,
    draw: np.random.Generator,
) -> Plan:
    """Pair the images of a batch.

    Args:
        count: N.
        granularity: who shares a draw of lam and box.
            batch   everybody (the paper, the official code, torchvision)
            pair    images i and N-1-i, which are each other's partners (timm's "pair")
            half    as pair, and only the first half is returned: ceil(N/2) rows without an image
                    that appears twice (timm's "half")
            sample  nobody (timm's "elem")
        partner: any: a permutation, in which an image may meet itself (the paper); other: a random
            cycle, in which it cannot. For pair and half only the middle of an odd batch is alone.
        probability: chance that a draw mixes.
        draw: the only source of randomness.
    """
    if granularity in ("pair", "half"):
        group = np.arange((count + 1) // 2)
        rows = group if granularity == "half" else np.arange(count)
        partners = count - 1 - rows
        group = np.minimum(rows, partners)
    else:
        order = draw.permutation(count)
        if partner == "any":
            partners = order
        else:
            partners = np.empty_like(order)
            partners[order] = np.roll(order, 1)
        group = np.zeros(count, np.int64) if granularity == "batch" else np.arange(count)
    mixed = draw.random(int(group.max()) + 1) < probability
    return Plan(partners, group, mixed)


def check(alpha: float, probability: float) -> None:
    """Raise UsageError outside alpha > 0 and 0 <= probability <= 1."""
    if not alpha > 0:
        raise UsageError(f"mixing.alpha is {alpha}; it must be above 0")
    if not 0 <= probability <= 1:
        raise UsageError(f"mixing.probability is {probability}; it must lie in [0, 1]")


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """A NumPy generator that continues `generator`: torch's own Beta takes no generator."""
    return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))


def soft(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (N,) or (N, K) as rows of weights (N, K), float32."""
    if labels.ndim == 2:
        return labels.float()
    return functional.one_hot(labels, num_classes).float()


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device, without waiting for what the device is at.

    On Apple's GPUs such a copy may read memory that is already in other use (pytorch 83015).
    """
    return tensor.to(device, non_blocking=device.type != "mps")


def blend(targets: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """Lam * own + (1 - lam) * partner's, row by row (paper, equation 1); all on one device."""
    weight = lam[:, None]
    return weight * targets[: len(lam)] + (1 - weight) * targets[partner]


def unmixed(images: Tensor, labels: Tensor, num_classes: int) -> Mixed:
    """The batch as it is, not copied: every lam 1, every image its own partner."""
    count = len(images)
    return Mixed(images, soft(labels, num_classes), torch.ones(count), torch.arange(count))
