"""Attentive CutMix (Walawalkar et al., ICASSP 2020, arXiv 2003.13048, section 3).

The mean over the channels of a trained network's last features is a map over the partner, 7 x 7 for
224 pixels; its 6 largest cells are pasted into the image at their own places. Label rule: the share
of pixels, 1 - 6/49 for the own label where the map is 7 x 7. One further pass of the guide over the
partners, in evaluation mode and without gradients.

No code of the authors is public. How openmixup's differs: it keeps the cells of the own image and
takes the partner around them, the same by other names; and it takes as many cells of a map of any
size, here it is the same share. `cells=None` is its `top_k=None`.

The map says something where features are activations, as behind the last ReLU of a ResNet. Networks
that normalise their last features over the channels at each place (ViT, Swin) have about the same
mean everywhere.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.errors import UsageError, check_ranges
from pretrain.mixing.cutmix import paste
from pretrain.mixing.mixed import Mixed, PairedMix, blend_labels, numpy_generator, to_device
from pretrain.mixing.network import feature_map

_PAPER = 49  # cells of the paper's map


@dataclass(frozen=True, kw_only=True)
class AttentiveCutMix(PairedMix):
    """Attentive CutMix."""

    on_bytes: ClassVar[bool] = False  # the guide sees normalised images
    guide: nn.Module
    """A trained timm network."""
    cells: int | None = 6
    """Cells pasted of a map of 7 x 7, and the same share of others, at least one; None pastes the
    share 1 - lam with lam ~ Beta(alpha, alpha)."""

    def __post_init__(self) -> None:
        """Refuse to paste nothing or more than there is."""
        super().__post_init__()
        check_ranges("mixing.args", self, cells=f"[1, {_PAPER}]")

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Normalised floats.

        Raises:
            UsageError: the map of the guide is one cell, or see `feature_map`.
        """
        pairs = self.draw_pairs(len(images), numpy_generator(generator))
        partner = torch.from_numpy(pairs.partner)
        if not pairs.mixed.any():
            return paste(images, labels, num_classes, np.zeros((len(partner), 4)), partner)
        sources = images[to_device(partner, images.device)]
        attention = feature_map(self.guide, sources).mean(1)
        cells = attention[0].numel()
        if cells == 1:
            raise UsageError(
                f"for images of {images.shape[-2]} x {images.shape[-1]} pixels the guide's last "
                "features are one cell, so there is nothing to choose from. Give larger images, or "
                "a network of a smaller stride, such as resnet18_cifar"
            )
        share = 1 - pairs.lam if self.cells is None else np.array([self.cells / _PAPER])
        count = pairs.spread(np.maximum(np.rint(share * cells), 1), 0)
        return paste_cells(images, sources, labels, num_classes, attention, count, partner)


def paste_cells(
    images: Tensor,
    sources: Tensor,
    labels: Tensor,
    num_classes: int,
    attention: Tensor,
    count: np.ndarray,
    partner: Tensor,
) -> Mixed:
    """Paste the `count[i]` largest cells of `attention[i]` (h, w), from `sources[i]` into image i.

    A pixel belongs to the cell that its top left corner lies in. Cells that do not divide the image
    have unequal sizes, and the label weight is the exact share of pixels.
    """
    height, width = images.shape[-2:]
    largest = attention.flatten(1).argsort(dim=1, descending=True, stable=True)
    number = to_device(torch.from_numpy(count), images.device)[:, None]
    chosen = (largest.argsort(1) < number).view_as(attention)
    row, column = (
        torch.arange(size, device=images.device) * cells // size
        for size, cells in zip((height, width), attention.shape[1:], strict=True)
    )
    mask = chosen[:, row][:, :, column]
    lam = 1 - mask.mean((1, 2), dtype=torch.float32)
    targets = blend_labels(labels, num_classes, to_device(partner, images.device), lam)
    mixed = torch.where(mask[:, None], sources, images[: len(sources)])
    return Mixed(mixed, targets, lam, partner)
