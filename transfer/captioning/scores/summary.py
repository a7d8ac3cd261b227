"""From sufficient statistics to the scores of images and of a corpus."""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from pretrain.errors import UsageError
from transfer.captioning.scores.arrays import Floats, Ints
from transfer.captioning.scores.bleu import bleu
from transfer.captioning.scores.meteor.score import corpus_scores as meteor_scores
from transfer.captioning.scores.meteor.score import segment_scores

Id = TypeVar("Id", bound=Hashable)
NAMES = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr")
METEOR = "METEOR"


@dataclass(frozen=True)
class Scores(Generic[Id]):
    """Fractions in [0, 1], but CIDEr in [0, 10]."""

    corpus: dict[str, float]
    """{"Bleu_1", ..., "Bleu_4", "ROUGE_L", "CIDEr"}, and "METEOR" where it was asked for."""
    per_image: dict[Id, dict[str, float]]
    """The same for each image."""


@dataclass(frozen=True)
class SufficientStats:
    """What the scores of C captions are made of, a row each."""

    bleu: Ints
    """(C, 10) see `bleu.sufficient_stats`."""
    rouge: Floats
    """(C,)"""
    cider: Floats
    """(C,)"""
    meteor: Ints | None
    """(C, 23) see `meteor.score.sufficient_stats`; None without METEOR."""

    def __len__(self) -> int:
        return len(self.rouge)

    @staticmethod
    def join(parts: Sequence["SufficientStats"]) -> "SufficientStats":
        """Rows behind each other.

        Raises:
            UsageError: there are none.
        """
        if not parts:
            raise UsageError("there are no captions to score")
        meteor = [part.meteor for part in parts if part.meteor is not None]
        return SufficientStats(
            np.concatenate([part.bleu for part in parts]),
            np.concatenate([part.rouge for part in parts]),
            np.concatenate([part.cider for part in parts]),
            np.concatenate(meteor) if meteor else None,
        )


def corpus_scores(stats: SufficientStats) -> dict[str, float]:
    """The scores of a corpus of images.

    BLEU and METEOR come from summed counts; ROUGE-L and CIDEr are means, summed exactly, so that
    the order of images does not matter.
    """
    values = bleu(stats.bleu.sum(axis=0, keepdims=True))[0].tolist()
    values += [math.fsum(column.tolist()) / len(stats) for column in (stats.rouge, stats.cider)]
    scores = dict(zip(NAMES, values, strict=True))
    if stats.meteor is not None:
        scores[METEOR] = float(meteor_scores(stats.meteor, np.ones((1, len(stats))))[0])
    return scores


def compute_scores(ids: Iterable[Id], stats: SufficientStats) -> Scores[Id]:
    """The scores of a corpus and of each of its images."""
    columns = [*bleu(stats.bleu).T.tolist(), stats.rouge.tolist(), stats.cider.tolist()]
    names: tuple[str, ...] = NAMES
    if stats.meteor is not None:
        columns.append(segment_scores(stats.meteor).tolist())
        names = (*NAMES, METEOR)
    rows = zip(*columns, strict=True)
    per_image = {
        image_id: dict(zip(names, row, strict=True))
        for image_id, row in zip(ids, rows, strict=True)
    }
    return Scores(corpus_scores(stats), per_image)
