"""Training batches: one caption of one image a sample, from cached features or from pixels.

B captions, T words, S captions of the data set.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain.images import decode
from pretrain.training import BatchSampler, Loader
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


@dataclass(eq=False)
class CaptionBatches:
    """As pretrain's Loader, of (features or images, words (B, T)).

    Features come from the cache until the epoch that trains the encoder, which needs pixels; both
    have the same samples in the same order.
    """

    features: Features
    image_of: Ints
    """(S,) number of each caption's image."""
    words: Ints
    """(S, T)."""
    batches: BatchSampler
    """Which samples when."""
    pixels: Loader | None = None
    """The images, for a trained encoder."""
    pixels_from: float = math.inf
    """The first epoch of the pixels, from 0."""
    broken: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self.batches.steps

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The micro-batches of `epoch` (from 0), beginning with step `first`."""
        if self.pixels is not None and epoch >= self.pixels_from:
            yield from self.pixels.epoch(epoch, first)
            return
        self.batches.epoch, self.batches.first = epoch, first
        for keys in self.batches:
            chosen = np.array([index for _, index in keys])
            yield self.features.select(self.image_of[chosen]), trim_padding(self.words[chosen])

    def share_corrupt(self) -> None:
        """As Loader's; every process has looked at every image."""
