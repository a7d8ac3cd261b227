"""The 1- to 4-grams of many captions, sorted and counted as integers.

An n-gram is its first word and the (n-1)-gram behind it. So the places sorted by (n-1)-gram, moved
one to the left and sorted stably by their word, are the places sorted by n-gram: one radix pass an
order, and equal n-grams lie side by side.

Letters: T words in all, C captions, R runs of equal n-grams, E entries (an n-gram in a caption).
"""

from dataclasses import dataclass

import numpy as np

from transfer.captioning.scores.arrays import Ints, changes, digits
from transfer.captioning.scores.words import Captions

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


def count_ngrams(captions: Captions) -> list[Ngrams]:
    """The n-grams of each order."""
    num_words = len(captions.words)
    words = captions.words.astype(np.int32)  # half the size: gathers are what takes the time
    caption = np.repeat(np.arange(len(captions), dtype=np.int32), captions.counts)
    left = np.repeat(np.cumsum(captions.counts), captions.counts) - np.arange(num_words)
    run_at = np.zeros(num_words + 1, np.int32)  # of the n-gram that begins at a place
    word_digits = digits(words)
    places = np.arange(num_words)
    found = []
    for order in ORDERS:
        if order > 1:
            has_left = np.zeros(num_words, bool)  # the place before begins an n-gram too
            np.greater_equal(left[:-1], order, out=has_left[1:])
            places = places[has_left[places]] - 1
        for digit in word_digits:
            places = places[np.argsort(digit[places], kind="stable")]
        first, rest = words[places], run_at[places + 1]
        is_new = changes(first)
        if order > 1:
            is_new |= changes(rest)
        heads = np.flatnonzero(is_new)
        of_caption = caption[places]
        entries = np.flatnonzero(is_new | changes(of_caption))
        run = np.cumsum(is_new, dtype=np.int32) - 1
        run_at[places] = run
        found.append(
            Ngrams(
                first[heads].astype(np.int64),
                rest[heads].astype(np.int64),
                run[entries],
                of_caption[entries],
                np.diff(entries, append=len(places)),
            )
        )
    return found
