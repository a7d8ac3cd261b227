"""From rows of counts to the scores of images and of a corpus."""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from transfer.captioning.scores.arrays import Floats, Ints
from transfer.captioning.scores.bleu import bleu
from transfer.captioning.scores.meteor.score import corpus_scores as meteor_scores
from transfer.captioning.scores.meteor.score import segment_scores

Id = TypeVar("Id", bound=Hashable)
BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")
NAMES = (*BLEU, "ROUGE_L", "CIDEr")
METEOR = "METEOR"


@dataclass(frozen=True)
class Scores(Generic[Id]):
    """Fractions in [0, 1], but CIDEr in [0, 10]."""

    corpus: dict[str, float]
    """{"Bleu_1", ..., "Bleu_4", "ROUGE_L", "CIDEr"}, and "METEOR" where it was asked for."""
    per_image: dict[Id, dict[str, float]]
    """The same for each image."""


@dataclass(frozen=True)
class Rows:
    """What the scores of C captions are made of, a row each."""

    bleu: Ints
    """(C, 10) see `bleu.statistics`."""
    rouge: Floats
    """(C,)"""
    cider: Floats
    """(C,)"""
    meteor: Ints | None
    """(C, 23) see `meteor.score.statistics`; None without METEOR."""

    def __len__(self) -> int:
        return len(self.rouge)

    def take(self, places: Ints) -> "Rows":
        """Some of the rows, or the same one several times."""
        meteor = None if self.meteor is None else self.meteor[places]
        return Rows(self.bleu[places], self.rouge[places], self.cider[places], meteor)

    @staticmethod
    def join(parts: Sequence["Rows"]) -> "Rows":
        """Rows behind each other."""
        meteor = [part.meteor for part in parts if part.meteor is not None]
        return Rows(
            np.concatenate([part.bleu for part in parts]),
            np.concatenate([part.rouge for part in parts]),
            np.concatenate([part.cider for part in parts]),
            np.concatenate(meteor) if meteor else None,
        )


def corpus_scores(rows: Rows) -> dict[str, float]:
    """The scores of a corpus of images.

    BLEU and METEOR come from summed counts; ROUGE-L and CIDEr are means, summed exactly, so that
    the order of images does not matter.
    """
    values = bleu(rows.bleu.sum(axis=0, keepdims=True))[0].tolist()
    values += [math.fsum(column.tolist()) / len(rows) for column in (rows.rouge, rows.cider)]
    scores = dict(zip(NAMES, values, strict=True))
    if rows.meteor is not None:
        scores[METEOR] = float(meteor_scores(rows.meteor, np.ones((1, len(rows))))[0])
    return scores


def summarise(ids: Iterable[Id], rows: Rows) -> Scores[Id]:
    """The scores of a corpus and of each of its images."""
    columns = [*bleu(rows.bleu).T.tolist(), rows.rouge.tolist(), rows.cider.tolist()]
    per_image = {
        image_id: {
            "Bleu_1": one, "Bleu_2": two, "Bleu_3": three, "Bleu_4": four,
            "ROUGE_L": rouge, "CIDEr": consensus,
        }
        for image_id, one, two, three, four, rouge, consensus in zip(ids, *columns, strict=True)
    }  # fmt: skip
    if rows.meteor is not None:
        segments = segment_scores(rows.meteor).tolist()
        for scores, segment in zip(per_image.values(), segments, strict=True):
            scores[METEOR] = segment
    return Scores(corpus_scores(rows), per_image)
