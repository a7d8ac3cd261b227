"""METEOR 1.5 with its English parameters (Denkowski and Lavie, WMT 2014), from matches to scores.

    weighted precision and recall, F = P R / (0.85 P + 0.15 R)
    score = F (1 - 0.6 (chunks / matched words) ** 0.2)

Content words weigh 0.75, function words 0.25; exact, stem, synonym and paraphrase matches weigh 1,
0.6, 0.8 and 0.6. Of several references the best counts. The corpus value is not the mean of the
segments: it comes from the sums of their counts.
"""

from dataclasses import dataclass

import numpy as np

from transfer.captioning.scores.arrays import Bools, Floats, Ints, changes, starts_of
from transfer.captioning.scores.meteor.matches import Matches, covering
from transfer.captioning.scores.words import Captions

WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75

# columns of a row of statistics: words and function words of both sentences; by stage matched
# content and function words of both; chunks; matched words of both
COLUMNS = 23
_CONTENT_ONE, _CONTENT_TWO, _FUNCTION_ONE, _FUNCTION_TWO = (
    np.arange(4 + kind, 20, 4) for kind in range(4)
)


@dataclass(frozen=True)
class Side:
    """One side of P pairs: its sentences, and which of them each pair has."""

    sentences: Captions
    sentence: Ints
    """(P,)"""
    is_function: Bools
    """(T,) of each word of the sentences, one behind the other."""

    def take(self, pairs: Ints) -> "Side":
        """The side of some of the pairs."""
        return Side(self.sentences, self.sentence[pairs], self.is_function)

    @property
    def counts(self) -> Ints:
        """(P,) words."""
        return self.sentences.counts[self.sentence]

    @property
    def heads(self) -> Ints:
        """(P,) where the words begin."""
        return starts_of(self.sentences.counts)[self.sentence]

    @property
    def starts(self) -> Ints:
        """(P,) where a pair's words begin when the words of all pairs stand in a row."""
        return starts_of(self.counts)

    @property
    def flags(self) -> Bools:
        """Which of the words of all pairs in a row are function words."""
        places, _ = covering(np.zeros(len(self.sentence), np.int64), self.counts, self.heads)
        return self.is_function[places]

    @property
    def functions(self) -> Ints:
        """(P,) function words."""
        before = np.concatenate([[0], np.cumsum(self.is_function)])
        return before[self.heads + self.counts] - before[self.heads]


def statistics(taken: Matches, one: Side, two: Side) -> Ints:
    """(P, 23) what METEOR counts of each pair of sentences.

    `taken` are the matches of the alignments, sorted by pair and place in the second sentence.
    """
    num_pairs = len(one.sentence)
    rows = np.zeros((num_pairs, COLUMNS), np.int64)
    for number, (side, starts, lengths) in enumerate(
        ((one, taken.start_one, taken.length_one), (two, taken.start_two, taken.length_two))
    ):
        rows[:, number], rows[:, 2 + number] = side.counts, side.functions
        places, row = covering(starts, lengths, side.heads[taken.pair])
        column = 4 + 4 * taken.stage[row] + 2 * side.is_function[places] + number
        cells = np.bincount(taken.pair[row] * COLUMNS + column, minlength=num_pairs * COLUMNS)
        rows += cells.reshape(num_pairs, COLUMNS)
        rows[:, 21 + number] = np.bincount(taken.pair, lengths, num_pairs)
    is_new = changes(taken.pair)  # a chunk begins
    is_new[1:] |= (taken.start_one[1:] != (taken.start_one + taken.length_one)[:-1]) | (
        taken.start_two[1:] != (taken.start_two + taken.length_two)[:-1]
    )
    rows[:, 20] = np.bincount(taken.pair[is_new], minlength=num_pairs)
    return rows


def promises(found: Matches, one: Side, two: Side) -> Floats:
    """(P,) an upper bound of each pair's score: every word in its best match, in one chunk."""
    shares, matched = [], np.zeros(len(one.sentence))
    for side, starts, lengths in (
        (one, found.start_one, found.length_one),
        (two, found.start_two, found.length_two),
    ):
        places, row = covering(starts, lengths, side.starts[found.pair])
        weight = np.zeros(int(side.counts.sum()))
        np.maximum.at(weight, places, WEIGHTS[found.stage[row]])
        importance = np.where(side.flags, 1 - _DELTA, _DELTA)
        pair = np.repeat(np.arange(len(one.sentence)), side.counts)
        above = np.bincount(pair, weight * importance, len(one.sentence))
        below = np.bincount(pair, importance, len(one.sentence))
        shares.append(np.divide(above, below, out=np.zeros(len(below)), where=below > 0))
        matched += np.bincount(pair, weight > 0, len(one.sentence)) / 2
    total = (one.counts + two.counts) / 2
    least = np.where(matched < total, _GAMMA / np.maximum(matched, 1) ** _BETA, 0)
    return _mean(*shares) * (1 - least)


def corpus_scores(rows: Ints, weights: Floats) -> Floats:
    """(D,) the scores of corpora that hold each segment as often as `weights` (D, N) says.

    Chunks of perfect segments are left out of the sum, as in METEOR.
    """
    rows = rows.copy()
    rows[_is_perfect(rows), 20] = 0
    return segment_scores((weights @ rows).astype(np.int64))


def _is_perfect(rows: Ints) -> Bools:
    return (rows[:, 20] == 1) & (rows[:, 21] == rows[:, 0]) & (rows[:, 22] == rows[:, 1])


def segment_scores(rows: Ints) -> Floats:
    """(P,) the score of each row of statistics."""
    one, two, function_one, function_two = rows[:, :4].T
    precision = _share(rows[:, _CONTENT_ONE], rows[:, _FUNCTION_ONE], one, function_one)
    recall = _share(rows[:, _CONTENT_TWO], rows[:, _FUNCTION_TWO], two, function_two)
    chunks, matched = rows[:, 20], (rows[:, 21] + rows[:, 22]) / 2
    broken = np.divide(chunks, matched, out=np.zeros(len(rows)), where=matched > 0)
    return _mean(precision, recall) * (1 - np.where(_is_perfect(rows), 0, _GAMMA * broken**_BETA))


def _mean(precision: Floats, recall: Floats) -> Floats:
    some = (precision > 0) & (recall > 0)
    precision, recall = np.where(some, precision, 1), np.where(some, recall, 1)
    return np.where(some, 1 / ((1 - _ALPHA) / precision + _ALPHA / recall), 0)


def _share(content: Ints, function: Ints, words: Ints, function_words: Ints) -> Floats:
    """Weighted matches over weighted words."""
    above = (WEIGHTS * (_DELTA * content + (1 - _DELTA) * function)).sum(axis=1)
    below = _DELTA * (words - function_words) + (1 - _DELTA) * function_words
    return np.divide(above, below, out=np.zeros(len(words)), where=below > 0)
