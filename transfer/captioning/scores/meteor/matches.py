"""All possible matches of many pairs of sentences, stage by stage, as one table.

Letters: P pairs, M matches. Sentence one is the caption, sentence two the reference.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from transfer.captioning.scores.arrays import Bools, Ints, spread, starts_of
from transfer.captioning.scores.meteor.vocabulary import WordPairs
from transfer.captioning.scores.words import Captions

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
_CELLS = 1 << 19  # of word against word at a time


@dataclass(frozen=True)
class Matches:
    """Rows sorted by pair, then by where they begin in sentence two, then as they were found."""

    pair: Ints
    start_one: Ints
    length_one: Ints
    start_two: Ints
    length_two: Ints
    stage: Ints

    def __len__(self) -> int:
        return len(self.pair)

    def take(self, places: Ints | Bools) -> "Matches":
        """Some of the rows."""
        return Matches(
            self.pair[places],
            self.start_one[places],
            self.length_one[places],
            self.start_two[places],
            self.length_two[places],
            self.stage[places],
        )


def of_words(
    one: Captions,
    two: Captions,
    pair_one: Ints,
    pair_two: Ints,
    stem: Ints,
    synonyms: WordPairs,
) -> tuple[Matches, Bools]:
    """Matches of single words: exact, by stem, by synonym; and (P,) which pairs are identical.

    Equal words match exactly only; a pair of words with one stem and a common synset matches
    twice.
    """
    parts = []
    counts_one, counts_two = one.counts[pair_one], two.counts[pair_two]
    heads_one = starts_of(one.counts)[pair_one]
    heads_two = starts_of(two.counts)[pair_two]
    same_place = np.zeros(len(pair_one), np.int64)
    cells = np.cumsum(counts_one * counts_two)
    total = int(cells[-1]) if len(cells) else 0
    borders = [0, *np.searchsorted(cells, np.arange(_CELLS, total, _CELLS)).tolist(), len(cells)]
    for begin, end in pairwise(borders):
        block = slice(begin, end)
        inside, cell = spread(
            np.zeros(end - begin, np.int64), counts_one[block] * counts_two[block]
        )
        width = counts_one[block][inside]
        place_two = cell // width
        place_one = cell - place_two * width
        word_one = one.words[heads_one[block][inside] + place_one]
        word_two = two.words[heads_two[block][inside] + place_two]
        exact = word_one == word_two
        stems = (stem[word_one] == stem[word_two]) & ~exact
        synonym = synonyms.holds(word_one, word_two)
        diagonal = inside[exact & (place_one == place_two)]
        same_place[block] = np.bincount(diagonal, minlength=end - begin)
        for stage, flags in ((EXACT, exact), (STEM, stems), (SYNONYM, synonym)):
            found = np.flatnonzero(flags)
            ones = np.ones(len(found), np.int64)
            place = (inside[found] + begin, place_one[found], ones, place_two[found], ones)
            parts.append((*place, ones * stage))
    matches = Matches(*[np.concatenate(column) for column in zip(*parts, strict=True)])
    return matches, (same_place == counts_one) & (counts_one == counts_two)


def merge(words: Matches, phrases: Matches, identical: Bools) -> Matches:
    """Both tables as one, in order; identical sentences match exactly only."""
    words = words.take((words.stage == EXACT) | ~identical[words.pair])
    phrases = phrases.take(~identical[phrases.pair])
    columns = [
        np.concatenate([getattr(words, name), getattr(phrases, name)])
        for name in Matches.__dataclass_fields__
    ]
    longest = int(columns[3].max(initial=0)) + 1
    order = np.argsort((columns[0] * longest + columns[3]) * 4 + columns[5], kind="stable")
    return Matches(*[column[order] for column in columns])


def covering(starts: Ints, lengths: Ints, heads: Ints) -> tuple[Ints, Ints]:
    """The places that matches cover among all sentences' words, and the match of each."""
    row, places = spread(heads + starts, lengths)
    return places, row


def definite(matches: Matches, counts_one: Ints, counts_two: Ints) -> Bools:
    """(M,) which matches touch no word that another one of their pair touches.

    Args:
        matches: of P pairs.
        counts_one: (P,) words of the first sentences.
        counts_two: (P,) of the second ones.
    """
    result = np.ones(len(matches), bool)
    for starts, lengths, counts in (
        (matches.start_one, matches.length_one, counts_one),
        (matches.start_two, matches.length_two, counts_two),
    ):
        heads = starts_of(counts)[matches.pair]
        places, row = covering(starts, lengths, heads)
        touched = np.bincount(places, minlength=int(counts.sum()))
        result[row[touched[places] > 1]] = False
    return result
