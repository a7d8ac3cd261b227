"""Records as samples for a detector: decoded, flipped, boxes along with the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.images import decode
from transfer.detection.voc import Record


@dataclass(frozen=True)
class Samples:
    """A sample is (image uint8 (3, H, W), {"boxes": (K, 4), "labels": (K,) from 1})."""

    records: Sequence[Record]
    flip: float = 0.0
    """Chance of a horizontal flip, drawn from torch's ambient generator."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        record = self.records[index]
        image = decode(record.path)
        boxes = torch.from_numpy(record.boxes).float()
        if self.flip and torch.rand(()) < self.flip:
            image, boxes = flip(image, boxes)
        labels = torch.from_numpy(record.labels) + 1  # torchvision's 0 is the background
        return image, {"boxes": boxes, "labels": labels}


def flip(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror an image (..., H, W) and its boxes (K, 4) left to right."""
    width = image.shape[-1]
    left, top, right, bottom = boxes.unbind(1)
    return image.flip(-1), torch.stack([width - right, top, width - left, bottom], dim=1)


def collate(samples: list[Any]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of different sizes stay a list."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)
