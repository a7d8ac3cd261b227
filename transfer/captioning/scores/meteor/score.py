"""METEOR 1.5 with its English parameters (Denkowski and Lavie, WMT 2014), from matches to scores.

    weighted precision and recall, F = P R / (0.85 P + 0.15 R)
    score = F (1 - 0.6 (chunks / matched words) ** 0.2)

Content words weigh 0.75, function words 0.25; exact, stem, synonym and paraphrase matches weigh 1,
0.6, 0.8 and 0.6. Of several references the best counts. The corpus value is not the mean of the
segments: it comes from the sums of their counts.
"""

from typing import NamedTuple

import numpy as np

from transfer.captioning.scores.arrays import Bools, Floats, Ints, changes, spread, starts_of
from transfer.captioning.scores.meteor.matches import Matches

_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75

# columns of a row of statistics: words and function words of both sentences; by stage matched
# content and function words of both; chunks; matched words of both
COLUMNS = 23
_CONTENT_ONE, _CONTENT_TWO, _FUNCTION_ONE, _FUNCTION_TWO = (
    np.arange(4 + kind, 20, 4) for kind in range(4)
)


class Side(NamedTuple):
    """One side of P pairs of sentences."""

    heads: Ints
    """(P,) where the sentence's words begin among the words of all sentences."""
    counts: Ints
    """(P,) how many they are."""
    is_function: Bools
    """(T,) of the words of all sentences."""

    def take(self, pairs: Ints) -> "Side":
        """The side of some of the pairs."""
        return Side(self.heads[pairs], self.counts[pairs], self.is_function)


def sufficient_stats(taken: Matches, one: Side, two: Side) -> Ints:
    """(P, 23) what METEOR counts of each pair of sentences.

    `taken` are the matches of the alignments, sorted by pair and position in the second sentence.
    """
    num_pairs = len(one.counts)
    rows = np.zeros((num_pairs, COLUMNS), np.int64)
    for number, (side, (starts, lengths)) in enumerate(zip((one, two), taken.spans(), strict=True)):
        functions = np.append(0, np.cumsum(side.is_function))
        rows[:, number] = side.counts
        rows[:, 2 + number] = functions[side.heads + side.counts] - functions[side.heads]
        match, word = spread(side.heads[taken.pair] + starts, lengths)
        column = 4 + 4 * taken.stage[match] + 2 * side.is_function[word] + number
        np.add.at(rows, (taken.pair[match], column), 1)
        rows[:, 21 + number] = np.bincount(taken.pair, lengths, num_pairs)
    is_new = changes(taken.pair)  # a chunk begins
    for starts, lengths in taken.spans():
        is_new[1:] |= starts[1:] != (starts + lengths)[:-1]
    rows[:, 20] = np.bincount(taken.pair[is_new], minlength=num_pairs)
    return rows


def upper_bounds(matches: Matches, one: Side, two: Side) -> Floats:
    """(P,) what each pair can score at most: every word in its best match, in one chunk."""
    num_pairs = len(one.counts)
    shares, matched = [], np.zeros(num_pairs)
    for side, (starts, lengths) in zip((one, two), matches.spans(), strict=True):
        pair, word = spread(side.heads, side.counts)  # of the words of all pairs in a row
        match, position = spread(starts_of(side.counts)[matches.pair] + starts, lengths)
        weight = np.zeros(len(pair))
        np.maximum.at(weight, position, _WEIGHTS[matches.stage[match]])
        importance = np.where(side.is_function[word], 1 - _DELTA, _DELTA)
        above = np.bincount(pair, weight * importance, num_pairs)
        shares.append(_divide(above, np.bincount(pair, importance, num_pairs)))
        matched += np.bincount(pair, weight > 0, num_pairs) / 2
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


def segment_scores(rows: Ints) -> Floats:
    """(P,) the score of each row of statistics."""
    one, two, function_one, function_two = rows[:, :4].T
    precision = _share(rows[:, _CONTENT_ONE], rows[:, _FUNCTION_ONE], one, function_one)
    recall = _share(rows[:, _CONTENT_TWO], rows[:, _FUNCTION_TWO], two, function_two)
    fragments = _divide(rows[:, 20], (rows[:, 21] + rows[:, 22]) / 2)
    penalty = np.where(_is_perfect(rows), 0, _GAMMA * fragments**_BETA)
    return _mean(precision, recall) * (1 - penalty)


def _is_perfect(rows: Ints) -> Bools:
    return (rows[:, 20] == 1) & (rows[:, 21] == rows[:, 0]) & (rows[:, 22] == rows[:, 1])


def _mean(precision: Floats, recall: Floats) -> Floats:
    some = (precision > 0) & (recall > 0)
    precision, recall = np.where(some, precision, 1), np.where(some, recall, 1)
    return np.where(some, 1 / ((1 - _ALPHA) / precision + _ALPHA / recall), 0)


def _share(content: Ints, function: Ints, words: Ints, function_words: Ints) -> Floats:
    """Weighted matches over weighted words."""
    above = (_WEIGHTS * (_DELTA * content + (1 - _DELTA) * function)).sum(axis=1)
    return _divide(above, _DELTA * (words - function_words) + (1 - _DELTA) * function_words)


def _divide(above: Floats | Ints, below: Floats | Ints) -> Floats:
    """0 where `below` is 0."""
    return np.divide(above, below, out=np.zeros(len(below)), where=below > 0)
