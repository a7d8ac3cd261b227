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
    generator: torch.Generator | None = None,
    *,
    num_samples: int = 1,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Captions drawn from the decoder's distribution.

    `decoder(features, words)` gives the same log-probabilities with
    gradients in one pass (at temperature 1, but for the words that are never generated).

    Args:
        decoder: in evaluation mode.
        features: (N, ...).
        max_length: L, END counted.
        generator: on the CPU, so that every device draws the same.
        num_samples: K captions of each image.
        temperature: divides the logits; 0 takes the likeliest word each time.

    Returns:
        Words (N, K, at most L), PAD behind END, and the log-probability of each (0 at PAD).
    """
    memory, state = decoder.init_state(features)
    shape = (len(features), num_samples)
    state = tuple(part.expand(*shape, *part.shape[2:]) for part in state)
    words = torch.full(shape, START, device=features.device)
    ended = torch.zeros_like(words, dtype=torch.bool)
    all_words, all_log_probs = [], []
    for _ in range(max_length):
        logits, state = decoder.step(words, memory, state)
        logits[..., NOT_GENERATED] = -torch.inf
        log_probs = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
        if temperature:
            draw = torch.rand(*shape, 1, generator=generator, dtype=torch.float64)
            total = log_probs.double().exp().cumsum(-1)
            index = torch.searchsorted(total, draw.to(total.device) * total[..., -1:], right=True)
            words = index[..., 0].clamp(max=logits.shape[-1] - 1)
        else:
            words = logits.argmax(-1)
        words = words.masked_fill(ended, PAD)
        log_probs = log_probs.gather(-1, words[..., None])[..., 0].masked_fill(ended, 0.0)
        all_words.append(words)
        all_log_probs.append(log_probs)
        ended |= words == END
        if ended.all():
            break
    return torch.stack(all_words, dim=-1), torch.stack(all_log_probs, dim=-1)
