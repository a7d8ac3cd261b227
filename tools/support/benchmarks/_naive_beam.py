"""Beam search as it is usually written: one image after another. The tests' reference too."""

from typing import Any

import torch
from torch import Tensor

from transfer.captioning.vocabulary import END, NOT_GENERATED, START


def one_by_one(
    decoder: Any,
    feature: Tensor,
    width: int,
    max_length: int,
    *,
    length_normalisation: float = 0.0,
    block_ngrams: int = 0,
) -> tuple[list[int], float]:
    """The caption of one image, every hypothesis stepped by itself, in plain Python.

    To the greatest length, as im2txt and neuraltalk2 do.

    Args:
        decoder: see transfer.captioning.decoder.
        feature: of the image, without a first dimension of images.
        width: of the beam.
        max_length: most words, END counted.
        length_normalisation: see beam_search.
        block_ngrams: see beam_search.

    Returns:
        The words, END among them, and their score.
    """
    memory, state = decoder.init_state(feature[None])
    hypotheses: list[tuple[float, list[int], Any]] = [(0.0, [], state)]
    ended: list[tuple[float, list[int]]] = []
    for length in range(1, max_length + 1):
        candidates = []
        for score, words, state in hypotheses:
            last = torch.tensor([[words[-1] if words else START]])
            logits, new_state = decoder.step(last, memory, state)
            row = logits[0, 0]
            row[NOT_GENERATED] = -torch.inf
            if block_ngrams and len(words) >= block_ngrams:
                for start in range(len(words) - block_ngrams + 1):
                    ngram = words[start : start + block_ngrams]
                    if ngram[:-1] == words[len(words) - block_ngrams + 1 :]:
                        row[ngram[-1]] = -torch.inf
            values, order = torch.log_softmax(row, dim=-1).sort(descending=True, stable=True)
            best = zip(values[: 2 * width].tolist(), order[: 2 * width].tolist(), strict=True)
            candidates += [(score + value, [*words, word], new_state) for value, word in best]
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: 2 * width]
        ended += [
            (score / length**length_normalisation, words)
            for score, words, _ in candidates[:width]
            if words[-1] == END
        ]
        hypotheses = [candidate for candidate in candidates if candidate[1][-1] != END][:width]
    if not ended:
        score, words, _ = hypotheses[0]
        return words, score / max_length**length_normalisation
    score, words = max(ended, key=lambda caption: caption[0])
    return words, score


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
