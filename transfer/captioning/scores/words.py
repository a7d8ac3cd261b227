"""Whole lists of captions to arrays of word numbers.

A corpus repeats its pieces of text (words with the marks written onto them): each is cut once and
remembered. Pieces are found and looked up on the bytes of all captions at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from transfer.captioning.scores.arrays import Ints, spread, starts_of
from transfer.captioning.scores.pieces import LONGEST, Pieces
from transfer.captioning.scores.tokens import (
    cut_piece,
    cut_whole,
    has_odd_spaces,
    may_reach,
    plain_word,
    reaches,
)


@dataclass(frozen=True)
class Captions:
    """Captions as word numbers, one behind the other."""

    words: Ints
    """(T,) the words of all captions."""
    counts: Ints
    """(N,) how many each has."""

    def __len__(self) -> int:
        return len(self.counts)


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
            flat = np.fromiter(chain.from_iterable(rows), np.int64, int(counts.sum()))
            return Captions(flat, counts)
        row, caption = self._pieces.cut(captions)
        words, lengths = self._rows.take(row)
        counts = np.bincount(caption, lengths, len(captions)).astype(np.int64)
        return Captions(words, counts)

    def split(self, captions: Captions) -> Captions:
        r"""The same with words such as `22\xa03/4` taken apart, as BLEU and CIDEr do."""
        flags = np.zeros(len(self), bool)
        flags[list(self._parts)] = True
        odd = np.flatnonzero(flags[captions.words])
        if not len(odd):
            return captions
        rows = [self._parts[number] for number in captions.words[odd].tolist()]
        more = np.fromiter((len(row) - 1 for row in rows), np.int64, len(rows))
        words = np.insert(captions.words, np.repeat(odd, more), 0)
        starts = odd + starts_of(more)
        for start, row in zip(starts.tolist(), rows, strict=True):
            words[start : start + len(row)] = row
        caption = np.searchsorted(np.cumsum(captions.counts), odd, side="right")
        added = np.bincount(caption, more, len(captions)).astype(np.int64)
        return Captions(words, captions.counts + added)


class _Rows:
    """Rows of numbers, each of its own length, that only grow."""

    def __init__(self) -> None:
        self._flat: Ints = np.zeros(0, np.int64)
        self._counts: Ints = np.zeros(0, np.int64)
        self._starts: Ints = np.zeros(0, np.int64)
        self._new_flat: list[int] = []
        self._new_counts: list[int] = []

    def __len__(self) -> int:
        return len(self._counts) + len(self._new_counts)

    def add(self, row: Sequence[int]) -> int:
        """Append a row; its place."""
        self._new_flat += row
        self._new_counts.append(len(row))
        return len(self) - 1

    def take(self, places: Ints) -> tuple[Ints, Ints]:
        """The rows at `places`, one behind the other, and their lengths."""
        if self._new_counts:
            self._flat = np.concatenate([self._flat, np.array(self._new_flat, np.int64)])
            self._counts = np.concatenate([self._counts, np.array(self._new_counts, np.int64)])
            self._starts = starts_of(self._counts)
            self._new_flat, self._new_counts = [], []
        counts = self._counts[places]
        return self._flat[spread(self._starts[places], counts)[1]], counts


class _Pieces(Pieces):
    """From a piece of text without spaces to the row of its words."""

    def __init__(self, words: Words, rows: _Rows) -> None:
        super().__init__()
        self._words, self._rows = words, rows
        self._single: dict[str, int] = {}  # rows of one plain word
        self._reaching: list[int] = []
        self._whole: dict[str, int] = {}  # rows of captions that have to be cut as a whole

    def __missing__(self, piece: str) -> int:
        if (word := plain_word(piece)) is not None:
            place = self._single.get(word)
            if place is None:
                number = self._words.setdefault(word, len(self._words))
                place = self._single[word] = self._rows.add((number,))
        else:
            place = self._rows.add([self._words[word] for word in cut_piece(piece)])
            if may_reach(piece):
                self._reaching.append(place)
        self[piece] = place
        return place

    def _row_of_whole(self, caption: str) -> int:
        if caption not in self._whole:
            words = [self._words[word] for word in cut_whole(caption)]
            self._whole[caption] = self._rows.add(words)
        return self._whole[caption]

    def cut(self, captions: Sequence[str]) -> tuple[Ints, Ints]:
        """The rows of the captions' words, and the caption of each row."""
        if not captions:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        joined = "\0".join(captions)
        odd: set[int] = set()
        plain = joined.isascii() and joined.count("\0") == len(captions) - 1
        if not plain or any(char in joined for char in "\x1c\x1d\x1e\x1f"):
            odd = {place for place, text in enumerate(captions) if has_odd_spaces(text)}
            joined = "\0".join("\1" if c in odd else text for c, text in enumerate(captions))
        text = ("\0" + joined + "\0" * LONGEST).encode("utf-8", "surrogatepass")
        chars = np.frombuffer(text, np.uint8)
        space = (chars == 32) | (chars == 0) | ((chars >= 9) & (chars <= 13))
        starts = np.flatnonzero(space[:-1] & ~space[1:]) + 1
        lengths = np.flatnonzero(~space[:-1] & space[1:]) + 1 - starts
        rows = self.find(text, starts, lengths)
        ends = np.searchsorted(starts, np.flatnonzero(chars == 0)[1 : len(captions) + 1])
        begins = np.concatenate([[0], ends[:-1]])
        keep = np.ones(len(rows), bool)
        reaching = np.flatnonzero(np.isin(rows, self._reaching))
        for caption in odd.union(np.searchsorted(ends, reaching, side="right").tolist()):
            if caption in odd or reaches(captions[caption]):
                rows[begins[caption]] = self._row_of_whole(captions[caption])
                keep[begins[caption] + 1 : ends[caption]] = False
        caption_of = np.repeat(np.arange(len(captions)), ends - begins)
        return rows[keep], caption_of[keep]
