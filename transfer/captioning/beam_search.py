"""From features to captions: beam search, all images at once.

Any decoder with `init_state` and `step` (see `decoder`), any device. PAD, START and UNKNOWN are
never generated: their probability goes to the other words.

N images, K continuations of an image, L words at most, V vocabulary.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from transfer.captioning.config import DecodingConfig
from transfer.captioning.decoder import Decoder
from transfer.captioning.vocabulary import END, NOT_GENERATED, PAD, START, Vocabulary

_MAX_HYPOTHESES = 1000  # searched together
_BLOCK_WORDS = 64  # words of a block whose best is compared first


def generate_captions(
    decoder: Decoder, batches: Iterable[Tensor], vocabulary: Vocabulary, config: DecodingConfig
) -> list[str]:
    """The caption of each image, from batches of features (N, ...) in order.

    Args:
        decoder: in evaluation mode.
        batches: on the decoder's device.
        vocabulary: the decoder's.
        config: how to search.
    """
    captions: list[str] = []
    for features in batches:
        words = beam_search(decoder, features, config).words
        captions += map(vocabulary.decode, words.tolist())
    return captions


def images_at_once(width: int) -> int:
    """How many images a search of that width should be given together."""
    return max(1, _MAX_HYPOTHESES // width)


class BeamSearchOutput(NamedTuple):
    """The best caption of each image."""

    words: Tensor
    """(N, at most L); PAD behind END. A caption without END was cut at L words."""
    scores: Tensor
    """(N,) log-probability, divided by length ** config.length_normalisation."""


@torch.inference_mode()
def beam_search(decoder: Decoder, features: Tensor, config: DecodingConfig) -> BeamSearchOutput:
    """The best caption that a beam of K = `config.beam` hypotheses finds for each image.

    Of all continuations by one word the 2 K best are compared. Those among the first K that end
    are captions; the K best of the others go on. The result is the best caption, and the best
    hypothesis where none has ended after `max_length` words. Of equal continuations the earlier
    hypothesis comes first, then the smaller word (END, then the more frequent one). An image is
    done as soon as no hypothesis could still become better than its best caption, which is exact: a
    log-probability only falls with further words.

    Args:
        decoder: in evaluation mode.
        features: (N, ...).
        config: width, length, how captions of different lengths are compared, what may repeat.
    """
    count, device = len(features), features.device
    width, max_length, power = config.beam, config.max_length, config.length_normalisation
    memory, state = decoder.init_state(features)
    state = tuple(part.expand(count, width, *part.shape[2:]) for part in state)
    words = torch.full((count, width), START, device=device)
    history = torch.full((count, width, max_length), PAD, device=device)
    scores = features.new_full((count, width), -torch.inf)
    scores[:, 0] = 0.0  # at first there is one hypothesis
    active = torch.arange(count, device=device)  # images that are not done
    best_words, best_scores = history[:, 0].clone(), features.new_full((count,), -torch.inf)
    for length in range(1, max_length + 1):
        logits, state = decoder.step(words, memory, state)
        logits[..., NOT_GENERATED] = -torch.inf
        if 0 < config.block_ngrams < length:
            _mask_repeats(logits, history[..., : length - 1], config.block_ngrams)
        log_probs = torch.log_softmax(logits, dim=-1)
        values, parents, words = _extend(log_probs, scores, 2 * width)
        is_end = words == END

        # ---- captions: the best of those that end among the first K
        ended = values.masked_fill(~is_end, -torch.inf)[:, :width] / length**power
        value, position = ended.max(dim=1)
        better = (value > best_scores[active]).nonzero()[:, 0]
        captions = history[better, parents[better, position[better]]]
        captions[:, length - 1] = END
        best_words[active[better]], best_scores[active[better]] = captions, value[better]

        # ---- hypotheses: the first K that do not end, in order
        order = is_end.long().argsort(dim=1, stable=True)[:, :width]
        scores = values.masked_fill(is_end, -torch.inf).gather(1, order)
        parents, words = parents.gather(1, order), words.gather(1, order)
        history = history.gather(1, parents[..., None].expand_as(history))
        history[..., length - 1] = words

        # ---- images that are done leave
        reach = scores[:, 0] / max_length**power
        going = (reach > best_scores[active]).nonzero()[:, 0]
        state = tuple(part[going[:, None], parents[going]] for part in state)
        if len(going) < len(active):
            active, words, scores = active[going], words[going], scores[going]
            history, memory = history[going], tuple(part[going] for part in memory)
        if not len(active):
            break
    unended = best_scores[active].isneginf()
    best_words[active[unended]] = history[unended, 0]
    best_scores[active[unended]] = scores[unended, 0] / max_length**power
    longest = int((best_words != PAD).any(0).sum())
    return BeamSearchOutput(best_words[:, : max(1, longest)], best_scores)


def _extend(log_probs: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best of all continuations: score, hypothesis, word, each (N, count), best first.

    Of equal ones the earlier hypothesis comes first, then the smaller word, on every device. The
    best words lie in the blocks of words whose best are the best, so one pass finds the best of
    each block, and only as many blocks as words are asked for are searched.

    Args:
        log_probs: (N, K, V).
        scores: (N, K) of the hypotheses.
        count: at most K * V.
    """
    images, width, num_words = log_probs.shape
    everything = torch.arange(width * num_words, device=scores.device).expand(images, -1)

    def values_at(positions: Tensor) -> Tensor:  # among K * V
        return log_probs.flatten(1).gather(1, positions) + scores.gather(1, positions // num_words)

    more = min(count + 1, width * num_words)  # one more shows whether the last is one of equals
    num_blocks = num_words // _BLOCK_WORDS
    positions = everything
    if width * num_blocks > more:
        # word w lies in block w % num_blocks; those that are left over are all compared
        in_blocks = num_blocks * _BLOCK_WORDS
        blocks = log_probs[..., :in_blocks].unflatten(-1, (_BLOCK_WORDS, num_blocks))
        block = (blocks.amax(-2) + scores[..., None]).flatten(1).topk(more, dim=1).indices
        first = block // num_blocks * num_words + block % num_blocks
        offsets = torch.arange(0, in_blocks, num_blocks, device=scores.device)
        rest = everything.view(images, width, num_words)[..., in_blocks:].flatten(1)
        positions = torch.cat([(first[..., None] + offsets).flatten(1), rest], dim=1)
    values, order = values_at(positions).topk(more, dim=1)
    last = values[:, count:]
    if ((values[:, count - 1 : -1] == last) & last.isfinite()).any():
        positions = everything  # which of the equal ones topk takes is left to chance
    else:
        positions = positions.gather(1, order).sort(dim=1).values
    values, order = values_at(positions).sort(dim=1, descending=True, stable=True)
    positions = positions.gather(1, order[:, :count])
    return values[:, :count], positions // num_words, positions % num_words


def _mask_repeats(logits: Tensor, history: Tensor, size: int) -> None:
    """Forbid, in place, each word that would end an n-gram that the hypothesis has already.

    Args:
        logits: (N, K, V).
        history: (N, K, words so far).
        size: n, at most as many as the words so far.
    """
    ngrams = history.unfold(-1, size, 1)  # (N, K, windows, n)
    last = history[..., history.shape[-1] - size + 1 :][..., None, :]
    repeats = (ngrams[..., : size - 1] == last).all(-1)
    # a word that is allowed is sent to PAD, which is never generated anyway
    logits.scatter_(-1, torch.where(repeats, ngrams[..., -1], PAD), -torch.inf)
