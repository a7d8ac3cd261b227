"""NIC, the Show-and-Tell captioner (Vinyals et al., CVPR 2015, arXiv 1411.4555).

The pooled image feature goes through a linear layer and BatchNorm (as in the captioning code that
the CutMix paper used; Show and Tell has no norm) and is the first input of an LSTM; then come the
start word and the caption. The output at the image's own step predicts nothing, as in Google's
im2txt. Letters: see `decoder`; F feature channels.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from transfer.captioning.config import ModelConfig
from transfer.captioning.decoder import DecoderOutput, Tensors, lstm_step
from transfer.captioning.vocabulary import PAD, START
from transfer.feature_cache import FeatureKind


class Nic(nn.Module):
    """Image feature and words in, logits of the next words out; a `Decoder`."""

    feature_kind: FeatureKind = "pooled"

    def __init__(self, num_features: int, num_words: int, config: ModelConfig) -> None:
        super().__init__()
        self.project = nn.Linear(num_features, config.embed_size)
        self.norm = nn.BatchNorm1d(config.embed_size, momentum=0.01)
        self.embed = nn.Embedding(num_words, config.embed_size, padding_idx=PAD)
        self.lstm = nn.LSTM(config.embed_size, config.hidden_size, batch_first=True)
        self.classify = nn.Linear(config.hidden_size, num_words)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, words: Tensor) -> DecoderOutput:
        """Teacher forcing: features (B, F), words (B, T)."""
        start = words.new_full((len(words), 1), START)
        inputs = self.dropout(self.embed(torch.cat([start, words[:, :-1]], dim=1)))
        sequence = torch.cat([self._encode(features)[:, None].to(inputs.dtype), inputs], dim=1)
        outputs, _ = self.lstm(sequence)
        return DecoderOutput(self.classify(self.dropout(outputs[:, 1:])), None)

    @torch.no_grad()
    def recalibrate_batch_norm(self, batches: Iterable[Tensor]) -> None:
        """Set the norm's running statistics to those of images ("precise BN"), in batches (N, F).

        What momentum .01 has gathered lags behind the weights by hundreds of steps; a small data
        set then shows every image the same in evaluation. Training is not touched.
        """
        projected = torch.cat([self.project(features) for features in batches])
        variance, mean = torch.var_mean(projected, dim=0)
        self.norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        self.norm.running_var.copy_(variance)  # type: ignore[union-attr]

    def _encode(self, features: Tensor) -> Tensor:
        return self.norm(self.project(features))

    def init_state(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """No memory; the LSTM's state after it has seen the images (N, F)."""
        empty = features.new_zeros(len(features), 1, self.lstm.hidden_size)
        return (), lstm_step(self.lstm, self._encode(features)[:, None], (empty, empty))

    def step(self, words: Tensor, memory: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """See Decoder."""
        state = lstm_step(self.lstm, self.embed(words), state)
        return self.classify(state[0]), state
