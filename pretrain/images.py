"""Decoding: one way from a file to pixels for every task.

`torchvision.io.decode_image` equals PIL bit for bit on JPEG of all kinds and PNG (measured on
ImageNet photographs, some of which are PNG by content: `decode_jpeg` would fail on them). EXIF
orientation is ignored, as in the published benchmarks.
"""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from pretrain.errors import UsageError, first_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


def decode(path: Path) -> Tensor:
    """Read an image file as RGB uint8 (3, H, W).

    Raises:
        UsageError: missing, broken, cut short, 16-bit, or not a supported format.
    """
    try:
        image = decode_image(str(path), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        if not path.exists():
            raise UsageError(f"there is no image {path}.") from error
        raise UsageError(
            f"image {path} cannot be decoded ({first_line(error).rstrip('.')}). It may be cut "
            f"short or no image; supported are {', '.join(SUFFIXES)}. Replace or remove it."
        ) from error
    if image.ndim == 4:  # an animation: its first picture, as PIL takes it
        image = image[0]
    if image.dtype != torch.uint8:
        raise UsageError(f"image {path} has 16 bits a channel; convert it to 8.")
    return image
