"""The 1- to 4-grams of many captions, sorted and counted as integers.

An n-gram is its first word and the (n-1)-gram behind it. So the positions sorted by (n-1)-gram,
moved one to the left and sorted stably by their word, are the positions sorted by n-gram: one radix
pass an order, and equal n-grams lie side by side.

Letters: T words in all, C captions, R runs of equal n-grams, E entries (an n-gram in a caption).
"""

from dataclasses import dataclass

import numpy as np

from transfer.captioning.scores.arrays import Ints, changes, digits, find_sorted
from transfer.captioning.scores.tokenizer import TokenIds

ORDERS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of one order in a list of captions, by run: lexicographic in word numbers."""

    first: Ints
    """(R,) the first word of each run's n-gram."""
    rest: Ints
    """(R,) the run, one order lower, of what follows the first word; zeros for single words."""
    run: Ints
    """(E,) the run of each entry; entries are sorted by run, then by caption."""
    caption: Ints
    """(E,) its caption."""
    times: Ints
    """(E,) how often the n-gram stands in it."""

    def __len__(self) -> int:
        return len(self.first)

    def count_images(self, image: Ints) -> Ints:
        """(R,) the number of images that hold each n-gram; `image` (C,) ascends."""
        is_new = changes(self.run) | changes(image[self.caption])
        return np.bincount(self.run[is_new], minlength=len(self))


def count_ngrams(captions: TokenIds) -> list[Ngrams]:
    """The n-grams of each order."""
    num_words = len(captions.words)
    words = captions.words.astype(np.int32)  # half the size: gathers are what takes the time
    caption = np.repeat(np.arange(len(captions), dtype=np.int32), captions.counts)
    left = np.repeat(np.cumsum(captions.counts), captions.counts) - np.arange(num_words)
    run_at = np.zeros(num_words + 1, np.int32)  # of the n-gram that begins at a position
    word_digits = digits(words)
    positions = np.arange(num_words)
    ngrams = []
    for order in ORDERS:
        if order > 1:
            has_left = np.zeros(num_words, bool)  # the position before begins an n-gram too
            np.greater_equal(left[:-1], order, out=has_left[1:])
            positions = positions[has_left[positions]] - 1
        for digit in word_digits:
            positions = positions[np.argsort(digit[positions], kind="stable")]
        first, rest, of_caption = words[positions], run_at[positions + 1], caption[positions]
        is_new = changes(first) | changes(rest)
        heads = np.flatnonzero(is_new)
        entries = np.flatnonzero(is_new | changes(of_caption))
        run = np.cumsum(is_new, dtype=np.int32) - 1
        ngrams.append(
            Ngrams(
                first[heads].astype(np.int64),
                rest[heads].astype(np.int64),
                run[entries],
                of_caption[entries],
                np.diff(entries, append=len(positions)),
            )
        )
        run_at[positions] = run
    return ngrams


class NgramTable:
    """The n-grams of some captions, to look others up in.

    The key of an n-gram is its first word times the runs one order lower, plus the run of the rest;
    a run's number is the position of its key.
    """

    def __init__(self, ngrams: list[Ngrams]) -> None:
        self._sizes = [1, *map(len, ngrams)]
        self._keys = [
            grams.first * size + grams.rest
            for grams, size in zip(ngrams, self._sizes, strict=False)
        ]

    def find(self, ngrams: list[Ngrams], words: Ints) -> list[Ints]:
        """(R,) of each order: the position of each n-gram in this table, or -1.

        Args:
            ngrams: of other captions.
            words: the number here of each of their words, or -1.
        """
        runs: list[Ints] = [np.zeros(1, np.int64)]
        for keys, size, grams in zip(self._keys, self._sizes, ngrams, strict=False):
            first, rest = words[grams.first], runs[-1][grams.rest]
            known = np.flatnonzero((first >= 0) & (rest >= 0))
            run = np.full(len(grams), -1)
            run[known] = find_sorted(keys, first[known] * size + rest[known])
            runs.append(run)
        return runs[1:]
