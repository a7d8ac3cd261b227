"""The Transformer captioner: its search beside one without a cache, its step beside PyTorch's."""

from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


class Uncached:
    """A Transformer whose state is the words alone: each step runs over all words before.

    Still all hypotheses at once, and the image's keys and values are computed once.
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder

    def init_state(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """The image's keys and values; no words (N, 1, 0)."""
        memory, _ = self.decoder.init_state(features)
        empty = torch.empty(len(features), 1, 0, dtype=torch.long, device=features.device)
        return memory, (empty,)

    def step(self, words: Tensor, memory: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """See transfer.captioning.decoder."""
        words = torch.cat([state[0], words[..., None]], dim=-1)
        outputs, _ = self.decoder.decode(words, memory)
        return self.decoder.classify(outputs[..., -1, :]), (words,)
