"""NIC, the Show-and-Tell captioner (Vinyals et al., CVPR 2015, arXiv 1411.4555).

The pooled image feature goes through a linear layer and BatchNorm (as in the captioning code that
the CutMix paper used) and is the first input of an LSTM; then come the start word and the caption.
B captions, F feature channels, T words, V vocabulary.
"""

import torch
from torch import Tensor, nn

from transfer.captioning.config import NicConfig
from transfer.captioning.vocabulary import END, PAD, START

State = tuple[Tensor, Tensor]


class Nic(nn.Module):
    """Image feature and words in, logits of the next words out."""

    def __init__(self, num_features: int, num_words: int, config: NicConfig) -> None:
        super().__init__()
        self.project = nn.Linear(num_features, config.embed_size)
        self.norm = nn.BatchNorm1d(config.embed_size, momentum=0.01)
        self.embed = nn.Embedding(num_words, config.embed_size, padding_idx=PAD)
        self.lstm = nn.LSTM(config.embed_size, config.hidden_size, batch_first=True)
        self.classify = nn.Linear(config.hidden_size, num_words)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """Teacher forcing.

        Args:
            features: (B, F) pooled image features.
            words: (B, T) numbers, ended by END and filled up with PAD.

        Returns:
            (B, T, V): the logits at t predict words[:, t] from the image and words[:, :t].
        """
        start = words.new_full((len(words), 1), START)
        inputs = self.dropout(self.embed(torch.cat([start, words[:, :-1]], dim=1)))
        sequence = torch.cat([self.encode(features)[:, None], inputs], dim=1)
        outputs, _ = self.lstm(sequence)
        # the output at the image's own step predicts nothing, as in Google's im2txt
        return self.classify(self.dropout(outputs[:, 1:]))

    def encode(self, features: Tensor) -> Tensor:
        """(B, F) to the first LSTM input (B, embed)."""
        return self.norm(self.project(features))

    def begin(self, features: Tensor) -> State:
        """The LSTM's state after it has seen the images."""
        _, state = self.lstm(self.encode(features)[:, None])
        return state

    def step(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """One word (B,) further: logits (B, V) of the next, and the new state."""
        outputs, state = self.lstm(self.embed(words)[:, None], state)
        return self.classify(outputs[:, 0]), state


@torch.inference_mode()
def greedy(model: Nic, features: Tensor, max_length: int) -> Tensor:
    """The likeliest word at each step, all images at once.

    Args:
        model: in evaluation mode.
        features: (B, F).
        max_length: most words.

    Returns:
        (B, at most max_length) numbers; behind END stands PAD.
    """
    state = model.begin(features)
    words = features.new_full((len(features),), START, dtype=torch.long)
    ended = torch.zeros_like(words, dtype=torch.bool)
    said = []
    for _ in range(max_length):
        logits, state = model.step(words, state)
        logits[:, [PAD, START]] = -torch.inf
        words = logits.argmax(1).masked_fill(ended, PAD)
        said.append(words)
        ended |= words == END
        if ended.all():
            break
    return torch.stack(said, dim=1)
