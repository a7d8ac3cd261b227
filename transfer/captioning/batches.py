"""Batches to train on, a caption or an image a sample, and of images to caption.

From cached features, or from pixels. B samples of a batch, T words, S samples of the data set.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.training import BatchSampler, BatchSource, Loader
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.dataset import CaptionedImage, Id
from transfer.captioning.scores import References
from transfer.captioning.vocabulary import PAD, Ints
from transfer.feature_cache import Features, ImageDataset

T = TypeVar("T")


def step_batching(
    config: CaptioningConfig, num_images: int, *, rank: int = 0, ranks: int = 1
) -> dict[str, Any]:
    """The arguments of BatchSampler: a sample is a caption, or an image that is sampled from.

    Raises:
        UsageError: the samples of a step cannot be cut so, or are of more images than there are.
    """
    size, each, parts = config.batch_size, 1, config.accumulate * ranks
    if config.objective == "self_critical":
        each = config.self_critical.samples
        if size % (each * parts):
            raise UsageError(
                f"batch_size is {size}; it must be a multiple of {each * parts} "
                f"(self_critical.samples {each} x accumulate {config.accumulate} x {ranks} "
                "processes)."
            )
        if num_images * each < size:
            raise UsageError(
                f"batch_size is {size}, {each} samples of each of {size // each} images, but there "
                f"are only {num_images} training images. Give a smaller batch_size."
            )
    return {
        "batch_size": size // each,
        "seed": config.seed,
        "shuffle": True,
        "drop_last": True,
        "accumulate": config.accumulate,
        "rank": rank,
        "ranks": ranks,
    }


def take_words(words: Ints, samples: Ints) -> Tensor:
    """(B, T) of samples (B,), as long as their longest caption, out of the words (S, T) of all."""
    taken = words[samples]
    return torch.from_numpy(taken[:, : int((taken != PAD).sum(1).max())].copy())


def take_images(image_of: Ints, samples: Ints) -> list[int]:
    """The numbers of the images of samples (B,), which stay on the CPU."""
    return image_of[samples].tolist()


def collate(take: Callable[[Ints], Any], samples: list[tuple[int, Tensor]]) -> tuple[Tensor, Any]:
    """Images (B, 3, H, W) of (sample, image), and what `take` gives for the samples."""
    numbers, images = zip(*samples, strict=True)
    return torch.stack(images), take(np.array(numbers))


class CaptionBatches(BatchSource):
    """Micro-batches of (features or images, words (B, T) or the numbers of the images).

    Features come from the cache until the epoch that trains the encoder, which needs pixels; both
    have the same samples in the same order.
    """

    def __init__(
        self,
        features: Features,
        image_of: Ints,
        take: Callable[[Ints], Any],
        batches: BatchSampler,
        pixels: Loader | None = None,
        pixels_from: int = 0,
    ) -> None:
        """Nothing is read yet.

        Args:
            features: of the images.
            image_of: (S,) index of each sample's image.
            take: samples (B,) -> what stands beside their features.
            batches: which samples when.
            pixels: the images, where the encoder is trained too.
            pixels_from: the first epoch of the pixels, from 0.
        """
        super().__init__(batches)
        self.features, self.image_of, self.take = features, image_of, take
        self.pixels, self.pixels_from = pixels, pixels_from

    def read(self) -> Iterator[tuple[Tensor, Any]]:
        """See BatchSource."""
        if self.pixels is not None and self.batches.epoch >= self.pixels_from:
            yield from self.pixels.epoch(self.batches.epoch, self.batches.first)
            return
        for keys in self.batches:
            chosen = np.array([index for _, index in keys])
            yield self.features.select(self.image_of[chosen]), self.take(chosen)


@dataclass(frozen=True)
class Split:
    """Images to caption."""

    images: tuple[CaptionedImage, ...]
    indices: Ints
    """Of the images, among all of the run."""

    def by_id(self, values: Sequence[T]) -> dict[Id, T]:
        """What belongs to each image, by its id."""
        ids = [image.image_id for image in self.images]
        return dict(zip(ids, values, strict=True))

    def take(self, kept: Sequence[bool] | NDArray[np.bool_]) -> "Split":
        """The images that have a true value."""
        return Split(tuple(compress(self.images, kept)), self.indices[np.array(kept, bool)])


@dataclass(frozen=True)
class CaptioningData:
    """Batches to train on, and what is captioned."""

    train: CaptionBatches
    features: Features
    """Of all images: train, val, test."""
    batch_norm: Split
    """Some of the training images, for `Decoder.recalibrate_batch_norm`."""
    val: Split
    test: Split
    rewards: References[int] | None
    """The training captions by image, where captions are rewarded."""
    backbone: Backbone
    """For its preprocessing."""
    device: torch.device
    workers: int
    """Loader processes."""

    def batches(self, split: Split, size: int, encoder: nn.Module | None) -> Iterator[Tensor]:
        """The features of a split in its order, `size` images at once, on the device.

        Args:
            split: the images.
            size: of a batch.
            encoder: on the device, where it was trained; None takes the cached features.
        """
        if encoder is None:
            for first in range(0, len(split.indices), size):
                yield self.features.select(split.indices[first : first + size]).to(self.device)
            return
        images = ImageDataset([image.path for image in split.images], self.backbone.preprocess())
        loader = Loader(images, batch_size=size, seed=0, workers=self.workers, shuffle=False)
        for _, batch in loader.epoch(0):
            with torch.inference_mode():  # not over the yield: it would reach into the caller
                encoded = encoder(batch.to(self.device)).float()
            yield encoded
