"""The Transformer captioner (Vaswani et al., NeurIPS 2017, arXiv 1706.03762) over a grid.

The positions of the encoder's last map are normalised, projected, and go through layers of
self-attention; the decoder's layers attend to the words before and to these positions. The choices
of ruotianluo/ImageCaptioning.pytorch (TransformerModel.py):

- each block is x + f(norm(x)), with a norm at the end of both stacks: the paper's own order, which
  Meshed-Memory has kept, is norm(x + f(x)), and wants a long warm-up (Xiong et al., ICML 2020);
- the grid is given no positions, there as in Meshed-Memory; a convolution's padding tells them;
- the embedding of words and the last linear layer are two, as in both; the paper's are one.

Dropout is where the paper has it (5.4): on what enters either stack, and on the output of each
block. That code and nn.Transformer have it inside the blocks too; on the attention's weights it
would need a table of them all.

Letters: see `decoder`; F channels, H hidden size.
"""

import math
from collections.abc import Iterable
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from transfer.captioning.config import ModelConfig
from transfer.captioning.decoder import DecoderOutput, Tensors
from transfer.captioning.vocabulary import START
from transfer.feature_cache import FeatureKind


class Transformer(nn.Module):
    """A grid of image features and words in, logits of the next words out; a `Decoder`.

    A memory is the keys and values of the image, a state those of the words so far, both of each
    layer.
    """

    feature_kind: FeatureKind = "grid"

    def __init__(self, num_features: int, num_words: int, config: ModelConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.project = nn.Sequential(nn.LayerNorm(num_features), nn.Linear(num_features, size))
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(size)
        self.embed = nn.Embedding(num_words, size)
        # mypy takes what a ModuleList holds for no more than modules
        self.decoder: Any = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.decoder_norm = nn.LayerNorm(size)
        self.classify = nn.Linear(size, num_words)
        self.dropout = nn.Dropout(config.dropout)
        for parameter in self.parameters():  # as nn.Transformer does
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Tensor, words: Tensor) -> DecoderOutput:
        """Teacher forcing: features (B, P, F), words (B, T). The weights are not kept."""
        memory, _ = self.init_state(features)
        outputs, _ = self.decode(_shift(words), memory)
        return DecoderOutput(self.classify(outputs[:, 0]), None)

    def recalibrate_batch_norm(self, batches: Iterable[Tensor]) -> None:
        """There is no batch norm here."""

    def init_state(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """For each layer (N, P, 2 H) of the image, and (N, 1, 0, 2 H): no word yet."""
        grid = self.dropout(self.project(features))[:, None]
        for layer in self.encoder:
            grid = layer(grid)
        grid = self.encoder_norm(grid)[:, 0]
        memory = tuple(layer.image.keys_values(grid) for layer in self.decoder)
        return memory, tuple(part.new_empty(len(part), 1, 0, part.shape[-1]) for part in memory)

    def step(self, words: Tensor, memory: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """See Decoder."""
        outputs, state = self.decode(words[..., None], memory, state)
        return self.classify(outputs[..., 0, :]), state

    def decode(
        self, words: Tensor, memory: Tensors, state: Tensors | None = None
    ) -> tuple[Tensor, Tensors]:
        """Words (N, K, T) to what predicts the words behind them, (N, K, T, H), and the new state.

        Args:
            words: START first; one for each hypothesis where there is a state.
            memory: of the images.
            state: of the words before these; None where these are the first.
        """
        hidden = self._embed(words, first=0 if state is None else state[0].shape[2])
        new = []
        for layer, image, past in zip(self.decoder, memory, state or repeat(None), strict=False):
            hidden, keys_values = layer(hidden, image, past)
            new.append(keys_values)
        return self.decoder_norm(hidden), tuple(new)

    def attention_weights(self, features: Tensor, words: Tensor) -> Tensor:
        """(B, T, P), rows summing to 1: the mean over the heads of the last layer.

        Args:
            features: (B, P, F).
            words: (B, T); the weights at t are those with which word t was predicted.
        """
        memory, _ = self.init_state(features)
        hidden = self._embed(_shift(words))
        for layer, image in zip(self.decoder[:-1], memory, strict=False):
            hidden, _ = layer(hidden, image)
        last = self.decoder[-1]
        return last.image.weights(hidden + last.words(hidden)[0], memory[-1])

    def _embed(self, words: Tensor, first: int = 0) -> Tensor:
        size = self.embed.embedding_dim
        positions = _sinusoids(first, words.shape[-1], like=self.embed.weight)
        return self.dropout(self.embed(words) * math.sqrt(size) + positions)


class EncoderLayer(nn.Module):
    """Self-attention and two linear layers, each added to what comes in."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attend = SelfAttention(config)
        self.feed_forward = _feed_forward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, grid: Tensor) -> Tensor:
        """(N, 1, P, H) to the same shape."""
        grid = grid + self.dropout(self.attend(grid)[0])
        return grid + self.dropout(self.feed_forward(grid))


class DecoderLayer(nn.Module):
    """Attention to the words before, attention to the image, two linear layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.words = SelfAttention(config, causal=True)
        self.image = ImageAttention(config)
        self.feed_forward = _feed_forward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, hidden: Tensor, image: Tensor, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N, K, T, H) to the same shape, and keys and values of all words.

        Args:
            hidden: of the words; one word where there is a past.
            image: (N, P, 2 H) keys and values.
            past: (N, K, words before, 2 H) keys and values.
        """
        attended, keys_values = self.words(hidden, past)
        hidden = hidden + self.dropout(attended)
        hidden = hidden + self.dropout(self.image(hidden, image))
        return hidden + self.dropout(self.feed_forward(hidden)), keys_values


class SelfAttention(nn.Module):
    """Attention among the T positions of each of N x K sequences."""

    def __init__(self, config: ModelConfig, *, causal: bool = False) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads, self.causal = config.num_heads, causal
        self.norm = nn.LayerNorm(size)
        self.qkv = nn.Linear(size, 3 * size)
        self.output = nn.Linear(size, size)

    def forward(self, hidden: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, K, T, H) to the same shape, and keys and values (N, K, past and T, 2 H)."""
        size = hidden.shape[-1]
        queries, keys_values = self.qkv(self.norm(hidden)).split([size, 2 * size], -1)
        if past is not None:
            keys_values = torch.cat([past, keys_values], dim=2)
        causal = self.causal and past is None  # one word may see all before it
        attended = _attend(
            queries.flatten(0, 1), keys_values.flatten(0, 1), self.num_heads, causal=causal
        )
        return self.output(attended).view_as(hidden), keys_values


class ImageAttention(nn.Module):
    """Attention of the words to the positions of their image, which its hypotheses share."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_heads
        self.norm = nn.LayerNorm(size)
        self.query = nn.Linear(size, size)
        self.keys_values = nn.Linear(size, 2 * size)
        self.output = nn.Linear(size, size)

    def forward(self, hidden: Tensor, image: Tensor) -> Tensor:
        """(N, K, T, H) to the same shape, from keys and values (N, P, 2 H)."""
        queries = self.query(self.norm(hidden)).flatten(1, 2)
        return self.output(_attend(queries, image, self.num_heads)).view_as(hidden)

    def weights(self, hidden: Tensor, image: Tensor) -> Tensor:
        """(N, K T, P): the mean over the heads."""
        queries = _heads(self.query(self.norm(hidden)).flatten(1, 2), self.num_heads)
        keys = _heads(image.chunk(2, dim=-1)[0], self.num_heads)
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(keys.shape[-1])
        return scores.softmax(-1).mean(1)


def _feed_forward(config: ModelConfig) -> nn.Sequential:
    size, inner = config.hidden_size, config.ffn_size
    return nn.Sequential(
        nn.LayerNorm(size), nn.Linear(size, inner), nn.ReLU(), nn.Linear(inner, size)
    )


def _shift(words: Tensor) -> Tensor:
    """(B, T) to (B, 1, T): START first, without the last."""
    return torch.cat([words.new_full((len(words), 1), START), words[:, :-1]], dim=1)[:, None]


def _heads(sequence: Tensor, num_heads: int) -> Tensor:
    """(S, T, H) to (S, heads, T, H / heads)."""
    return sequence.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _attend(
    queries: Tensor, keys_values: Tensor, num_heads: int, *, causal: bool = False
) -> Tensor:
    """(S, Q, H) queries at the keys and values (S, T, 2 H) of their sequence: (S, Q, H)."""
    keys, values = keys_values.chunk(2, dim=-1)
    attended = functional.scaled_dot_product_attention(
        _heads(queries, num_heads),
        _heads(keys, num_heads),
        _heads(values, num_heads),
        is_causal=causal,
    )
    return attended.transpose(1, 2).flatten(2)


def _sinusoids(first: int, count: int, like: Tensor) -> Tensor:
    """(count, H) of section 3.5, from position `first` on: sines and cosines in turn."""
    arange = partial(torch.arange, dtype=like.dtype, device=like.device)
    size = like.shape[-1]
    angles = arange(first, first + count)[:, None] / 10000.0 ** (arange(0, size, 2) / size)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size]
