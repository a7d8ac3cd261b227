"""Mixup (Zhang et al., ICLR 2018): images and labels blended with the same lam ~ Beta(a, a)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.mixed import (
    Granularity,
    Mixed,
    Partner,
    blend,
    check,
    numpy_generator,
    plan,
    send,
    soft,
)


@dataclass(frozen=True, kw_only=True)
class Mixup:
    """Mixup; one lam for the batch is the reference's."""

    alpha: float = 1.0
    """lam ~ Beta(alpha, alpha). The CutMix paper used 1.0; 0.2 is common for ImageNet."""
    probability: float = 1.0
    """Chance that a draw (of the batch, pair or sample) mixes at all."""
    granularity: Granularity = "batch"
    """Who shares a draw: see `plan`."""
    partner: Partner = "any"
    """Whether an image may meet itself: see `plan`."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        check(self.alpha, self.probability)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Floating images."""
        draw = numpy_generator(generator)
        who = plan(len(images), self.granularity, self.partner, self.probability, draw)
        drawn = who.spread(draw.beta(self.alpha, self.alpha, who.groups), 1)
        lam, partner = torch.from_numpy(drawn.astype(np.float32)), torch.from_numpy(who.partner)
        weight, source = send(lam, images.device), send(partner, images.device)
        targets = blend(soft(labels, num_classes), source, weight)
        own = images[: len(lam)]
        if not who.mixed.any():
            return Mixed(own, targets, lam, partner)
        return Mixed(_lerp(images, weight, source), targets, lam, partner)


def _lerp(images: Tensor, lam: Tensor, partner: Tensor) -> Tensor:
    """Row i: lam[i] * images[i] + (1 - lam[i]) * images[partner[i]]."""
    own = images[: len(lam)]
    if images.device.type == "cpu":  # row by row: no gathered copy of the partners
        mixed = torch.empty_like(own)
        rows = zip(lam.tolist(), partner.tolist(), strict=True)
        for index, (weight, other) in enumerate(rows):
            torch.lerp(images[other], images[index], weight, out=mixed[index])
        return mixed
    return torch.lerp(images[partner], own, lam.to(images.dtype)[:, None, None, None])
