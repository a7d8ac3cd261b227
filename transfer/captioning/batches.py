"""Training batches: one caption of one image a sample, from cached features or from pixels.

B captions, T words, S captions of the data set.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pretrain.training import BatchSampler, BatchSource, Loader
from transfer.captioning.vocabulary import PAD, Ints
from transfer.feature_cache import Features


def trim_padding(words: Ints) -> Tensor:
    """(B, T) as long as its longest caption, in memory of its own."""
    longest = int((words != PAD).sum(1).max())
    return torch.from_numpy(words[:, :longest].copy())


def collate(words: Ints, samples: list[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and words (B, T) of (caption, image), out of the words (S, T) of all."""
    captions, images = zip(*samples, strict=True)
    return torch.stack(images), trim_padding(words[list(captions)])


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
