"""Beam search as it is usually written: one image after another. The tests' reference too."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from transfer.captioning.vocabulary import END, START, UNSAYABLE


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
    memory, state = decoder.begin(feature[None])
    hypotheses: list[tuple[float, list[int], Any]] = [(0.0, [], state)]
    done: list[tuple[float, list[int]]] = []
    for length in range(1, max_length + 1):
        candidates = []
        for score, words, state in hypotheses:
            last = torch.tensor([[words[-1] if words else START]])
            logits, after = decoder.step(last, memory, state)
            row = logits[0, 0]
            row[list(UNSAYABLE)] = -torch.inf
            if block_ngrams and len(words) >= block_ngrams:
                for start in range(len(words) - block_ngrams + 1):
                    gram = words[start : start + block_ngrams]
                    if gram[:-1] == words[len(words) - block_ngrams + 1 :]:
                        row[gram[-1]] = -torch.inf
            logs = torch.log_softmax(row, dim=-1)
            values, said = logs.sort(descending=True, stable=True)
            candidates += [
                (score + value, words, word, after)
                for value, word in zip(
                    values[: 2 * width].tolist(), said[: 2 * width].tolist(), strict=True
                )
            ]
        candidates.sort(key=lambda candidate: -candidate[0])
        hypotheses = []
        for place, (score, words, word, after) in enumerate(candidates[: 2 * width]):
            if word != END:
                hypotheses.append((score, [*words, word], after))
            elif place < width:
                done.append((score / length**length_normalisation, [*words, END]))
        hypotheses = hypotheses[:width]
    if not done:
        score, words, _ = hypotheses[0]
        return words, score / max_length**length_normalisation
    score, words = max(done, key=lambda entry: entry[0])
    return words, score


def image_by_image(decoder: Any, feature: Tensor, width: int, max_length: int) -> list[int]:
    """The caption of one image, its hypotheses stepped as one batch, as sgrvinod's tutorial does.

    The beam grows narrower with each caption that ends.
    """
    memory, state = decoder.begin(feature[None])
    state = tuple(part.expand(1, width, *part.shape[2:]) for part in state)
    words = torch.full((1, width), START)
    said = torch.zeros(width, 0, dtype=torch.long)
    scores = torch.zeros(width, 1)
    done: list[tuple[float, list[int]]] = []
    beam = width
    for length in range(1, max_length + 1):
        logits, state = decoder.step(words, memory, state)
        logits[..., list(UNSAYABLE)] = -torch.inf
        logs = scores + torch.log_softmax(logits[0], dim=-1)
        flat = logs[0] if length == 1 else logs.flatten()
        top, found = flat.topk(beam)
        parent, word = found // logits.shape[-1], found % logits.shape[-1]
        said = torch.cat([said[parent], word[:, None]], dim=1)
        going = [place for place, w in enumerate(word.tolist()) if w != END]
        for place, w in enumerate(word.tolist()):
            if w == END:
                done.append((float(top[place]), said[place].tolist()))
        beam = len(going)
        if not beam:
            break
        said, scores, words = said[going], top[going, None], word[going][None]
        state = tuple(part[:, parent[going]] for part in state)
    if not done:
        return list(said[0].tolist())
    return max(done, key=lambda entry: entry[0])[1]


def every_image(search: Callable[[Tensor], object], features: Tensor) -> Callable[[], list[object]]:
    """A loop over images."""

    def loop() -> list[object]:
        with torch.inference_mode():
            return [search(feature) for feature in features]

    return loop
