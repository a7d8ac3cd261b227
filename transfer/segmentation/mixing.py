"""CutMix and Mosaic for images with masks: what is pasted brings its mask, to the pixel."""

import torch
from torch import Tensor

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
    raise NotImplementedError
