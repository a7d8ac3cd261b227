"""Show, Attend and Tell with soft attention (Xu et al., ICML 2015, arXiv 1502.03044).

Before each word the state is compared with every position of the encoder's last map by a small
network (section 3.1.2); the weighted mean of the positions, times a gate, goes into the LSTM beside
the last word, and the next word is predicted from both and the state (equation 7's deep output).
The gate is a number for each channel, where the paper has one for all; the mean of the positions
begins the LSTM through one tanh layer. Letters: see `decoder`; F channels, A attention size,
E embedding size.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from transfer.captioning.config import ModelConfig
from transfer.captioning.decoder import DecoderOutput, Tensors, lstm_step
from transfer.captioning.vocabulary import PAD, START
from transfer.feature_cache import FeatureKind


class Attention(nn.Module):
    """A grid of image features and words in, logits of the next words out; a `Decoder`."""

    feature_kind: FeatureKind = "grid"

    def __init__(self, num_features: int, num_words: int, config: ModelConfig) -> None:
        super().__init__()
        embed, hidden = config.embed_size, config.hidden_size
        self.normalise = nn.LayerNorm(num_features)
        self.keys = nn.Linear(num_features, config.attention_size)
        self.query = nn.Linear(hidden, config.attention_size)
        self.compare = nn.Linear(config.attention_size, 1, bias=False)
        self.gate = nn.Linear(hidden, num_features)
        self.start = nn.Linear(num_features, 2 * hidden)
        self.embed = nn.Embedding(num_words, embed, padding_idx=PAD)
        self.lstm = nn.LSTM(embed + num_features, hidden, batch_first=True)
        self.from_state = nn.Linear(hidden, embed)
        self.from_places = nn.Linear(num_features, embed)
        self.classify = nn.Linear(embed, num_words)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, words: Tensor) -> DecoderOutput:
        """Teacher forcing: features (B, P, F), words (B, T)."""
        start = words.new_full((len(words), 1), START)
        inputs = self.embed(torch.cat([start, words[:, :-1]], dim=1))
        memory, state = self.init_state(features)
        outputs, attention = [], []
        for step in inputs.split(1, dim=1):
            output, weights, state = self._advance(step, memory, state)
            outputs.append(output)
            attention.append(weights)
        return DecoderOutput(self.classify(torch.cat(outputs, dim=1)), torch.cat(attention, dim=1))

    def attention_weights(self, features: Tensor, words: Tensor) -> Tensor:
        """(B, T, P), rows summing to 1, for features (B, P, F) and words (B, T)."""
        return self(features, words).attention  # type: ignore[no-any-return]

    def recalibrate_batch_norm(self, batches: Iterable[Tensor]) -> None:
        """There is no batch norm here."""

    def init_state(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """The positions, and what they are compared by; the LSTM's first state."""
        grid = self.normalise(features)
        first = torch.tanh(self.start(grid.mean(1)))[:, None]
        return (grid, self.keys(grid)), first.chunk(2, dim=-1)

    def step(self, words: Tensor, memory: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """See Decoder."""
        output, _, state = self._advance(self.embed(words), memory, state)
        return self.classify(output), state

    def _advance(
        self, inputs: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        """From words (N, K, E) to what predicts the next (N, K, E); weights (N, K, P); states."""
        grid, keys = memory
        hidden = state[0]
        compared = torch.tanh(keys[:, None] + self.query(hidden)[:, :, None])  # (N, K, P, A)
        weights = self.compare(compared)[..., 0].softmax(-1)
        context = torch.sigmoid(self.gate(hidden)) * (weights @ grid)
        lstm_inputs = torch.cat([self.dropout(inputs), context.to(inputs.dtype)], dim=-1)
        state = lstm_step(self.lstm, lstm_inputs, state)
        output = inputs + self.from_state(state[0]) + self.from_places(context)
        return self.dropout(torch.tanh(output)), weights, state
