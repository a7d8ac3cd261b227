"""Captioners side by side: the probability of a next word is the mean of theirs.

Letters: see `decoder`.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import islice, zip_longest

import torch
from torch import Tensor

from pretrain.errors import UsageError
from transfer.captioning.captioner import Captioner
from transfer.captioning.decoder import StepDecoder, Tensors


class Ensemble:
    """Decoders of one vocabulary, of any kinds, searched as one.

    Probabilities are averaged, and not their logarithms, as in Show and Tell's ensembles and in
    ruotianluo's: a word that one of them is sure of stays likely. The decoders' own logits come out
    where there is one of them.
    """

    def __init__(self, decoders: Sequence[StepDecoder[Tensor]]) -> None:
        """In evaluation mode, on one device."""
        self.decoders = decoders
        self._sizes: tuple[list[int], list[int]] = ([], [])  # tensors of each memory and state

    def init_state(self, features: Tensors) -> tuple[Tensors, Tensors]:
        """Memories and states behind one another, from the features of each decoder's encoder."""
        pairs = zip(self.decoders, features, strict=True)
        memories, states = zip(*(decoder.init_state(own) for decoder, own in pairs), strict=True)
        self._sizes = list(map(len, memories)), list(map(len, states))
        return sum(memories, ()), sum(states, ())

    def step(self, words: Tensor, memory: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """See StepDecoder; the logits are logarithms of the mean probabilities."""
        memories, states = _split(memory, self._sizes[0]), _split(state, self._sizes[1])
        parts = zip(self.decoders, memories, states, strict=True)
        steps = [decoder.step(words, own, before) for decoder, own, before in parts]
        new_state = sum((after for _, after in steps), ())
        if len(steps) == 1:
            return steps[0][0], new_state
        log_probs = (torch.log_softmax(logits, dim=-1) for logits, _ in steps)
        return reduce(torch.logaddexp, log_probs) - math.log(len(steps)), new_state


def _split(parts: Tensors, sizes: Iterable[int]) -> list[Tensors]:
    rest = iter(parts)
    return [tuple(islice(rest, size)) for size in sizes]


def check_vocabularies(captioners: Sequence[Captioner], names: Sequence[object]) -> None:
    """Raise UsageError for the first captioner that has other words than the first one.

    Args:
        captioners: one or more.
        names: what a user calls each.
    """
    ours = captioners[0].vocabulary
    for captioner, name in zip(captioners[1:], names[1:], strict=True):
        theirs = captioner.vocabulary
        if theirs == ours:
            continue
        if theirs.tokenizer != ours.tokenizer:
            what, own, other = "the tokenizer", ours.tokenizer, theirs.tokenizer
        else:
            pairs = enumerate(zip_longest(ours.words, theirs.words, fillvalue="(no word)"))
            number, (own, other) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
            what = f"word {number:,}"
        raise UsageError(
            f"{names[0]} and {name} differ in their vocabularies: {what} is {own!r} in the first "
            f"and {other!r} in the second. An ensemble has one: train all on the same captions, "
            "with the same dataset.min_count and dataset.tokenizer."
        )
