r"""Captions to words, and whole lists of captions to arrays of word numbers.

Cutting text is local: what `lexer.lex` makes of a caption is, but for a few shapes that reach over
a space (`22 3/4`, telephone numbers, `No. 5`, `K. The`, tags), what it makes of its pieces between
spaces. Pieces repeat, so each is cut once and remembered.

Line breaks inside a caption are spaces, and a caption's words do not depend on its neighbours. The
reference reads one caption a line, so there `\r`, `\v`, `\f` and the Unicode line separators shift
all captions behind them, and `K.` at the end of a caption keeps its dot unless the next caption
begins with one of 46 words such as `A`; here a caption is followed by a new sentence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from transfer.captioning.scores.lexer import ABBREVIATIONS, TWO_WORDS, lex

Ints = NDArray[np.int64]

# pieces that need no rules: a word of letters and a mark that vanishes, unless the word is one of
# these; and words with hyphens or 's
_MARKS = frozenset('.,!?;:"')
_NOT_PLAIN = TWO_WORDS | ABBREVIATIONS | frozenset("abcdefghijklmnopqrstuvwxyz")
_NEARLY_PLAIN = re.compile("([A-Za-z]{2,}(?:-[A-Za-z]+)+|[A-Za-z]{2,}(?='s))('s)?[.,!?;:\"]?")

# a piece of such a shape may belong together with its neighbours ...
_MAY_REACH = re.compile(
    r"[0-9]\\?[/\u2044][0-9]|^\(?[0-9]{2}|<|^\.[0-9]|(?:^|[^A-Za-z0-9])[A-Za-z]\.$"
    r"|(?:art|ca|figs?|nos?|op|pp|prop)\.$",
    re.IGNORECASE,
)
# ... and does where the caption has one of these
_REACHES = re.compile(
    r"[0-9]\s[0-9]{1,4}\\?[/\u2044][0-9]|[0-9)]\s[0-9]{3}|<[^>]*\s[^>]*>|\.\s+\.[0-9]"
    r"|(?<![A-Za-z0-9])[A-Za-z]\.(?:\s|$)|\.\s[0-9]",
)
_SPACE = re.compile(r"\s")
_LINES = re.compile(r"\r\n|[\n\r\v\f\u2028\u2029]")
_ODD_SPACES = re.compile("[\0\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def tokenize(text: str) -> list[str]:
    r"""The words of a caption as MS-COCO's evaluation sees them: lower case, no punctuation.

    They are what the Stanford PTB tokenizer gives with the evaluation's list of punctuation removed
    (docs/caption_scores.md lists the known differences). A word may hold a no-break space:
    `tokenize("22 3/4")` is `["22\xa03/4"]`.
    """
    pieces = text.split()
    if _ODD_SPACES.search(text) or (any(map(_MAY_REACH.search, pieces)) and _REACHES.search(text)):
        return _cut_whole(text)
    return [word for piece in pieces for word in _cut_piece(piece)]


def _cut_whole(text: str) -> list[str]:
    return lex(_LINES.sub(" ", text))


@lru_cache(maxsize=1 << 16)
def _cut_piece(piece: str) -> Sequence[str]:
    """The words of a piece without spaces."""
    if (word := _plain_word(piece)) is not None:
        return (word,)
    if (match := _NEARLY_PLAIN.fullmatch(piece)) is not None:
        return [part.lower() for part in match.groups() if part]
    return lex(piece)


def _plain_word(piece: str) -> str | None:
    """The word of a piece that is one word of ASCII letters, with or without a mark behind it."""
    word = piece[:-1] if piece[-1] in _MARKS else piece
    if word.isalpha() and word.isascii() and (low := word.lower()) not in _NOT_PLAIN:
        return low
    return None


@dataclass(frozen=True)
class Captions:
    """Captions as word numbers, one behind the other."""

    words: Ints
    """(T,) the words of all captions."""
    counts: Ints
    """(N,) how many each has."""

    def __len__(self) -> int:
        return len(self.counts)


class _Rows:
    """Rows of numbers, each of its own length, that only grow."""

    def __init__(self) -> None:
        self._flat = self._counts = self._starts = np.zeros(0, np.int64)
        self._new: list[Sequence[int]] = []

    def add(self, row: Sequence[int]) -> int:
        """Append a row; its place."""
        self._new.append(row)
        return len(self._counts) + len(self._new) - 1

    def take(self, places: Ints) -> tuple[Ints, Ints]:
        """The rows at `places`, one behind the other, and their lengths."""
        if self._new:
            lengths = np.fromiter(map(len, self._new), np.int64, len(self._new))
            fresh = np.fromiter(chain.from_iterable(self._new), np.int64, int(lengths.sum()))
            self._counts = np.concatenate([self._counts, lengths])
            self._flat = np.concatenate([self._flat, fresh])
            self._starts = np.cumsum(self._counts) - self._counts
            self._new = []
        counts = self._counts[places]
        shift = self._starts[places] - (np.cumsum(counts) - counts)
        return self._flat[np.arange(counts.sum()) + np.repeat(shift, counts)], counts


_BORDER, _EMPTY = 0, 1  # the first two rows: what stands between captions, and a piece of no words


class Words(dict[str, int]):
    """Words and their numbers, given in the order of arrival; remembers the pieces it has cut."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = _Rows()
        self._pieces = _Pieces(self, self._rows)
        self._parts: dict[int, list[int]] = {}

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        if len(parts := word.split()) > 1:
            self._parts[number] = [self[part] for part in parts]
        return number

    def cut(self, captions: Sequence[str], tokenized: bool = False) -> Captions:
        """Raw captions as word numbers, or captions whose words stand between single spaces."""
        if tokenized:
            rows = [[self[word] for word in text.split(" ") if word] for text in captions]
            counts = np.fromiter(map(len, rows), np.int64, len(rows))
            words = np.fromiter(chain.from_iterable(rows), np.int64, int(counts.sum()))
            return Captions(words, counts)
        odd: set[int] = set()
        joined = " \0 ".join(captions)
        plain = joined.isascii() and joined.count("\0") == len(captions) - 1
        if not plain or any(char in joined for char in "\x1c\x1d\x1e\x1f"):
            odd = {place for place, text in enumerate(captions) if _ODD_SPACES.search(text)}
            joined = " \0 ".join(
                "\1" if place in odd else text for place, text in enumerate(captions)
            )
        pieces = joined.split()
        rows_of = np.fromiter(map(self._pieces.__getitem__, pieces), np.int64, len(pieces))
        borders = np.flatnonzero(rows_of == _BORDER)
        starts = np.concatenate([[0], borders + 1])
        ends = np.concatenate([borders, [len(rows_of)]])
        reaching = self._pieces.reaching(rows_of)
        for caption in odd.union(np.searchsorted(borders, reaching).tolist()):
            if caption in odd or _REACHES.search(captions[caption]):
                rows_of[starts[caption] : ends[caption]] = _EMPTY
                rows_of[starts[caption]] = self._pieces[captions[caption]]
        words, counts = self._rows.take(rows_of)
        before = np.concatenate([[0], np.cumsum(counts)])
        return Captions(words, before[ends] - before[starts])

    def split(self, captions: Captions) -> Captions:
        r"""The same with words such as `22\xa03/4` taken apart, as BLEU and CIDEr do."""
        found = [number for number in self._parts if (captions.words == number).any()]
        if not found:
            return captions
        rows = _Rows()
        for number in range(len(self)):
            rows.add(self._parts.get(number, [number]))
        words, counts = rows.take(captions.words)
        before = np.concatenate([[0], np.cumsum(counts)])
        ends = np.cumsum(captions.counts)
        return Captions(words, before[ends] - before[ends - captions.counts])


class _Pieces(dict[str, int]):
    """From a piece of text without spaces, or a whole caption, to the row of its words."""

    def __init__(self, words: Words, rows: _Rows) -> None:
        super().__init__({"\0": rows.add(()), "\1": rows.add(())})
        self._words, self._rows = words, rows
        self._single: dict[str, int] = {}
        self._reaching: list[int] = []

    def __missing__(self, piece: str) -> int:
        if (word := _plain_word(piece)) is not None:
            if (place := self._single.get(word)) is None:
                place = self._single[word] = self._rows.add((self._words[word],))
        else:
            whole = _SPACE.search(piece) is not None
            words = _cut_whole(piece) if whole else _cut_piece(piece)
            place = self._rows.add([self._words[word] for word in words])
            if not whole and _MAY_REACH.search(piece):
                self._reaching.append(place)
        self[piece] = place
        return place

    def reaching(self, rows_of: Ints) -> Ints:
        """Where in `rows_of` stand pieces that may belong together with their neighbours."""
        flags = np.zeros(max(int(rows_of.max(initial=0)), *self._reaching, 0) + 1, bool)
        flags[self._reaching] = True
        return np.flatnonzero(flags[rows_of])
