"""Training batches: one caption of one image a sample, from cached features or from pixels.

B captions, T words, S sentences of the data set.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain.images import decode
from pretrain.training import BatchSampler, Loader
from transfer.captioning.vocabulary import PAD
from transfer.feature_cache import Features

Ints = NDArray[np.int64]


def trimmed(words: Ints) -> Tensor:
    """(B, T) as long as its longest caption, in memory of its own."""
    longest = int((words != PAD).sum(1).max())
    return torch.from_numpy(words[:, :longest].copy())


class FeatureBatches:
    """As pretrain's Loader, of (features, words (B, T)) whose images were encoded before.

    Args:
        features: of the images.
        image_of: (S,) number of each sentence's image.
        words: (S, T).
        batches: which samples when.
    """

    def __init__(
        self, features: Features, image_of: Ints, words: Ints, batches: BatchSampler
    ) -> None:
        self.features, self.image_of, self.words = features, image_of, words
        self.batches = batches

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The micro-batches of `epoch` (from 0), beginning with step `first`."""
        self.batches.epoch, self.batches.first = epoch, first
        for keys in self.batches:
            chosen = np.array([index for _, index in keys])
            yield self.features.of(self.image_of[chosen]), trimmed(self.words[chosen])


@dataclass(frozen=True, eq=False)
class Pairs:
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
    return torch.stack(images), trimmed(np.stack(words))


class Sentences:
    """The training data of a run: features at first, pixels from the epoch that trains the encoder.

    Both sides have the same samples in the same order.
    """

    def __init__(
        self, frozen: FeatureBatches | None, pixels: Loader | None, from_epoch: int
    ) -> None:
        self._frozen, self._pixels, self._from_epoch = frozen, pixels, from_epoch
        source: Any = frozen or pixels
        self.batches: BatchSampler = source.batches
        self.broken: dict[int, str] = {}

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self.batches.steps

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The micro-batches of `epoch` (from 0), beginning with step `first`."""
        source: Any = self._frozen if epoch < self._from_epoch else self._pixels
        return source.epoch(epoch, first)

    def share_corrupt(self) -> None:
        """As Loader's; every process has looked at every image."""
