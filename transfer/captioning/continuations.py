"""One step of a search: which words go on, from log-probabilities and what came before.

N images, G groups, W hypotheses of a group, K hypotheses, V vocabulary.
"""

import torch
from torch import Tensor

from transfer.captioning.vocabulary import END, PAD

_BLOCK_WORDS = 64  # words of a block whose best is compared first


def extend_groups(
    log_probs: Tensor, scores: Tensor, diversity: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The 2 W best continuations in each group: score, hypothesis, word, each (N, G, 2 W).

    Args:
        log_probs: (N, G, W, V).
        scores: (N, G, W) of the hypotheses.
        diversity: what a word loses for each hypothesis of an earlier group that goes on with it.
    """
    num_images, num_groups, width = scores.shape
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    counts = log_probs.new_zeros(num_images, log_probs.shape[-1] if num_groups > 1 else 0)
    for group in range(num_groups):
        logs = log_probs[:, group]
        if group:
            values, _, words = found[-1]
            goes_on = (words != END) & values.isfinite()
            goes_on &= goes_on.cumsum(1) <= width
            counts.scatter_add_(1, words, goes_on.to(counts.dtype))
            logs = logs - diversity * counts[:, None]
        found.append(extend(logs, scores[:, group], 2 * width))
    values, parents, words = (torch.stack(part, dim=1) for part in zip(*found, strict=True))
    return values, parents, words


def extend(log_probs: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
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


def mask_repeats(logits: Tensor, history: Tensor, size: int) -> None:
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
