"""Mixup (Zhang, Cisse, Dauphin and Lopez-Paz, ICLR 2018, arXiv 1710.09412, equation in section 2).

    x = lam own + (1 - lam) partner's,  lam ~ Beta(alpha, alpha)

Label rule: the same lam. The network makes no further pass.
As facebookresearch/mixup-cifar10, which draws one lam and one permutation for a batch and adds two
losses in place of blending the labels. Bytes and bfloat16 are blended in float32 and rounded once.

With `cutout` it is "Cutout + Mixup" of the CutMix paper's table 5, which does not give the order:
here squares are cut from the images before they are blended.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import check_ranges
from pretrain.mixing.boxes import box_mask, cutout_boxes
from pretrain.mixing.mixed import (
    Mixed,
    PairedMix,
    Read,
    blend_labels,
    by_slices,
    mix_rows,
    numpy_generator,
    to_device,
)


@dataclass(frozen=True, kw_only=True)
class Mixup(PairedMix):
    """Mixup; one lam for the batch is the reference's."""

    on_bytes: ClassVar[bool] = False
    reads: ClassVar[bool] = True

    cutout: float = 0.0
    """Side of a square cut from each image beforehand, as a share of the image's; 0 cuts none."""

    def __post_init__(self) -> None:
        """Refuse a square larger than the image."""
        super().__post_init__()
        check_ranges("mixing.args", self, cutout="[0, 1]")
        if self.cutout:
            object.__setattr__(self, "reads", False)  # squares are cut from the whole batch

    def cut(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """The images, each with a square of zeros where `cutout` has a side."""
        if not self.cutout:
            return images
        boxes = cutout_boxes(self.cutout, len(images), rng, *images.shape[-2:])
        return images.masked_fill(box_mask(boxes, images), 0)

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        generator: torch.Generator,
        read: Read | None = None,
    ) -> Mixed:
        """See Mix."""
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        images = self.cut(images, rng)
        lam = torch.from_numpy(pairs.spread(pairs.lam, 1).astype(np.float32))
        partner = torch.from_numpy(pairs.partner)
        source, weight = to_device(partner, images.device), to_device(lam, images.device)
        targets = blend_labels(labels, num_classes, source, weight)
        mixed = own = images[: len(lam)]
        if by_slices(images) and (read or pairs.mixed.any()):
            shares = lam.tolist()

            def write(row: int, target: Any, own: Any, theirs: Any) -> None:
                if target.dtype == torch.float32:
                    torch.lerp(theirs, own, shares[row], out=target)
                else:
                    pair = torch.as_tensor(own), torch.as_tensor(theirs)
                    torch.as_tensor(target).copy_(blend(*pair, lam[row]))

            mixed = mix_rows(images, partner.tolist(), write, read)
        elif pairs.mixed.any():
            mixed = blend(own, images[source], weight[:, None, None, None])
        return Mixed(mixed, targets, lam, partner)


def blend(own: Tensor, theirs: Tensor, weight: Tensor) -> Tensor:
    """`weight` of the own images and the rest of theirs, in float32; bytes are rounded."""
    mixed = torch.lerp(theirs.float(), own.float(), weight)
    return (mixed if own.is_floating_point() else mixed.round_()).to(own.dtype)
