"""Training batches: one caption of one image a sample, from cached features or from pixels.

B captions, T words, S captions of the data set.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain.images import decode
from pretrain.training import BatchSampler, BatchSource, Loader
from transfer.captioning.vocabulary import PAD, Ints
from transfer.feature_cache import Features


def trim_padding(words: Ints) -> Tensor:
    """(B, T) as long as its longest caption, in memory of its own."""
    longest = int((words != PAD).sum(1).max())
    return torch.from_numpy(words[:, :longest].copy())


@dataclass(frozen=True, eq=False)
class ImageCaptionDataset:
    """What a loader of pixels reads: (normalised image, words (T,))."""

    paths: Sequence[Path]
    image_of: Ints
    words: Ints
    transform: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> tuple[Tensor, Ints]:
        return self.transform(decode(self.paths[self.image_of[index]])), self.words[index]


def collate(samples: list[tuple[Tensor, Ints]]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and words (B, T)."""
    images, words = zip(*samples, strict=True)
    return torch.stack(images), trim_padding(np.stack(words))


class CaptionBatches(BatchSource):
    """Micro-batches of (features or images, words (B, T)).

    Features come from the cache until the epoch that trains the encoder, which needs pixels; both
    have the same samples in the same order.
    """

    def __init__(
        self,
        features: Features,
        image_of: Ints,
        words: Ints,
        batches: BatchSampler,
        pixels: Loader | None = None,
        pixels_from: int = 0,
    ) -> None:
        """Nothing is read yet.

        Args:
            features: of the images.
            image_of: (S,) index of each caption's image.
            words: (S, T).
            batches: which samples when.
            pixels: the images, where the encoder is trained too.
            pixels_from: the first epoch of the pixels, from 0.
        """
        super().__init__(batches)
        self.features, self.image_of, self.words = features, image_of, words
        self.pixels, self.pixels_from = pixels, pixels_from

    def read(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See BatchSource."""
        if self.pixels is not None and self.batches.epoch >= self.pixels_from:
            yield from self.pixels.epoch(self.batches.epoch, self.batches.first)
            return
        for keys in self.batches:
            chosen = np.array([index for _, index in keys])
            yield self.features.select(self.image_of[chosen]), trim_padding(self.words[chosen])
