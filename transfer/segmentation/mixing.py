"""CutMix and Mosaic for images with masks: what is pasted brings its mask, to the pixel.

    here                      a box for each image, of an area as the CutMix paper draws it; the
                              partner is another image of the batch
    CycleMix (CVPR 2022)      the same area, but one box for the batch, and an image may be its own
    its code (mixup_box)      partner; box edges are rounded down
    French et al. (BMVC       a box for each image, inside it, of half its area and any shape, the
    2020, cutmix-semisup-seg) partner from another batch

Nothing else is weighed: each pixel is trained on the class that it shows, and void stays void. At
alpha 1 a partner has 0.321 of the pixels on average.
"""

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
    layers = (images, masks.unsqueeze(1))
    if point < config.cutmix:
        method = CutMix(alpha=config.alpha, granularity="sample", partner="other")
        pairs, boxes = method.draw(images, generator)
        partner = torch.from_numpy(pairs.partner)
        mixed, mixed_masks = (paste_pixels(layer, boxes, partner) for layer in layers)
    elif point < config.cutmix + config.mosaic:
        centres, partners = Mosaic(granularity="sample").draw(images, generator)
        mixed, mixed_masks = (assemble(layer, centres, partners) for layer in layers)
    else:
        return images, masks
    return mixed, mixed_masks[:, 0]
