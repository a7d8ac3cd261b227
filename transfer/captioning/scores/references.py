"""References prepared once, to score captions against them again and again.

    prepared = References({1: ["A dog runs.", ...], ...})
    prepared.score({1: "a dog running", ...})          after every epoch
    prepared.cider_d([1, 1, 2], [caption, ...])        rewards, several captions an image
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import UserError
from transfer.captioning.scores import bleu, cider
from transfer.captioning.scores.frequencies import DocumentFrequencies
from transfer.captioning.scores.index import Index, Matches, Pairs
from transfer.captioning.scores.rouge import rouge_l
from transfer.captioning.scores.words import Captions, Ints, Words

Floats = NDArray[np.float64]
Id = TypeVar("Id", bound=Hashable)
BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")


@dataclass(frozen=True)
class Scores(Generic[Id]):
    """Fractions in [0, 1], but CIDEr in [0, 10]."""

    corpus: dict[str, float]
    """{"Bleu_1", ..., "Bleu_4", "ROUGE_L", "CIDEr"}, and "METEOR" where it was asked for."""
    per_image: dict[Id, dict[str, float]]
    """The same for each image."""


@dataclass(frozen=True)
class Rows:
    """The scores of captions, a row each, and what the corpus values are made of."""

    bleu: Ints
    """(C, 10) see `bleu.statistics`."""
    rouge: Floats
    """(C,)"""
    cider: Floats
    """(C,)"""


class References(Generic[Id]):
    """The references of a set of images, prepared.

    Args:
        references: {id: [caption, ...]}, at least one caption an image.
        frequencies: document frequencies for CIDEr from a larger corpus; by default they come from
            these references, all of them, whichever images are scored later.
        tokenized: the captions are cut already, words between single spaces (for rewards on a
            captioner's own words: add the end token to both sides as a word).

    Raises:
        UserError: no images, an image without captions, or something that is no text.
    """

    def __init__(
        self,
        references: Mapping[Id, Sequence[str]],
        *,
        frequencies: DocumentFrequencies | None = None,
        tokenized: bool = False,
    ) -> None:
        check_references(references)
        self.captions: dict[Id, tuple[str, ...]] = {
            image_id: tuple(captions) for image_id, captions in references.items()
        }
        self._places = {image_id: place for place, image_id in enumerate(self.captions)}
        self._tokenized = tokenized
        flat = [caption for captions in self.captions.values() for caption in captions]
        self._words = Words()
        self._whole = self._words.cut(flat, tokenized)
        split = self._words.split(self._whole)
        # words by alphabet: sums do not depend on the order of images
        self._names = sorted(self._words)
        numbers = np.fromiter(map(self._words.__getitem__, self._names), np.int64)
        self._rank = np.empty(len(numbers), np.int64)
        self._rank[numbers] = np.arange(len(numbers))
        self._index = Index(
            Captions(self._rank[split.words], split.counts),
            np.array([len(captions) for captions in self.captions.values()]),
            self._names,
            frequencies,
        )

    def __len__(self) -> int:
        return len(self.captions)

    def score(self, hypotheses: Mapping[Id, str]) -> Scores[Id]:
        """Score one raw caption for each image, or for some of the images.

        Raises:
            UserError: no captions, one whose id has no references, or one that is no text.
        """
        check_hypotheses(hypotheses, self.captions)
        return summarise(hypotheses, self.rows(list(hypotheses), list(hypotheses.values())))

    def cider_d(self, ids: Sequence[Id], captions: Sequence[str]) -> Floats:
        """(C,) CIDEr-D of each caption, in [0, 10]: rewards. An id may come several times."""
        return self._cider(ids, captions, clipped=True)

    def cider_plain(self, ids: Sequence[Id], captions: Sequence[str]) -> Floats:
        """(C,) CIDEr of each caption without clipping and length penalty, in [0, 10]."""
        return self._cider(ids, captions, clipped=False)

    def rows(self, ids: Sequence[Id], captions: Sequence[str]) -> Rows:
        """All scores of captions; an id may come several times."""
        said = self._prepare(ids, captions)
        pairs, matches = self._match(said, clipped=True)
        wanted = self._index.counts[pairs.wanted]
        return Rows(
            bleu.statistics(said.split.counts, wanted, pairs.said, matches.counts),
            rouge_l(said.whole, self._whole, pairs.said, pairs.wanted),
            self._average(said, pairs, matches, clipped=True),
        )

    def _cider(self, ids: Sequence[Id], captions: Sequence[str], clipped: bool) -> Floats:
        said = self._prepare(ids, captions)
        return self._average(said, *self._match(said, clipped), clipped)

    def _match(self, said: "_Said", clipped: bool) -> tuple[Pairs, Matches]:
        pairs = self._index.pairs(said.image)
        return pairs, self._index.match(said.split, said.image, pairs, said.unseen, clipped)

    def _average(self, said: "_Said", pairs: Pairs, matches: Matches, clipped: bool) -> Floats:
        """(C,) CIDEr from what captions share with each of their references."""
        own, wanted = (np.maximum(counts - 1, 0) for counts in (said.split.counts, self._index.counts))
        similar = cider.similarity(
            matches.products,
            matches.norms[pairs.said],
            self._index.norms[pairs.wanted],
            own[pairs.said] - wanted[pairs.wanted] if clipped else None,
        )
        return np.bincount(pairs.said, similar, len(own)) / self._index.sizes[said.image]

    def _prepare(self, ids: Sequence[Id], captions: Sequence[str]) -> "_Said":
        image = np.fromiter((self._places[image_id] for image_id in ids), np.int64, len(ids))
        whole = self._words.cut(captions, self._tokenized)
        split = self._words.split(whole)
        known = len(self._rank)
        new = np.unique(split.words[split.words >= known])
        rank, unseen = self._rank, []
        if len(new):
            names = list(self._words)
            order = sorted(range(len(new)), key=lambda place: names[new[place]])
            unseen = [names[number] for number in new[order]]
            rank = np.concatenate([rank, np.zeros(len(names) - known, np.int64)])
            rank[new[order]] = known + np.arange(len(new))
        return _Said(image, whole, Captions(rank[split.words], split.counts), unseen)


@dataclass(frozen=True)
class _Said:
    """Captions to score, as numbers."""

    image: Ints
    """(C,) the place of each caption's image."""
    whole: Captions
    """As ROUGE-L compares them."""
    split: Captions
    """As BLEU and CIDEr count them, words numbered by alphabet, those of the references first."""
    unseen: list[str]
    """The words that stand in no reference, numbered behind the others."""


def summarise(ids: Iterable[Id], rows: Rows) -> Scores[Id]:
    """The scores of a corpus and of its images."""
    columns = [*bleu.bleu(rows.bleu).T.tolist(), rows.rouge.tolist(), rows.cider.tolist()]
    corpus = bleu.bleu(rows.bleu.sum(axis=0, keepdims=True))[0].tolist()
    # exact sums: the order of images does not matter
    corpus += [math.fsum(column) / len(column) for column in columns[4:]]
    per_image = {
        image_id: {
            "Bleu_1": one, "Bleu_2": two, "Bleu_3": three, "Bleu_4": four,
            "ROUGE_L": rouge, "CIDEr": consensus,
        }
        for image_id, one, two, three, four, rouge, consensus in zip(ids, *columns, strict=True)
    }  # fmt: skip
    return Scores(dict(zip((*BLEU, "ROUGE_L", "CIDEr"), corpus, strict=True)), per_image)


def check_references(references: Mapping[Id, Sequence[str]]) -> None:
    """Raise UserError where there is nothing to compare with."""
    if not references:
        raise UserError("there are no references")
    for image_id, captions in references.items():
        if isinstance(captions, str) or not {*map(type, captions)} <= {str}:
            raise UserError(
                f"the references of id {image_id!r} are {captions!r:.80}; expected a list of texts"
            )
        if not captions:
            raise UserError(f"id {image_id!r} has no reference captions")


def check_hypotheses(hypotheses: Mapping[Id, str], references: Mapping[Id, Sequence[str]]) -> None:
    """Raise UserError where a caption cannot be scored."""
    if not hypotheses:
        raise UserError("there are no captions to score")
    if lone := [image_id for image_id in hypotheses if not references.get(image_id)]:
        raise UserError(f"{len(lone)} captions have no reference, the first has id {lone[0]!r}")
    for image_id, caption in hypotheses.items():
        if type(caption) is not str:
            raise UserError(
                f"the caption of id {image_id!r} is {caption!r:.80}; expected one text"
            )
