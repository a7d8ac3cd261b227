"""Labelled images, as files or as one array, and the samples that a loader reads."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain.images import decode


@dataclass(frozen=True, eq=False)
class Images:
    """A split of a data set."""

    classes: tuple[str, ...]
    """Names of the classes."""
    labels: np.ndarray
    """(N,) int64, positions in `classes`."""
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    """What is to be said about the files."""
    annotations: tuple[Path, ...] = field(default=(), kw_only=True)
    """Files that hold labels, or all images."""

    @property
    def paths(self) -> Iterable[str]:
        """Of images that have a file each."""
        return ()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Tensor:
        """Image `index` as uint8 RGB (3, H, W)."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class ImageFiles(Images):
    """Images in files.

    Their names lie in one array: a million Python strings would be copied into every loader process
    as soon as it counts references to them.
    """

    names: np.ndarray
    """(N,) paths as bytes."""

    @staticmethod
    def of(
        classes: Sequence[str],
        paths: list[str],
        labels: list[int],
        notes: Sequence[str] = (),
        annotations: tuple[Path, ...] = (),
    ) -> "ImageFiles":
        """From lists."""
        names = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)
        numbers, texts = np.array(labels, dtype=np.int64), tuple(notes)
        return ImageFiles(tuple(classes), numbers, names, notes=texts, annotations=annotations)

    @property
    def paths(self) -> Iterable[str]:
        """Of all images, one after another."""
        return map(os.fsdecode, self.names)

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        return Path(os.fsdecode(self.names[index]))

    def read(self, index: int) -> Tensor:
        """See Images; UsageError where the file cannot be decoded."""
        return decode(self.path(index))


@dataclass(frozen=True, eq=False)
class ImageArray(Images):
    """Images of one size in memory."""

    pixels: Tensor
    """(N, 3, H, W) uint8."""

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
