"""Captions against references prepared once: METEOR's part of a scoring."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from transfer.captioning.scores.meteor import matches as stages
from transfer.captioning.scores.meteor.align import Match, align
from transfer.captioning.scores.meteor.data import Data
from transfer.captioning.scores.meteor.matches import Matches
from transfer.captioning.scores.meteor.phrases import ReferencePhrases, find_spans
from transfer.captioning.scores.meteor.score import (
    Side,
    best_rows,
    corpus_score,
    segment_scores,
    statistics,
)
from transfer.captioning.scores.meteor.vocabulary import Vocabulary
from transfer.captioning.scores.pieces import Ints
from transfer.captioning.scores.words import Captions


class Meteor:
    """METEOR's data, ready to score with."""

    def __init__(self, data: Data) -> None:
        self.data = data

    @staticmethod
    def open(
        folder: Path | None = None, say: Callable[[str], None] = lambda text: None
    ) -> "Meteor":
        """See `Data.open`: UserError where there is no data."""
        return Meteor(Data.open(folder, say))

    def prepare(
        self, captions: Captions, names: Sequence[str], sizes: Ints
    ) -> "MeteorReferences":
        """Prepare references.

        Args:
            captions: all of them, image by image, as the tokenizer cut them.
            names: the words by number.
            sizes: (I,) how many each image has.
        """
        return MeteorReferences(self.data, captions, names, sizes)

    corpus = staticmethod(corpus_score)
    segments = staticmethod(segment_scores)


class MeteorReferences:
    """References as METEOR compares them."""

    def __init__(
        self, data: Data, captions: Captions, names: Sequence[str], sizes: Ints
    ) -> None:
        self._data = data
        self._vocabulary = Vocabulary(data)
        self._wanted = self._vocabulary.cut(captions, names)
        self._sizes, self._starts = sizes, np.cumsum(sizes) - sizes
        spans = find_spans(self._wanted, self._vocabulary.phrase_word, data)
        image = np.repeat(np.arange(len(sizes)), sizes)
        self._phrases = ReferencePhrases(spans, image, data)

    def rows(self, captions: Captions, names: Sequence[str], image: Ints) -> Ints:
        """(C, 23) METEOR's counts of each caption beside the reference that suits it best.

        Args:
            captions: C captions, cut by the tokenizer.
            names: the words by number: those given before, and new ones behind them.
            image: (C,) the image of each.
        """
        vocabulary = self._vocabulary
        said = vocabulary.cut(captions, names)
        sizes = self._sizes[image]
        first = np.cumsum(sizes) - sizes
        pair_said = np.repeat(np.arange(len(image)), sizes)
        pair_wanted = np.arange(len(pair_said)) + (self._starts[image] - first)[pair_said]
        synonyms = vocabulary.synonyms(said.words, self._wanted.words)
        words, identical = stages.of_words(
            said, self._wanted, pair_said, pair_wanted, vocabulary.stem, synonyms
        )
        spans = find_spans(said, vocabulary.phrase_word, self._data)
        phrases = self._phrases.match(spans, image, first, self._starts[image])
        found = stages.merge(words, phrases, identical)
        one = Side(said, pair_said, vocabulary.is_function[said.words])
        two = Side(self._wanted, pair_wanted, vocabulary.is_function[self._wanted.words])
        taken = _align_all(found, one.counts, two.counts)
        return best_rows(statistics(taken, one, two), first)


def _align_all(found: Matches, counts_one: Ints, counts_two: Ints) -> Matches:
    """The matches that the alignments take."""
    definite = stages.definite(found, counts_one, counts_two)
    taken = definite.copy()
    open_pairs = np.unique(found.pair[~definite])
    begins = np.searchsorted(found.pair, open_pairs).tolist()
    ends = np.searchsorted(found.pair, open_pairs, side="right").tolist()
    share = np.where(found.stage == stages.EXACT, 1, 2)  # the search counts the others for half
    gain = found.length_one // share + found.length_two // share
    columns = (found.start_one, found.length_one, found.start_two, found.length_two, gain, definite)
    rows = list(map(Match._make, zip(*(column.tolist() for column in columns), strict=True)))
    for begin, end, length in zip(begins, ends, counts_two[open_pairs].tolist(), strict=True):
        for place in align(rows[begin:end], length):
            taken[begin + place] = True
    return found.take(taken)
