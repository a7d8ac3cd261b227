"""Mixup (Zhang et al., ICLR 2018): images and labels blended with the same lam ~ Beta(a, a)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.cutmix import check_alpha_and_probability
from pretrain.mixing.mixed import Mixed, blend, numpy_generator, soft, unmixed


@dataclass(frozen=True, kw_only=True)
class Mixup:
    """Mixup with one lam for the batch (the reference's) or one for each sample."""

    alpha: float = 1.0
    """lam ~ Beta(alpha, alpha). The CutMix paper used 1.0; 0.2 is common for ImageNet."""
    probability: float = 1.0
    """Chance that a batch is mixed at all."""
    granularity: Literal["batch", "sample"] = "batch"

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        check_alpha_and_probability(self.alpha, self.probability)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Partners are a permutation of the batch."""
        draw = numpy_generator(generator)
        if draw.random() >= self.probability:
            return unmixed(images, labels, num_classes)
        count = len(images)
        drawn = draw.beta(self.alpha, self.alpha, 1 if self.granularity == "batch" else count)
        lam = torch.from_numpy(np.broadcast_to(drawn, count).astype(np.float32))
        partner = torch.from_numpy(draw.permutation(count))
        weight = lam.to(images.device, images.dtype)[:, None, None, None]
        mixed = torch.lerp(images[partner.to(images.device)], images, weight)
        return Mixed(mixed, blend(soft(labels, num_classes), partner, lam), lam, partner)
