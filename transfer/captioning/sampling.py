"""Captions drawn from a decoder's distribution, for training on rewards.

N images, K captions of an image, L words at most. As in `beam_search`, PAD, START and UNKNOWN are
never generated: their probability goes to the other words.
"""

import torch
from torch import Tensor

from transfer.captioning.decoder import Decoder
from transfer.captioning.vocabulary import END, NOT_GENERATED, PAD, START


@torch.no_grad()
def sample(
    decoder: Decoder,
    features: Tensor,
    max_length: int,
    draws: Tensor | None = None,
    *,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Captions drawn from the decoder's distribution, or its likeliest word each time.

    `decoder(features, words)` gives the same log-probabilities with gradients in one pass (at
    temperature 1, but for the words that are never generated).

    Args:
        decoder: in evaluation mode.
        features: (N, ...).
        max_length: L, END counted.
        draws: (N, K, L) in [0, 1), such as `torch.rand(N, K, L, generator=generator)`: at each word
            the vocabulary's probabilities stand side by side, and the draw says where (its first 24
            bits count). Equal draws give equal words on every device and in every batch, but for
            rounding. None takes the likeliest word each time, K = 1.
        temperature: divides the logits, where there are draws.

    Returns:
        Words (N, K, at most L), PAD behind END, and the log-probability of each (0 at PAD).
    """
    memory, state = decoder.init_state(features)
    shape = (len(features), 1 if draws is None else draws.shape[1])
    state = tuple(part.expand(*shape, *part.shape[2:]) for part in state)
    places = None if draws is None else (draws.to(features.device) * 2**24).long()
    words = torch.full(shape, START, device=features.device)
    ended = torch.zeros_like(words, dtype=torch.bool)
    all_words, all_log_probs = [], []
    for step in range(max_length):
        logits, state = decoder.step(words, memory, state)
        logits[..., NOT_GENERATED] = -torch.inf
        if places is None:
            probabilities = logits.float().softmax(-1)
            words = logits.argmax(-1)
        else:
            probabilities = (logits.float() / temperature).softmax(-1)
            # of integers: exact in any order, and on each device there is (Apple's GPUs have no
            # float64, and CUDA adds up floats in a row only where --deterministic is off)
            ends = (probabilities * 2**38).long().cumsum(-1)
            place = places[..., step, None] * ends[..., -1:] >> 24
            words = torch.searchsorted(ends, place, right=True)[..., 0]
            words = words.clamp(max=logits.shape[-1] - 1)  # where training has diverged
        log_probs = probabilities.gather(-1, words[..., None])[..., 0].log()
        words = words.masked_fill(ended, PAD)
        all_words.append(words)
        all_log_probs.append(log_probs.masked_fill(ended, 0.0))
        ended = ended | (words == END)
        if ended.all():
            break
    return torch.stack(all_words, dim=-1), torch.stack(all_log_probs, dim=-1)
