"""What a captioner's decoder is: the seam for others.

Any module with these methods can be trained by `engine`, searched by `decode` and shown by
`pictures`. Training goes through `forward`. Decoding goes through `begin` and `step`, with K
continuations of each of N images side by side; a memory is what they share of an image, a state
what each has of its own, so a search reorders states and never copies memories.

B captions, N images, K continuations, T words, V vocabulary, P places.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from transfer.captioning.vocabulary import PAD

Tensors = tuple[Tensor, ...]


class Told(NamedTuple):
    """What a decoder says to given words."""

    logits: Tensor
    """(B, T, V): those at t are of word t, from the image and the words before t."""
    attention: Tensor | None
    """(B, T, P), rows summing to 1: where it looked for word t."""


class Decoder(Protocol):
    """See the head of this file."""

    def __call__(self, features: Tensor, words: Tensor) -> Told:
        """Teacher forcing on words (B, T), ended by END and filled up with PAD."""
        ...

    def settle(self, batches: Iterable[Tensor]) -> None:
        """Called before each scoring with features of training images.

        In batches (N, ...), read only if asked for.
        """
        ...

    def begin(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """(memory, state) of images: tensors (N, ...) and (N, 1, ...)."""
        ...

    def step(self, words: Tensor, memory: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """One word (N, K) further, START the first time: logits (N, K, V), states (N, K, ...)."""
        ...


def lstm_step(cell: nn.LSTM, inputs: Tensor, state: Tensors) -> Tensors:
    """One step of a one-layer LSTM on (..., I), with state tensors (..., H)."""
    hidden = state[0].shape[-1]
    weights: list[Any] = [cell.weight_ih_l0, cell.weight_hh_l0, cell.bias_ih_l0, cell.bias_hh_l0]
    found = torch.lstm_cell(
        inputs.flatten(0, -2),
        [part.reshape(-1, hidden) for part in state],
        *weights,
    )
    return tuple(part.unflatten(0, inputs.shape[:-1]) for part in found)


def caption_loss(told: Told, words: Tensor, coverage: float) -> tuple[Tensor, Tensor]:
    """(what is minimised, mean negative log-likelihood of a word), both scalars.

    With attention the first has the doubly stochastic penalty of Show, Attend and Tell (equation
    14): coverage times the mean over captions and places of (1 - sum of the weights over words)^2.
    Positions of PAD count in neither.
    """
    likelihood = functional.cross_entropy(
        told.logits.flatten(0, 1).float(), words.flatten(), ignore_index=PAD
    )
    if told.attention is None or not coverage:
        return likelihood, likelihood
    looked = (told.attention.float() * (words != PAD)[..., None]).sum(1)
    return likelihood + coverage * (1 - looked).square().mean(), likelihood
