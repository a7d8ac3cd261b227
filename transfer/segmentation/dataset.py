"""Records as samples: read, resized, and in training augmented and cropped.

All draws come from torch's ambient generator, which the loader seeds for each (epoch, index).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from transfer.segmentation.config import DatasetConfig
from transfer.segmentation.records import Record


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
        raise NotImplementedError


def collate_scored(samples: list[Any]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Images and masks of different sizes stay lists; the indices (N,)."""
    raise NotImplementedError
