"""Labelled images, as files, in shards or as one array, and the samples that a loader reads."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from pretrain.errors import UsageError
from pretrain.held_out import take_few
from pretrain.images import decode, decode_bytes
from pretrain.shards import ShardedImage, ShardReader


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

    def few(self, per_class: int) -> "Images":
        """So many images of each class; see `held_out.take_few`."""
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

    def few(self, per_class: int) -> "ImageFiles":
        """See Images."""
        pairs = zip(self.labels, map(os.path.basename, self.paths), strict=True)
        chosen = take_few(
            [f"{self.classes[n]}/{name}" for n, name in pairs], self.labels, per_class
        )
        return replace(self, names=self.names[chosen], labels=self.labels[chosen])


@dataclass(frozen=True, eq=False)
class ImageShards(Images):
    """Images in shards; `labels` is a column of the index, mapped from its file."""

    reader: ShardReader

    @staticmethod
    def of(reader: ShardReader, notes: Sequence[str] = ()) -> "ImageShards":
        """All images of a split."""
        index = reader.index
        files, texts = (index.path,), tuple(notes)
        return ImageShards(index.classes, index.labels, reader, notes=texts, annotations=files)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.labels is self.reader.index.labels:  # a process that is spawned maps them itself
            del state["labels"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"labels": state["reader"].index.labels, **state})

    def read(self, index: int) -> Tensor:
        """See Images; UsageError where the shard or the image cannot be read."""
        return decode(ShardedImage(self.reader, index))

    def ready(self, numbers: Sequence[int]) -> "ReadImages":
        """Some of the images, read together."""
        return ReadImages(self, dict(zip(numbers, self.reader.read_many(numbers), strict=True)))


@dataclass(frozen=True)
class ReadImages:
    """Images that have been read and not yet been decoded, by their numbers."""

    images: ImageShards
    contents: dict[int, bytes | UsageError]

    def read(self, index: int) -> Tensor:
        """See Images."""
        content = self.contents[index]
        if isinstance(content, UsageError):
            raise content
        return decode_bytes(bytearray(content), ShardedImage(self.images.reader, index))


@dataclass(frozen=True, eq=False)
class ImageArray(Images):
    """Images of one size in memory."""

    pixels: Tensor
    """(N, 3, H, W) uint8."""

    def read(self, index: int) -> Tensor:
        """See Images."""
        return self.pixels[index]

    def few(self, per_class: int) -> "ImageArray":
        """See Images; names are numbers."""
        chosen = take_few([*map(str, range(len(self)))], self.labels, per_class)
        return replace(self, pixels=self.pixels[chosen], labels=self.labels[chosen])


@dataclass(frozen=True)
class ImageSplits:
    """The training and validation images of a data set."""

    name: str
    train: Images
    val: Images

    @property
    def notes(self) -> tuple[str, ...]:
        """What a run says about the files before it trains: those left out, by their endings."""
        return (*self.train.notes, *self.val.notes)


def collate(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Transformed to uint8 images (N, 3, H, W) in channels_last memory, and labels (N,).

    Stacked as they lie, with the values of a pixel side by side: nothing is transposed. torch's own
    collate does so in shared memory where it runs in a loader process, which saves a copy.
    """
    images, labels = zip(*samples, strict=True)
    stacked = default_collate([image.permute(1, 2, 0) for image in images])
    return stacked.permute(0, 3, 1, 2), torch.tensor(labels)


@dataclass(frozen=True, eq=False)
class Transformed:
    """What a loader reads: (transform(image), label)."""

    images: Images
    transform: Callable[..., Tensor]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def draw(self) -> Callable[[], Any] | None:
        """What draws for the transform, where it says; see `training.loader.Samples`."""
        return getattr(self.transform, "draw", None)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images.read(index)), int(self.images.labels[index])

    def ready(
        self, numbers: Sequence[int], drawn: Sequence[Any] | None = None
    ) -> "Transformed | _Ready":
        """See `training.loader.Samples`."""
        images: Any = self.images
        if isinstance(images, ImageShards):
            images = images.ready(numbers)
        elif drawn is None:
            return self
        given = {} if drawn is None else dict(zip(numbers, drawn, strict=True))
        return _Ready(self, images, given)


@dataclass(frozen=True)
class _Ready:
    """Samples of a batch whose images have been read, or whose random numbers are drawn."""

    samples: Transformed
    images: Images | ReadImages
    drawn: dict[int, Any]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = int(self.samples.images.labels[index])
        image, given = self.images.read(index), [self.drawn[index]] if self.drawn else []
        return self.samples.transform(image, *given), label
