"""What a captioner's decoder is: the seam for others.

Any module with these methods can be trained by `engine` and searched by `beam_search`; one that has
`attention_weights(features, words)` too, (B, T, P) as in DecoderOutput, is shown by
`attention_maps`. Training goes through `forward`. Decoding goes through `init_state` and `step`,
with K continuations of each of N images side by side; a memory is what they share of an image, a
state what each has of its own, so a search reorders states and never copies memories.

B captions, N images, K continuations, T words, V vocabulary, P positions of the encoder's grid.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from transfer.captioning.vocabulary import PAD

Tensors = tuple[Tensor, ...]
FeaturesT = TypeVar("FeaturesT", Tensor, Tensors)
"""Features of images (N, ...): of one encoder, or one for each captioner of an ensemble."""
_FeaturesT_contra = TypeVar("_FeaturesT_contra", contravariant=True)


class DecoderOutput(NamedTuple):
    """What teacher forcing on words gives."""

    logits: Tensor
    """(B, T, V): those at t are of word t, from the image and the words before t."""
    attention: Tensor | None
    """(B, T, P), rows summing to 1: the weights of the positions for word t."""


class StepDecoder(Protocol[_FeaturesT_contra]):
    """What a search needs."""

    def init_state(self, features: _FeaturesT_contra) -> tuple[Tensors, Tensors]:
        """(memory, state) of images: tensors (N, ...) and (N, 1, ...)."""
        ...

    def step(self, words: Tensor, memory: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """One word (N, K) further, START the first time: logits (N, K, V), states (N, K, ...)."""
        ...


class Decoder(StepDecoder[Tensor], Protocol):
    """See the head of this file."""

    def __call__(self, features: Tensor, words: Tensor) -> DecoderOutput:
        """Teacher forcing on words (B, T), ended by END and filled up with PAD."""
        ...

    def recalibrate_batch_norm(self, batches: Iterable[Tensor]) -> None:
        """Called before each scoring with features of training images ("precise BN").

        In batches (N, ...), read only if asked for.
        """
        ...


def lstm_step(lstm: nn.LSTM, inputs: Tensor, state: Tensors) -> Tensors:
    """One step of a one-layer LSTM on (..., I), with state tensors (..., H)."""
    weights: list[Any] = [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0]
    state = torch.lstm_cell(
        inputs.flatten(0, -2), [part.flatten(0, -2) for part in state], *weights
    )
    return tuple(part.unflatten(0, inputs.shape[:-1]) for part in state)


def caption_loss(output: DecoderOutput, words: Tensor, coverage: float) -> tuple[Tensor, Tensor]:
    """(what is minimised, mean negative log-likelihood of a word), both scalars.

    With attention the first has the doubly stochastic penalty of Show, Attend and Tell (equation
    14): coverage times the mean over captions and positions of (1 - the weights summed over
    words)^2. PAD counts in neither.
    """
    likelihood = functional.cross_entropy(
        output.logits.flatten(0, 1).float(), words.flatten(), ignore_index=PAD
    )
    if output.attention is None or not coverage:
        return likelihood, likelihood
    attended = (output.attention.float() * (words != PAD)[..., None]).sum(1)
    return likelihood + coverage * (1 - attended).square().mean(), likelihood
