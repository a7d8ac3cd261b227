"""Captions against references prepared once: METEOR's part of a scoring."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfer.captioning.scores.arrays import Bools, Ints, spread, starts_of
from transfer.captioning.scores.meteor import matches as stages
from transfer.captioning.scores.meteor.align import Match, align
from transfer.captioning.scores.meteor.data import Data
from transfer.captioning.scores.meteor.matches import Matches
from transfer.captioning.scores.meteor.phrases import ReferencePhrases, find_spans
from transfer.captioning.scores.meteor.score import (
    COLUMNS,
    Side,
    promises,
    segment_scores,
    statistics,
)
from transfer.captioning.scores.meteor.vocabulary import Vocabulary
from transfer.captioning.scores.words import Captions

_SLACK = 1e-9  # of a promise, for rounding


class Meteor:
    """METEOR's data, ready to score with."""

    def __init__(self, data: Data) -> None:
        self.data = data

    @staticmethod
    def open(
        folder: Path | None = None, log: Callable[[str], None] = lambda text: None
    ) -> "Meteor":
        """See `Data.open`: UsageError where there is no data."""
        return Meteor(Data.open(folder, log))

    def prepare(self, captions: Captions, names: Sequence[str], sizes: Ints) -> "MeteorReferences":
        """Prepare references.

        Args:
            captions: all of them, image by image, as the tokenizer cut them.
            names: the words by number.
            sizes: (I,) how many each image has.
        """
        return MeteorReferences(self.data, captions, names, sizes)


class MeteorReferences:
    """References as METEOR compares them."""

    def __init__(self, data: Data, captions: Captions, names: Sequence[str], sizes: Ints) -> None:
        self._data = data
        self._vocabulary = Vocabulary(data)
        self._wanted = self._vocabulary.cut(captions, names)
        self._sizes, self._starts = sizes, starts_of(sizes)
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
        first = starts_of(sizes)
        pair_said, pair_wanted = spread(self._starts[image], sizes)
        synonyms = vocabulary.synonyms(said.words, self._wanted.words)
        words, identical = stages.of_words(
            said, self._wanted, pair_said, pair_wanted, vocabulary.stem, synonyms
        )
        spans = find_spans(said, vocabulary.phrase_word, self._data)
        phrases = self._phrases.match(spans, image, first, self._starts[image])
        found = stages.merge(words, phrases, identical)
        one = Side(said, pair_said, vocabulary.is_function[said.words])
        two = Side(self._wanted, pair_wanted, vocabulary.is_function[self._wanted.words])
        return _best_rows(found, one, two, first)


def _best_rows(found: Matches, one: Side, two: Side, first: Ints) -> Ints:
    """(C, 23) the counts of each caption's best pair, the first of equal ones.

    Pairs are aligned in rounds, of each caption that which promises most, and only as long as one
    promises more than the best so far.
    """
    num_pairs = len(one.sentence)
    definite = stages.definite(found, one.counts, two.counts)
    is_open = np.bincount(found.pair[~definite], minlength=num_pairs) > 0
    rows = np.zeros((num_pairs, COLUMNS), np.int64)
    scores = np.full(num_pairs, -1.0)
    promise = promises(found, one, two)
    wanted = np.flatnonzero(~is_open)  # nothing to search there: they come first, all of them
    for _ in range(1 + int(np.bincount(one.sentence).max(initial=0))):
        taken = _align(found, definite, wanted[is_open[wanted]])
        part = found.take(taken & np.isin(found.pair, wanted))
        part = replace(part, pair=np.searchsorted(wanted, part.pair))
        rows[wanted] = statistics(part, one.take(wanted), two.take(wanted))
        scores[wanted] = segment_scores(rows[wanted])
        promise[wanted] = -1
        best = np.maximum.reduceat(scores, first)[one.sentence]
        hope = np.where(promise >= best - _SLACK, promise, -1)
        highest = np.maximum.reduceat(hope, first)[one.sentence]
        candidates = np.flatnonzero((hope == highest) & (hope >= 0))
        wanted = candidates[np.unique(one.sentence[candidates], return_index=True)[1]]
    best = np.flatnonzero(scores == np.maximum.reduceat(scores, first)[one.sentence])
    return rows[best[np.unique(one.sentence[best], return_index=True)[1]]]


def _align(found: Matches, definite: Bools, pairs: Ints) -> Bools:
    """(M,) which matches the alignments of some pairs take, beside those that stand anyway."""
    taken = definite.copy()
    if not len(pairs):
        return taken
    rows = np.flatnonzero(np.isin(found.pair, pairs))
    part = found.take(rows)
    share = np.where(part.stage == stages.EXACT, 1, 2)  # the search counts the others for half
    ends_one, ends_two = part.start_one + part.length_one, part.start_two + part.length_two
    columns = (
        part.start_two.tolist(),
        part.start_one.tolist(),
        ends_two.tolist(),
        ends_one.tolist(),
        _bits(part.start_one, part.length_one),
        _bits(part.start_two, part.length_two),
        (part.length_one // share + part.length_two // share).tolist(),
        definite[rows].tolist(),
    )
    matches = list(map(Match._make, zip(*columns, strict=True)))
    heads = np.searchsorted(part.pair, pairs).tolist()
    chosen = []
    for begin, end in zip(heads, [*heads[1:], len(matches)], strict=True):
        chosen += [begin + place for place in align(matches[begin:end])]
    taken[rows[chosen]] = True
    return taken


def _bits(starts: Ints, lengths: Ints) -> list[int]:
    """Ranges of words as bits of integers."""
    if int((starts + lengths).max(initial=0)) < 63:
        return (((1 << lengths) - 1) << starts).tolist()
    return [
        ((1 << n) - 1) << start for start, n in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
