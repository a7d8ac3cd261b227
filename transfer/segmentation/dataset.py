"""Records as samples: read, resized, and in training augmented and cropped.

In training: scale, rotation, crop, flips. torchvision's reference training (RandomResize,
RandomHorizontalFlip and RandomCrop of references/segmentation) draws the short side in pixels
instead of a scale, and has a smaller image in a corner of the crop instead of its middle.

Image and mask go through one map of pixel centres: the image bilinear, over as many pixels as one
of the result covers (Pillow), the mask by the pixel in which the centre lies. torchvision's Resize
takes another pixel of a mask (PyTorch's `nearest`), up to one pixel of the image off.

All draws come from torch's ambient generator, which the loader seeds for each (epoch, index).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from transfer.segmentation.config import VOID, DatasetConfig
from transfer.segmentation.records import Record

Size = tuple[int, int]
"""Height and width."""
Span = tuple[int, int]
"""The first of some rows or columns, and how many."""


@dataclass(frozen=True)
class SegmentationDataset:
    """In training a sample is (image (C, S, S), mask uint8 (S, S)) with S the crop's side.

    In scoring (image (C, H, W), mask in its own size, index of the record, int64 (1,)). Images as
    `Record.read_image` gives them: uint8 RGB, or float32 with one channel.
    """

    records: Sequence[Record]
    config: DatasetConfig
    train: bool

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        record = self.records[index]
        picture, mask = to_picture(record.read_image()), record.read_mask()
        if self.train:
            return augment(picture, mask, record.spacing, self.config)
        size = output_size(picture, record.spacing, self.config)
        return to_tensor(resize(picture, size)), mask, torch.tensor([index])


def augment(
    picture: Image.Image,
    mask: Tensor,
    spacing: tuple[float, float] | None,
    config: DatasetConfig,
) -> tuple[Tensor, Tensor]:
    """An image and its mask, scaled, rotated, cropped and flipped as drawn; (C, S, S) and (S, S).

    Where the image is smaller than the crop it lies in its middle, otherwise the crop anywhere.
    """
    draws = torch.rand(6).tolist()
    low, high = config.scales
    size = output_size(picture, spacing, config, low + (high - low) * draws[0])
    if config.rotation:
        angle = config.rotation * (2 * draws[1] - 1)
        picture = resize(picture, size).rotate(angle, Image.Resampling.BILINEAR)
        labels = Image.fromarray(_take(mask, size, [(0, length) for length in size]).numpy())
        labels = labels.rotate(angle, Image.Resampling.NEAREST, fillcolor=VOID)
        mask = torch.from_numpy(np.array(labels))
    side = config.crop_size
    starts = [
        int(draw * (length - side + 1)) if length > side else 0
        for length, draw in zip(size, draws[2:4], strict=True)
    ]
    spans = [(start, min(length, side)) for start, length in zip(starts, size, strict=True)]
    image = _center(_resize_part(picture, size, spans), side, 0)
    mask = _center(_take(mask, size, spans), side, VOID)
    chances = {-1: config.flip, -2: config.vertical_flip}
    flipped = [axis for axis, draw in zip(chances, draws[4:], strict=True) if draw < chances[axis]]
    return (image.flip(flipped), mask.flip(flipped)) if flipped else (image, mask)


def output_size(
    picture: Image.Image,
    spacing: tuple[float, float] | None,
    config: DatasetConfig,
    scale: float = 1.0,
) -> Size:
    """Height and width by `short_side`, or by `spacing`, times a scale; no side is below 1."""
    width, height = picture.size
    down = across = scale
    if spacing is not None and config.spacing is not None:
        down, across = (scale * side / config.spacing for side in spacing)
    elif config.short_side is not None:
        down = across = scale * config.short_side / min(height, width)
    return max(1, int(height * down + 0.5)), max(1, int(width * across + 0.5))


def resize(picture: Image.Image, size: Size) -> Image.Image:
    """A picture of another height and width, bilinear."""
    height, width = size
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def to_picture(image: Tensor) -> Image.Image:
    """uint8 (3, H, W) or float32 (1, H, W) as Pillow takes it."""
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    return Image.fromarray(pixels.contiguous().numpy())


def to_tensor(picture: Image.Image) -> Tensor:
    """Pixels (C, H, W), C 1 where there is one channel."""
    pixels = np.asarray(picture)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(pixels.copy())


def collate_scored(samples: list[Any]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Images and masks of different sizes stay lists; the indices (N,)."""
    images, masks, indices = zip(*samples, strict=True)
    return list(images), list(masks), torch.cat(indices)


def _resize_part(picture: Image.Image, size: Size, spans: Sequence[Span]) -> Tensor:
    """The rows and columns `spans` of the picture resized to `size`, (C, rows, columns).

    Only they are computed, each from the same pixels as in the whole.
    """
    (top, rows), (left, columns) = spans
    down, across = picture.height / size[0], picture.width / size[1]
    right = min(picture.width, (left + columns) * across)
    bottom = min(picture.height, (top + rows) * down)
    box = (left * across, top * down, right, bottom)
    return to_tensor(picture.resize((columns, rows), Image.Resampling.BILINEAR, box))


def _take(mask: Tensor, size: Size, spans: Sequence[Span]) -> Tensor:
    """The rows and columns `spans` of a mask (H, W) resized to `size` by the nearest pixel.

    In whole numbers: Pillow and PyTorch round where a centre falls between two pixels.
    """
    pixels = mask.numpy()
    for axis, (first, count) in enumerate(spans):
        centers = 2 * np.arange(first, first + count) + 1  # in halves of a pixel
        pixels = pixels.take(centers * mask.shape[axis] // (2 * size[axis]), axis)
    return torch.from_numpy(pixels)


def _center(pixels: Tensor, side: int, fill: int) -> Tensor:
    """Pixels (..., H, W), neither above `side`, in the middle of (..., side, side)."""
    height, width = pixels.shape[-2:]
    if height == width == side:
        return pixels
    canvas = pixels.new_full((*pixels.shape[:-2], side, side), fill)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[..., top : top + height, left : left + width] = pixels
    return canvas
