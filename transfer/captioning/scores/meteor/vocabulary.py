"""The words of sentences as METEOR sees them, numbered, and which of them go together."""

import re
from collections.abc import Sequence

import numpy as np

from transfer.captioning.scores.arrays import Bools, Ints, find_sorted, spread
from transfer.captioning.scores.meteor.data import Data
from transfer.captioning.scores.meteor.normalize import normalize
from transfer.captioning.scores.words import Captions

_PLAIN = re.compile("[a-z0-9]+")  # normalize leaves such a word alone, whatever its neighbours
_FILTER_BITS = 22


class Vocabulary:
    """Words and what METEOR's data says of them; grows with the sentences it is given."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._numbers: dict[str, int] = {}
        self._of_caption_word = np.zeros(0, np.int64)  # -1: depends on the sentence
        self._stem_numbers: dict[bytes, int] = {}
        self.stem = np.zeros(0, np.int64)
        self.is_function = np.zeros(0, bool)
        self.phrase_word = np.zeros(0, np.uint16)
        self._synsets: list[frozenset[int]] = []

    def cut(self, captions: Captions, names: Sequence[str]) -> Captions:
        """Captions normalized, as numbers of this vocabulary.

        Args:
            captions: cut by the tokenizer; the numbers stand for `names`.
            names: words by number; the same, or longer by new ones, at each call.
        """
        fresh = names[len(self._of_caption_word) :]
        numbers = [self._number(word) if _PLAIN.fullmatch(word) else -1 for word in fresh]
        self._of_caption_word = np.concatenate([self._of_caption_word, np.array(numbers, np.int64)])
        words = self._of_caption_word[captions.words]
        counts = captions.counts.copy()
        ends = np.cumsum(counts)
        odd = np.unique(np.searchsorted(ends, np.flatnonzero(words < 0), side="right"))
        pieces, done = [], 0
        for caption in odd.tolist():
            begin, end = int(ends[caption] - captions.counts[caption]), int(ends[caption])
            text = " ".join(names[number] for number in captions.words[begin:end].tolist())
            row = [self._number(word) for word in normalize(text, self._data.prefixes)]
            pieces += [words[done:begin], np.array(row, np.int64)]
            counts[caption], done = len(row), end
        result = Captions(np.concatenate([*pieces, words[done:]]), counts)
        self._learn()
        return result

    def _number(self, word: str) -> int:
        return self._numbers.setdefault(word, len(self._numbers))

    def _learn(self) -> None:
        """Look up the words that are new."""
        known = len(self._synsets)
        if known == len(self._numbers):
            return
        words = list(self._numbers)[known:]
        places = self._data.find(words)
        stems = [
            self._stem_numbers.setdefault(stem, len(self._stem_numbers))
            for stem in self._data.stems(words, places)
        ]
        function = [word in self._data.function_words for word in words]
        in_phrases = np.where(places < 0, 0, self._data.arrays["phrase_word"][places])
        self.stem = np.concatenate([self.stem, np.array(stems, np.int64)])
        self.is_function = np.concatenate([self.is_function, np.array(function, bool)])
        self.phrase_word = np.concatenate([self.phrase_word, in_phrases.astype(np.uint16)])
        self._synsets += self._data.synsets(words, places)

    def __len__(self) -> int:
        return len(self._synsets)

    def synonyms(self, one: Ints, two: Ints) -> "WordPairs":
        """The pairs of different words, from `one` and from `two`, that share a synset."""
        first, second = self._members(np.unique(one)), self._members(np.unique(two))
        starts = np.searchsorted(second[0], first[0])
        sizes = np.searchsorted(second[0], first[0], side="right") - starts
        which, place = spread(starts, sizes)
        word, other = first[1][which], second[1][place]
        keys = word[word != other] * len(self) + other[word != other]
        return WordPairs(np.unique(keys), len(self))

    def _members(self, words: Ints) -> tuple[Ints, Ints]:
        """Synsets, ascending, and the word of each entry."""
        rows = [self._synsets[word] for word in words.tolist()]
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        flat = np.fromiter((number for row in rows for number in row), np.int64, int(sizes.sum()))
        order = np.argsort(flat, kind="stable")
        return flat[order], np.repeat(words, sizes)[order]


class WordPairs:
    """A set of pairs of words, to be asked for millions."""

    def __init__(self, keys: Ints, num_words: int) -> None:
        self._keys, self._num_words = keys, num_words
        self._filter = np.zeros(1 << _FILTER_BITS, bool)  # most pairs are not in: say so at once
        self._filter[self._slots(keys)] = True

    def holds(self, one: Ints, two: Ints) -> Bools:
        """Which of the pairs are in the set."""
        keys = one * self._num_words + two
        result = self._filter[self._slots(keys)]
        maybe = np.flatnonzero(result)
        result[maybe] = find_sorted(self._keys, keys[maybe]) >= 0
        return result

    @staticmethod
    def _slots(keys: Ints) -> Ints:
        mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)
