"""Captions against references prepared once: METEOR's part of a scoring."""

from collections.abc import Sequence

import numpy as np

from transfer.captioning.scores.arrays import Bools, Ints, spread, starts_of
from transfer.captioning.scores.meteor import matches as stages
from transfer.captioning.scores.meteor.align import Match, align
from transfer.captioning.scores.meteor.data import MeteorData
from transfer.captioning.scores.meteor.lexicon import Lexicon
from transfer.captioning.scores.meteor.matches import Matches
from transfer.captioning.scores.meteor.score import (
    COLUMNS,
    Side,
    segment_scores,
    sufficient_stats,
    upper_bounds,
)
from transfer.captioning.scores.tokenizer import TokenIds

_SLACK = 1e-9  # of an upper bound, for rounding


class Meteor(MeteorData):
    """METEOR's data (see `MeteorData.open`), ready to score with."""

    def prepare(self, captions: TokenIds, names: Sequence[str], sizes: Ints) -> "MeteorReferences":
        """Prepare references.

        Args:
            captions: all of them, image by image, as the tokenizer cut them.
            names: the words by number.
            sizes: (I,) how many each image has.
        """
        return MeteorReferences(self, captions, names, sizes)


class MeteorReferences:
    """References as METEOR compares them; see `Meteor.prepare`."""

    def __init__(
        self, data: MeteorData, captions: TokenIds, names: Sequence[str], sizes: Ints
    ) -> None:
        self._index, self._lexicon = data.index, Lexicon(data)
        self._references = self._lexicon.encode(captions, names)
        self._sizes, self._starts = sizes, starts_of(sizes)
        spans = stages.find_phrases(self._references, self._lexicon.phrase_word, data.index)
        image = np.repeat(np.arange(len(sizes)), sizes)
        self._phrases = stages.ReferencePhrases(spans, image, data.index)

    def sufficient_stats(self, captions: TokenIds, names: Sequence[str], image: Ints) -> Ints:
        """(C, 23) METEOR's counts of each caption beside the reference that suits it best.

        Args:
            captions: C captions, cut by the tokenizer.
            names: the words by number: those given before, and new ones behind them.
            image: (C,) the image of each.
        """
        lexicon, references = self._lexicon, self._references
        captions = lexicon.encode(captions, names)
        sizes, starts = self._sizes[image], self._starts[image]
        first = starts_of(sizes)
        caption, reference = spread(starts, sizes)
        synonyms = lexicon.synonyms(captions.words, references.words)
        words, identical = stages.match_words(
            captions, references, caption, reference, lexicon.stem, synonyms
        )
        spans = stages.find_phrases(captions, lexicon.phrase_word, self._index)
        phrases = self._phrases.match(spans, image, first, starts)
        one, two = (
            Side(
                starts_of(sentences.counts)[sentence],
                sentences.counts[sentence],
                lexicon.is_function[sentences.words],
            )
            for sentences, sentence in ((captions, caption), (references, reference))
        )
        return _best_stats(stages.merge(words, phrases, identical), one, two, caption, first)


def _best_stats(matches: Matches, one: Side, two: Side, caption: Ints, first: Ints) -> Ints:
    """(C, 23) the counts of each caption's best pair, the first of equal ones.

    Pairs are aligned in rounds, of each caption that with the highest upper bound, and only as long
    as one may score more than the best so far.

    Args:
        matches: of P pairs.
        one: their captions.
        two: their references.
        caption: (P,) the caption of each, ascending.
        first: (C,) the first pair of each caption.
    """
    definite = stages.find_definite(matches, one.counts, two.counts)
    is_open = np.bincount(matches.pair[~definite], minlength=len(caption)) > 0
    rows = np.zeros((len(caption), COLUMNS), np.int64)
    scores = np.full(len(caption), -1.0)
    bounds = upper_bounds(matches, one, two)
    pairs: Ints = np.flatnonzero(~is_open)  # nothing to search there: they come first, all of them
    for _ in range(1 + int(np.bincount(caption).max(initial=0))):
        taken = _align(matches, definite, pairs[is_open[pairs]])
        part = matches.take(taken & np.isin(matches.pair, pairs))
        part = part._replace(pair=np.searchsorted(pairs, part.pair))
        rows[pairs] = sufficient_stats(part, one.take(pairs), two.take(pairs))
        scores[pairs] = segment_scores(rows[pairs])
        bounds[pairs] = -1
        best = np.maximum.reduceat(scores, first)[caption]
        hope = np.where(bounds >= best - _SLACK, bounds, -1)
        pairs = _first_of_each(
            caption, (hope >= 0) & (hope == np.maximum.reduceat(hope, first)[caption])
        )
    return rows[_first_of_each(caption, scores == np.maximum.reduceat(scores, first)[caption])]


def _first_of_each(caption: Ints, flags: Bools) -> Ints:
    """Of each caption that has any, the first pair with a flag."""
    pairs = np.flatnonzero(flags)
    return pairs[np.unique(caption[pairs], return_index=True)[1]]


def _align(matches: Matches, definite: Bools, pairs: Ints) -> Bools:
    """(M,) which matches the alignments of some pairs take, beside those that stand anyway."""
    taken = definite.copy()
    rows = np.flatnonzero(np.isin(matches.pair, pairs))
    part = matches.take(rows)
    share = np.where(part.stage == stages.EXACT, 1, 2)  # the search counts the others for half
    columns = (
        part.start_two.tolist(),
        part.start_one.tolist(),
        (part.start_two + part.length_two).tolist(),
        (part.start_one + part.length_one).tolist(),
        _bits(part.start_one, part.length_one),
        _bits(part.start_two, part.length_two),
        (part.length_one // share + part.length_two // share).tolist(),
        definite[rows].tolist(),
    )
    possible = list(map(Match._make, zip(*columns, strict=True)))
    borders = [np.searchsorted(part.pair, pairs, side=side).tolist() for side in ("left", "right")]
    for begin, end in zip(*borders, strict=True):
        taken[rows[[begin + index for index in align(possible[begin:end])]]] = True
    return taken


def _bits(starts: Ints, lengths: Ints) -> list[int]:
    """Ranges of words as bits of integers."""
    return [
        ((1 << n) - 1) << start for start, n in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
