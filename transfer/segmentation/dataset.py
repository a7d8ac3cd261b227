"""Records as samples: read, resized, and in training augmented and cropped.

    scale, rotation, crop, flips   torchvision's reference training (references/segmentation) has
                                   the first, third and fourth, with a short side in pixels drawn

Image and mask go through the same map of pixel centres, by Pillow: the image bilinear, over as many
pixels as one of the result covers, the mask by the pixel at the centre. torchvision's transforms
take another pixel of a mask (`nearest`, not `nearest-exact`), up to half a pixel of the result off.

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

_BILINEAR, _NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
Size = tuple[int, int]


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
        image, mask = record.read_image(), record.read_mask()
        picture = to_picture(image)
        if not self.train:
            size = output_size(picture, record.spacing, self.config)
            return to_tensor(resize(picture, size)), mask, torch.tensor([index])
        labels = Image.fromarray(mask.numpy())
        return augment(picture, labels, record.spacing, self.config)


def augment(
    picture: Image.Image,
    labels: Image.Image,
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
        picture = resize(picture, size).rotate(angle, _BILINEAR)
        labels = resize(labels, size, _NEAREST).rotate(angle, _NEAREST, fillcolor=VOID)
    side = config.crop_size
    spans = [_span(length, side, draw) for length, draw in zip(size, draws[2:4], strict=True)]
    image = _crop(picture, size, side, spans, _BILINEAR, 0)
    mask = _crop(labels, size, side, spans, _NEAREST, VOID)
    chances = {-1: config.flip, -2: config.vertical_flip}
    flipped = [axis for axis, draw in zip(chances, draws[4:], strict=True) if draw < chances[axis]]
    if flipped:
        image, mask = image.flip(flipped), mask.flip(flipped)
    return image, mask[0]


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


def resize(picture: Image.Image, size: Size, filter: Image.Resampling = _BILINEAR) -> Image.Image:
    """A picture of another height and width."""
    height, width = size
    return picture if picture.size == (width, height) else picture.resize((width, height), filter)


def to_picture(image: Tensor) -> Image.Image:
    """uint8 (3, H, W) or float32 (1, H, W) as Pillow takes it."""
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    return Image.fromarray(pixels.contiguous().numpy())


def to_tensor(picture: Image.Image) -> Tensor:
    """Pixels (C, H, W), C 1 where there is one channel."""
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def collate_scored(samples: list[Any]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Images and masks of different sizes stay lists; the indices (N,)."""
    images, masks, indices = zip(*samples, strict=True)
    return list(images), list(masks), torch.cat(indices)


def _span(length: int, side: int, draw: float) -> tuple[int, int, int]:
    """Along one side: the first pixel in the crop, how many, and where in the crop they begin."""
    if length <= side:
        return 0, length, (side - length) // 2
    return int(draw * (length - side + 1)), side, 0


def _crop(
    picture: Image.Image,
    size: Size,
    side: int,
    spans: Sequence[tuple[int, int, int]],
    filter: Image.Resampling,
    fill: int,
) -> Tensor:
    """The part of a picture, resized to `size`, that lies in the crop: (C, side, side).

    Only that part is resized, from the same pixels as in the whole.
    """
    (top, rows, above), (left, columns, before) = spans
    down, across = picture.height / size[0], picture.width / size[1]
    right = min(picture.width, (left + columns) * across)
    bottom = min(picture.height, (top + rows) * down)
    part = picture.resize((columns, rows), filter, (left * across, top * down, right, bottom))
    pixels = to_tensor(part)
    if (rows, columns) == (side, side):
        return pixels
    canvas = pixels.new_full((len(pixels), side, side), fill)
    canvas[:, above : above + rows, before : before + columns] = pixels
    return canvas
