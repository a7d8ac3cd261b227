"""Mixup (Zhang et al., ICLR 2018): images and labels blended with the same lam ~ Beta(a, a)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.mixed import (
    Mixed,
    PairedMix,
    blend_labels,
    by_slices,
    numpy_generator,
    to_device,
)


@dataclass(frozen=True, kw_only=True)
class Mixup(PairedMix):
    """Mixup; one lam for the batch is the reference's."""

    on_bytes: ClassVar[bool] = False

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Floating images."""
        pairs = self.draw_pairs(len(images), numpy_generator(generator))
        lam = torch.from_numpy(pairs.spread(pairs.lam, 1).astype(np.float32))
        partner = torch.from_numpy(pairs.partner)
        source, weight = to_device(partner, images.device), to_device(lam, images.device)
        targets = blend_labels(labels, num_classes, source, weight)
        mixed = own = images[: len(lam)]
        if pairs.mixed.any():
            if by_slices(images):  # row by row: no gathered copy of the partners
                mixed = torch.empty_like(own)
                rows = zip(lam.tolist(), partner.tolist(), strict=True)
                for index, (share, other) in enumerate(rows):
                    torch.lerp(images[other], images[index], share, out=mixed[index])
            else:
                weight = weight.to(images.dtype)[:, None, None, None]
                mixed = torch.lerp(images[source], own, weight)
        return Mixed(mixed, targets, lam, partner)
