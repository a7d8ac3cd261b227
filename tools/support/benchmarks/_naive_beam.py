"""Beam search as it is usually written: one image after another. The tests' reference too."""

from typing import Any

import torch
from torch import Tensor

from transfer.captioning.vocabulary import END, NOT_GENERATED, START


def one_by_one(
    decoder: Any, feature: Tensor, width: int, max_length: int, **options: Any
) -> tuple[list[int], float]:
    """The caption of one image, every hypothesis stepped by itself, in plain Python.

    To the greatest length, as im2txt and neuraltalk2 do.

    Args:
        decoder: see transfer.captioning.decoder.
        feature: of the image, without a first dimension of images.
        width: of the beam.
        max_length: most words, END counted.
        options: see group_by_group.

    Returns:
        The words, END among them, and their score.
    """
    return group_by_group(decoder, feature, width, max_length, **options)[0]


def group_by_group(
    decoder: Any,
    feature: Tensor,
    width: int,
    max_length: int,
    *,
    groups: int = 1,
    diversity: float = 0.5,
    length_normalisation: float = 0.0,
    block_ngrams: int = 0,
) -> list[tuple[list[int], float]]:
    """What `one_by_one` gives, of each group of a diverse beam search; options: see beam_search."""
    memory, state = decoder.init_state(feature[None])
    # a hypothesis: the sum that its group compares, the log-probability, words, state
    beams = [[(0.0, 0.0, list[int](), state)] for _ in range(groups)]
    ended: list[list[tuple[float, float, list[int]]]] = [[] for _ in range(groups)]
    size = width // groups
    for length in range(1, max_length + 1):
        counts: dict[int, int] = {}  # of words that earlier groups have at this place
        for group in range(groups):
            candidates = []
            for score, likelihood, words, state in beams[group]:
                last = torch.tensor([[words[-1] if words else START]])
                logits, new_state = decoder.step(last, memory, state)
                row = logits[0, 0]
                row[NOT_GENERATED] = -torch.inf
                if block_ngrams and len(words) >= block_ngrams:
                    for start in range(len(words) - block_ngrams + 1):
                        ngram = words[start : start + block_ngrams]
                        if ngram[:-1] == words[len(words) - block_ngrams + 1 :]:
                            row[ngram[-1]] = -torch.inf
                log_probs = torch.log_softmax(row, dim=-1)
                left = log_probs.clone()
                for word, count in counts.items():
                    left[word] -= diversity * count
                values, order = left.sort(descending=True, stable=True)
                best = zip(values[: 2 * size].tolist(), order[: 2 * size].tolist(), strict=True)
                candidates += [
                    (score + value, likelihood + float(log_probs[word]), [*words, word], new_state)
                    for value, word in best
                ]
            candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: 2 * size]
            ended[group] += [
                (score / length**length_normalisation, total / length**length_normalisation, words)
                for score, total, words, _ in candidates[:size]
                if words[-1] == END
            ]
            beams[group] = [one for one in candidates if one[2][-1] != END][:size]
            for score, _, words, _ in beams[group]:
                if score > -torch.inf:
                    counts[words[-1]] = counts.get(words[-1], 0) + 1
    best_of_groups = []
    for beam, captions in zip(beams, ended, strict=True):
        if captions:
            _, total, words = max(captions, key=lambda caption: caption[0])
        else:
            _, total, words, _ = beam[0]
            total /= max_length**length_normalisation
        best_of_groups.append((not captions, -total, words))
    best_of_groups.sort(key=lambda caption: caption[:2])
    return [(words, -cost) for _, cost, words in best_of_groups]


def image_by_image(decoder: Any, feature: Tensor, width: int, max_length: int) -> list[int]:
    """The caption of one image, its hypotheses stepped as one batch, as sgrvinod's tutorial does.

    The beam grows narrower with each caption that ends.
    """
    memory, state = decoder.init_state(feature[None])
    state = tuple(part.expand(1, width, *part.shape[2:]) for part in state)
    words = torch.full((width, 1), START)  # each hypothesis, START first
    scores = torch.full((width, 1), -torch.inf)
    scores[0] = 0.0
    ended: list[tuple[float, list[int]]] = []
    for _ in range(max_length):
        logits, state = decoder.step(words[None, :, -1], memory, state)
        logits[..., NOT_GENERATED] = -torch.inf
        log_probs = scores + torch.log_softmax(logits[0], dim=-1)
        values, index = log_probs.flatten().topk(len(words))
        parents, last = index // logits.shape[-1], index % logits.shape[-1]
        words = torch.cat([words[parents], last[:, None]], dim=1)
        is_end = last == END
        ended += zip(values[is_end].tolist(), words[is_end, 1:].tolist(), strict=True)
        if is_end.all():
            break
        words, scores = words[~is_end], values[~is_end, None]
        state = tuple(part[:, parents[~is_end]] for part in state)
    return max(ended, key=lambda caption: caption[0])[1] if ended else words[0, 1:].tolist()
