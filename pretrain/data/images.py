"""Labelled images, as files or as one array, and the samples that a loader reads."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pretrain.images import decode


class Images(Protocol):
    """A split of a data set. A label is a position in `classes`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Tensor:
        """Image `index` as uint8 RGB (3, H, W)."""
        ...


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images in files.

    Their names lie in one array: a million Python strings would be copied into every loader process
    as soon as it counts references to them.
    """

    classes: tuple[str, ...]
    names: np.ndarray
    """(N,) paths as bytes."""
    labels: np.ndarray

    @staticmethod
    def of(classes: Sequence[str], paths: list[str], labels: list[int]) -> "ImageFiles":
        """From lists."""
        names = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)
        return ImageFiles(tuple(classes), names, np.array(labels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        return Path(os.fsdecode(self.names[index]))

    def read(self, index: int) -> Tensor:
        """See Images; UsageError where the file cannot be decoded."""
        return decode(self.path(index))


@dataclass(frozen=True, eq=False)
class ImageArray:
    """Images of one size in memory."""

    classes: tuple[str, ...]
    pixels: Tensor
    """(N, 3, H, W) uint8."""
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> Tensor:
        """See Images."""
        return self.pixels[index]


def collate(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Transformed to uint8 images (N, 3, H, W) in channels_last memory, and labels (N,).

    Stacked as they lie, with the values of a pixel side by side: nothing is transposed.
    """
    images, labels = zip(*samples, strict=True)
    stacked = torch.stack([image.permute(1, 2, 0) for image in images])
    return stacked.permute(0, 3, 1, 2), torch.tensor(labels)


@dataclass(frozen=True, eq=False)
class Transformed:
    """What a loader reads: (transform(image), label)."""

    images: Images
    transform: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images.read(index)), int(self.images.labels[index])
