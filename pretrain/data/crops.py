"""What a loader process does to a decoded image: cut and resize. The rest happens on the device.

The formulas are torchvision's and timm's; calling its kernels without the layers of dispatch in
between is what makes a loader process faster.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2

from pretrain.spec import evaluation_crop


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with antialias, uint8 (3, H, W) -> uint8 (3, height, width), as v2.Resize.

    Decoders leave the three values of a pixel side by side; kept so, torch resizes a third faster.
    """
    if image.shape[-2:] == (height, width):
        return image
    batch = image[None].contiguous(memory_format=torch.channels_last)
    # the kernel of functional.interpolate(mode="bilinear", antialias=True), of any device
    return torch.ops.aten._upsample_bilinear2d_aa(batch, (height, width), False)[0]


@dataclass(frozen=True)
class RandomResizedCrop:
    """A box of random area and aspect, resized (Szegedy et al., 2015), from torch's ambient draws.

    As torchvision: ten tries for a box inside the image, then the largest centre box within the
    aspect's range. Fewer random numbers are drawn than there (one tensor, not four).
    """

    size: int
    min_scale: float = 0.08
    min_aspect: float = 3 / 4
    max_aspect: float = 4 / 3

    def draw(self) -> list[list[float]]:
        """The random numbers of an image, whatever its size."""
        draws: list[list[float]] = torch.rand(10, 4).tolist()
        return draws

    def box(
        self, height: int, width: int, draws: list[list[float]] | None = None
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop; from `draw`, or drawn here."""
        draws = draws or self.draw()
        low, high = math.log(self.min_aspect), math.log(self.max_aspect)
        for area_draw, aspect_draw, top_draw, left_draw in draws:
            area = height * width * (self.min_scale + (1 - self.min_scale) * area_draw)
            aspect = math.exp(low + (high - low) * aspect_draw)
            wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < wide <= width and 0 < tall <= height:
                top = int(top_draw * (height - tall + 1))
                left = int(left_draw * (width - wide + 1))
                return top, left, tall, wide
        tall = min(height, round(width / self.min_aspect))
        wide = min(width, round(height * self.max_aspect))
        return (height - tall) // 2, (width - wide) // 2, tall, wide

    def __call__(self, image: Tensor, draws: list[list[float]] | None = None) -> Tensor:
        """uint8 (3, H, W) to (3, size, size)."""
        height, width = image.shape[-2:]
        top, left, tall, wide = self.box(height, width, draws)
        return resize(image[:, top : top + tall, left : left + wide], self.size, self.size)


@dataclass(frozen=True)
class Square:
    """The whole image as a square of `size`: what padded crops are cut from, on the device."""

    size: int

    def __call__(self, image: Tensor) -> Tensor:
        """uint8 (3, H, W) to (3, size, size): short side to size, then the centre."""
        height, width = image.shape[-2:]
        scale = self.size / min(height, width)
        tall, wide = max(self.size, round(height * scale)), max(self.size, round(width * scale))
        resized = resize(image, tall, wide)
        top, left = (tall - self.size) // 2, (wide - self.size) // 2
        return resized[:, top : top + self.size, left : left + self.size]


def centre_crop(size: int, crop_pct: float, interpolation: str = "bilinear") -> v2.Compose:
    """Evaluation: short side to size / crop_pct, then the centre, on tensors."""
    return v2.Compose(evaluation_crop(size, size, crop_pct, interpolation))
