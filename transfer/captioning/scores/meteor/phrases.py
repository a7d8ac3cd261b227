"""Matches by paraphrase: phrases of captions and references that METEOR's table connects.

Letters: S phrases in sentences, M matches.
"""

from dataclasses import dataclass

import numpy as np

from transfer.captioning.scores.arrays import Ints, spread, starts_of
from transfer.captioning.scores.meteor.build import MAX_WORDS
from transfer.captioning.scores.meteor.data import Data
from transfer.captioning.scores.meteor.matches import PARAPHRASE, Matches
from transfer.captioning.scores.words import Captions


@dataclass(frozen=True)
class Spans:
    """Where in some sentences phrases of the table stand."""

    sentence: Ints
    start: Ints
    length: Ints
    phrase: Ints

    def take(self, places: Ints) -> "Spans":
        """Some of them."""
        return Spans(
            self.sentence[places], self.start[places], self.length[places], self.phrase[places]
        )


def find_spans(sentences: Captions, phrase_word: Ints, data: Data) -> Spans:
    """All phrases of the table in sentences.

    Args:
        sentences: words numbered by a vocabulary.
        phrase_word: of each word of the vocabulary, its number in phrases, 0 for none.
        data: the table.
    """
    words = phrase_word[sentences.words]
    total = len(words)
    ends = np.repeat(np.cumsum(sentences.counts), sentences.counts)
    sentence = np.repeat(np.arange(len(sentences)), sentences.counts)
    start = np.arange(total) - np.repeat(starts_of(sentences.counts), sentences.counts)
    padded = np.concatenate([words, np.zeros(MAX_WORDS, np.uint16)])
    columns = np.zeros((total, MAX_WORDS), np.uint16)
    places = np.flatnonzero(words)
    parts = []
    for length in range(1, MAX_WORDS + 1):
        last = places + length - 1
        places = places[(last < ends[places]) & (padded[last] > 0)]
        columns[places, length - 1] = padded[places + length - 1]
        phrase = data.phrases.find(columns[places])
        held = np.flatnonzero(phrase >= 0)
        parts.append(
            (sentence[places[held]], start[places[held]], np.full(len(held), length), phrase[held])
        )
    return Spans(*[np.concatenate(column) for column in zip(*parts, strict=True)])


class ReferencePhrases:
    """The phrases of all references, to be looked up by image."""

    def __init__(self, spans: Spans, image: Ints, data: Data) -> None:
        """Arrange them.

        Args:
            spans: of the references.
            image: the image of each reference.
            data: the table.
        """
        self._data = data
        self._num_phrases = len(data.phrases)
        keys = image[spans.sentence] * self._num_phrases + spans.phrase
        order = np.argsort(keys, kind="stable")
        self._keys, self._spans = keys[order], spans.take(order)
        self._is_held = np.zeros(self._num_phrases, bool)
        self._is_held[spans.phrase] = True

    def match(self, said: Spans, image: Ints, first_pair: Ints, first_wanted: Ints) -> Matches:
        """The matches of captions with the references of their images.

        METEOR looks up paraphrases of the reference's phrases in the caption first, then those of
        the caption's phrases in the reference; what both find counts as two matches.

        Args:
            said: the phrases of captions.
            image: (C,) the image of each caption.
            first_pair: (C,) the first pair of each caption; its pairs are its image's references.
            first_wanted: (C,) the first reference of its image.
        """
        parts = []
        for is_source in (False, True):
            span, entry, other = self._related(said.phrase, is_source)
            keys = image[said.sentence[span]] * self._num_phrases + other
            starts = np.searchsorted(self._keys, keys)
            sizes = np.searchsorted(self._keys, keys, side="right") - starts
            row, held = spread(starts, sizes)
            span, entry, caption = span[row], entry[row], said.sentence[span[row]]
            pair = first_pair[caption] + self._spans.sentence[held] - first_wanted[caption]
            one_start, one_length = said.start[span], said.length[span]
            two_start, two_length = self._spans.start[held], self._spans.length[held]
            # the order in which METEOR comes upon them
            if is_source:
                order = np.lexsort((entry, one_length, one_start, two_start, pair))
            else:
                order = np.lexsort((one_start, entry, two_length, two_start, pair))
            columns = (pair, one_start, one_length, two_start, two_length)
            parts.append([column[order] for column in columns])
        joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Matches(*joined, np.full(len(joined[0]), PARAPHRASE))  # type: ignore[call-arg]

    def _related(self, phrases: Ints, is_source: bool) -> tuple[Ints, Ints, Ints]:
        """Entries of the table with these phrases on one side, and held ones on the other.

        Returns:
            for each the place in `phrases`, the entry, and the phrase on the other side.
        """
        table = self._data.arrays
        different, which = np.unique(phrases, return_inverse=True)
        if is_source:
            sources = table["sorted_sources"]
            row = np.minimum(np.searchsorted(sources, different), len(sources) - 1)
            known = sources[row] == different
            row = table["by_phrase"][row]
            starts = table["source_starts"][row].astype(np.int64)
            sizes = np.where(known, table["source_starts"][row + 1] - starts, 0)
        else:
            starts = table["target_starts"][different].astype(np.int64)
            sizes = table["target_starts"][different + 1] - starts
        of_phrase, entry = spread(starts, sizes)
        if is_source:
            other = table["targets"][entry]
        else:
            entry = table["by_target"][entry]
            row = np.searchsorted(table["source_starts"], entry, side="right") - 1
            other = table["sources"][row]
        held = np.flatnonzero(self._is_held[other])
        of_phrase, entry, other = of_phrase[held], entry[held], other[held]
        # from the different phrases to all of them
        counts = np.bincount(of_phrase, minlength=len(different))
        place, row = spread(starts_of(counts)[which], counts[which])
        return place, entry[row].astype(np.int64), other[row].astype(np.int64)
