"""Records as samples for a detector: decoded, resized, flipped, boxes along with the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pretrain.images import decode
from pretrain.training import generator
from transfer.detection.config import DatasetConfig
from transfer.detection.records import Record


@dataclass(frozen=True)
class DetectionDataset:
    """A sample is (image uint8 RGB (3, H, W), target).

    The target holds "boxes" (K, 4) and "labels" (K,) from 1, "index" of the record, and "scale"
    (2,): how much wider and taller the image is than on disk.
    """

    records: Sequence[Record]
    config: DatasetConfig
    train: bool
    """Draw the size and the flip from torch's ambient generator."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        record, config = self.records[index], self.config
        short_side, sides = config.short_side, config.train_short_sides
        if self.train and sides:
            short_side = sides[int(torch.randint(len(sides), ()))]
        image = decode(record.path, record.apply_exif)
        height, width = image.shape[1:]
        size = output_shape(height, width, short_side, config.long_side)
        scale = torch.tensor([size[1] / width, size[0] / height])
        image = resize(image, size)
        boxes = torch.from_numpy(record.boxes).float() * scale.repeat(2)
        if self.train and torch.rand(()) < config.flip:
            image, boxes = flip(image, boxes)
        labels = torch.from_numpy(record.labels) + 1
        target = {"boxes": boxes, "labels": labels, "scale": scale, "index": torch.tensor(index)}
        return image, target


def output_shape(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width with that short side, or with the largest allowed long one.

    detectron2's rule and rounding (ResizeShortestEdge.get_output_shape), where a side of less than
    half a pixel becomes 0 and fails; here no side is below 1.
    """
    scale = short_side / min(height, width)
    tall, wide = (short_side, scale * width) if height < width else (scale * height, short_side)
    if max(tall, wide) > long_side:
        shrink = long_side / max(tall, wide)
        tall, wide = tall * shrink, wide * shrink
    return max(1, int(tall + 0.5)), max(1, int(wide + 0.5))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A uint8 image (3, H, W) by PIL's bilinear filter, as detectron2 does, to (3, *size)."""
    if tuple(image.shape[1:]) == size:
        return image
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    resized = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized.transpose(2, 0, 1).copy())


def flip(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror an image (..., H, W) and its boxes (K, 4) left to right."""
    width = image.shape[-1]
    left, top, right, bottom = boxes.unbind(1)
    return image.flip(-1), torch.stack([width - right, top, width - left, bottom], dim=1)


def collate(samples: list[Any]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of different sizes stay a list."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def aspect_ratio_order(
    records: Sequence[Record], batch_size: int, seed: int, epoch: int
) -> list[int]:
    """Every record once, in batches of wide images or of tall ones, in random order.

    A function of (seed, epoch). What fills no batch of its kind comes together at the end.
    """
    draw = generator(seed, "order", epoch)
    order = torch.randperm(len(records), generator=draw)
    wide = torch.tensor([record.width > record.height for record in records])[order]
    parts = [*order[wide].split(batch_size), *order[~wide].split(batch_size)]
    batches = [part for part in parts if len(part) == batch_size]
    rest = [part for part in parts if len(part) < batch_size]
    positions = torch.randperm(len(batches), generator=draw).tolist()
    return torch.cat([*(batches[position] for position in positions), *rest]).tolist()
