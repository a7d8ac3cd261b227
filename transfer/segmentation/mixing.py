"""CutMix and Mosaic for images with masks: what is pasted brings its mask, to the pixel."""

import torch
from torch import Tensor

from pretrain.mixing.cutmix import CutMix, paste_pixels
from pretrain.mixing.mosaic import Mosaic, assemble
from transfer.segmentation.config import MixingConfig


def mix(
    images: Tensor, masks: Tensor, config: MixingConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch mixed by one method at most, as the chances say; the inputs are untouched.

    Args:
        images: (N, C, H, W) of any type.
        masks: (N, H, W), of the classes and VOID.
        config: the chances.
        generator: the only source of randomness, on the CPU.
    """
    point = float(torch.rand((), generator=generator, dtype=torch.float64))
    if point < config.cutmix:
        method = CutMix(alpha=config.alpha, granularity="sample", partner="other")
        pairs, boxes = method.draw(images, generator)
        partner = torch.from_numpy(pairs.partner)
        mixed, mixed_masks = (
            paste_pixels(one, boxes, partner) for one in (images, masks.unsqueeze(1))
        )
    elif point < config.cutmix + config.mosaic:
        centre, partners = Mosaic(granularity="sample").draw(images, generator)
        mixed, mixed_masks = (
            assemble(one, centre, partners) for one in (images, masks.unsqueeze(1))
        )
    else:
        return images, masks
    return mixed, mixed_masks[:, 0]
