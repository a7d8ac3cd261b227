"""All possible matches of many pairs of sentences, stage by stage, as one table.

Letters: P pairs, M matches, S phrases in sentences. Sentence one is the caption, sentence two the
reference.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from transfer.captioning.scores.arrays import Bools, Ints, find_sorted, spread, starts_of
from transfer.captioning.scores.meteor.data import MAX_WORDS, POWERS, Arrays
from transfer.captioning.scores.meteor.lexicon import WordPairs
from transfer.captioning.scores.tokenizer import TokenIds

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
_CELLS = 1 << 19  # of word against word at a time


class Matches(NamedTuple):
    """(M,) each; sorted by pair, then by where they begin in sentence two, then as found."""

    pair: Ints
    start_one: Ints
    length_one: Ints
    start_two: Ints
    length_two: Ints
    stage: Ints

    def take(self, rows: Ints | Bools) -> "Matches":
        """Some of them."""
        return Matches(*[column[rows] for column in self])

    def spans(self) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
        """Starts and lengths in sentence one, and in sentence two."""
        return (self.start_one, self.length_one), (self.start_two, self.length_two)


def match_words(
    one: TokenIds, two: TokenIds, pair_one: Ints, pair_two: Ints, stem: Ints, synonyms: WordPairs
) -> tuple[Matches, Bools]:
    """Matches of single words: exact, by stem, by synonym; and (P,) which pairs are identical.

    Equal words match exactly only; a pair of words with one stem and a common synset matches
    twice.
    """
    parts = []
    counts_one, counts_two = one.counts[pair_one], two.counts[pair_two]
    heads_one = starts_of(one.counts)[pair_one]
    heads_two = starts_of(two.counts)[pair_two]
    same_position = np.zeros(len(pair_one), np.int64)
    sizes = counts_one * counts_two
    cells = np.cumsum(sizes)
    borders = np.searchsorted(cells, np.arange(_CELLS, sizes.sum(), _CELLS)).tolist()
    for begin, end in pairwise([0, *borders, len(cells)]):
        block = slice(begin, end)
        inside, cell = spread(np.zeros(end - begin, np.int64), sizes[block])
        start_two, start_one = np.divmod(cell, counts_one[block][inside])
        word_one = one.words[heads_one[block][inside] + start_one]
        word_two = two.words[heads_two[block][inside] + start_two]
        exact = word_one == word_two
        diagonal = inside[exact & (start_one == start_two)]
        same_position[block] = np.bincount(diagonal, minlength=end - begin)
        for stage, flags in (
            (EXACT, exact),
            (STEM, (stem[word_one] == stem[word_two]) & ~exact),
            (SYNONYM, synonyms.contains(word_one, word_two)),
        ):
            hits = np.flatnonzero(flags)
            ones = np.ones(len(hits), np.int64)
            spans = (start_one[hits], ones, start_two[hits], ones)
            parts.append(Matches(inside[hits] + begin, *spans, ones * stage))
    identical = (same_position == counts_one) & (counts_one == counts_two)
    return Matches(*map(np.concatenate, zip(*parts, strict=True))), identical


def merge(words: Matches, phrases: Matches, identical: Bools) -> Matches:
    """Both tables as one, in order; identical sentences match exactly only."""
    words = words.take((words.stage == EXACT) | ~identical[words.pair])
    phrases = phrases.take(~identical[phrases.pair])
    both = Matches(*map(np.concatenate, zip(words, phrases, strict=True)))
    longest = int(both.start_two.max(initial=0)) + 1
    keys = (both.pair * longest + both.start_two) * 4 + both.stage
    return both.take(np.argsort(keys, kind="stable"))


def find_definite(matches: Matches, counts_one: Ints, counts_two: Ints) -> Bools:
    """(M,) which matches touch no word that another one of their pair touches.

    Args:
        matches: of P pairs.
        counts_one: (P,) words of the first sentences.
        counts_two: (P,) of the second ones.
    """
    result = np.ones(len(matches.pair), bool)
    for (starts, lengths), counts in zip(matches.spans(), (counts_one, counts_two), strict=True):
        row, position = spread(starts_of(counts)[matches.pair] + starts, lengths)
        touched = np.bincount(position, minlength=int(counts.sum()))
        result[row[touched[position] > 1]] = False
    return result


# ---- paraphrases: phrases of captions and references that METEOR's table connects


class PhraseSpans(NamedTuple):
    """(S,) each: where in some sentences phrases of the table stand."""

    sentence: Ints
    start: Ints
    length: Ints
    phrase: Ints


def find_phrases(sentences: TokenIds, phrase_word: Ints, index: Arrays) -> PhraseSpans:
    """All phrases of the table in sentences.

    Args:
        sentences: words numbered by a lexicon.
        phrase_word: of each word of the lexicon, its number in phrases, 0 for none.
        index: the table.
    """
    sentence, start = spread(np.zeros(len(sentences), np.int64), sentences.counts)
    ends = np.cumsum(sentences.counts)[sentence]
    words = np.append(phrase_word[sentences.words], np.zeros(MAX_WORDS, np.uint64))
    hashes = np.zeros(len(sentence), np.uint64)
    begin = np.arange(len(sentence))
    parts = []
    for length in range(1, MAX_WORDS + 1):
        last = begin + length - 1
        possible = (words[last] > 0) & (last < ends[begin])
        begin, last = begin[possible], last[possible]
        hashes[begin] += words[last] * POWERS[length - 1]
        phrase = find_sorted(index["phrases"], hashes[begin])
        known = phrase >= 0
        at = begin[known]
        parts.append((sentence[at], start[at], np.full(len(at), length), phrase[known]))
    return PhraseSpans(*map(np.concatenate, zip(*parts, strict=True)))


class ReferencePhrases:
    """The phrases of all references, to be looked up by image."""

    def __init__(self, spans: PhraseSpans, image: Ints, index: Arrays) -> None:
        """Arrange them.

        Args:
            spans: of the references.
            image: the image of each reference.
            index: the table.
        """
        self._index, self._num_phrases = index, len(index["phrases"])
        keys = image[spans.sentence] * self._num_phrases + spans.phrase
        order = np.argsort(keys, kind="stable")
        self._keys, self._spans = keys[order], PhraseSpans(*[column[order] for column in spans])
        self._is_present = np.zeros(self._num_phrases, bool)
        self._is_present[spans.phrase] = True

    def match(self, spans: PhraseSpans, image: Ints, first_pair: Ints, first: Ints) -> Matches:
        """The matches of captions with the references of their images.

        METEOR looks up paraphrases of the reference's phrases in the caption first, then those of
        the caption's phrases in the reference; what both find counts as two matches.

        Args:
            spans: the phrases of captions.
            image: (C,) the image of each caption.
            first_pair: (C,) the first pair of each caption; its pairs are its image's references.
            first: (C,) the first reference of its image.
        """
        parts = []
        for side in ("target", "source"):  # what the caption's phrase is in the table
            span, entry, other = self._related(spans.phrase, side)
            keys = image[spans.sentence[span]] * self._num_phrases + other
            starts = np.searchsorted(self._keys, keys)
            sizes = np.searchsorted(self._keys, keys, side="right") - starts
            row, span_two = spread(starts, sizes)
            entry, span = entry[row], span[row]
            caption, start_one, length_one, _ = (column[span] for column in spans)
            reference, start_two, length_two, _ = (column[span_two] for column in self._spans)
            pair = first_pair[caption] + reference - first[caption]
            # the order in which METEOR comes upon them
            if side == "source":
                order = np.lexsort((entry, length_one, start_one, start_two, pair))
            else:
                order = np.lexsort((start_one, entry, length_two, start_two, pair))
            stage = np.full(len(pair), PARAPHRASE)
            part = Matches(pair, start_one, length_one, start_two, length_two, stage)
            parts.append(part.take(order))
        return Matches(*map(np.concatenate, zip(*parts, strict=True)))

    def _related(self, phrases: Ints, side: str) -> tuple[Ints, Ints, Ints]:
        """Entries of the table with these phrases on one side, and ones of references on the other.

        Returns:
            for each the position in `phrases`, the entry, and the phrase on the other side.
        """
        different, which = np.unique(phrases, return_inverse=True)
        starts = self._index[f"{side}_starts"]
        of_phrase, row = spread(starts[different], starts[different + 1] - starts[different])
        other = self._index[f"{side}_others"][row]
        present = np.flatnonzero(self._is_present[other])
        of_phrase, row, other = of_phrase[present], row[present], other[present]
        # from the different phrases to all of them
        counts = np.bincount(of_phrase, minlength=len(different))
        position, chosen = spread(starts_of(counts)[which], counts[which])
        return position, self._index[f"{side}_entries"][row[chosen]], other[chosen].astype(np.int64)
