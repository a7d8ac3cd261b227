"""Show, Attend and Tell with soft attention (Xu et al., ICML 2015, arXiv 1502.03044).

Before each word the state looks over the places of the encoder's last map: a small network compares
it with every place (section 3.1.2), the weighted mean of the places, times a gate, goes into the
LSTM beside the last word, and the next word is told from both and the state (equation 7's deep
output). The gate is a number for each channel, where the paper has one for all; the mean of the
places begins the LSTM through one tanh layer. Letters: see `decoder`; F channels, A attention size.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from transfer.captioning.config import ModelConfig
from transfer.captioning.decoder import Tensors, Told, lstm_step
from transfer.captioning.vocabulary import PAD, START


class Attention(nn.Module):
    """A grid of image features and words in, logits of the next words out."""

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

    def forward(self, features: Tensor, words: Tensor) -> Told:
        """Teacher forcing: features (B, P, F), words (B, T)."""
        start = words.new_full((len(words), 1), START)
        inputs = self.embed(torch.cat([start, words[:, :-1]], dim=1))
        memory, state = self.begin(features)
        told, looked = [], []
        for place in range(words.shape[1]):
            output, weights, state = self._advance(inputs[:, place, None], memory, state)
            told.append(output)
            looked.append(weights[:, 0])
        return Told(self.classify(torch.cat(told, dim=1)), torch.stack(looked, dim=1))

    def settle(self, batches: Iterable[Tensor]) -> None:
        """Nothing here keeps statistics."""

    def begin(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """The places, and what they are compared by; the LSTM's first state."""
        places = self.normalise(features)
        first = torch.tanh(self.start(places.mean(1)))[:, None]
        return (places, self.keys(places)), first.chunk(2, dim=-1)

    def step(self, words: Tensor, memory: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """See Decoder."""
        output, _, state = self._advance(self.embed(words), memory, state)
        return self.classify(output), state

    def _advance(
        self, inputs: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        """From words (N, K, E) to what the next are told from (N, K, E), and weights (N, K, P)."""
        places, keys = memory
        hidden = state[0]
        compared = torch.tanh(keys[:, None] + self.query(hidden)[:, :, None])  # (N, K, P, A)
        weights = self.compare(compared)[..., 0].softmax(-1)
        seen = torch.sigmoid(self.gate(hidden)) * (weights @ places)
        state = lstm_step(
            self.lstm, torch.cat([self.dropout(inputs), seen.to(inputs.dtype)], dim=-1), state
        )
        output = inputs + self.from_state(state[0]) + self.from_places(seen)
        return self.dropout(torch.tanh(output)), weights, state
