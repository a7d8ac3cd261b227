"""The words of sentences as METEOR sees them, numbered, and which of them go together.

METEOR cuts text once more (-norm): quotes, marks, commas, dots, hyphens, apostrophes. The steps are
those of the tokenizer of the Moses translation toolkit, which METEOR's documentation names, in the
order and with the exceptions that the reference shows on 100,000 short strings: it parts words at
hyphens, takes the dots out of abbreviations, and knows as letters Latin, Cyrillic and few others.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np

from transfer.captioning.scores.arrays import Bools, Ints, find_sorted, spread
from transfer.captioning.scores.meteor.data import MeteorData
from transfer.captioning.scores.tokenizer import TokenIds

_LETTERS = "A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u017e\u0400-\u0527\u1d00-\u1d7f\ua640-\ua66e\ua67e-\ua697"
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "`": "'", "\u201c": '"', "\u201d": '"'})
_HIDDEN = "\ufdd0"  # a dot of a run of dots, while single dots are looked at
_MARK = re.compile(f"[^{_LETTERS}0-9 \t\n\x0b\f\r.',-]")
# in order: what is replaced, and by what
_STEPS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("([^0-9]),([^0-9])", r"\1 , \2"),
        ("([0-9]),([^0-9])", r"\1 , \2"),
        ("([^0-9]),([0-9])", r"\1 , \2"),
        ("--", "-"),
        (f"([{_LETTERS}0-9.])-([{_LETTERS}0-9])", r"\1 \2"),
        (f"([^{_LETTERS}])'([^{_LETTERS}])", r"\1 ' \2"),
        (f"([^{_LETTERS}0-9])'([{_LETTERS}])", r"\1 ' \2"),
        (f"([{_LETTERS}])'([^{_LETTERS}])", r"\1 ' \2"),
        (f"([{_LETTERS}])'([{_LETTERS}])", r"\1 '\2"),
        ("([0-9])'(s)", r"\1 '\2"),
    )
)
_DOTS = re.compile(r"\.{2,}")
_SPACES = re.compile(r"[ \t\n\f\r]+")
_LETTER = re.compile(f"[{_LETTERS}]")
_DOTTED = re.compile(r"(?:[^.]*\.){2,}")
# what the reference shows as spaces in the end; on the way they are marks
_ONLY_SPACE = re.compile("[\xa0\u2000-\u200a\u202f\u205f\u3000]+")

_PLAIN = re.compile("[a-z0-9]+")  # normalize leaves such a word alone, whatever its neighbours
_FILTER_BITS = 22


def normalize(text: str, prefixes: Mapping[str, bool]) -> list[str]:
    """The lower-case words and marks of a sentence, as METEOR compares them.

    Args:
        text: the sentence.
        prefixes: see `MeteorData`.
    """
    text = f" {text} ".translate(_QUOTES).replace("''", '"')
    text = _MARK.sub(r" \g<0> ", text)
    text = _DOTS.sub(lambda match: f" {_HIDDEN * len(match[0])} ", text)
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    words = [word for word in _SPACES.split(text) if word]
    parts: list[str] = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        stem = word.removesuffix(".")
        dot_stays = (
            stem in (word, "")
            or ("." in stem and _LETTER.search(stem) is not None)
            or "a" <= following[:1] <= "z"
            or (stem in prefixes and (not prefixes[stem] or following[:1].isdecimal()))
        )
        for part in [word] if dot_stays else [stem, "."]:
            if _DOTTED.fullmatch(part) and _LETTER.search(part):  # an abbreviation
                part = part.replace(".", "")
            if not _ONLY_SPACE.fullmatch(part):
                parts.append(part.replace(_HIDDEN, ".").lower())
    return parts


class Lexicon:
    """Words and what METEOR's data says of them; grows with the sentences it is given."""

    def __init__(self, data: MeteorData) -> None:
        self._data = data
        self._numbers: defaultdict[str, int] = defaultdict(count().__next__)
        self._of_token = np.zeros(0, np.int64)  # -1: depends on the sentence
        self._stem_numbers: defaultdict[str, int] = defaultdict(count().__next__)
        self._phrase_numbers = {word: n for n, word in enumerate(data.stems, start=1)}
        self._synsets: list[frozenset[int]] = []
        self.stem = np.zeros(0, np.int64)
        self.is_function = np.zeros(0, bool)
        self.phrase_word = np.zeros(0, np.uint64)
        """Of each word, its number in phrases, 0 for none."""

    def encode(self, captions: TokenIds, names: Sequence[str]) -> TokenIds:
        """Captions normalized, as numbers of this lexicon.

        Args:
            captions: cut by the tokenizer; the numbers stand for `names`.
            names: words by number; the same, or longer by new ones, at each call.
        """
        new = names[len(self._of_token) :]
        numbers = [self._numbers[word] if _PLAIN.fullmatch(word) else -1 for word in new]
        self._of_token = np.append(self._of_token, np.array(numbers, np.int64))
        words = self._of_token[captions.words]
        counts = captions.counts.copy()
        ends = np.cumsum(counts)
        odd = np.unique(np.searchsorted(ends, np.flatnonzero(words < 0), side="right"))
        pieces, done = [], 0
        for caption in odd.tolist():
            begin, end = int(ends[caption] - captions.counts[caption]), int(ends[caption])
            text = " ".join(names[number] for number in captions.words[begin:end].tolist())
            row = [self._numbers[word] for word in normalize(text, self._data.prefixes)]
            pieces += [words[done:begin], np.array(row, np.int64)]
            counts[caption], done = len(row), end
        self._learn(list(self._numbers)[len(self._synsets) :])
        return TokenIds(np.concatenate([*pieces, words[done:]]), counts)

    def _learn(self, words: list[str]) -> None:
        """Look up new words."""
        stems = [self._stem_numbers[stem] for stem in self._data.stem(words)]
        function = [word in self._data.function_words for word in words]
        in_phrases = [self._phrase_numbers.get(word, 0) for word in words]
        self.stem = np.append(self.stem, np.array(stems, np.int64))
        self.is_function = np.append(self.is_function, np.array(function, bool))
        self.phrase_word = np.append(self.phrase_word, np.array(in_phrases, np.uint64))
        self._synsets += map(self._data.synsets_of, words)

    def synonyms(self, one: Ints, two: Ints) -> "WordPairs":
        """The pairs of different words, from `one` and from `two`, that share a synset."""
        synsets_one, words_one = self._by_synset(np.unique(one))
        synsets_two, words_two = self._by_synset(np.unique(two))
        starts = np.searchsorted(synsets_two, synsets_one)
        sizes = np.searchsorted(synsets_two, synsets_one, side="right") - starts
        which, position = spread(starts, sizes)
        word, other = words_one[which], words_two[position]
        different = word != other
        return WordPairs(word[different], other[different], len(self._synsets))

    def _by_synset(self, words: Ints) -> tuple[Ints, Ints]:
        """Synsets, ascending, and the word of each entry."""
        rows = TokenIds.of([list(self._synsets[word]) for word in words.tolist()])
        order = np.argsort(rows.words, kind="stable")
        return rows.words[order], np.repeat(words, rows.counts)[order]


class WordPairs:
    """A set of pairs of words, to be asked for millions."""

    def __init__(self, one: Ints, two: Ints, num_words: int) -> None:
        self._num_words = num_words
        self._keys = np.unique(one * num_words + two)
        self._filter = np.zeros(1 << _FILTER_BITS, bool)  # most pairs are not in: say so at once
        self._filter[self._slots(self._keys)] = True

    def contains(self, one: Ints, two: Ints) -> Bools:
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
