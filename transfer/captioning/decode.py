"""From features to sentences: the likeliest word, samples, beam search; all images at once.

Any decoder with `begin` and `step` (see `decoder`), any device. PAD, START and UNKNOWN are never
said: their probability goes to the other words.

N images, K continuations of an image, L words at most, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from transfer.captioning.decoder import Decoder
from transfer.captioning.vocabulary import END, PAD, START, UNSAYABLE

_AT_ONCE = 1000  # hypotheses searched together
_STRIDE = 64  # words of a block whose best is looked at first


@torch.inference_mode()
def greedy(decoder: Decoder, features: Tensor, max_length: int) -> Tensor:
    """The likeliest word at each step.

    Args:
        decoder: in evaluation mode.
        features: (N, ...).
        max_length: most words, END counted.

    Returns:
        (N, at most max_length) numbers; PAD behind END.
    """
    memory, state = decoder.begin(features)
    words = torch.full((len(features), 1), START, device=features.device)
    ended = torch.zeros_like(words, dtype=torch.bool)
    said = []
    for _ in range(max_length):
        logits, state = decoder.step(words, memory, state)
        words = _sayable(logits).argmax(-1).masked_fill(ended, PAD)
        said.append(words)
        ended |= words == END
        if ended.all():
            break
    return torch.cat(said, dim=1)


@torch.no_grad()
def sample(
    decoder: Decoder,
    features: Tensor,
    max_length: int,
    generator: torch.Generator,
    *,
    num_samples: int = 1,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Captions drawn from the decoder's distribution.

    For training on rewards, `decoder(features, words)` gives the same log-probabilities with
    gradients in one pass (at temperature 1, but for the words that are never said).

    Args:
        decoder: in evaluation mode.
        features: (N, ...).
        max_length: most words, END counted.
        generator: on the CPU, so that every device draws the same.
        num_samples: K captions of each image.
        temperature: divides the logits.

    Returns:
        Numbers (N, K, at most L), PAD behind END, and the log-probability of each (0 at PAD).
    """
    memory, state = decoder.begin(features)
    shape = (len(features), num_samples)
    state = tuple(part.expand(*shape, *part.shape[2:]) for part in state)
    words = torch.full(shape, START, device=features.device)
    ended = torch.zeros_like(words, dtype=torch.bool)
    said, told = [], []
    for _ in range(max_length):
        logits, state = decoder.step(words, memory, state)
        logs = torch.log_softmax(_sayable(logits).float() / temperature, dim=-1)
        draw = torch.rand(*shape, 1, generator=generator, dtype=torch.float64)
        total = logs.double().exp().cumsum(-1)
        found = torch.searchsorted(total, draw.to(total.device) * total[..., -1:], right=True)
        words = found[..., 0].clamp(max=logs.shape[-1] - 1).masked_fill(ended, PAD)
        told.append(logs.gather(-1, words[..., None])[..., 0].masked_fill(ended, 0.0))
        said.append(words)
        ended |= words == END
        if ended.all():
            break
    return torch.stack(said, dim=-1), torch.stack(told, dim=-1)


def images_at_once(width: int) -> int:
    """How many images a search of that width should be given together."""
    return max(1, _AT_ONCE // width)


@dataclass(frozen=True)
class Found:
    """What a beam search found."""

    words: Tensor
    """(N, L) numbers; PAD behind END. A caption without END was cut at its greatest length."""
    scores: Tensor
    """(N,) log-probability, divided by length ** length_normalisation."""


@torch.inference_mode()
def beam_search(
    decoder: Decoder,
    features: Tensor,
    width: int,
    max_length: int,
    *,
    length_normalisation: float = 0.0,
    block_ngrams: int = 0,
) -> Found:
    """The best caption that a beam of `width` hypotheses finds for each image.

    Of all continuations by one word the 2 K best are looked at. Those among the first K that end
    are set aside; the K best of the others go on. The best of those set aside is the caption, and
    the best hypothesis where none has ended after `max_length` words. An image is done as soon as
    no hypothesis could still become better than its best caption, which is exact: a
    log-probability only falls with further words.

    Args:
        decoder: in evaluation mode.
        features: (N, ...).
        width: K; 1 is `greedy`.
        max_length: L, END counted.
        length_normalisation: power of the length (END counted) that divides a log-probability
            where captions are compared; 0 compares sums, as Show and Tell does.
        block_ngrams: no n-gram of this size may stand twice in a caption; 0 allows all.
    """
    count, device = len(features), features.device
    memory, state = decoder.begin(features)
    state = tuple(part.expand(count, width, *part.shape[2:]) for part in state)
    alive = torch.arange(count, device=device)
    words = torch.full((count, width), START, device=device)
    history = torch.full((count, width, max_length), PAD, device=device)
    scores = features.new_zeros(count, width).fill_(-torch.inf)
    scores[:, 0] = 0.0  # at first there is one hypothesis
    best = Found(
        torch.full((count, max_length), PAD, device=device),
        features.new_full((count,), -torch.inf),
    )
    for length in range(1, max_length + 1):
        logits, state = decoder.step(words, memory, state)
        logits = _sayable(logits)
        if block_ngrams:
            _block(logits, history[..., : length - 1], block_ngrams)
        logs = torch.log_softmax(logits, dim=-1)
        values, parents, said = _best(logs, scores, 2 * width)

        # ---- those that end
        ends = (said == END) & (torch.arange(said.shape[1], device=device) < width)
        ended = values.masked_fill(~ends, -torch.inf) / length**length_normalisation
        _set_aside(best, alive, ended, parents, history, length)

        # ---- those that go on: the first K that do not end, in order
        order = (said == END).long().argsort(dim=1, stable=True)[:, :width]
        open_ = values.masked_fill(said == END, -torch.inf)
        scores, parents = open_.gather(1, order), parents.gather(1, order)
        words = said.gather(1, order)
        history = history.gather(1, parents[..., None].expand_as(history))
        history[..., length - 1] = words

        # ---- images that are done leave
        reach = scores[:, 0] / max_length**length_normalisation
        going = reach > best.scores[alive]
        if length == max_length:
            unended = going & best.scores[alive].isneginf()
            value = scores[:, :1] / length**length_normalisation
            best.scores[alive[unended]] = value[unended, 0]
            best.words[alive[unended]] = history[unended, 0]
            break
        if not going.any():
            break
        rows = torch.arange(len(alive), device=device)
        if not going.all():
            rows = going.nonzero()[:, 0]
            alive, words, parents = alive[rows], words[rows], parents[rows]
            scores, history = scores[rows], history[rows]
            memory = tuple(part[rows] for part in memory)
        state = tuple(part[rows[:, None], parents] for part in state)
    longest = int((best.words != PAD).any(0).sum()) if count else 0
    return Found(best.words[:, : max(1, longest)], best.scores)


def _sayable(logits: Tensor) -> Tensor:
    """The logits, in place, without the words that no caption may hold."""
    for word in UNSAYABLE:
        logits[..., word] = -torch.inf
    return logits


def _set_aside(
    best: Found, alive: Tensor, ended: Tensor, parents: Tensor, history: Tensor, length: int
) -> None:
    """Keep the best of the captions that ended in this step where it is better than before."""
    value, place = ended.max(dim=1)
    better = value > best.scores[alive]
    if better.any():
        where = alive[better]
        parent = parents[better, place[better]]
        caption = history[better, parent]
        caption[:, length - 1] = END
        best.scores[where] = value[better]
        best.words[where] = caption


def _best(logs: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best of all continuations: score, hypothesis, word, each (N, count), best first.

    Of equal ones the earlier hypothesis comes first, then the smaller word, on every device. The
    best words lie in the blocks of words whose best are the best, so one pass finds the best of
    each block, and only so many blocks as there are words wanted are looked into.

    Args:
        logs: (N, K, V) log-probabilities.
        scores: (N, K) of the hypotheses.
        count: at most K * V.
    """
    _, width, num_words = logs.shape
    more = min(count + 1, width * num_words)
    blocks = num_words // _STRIDE
    if blocks < 2 or width * blocks <= more:
        values, places = (logs + scores[..., None]).flatten(1).topk(more, dim=1)
    else:
        values, places = _best_by_blocks(logs, scores, more)
    last, next_ = values[:, count - 1 : more - 1], values[:, count:]
    if ((last == next_) & last.isfinite()).any():
        # which of the equal ones are among the best was left to chance: look at all
        total = (logs + scores[..., None]).flatten(1)
        values, places = total.sort(dim=1, descending=True, stable=True)
    else:
        places, order = places.sort(dim=1)
        values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
        places = places.gather(1, order)
    values, places = values[:, :count], places[:, :count]
    return values, places // num_words, places % num_words


def _best_by_blocks(logs: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best of all continuations: score and place among K * V, each (N, count)."""
    num_words = logs.shape[-1]
    blocks = num_words // _STRIDE
    whole = blocks * _STRIDE
    # word w lies in block w % blocks; what is left over makes one more
    tops = logs[..., :whole].unflatten(-1, (_STRIDE, blocks)).amax(-2)
    rest = logs[..., whole:]
    if rest.shape[-1]:
        tops = torch.cat([tops, rest.amax(-1, keepdim=True)], dim=-1)
    num_tops = tops.shape[-1]
    _, chosen = (tops + scores[..., None]).flatten(1).topk(count, dim=1)
    parent, block = chosen // num_tops, chosen % num_tops
    steps = torch.arange(_STRIDE, device=logs.device)
    word = torch.where(
        block[..., None] < blocks, block[..., None] + steps * blocks, whole + steps
    )  # (N, count, stride)
    inside = word < num_words
    places = (parent[..., None] * num_words + word.clamp(max=num_words - 1)).flatten(1)
    values = logs.flatten(1).gather(1, places).view_as(word) + scores.gather(1, parent)[..., None]
    values, order = values.masked_fill(~inside, -torch.inf).flatten(1).topk(count, dim=1)
    return values, places.gather(1, order)


def _block(logits: Tensor, history: Tensor, size: int) -> None:
    """Forbid, in place, each word that would end an n-gram that the hypothesis has already.

    Args:
        logits: (N, K, V).
        history: (N, K, words so far).
        size: n.
    """
    length = history.shape[-1]
    if length < size:
        return
    grams = history.unfold(-1, size, 1)  # (N, K, windows, n)
    last = history[..., length - size + 1 :][..., None, :]
    repeats = (grams[..., : size - 1] == last).all(-1)
    # a word that may be said is sent to PAD, which may not be said anyway
    logits.scatter_(-1, torch.where(repeats, grams[..., -1], PAD), -torch.inf)
