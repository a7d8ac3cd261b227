"""The 1- to 4-grams of many captions, sorted and counted as integers.

An n-gram is its first word and the (n-1)-gram behind it. So the places sorted by (n-1)-gram, moved
one to the left and sorted stably by their word, are the places sorted by n-gram: one radix pass an
order, and equal n-grams lie side by side.

Letters: T words in all, C captions, R runs of equal n-grams, E entries (an n-gram in a caption).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfer.captioning.scores.pieces import Ints
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
    digits = _digits(words)
    places = np.arange(num_words)
    found = []
    for order in ORDERS:
        if order > 1:
            has_left = np.zeros(num_words, bool)  # the place before begins an n-gram too
            np.greater_equal(left[:-1], order, out=has_left[1:])
            places = places[has_left[places]] - 1
        for digit in digits:
            places = places[np.argsort(digit[places], kind="stable")]
        first, rest = words[places], run_at[places + 1]
        is_new = _changes(first)
        if order > 1:
            is_new |= _changes(rest)
        heads = np.flatnonzero(is_new)
        of_caption = caption[places]
        entries = np.flatnonzero(is_new | _changes(of_caption))
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


def _changes(values: Ints) -> np.ndarray:
    """Where a value differs from the one before it; the first always does."""
    flags = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=flags[1:])
    return flags


def _digits(values: np.ndarray) -> list[NDArray[np.uint16]]:
    """Numbers from 0 on to the base 65,536, lowest digit first: numpy sorts those by radix."""
    largest, shift, digits = int(values.max(initial=0)), 0, []
    while not digits or largest >> shift:
        digits.append(((values >> shift) & 0xFFFF).astype(np.uint16))
        shift += 16
    return digits


def stable_order(values: Ints) -> Ints:
    """Like argsort(kind="stable"), of numbers from 0 on."""
    order = np.arange(len(values))
    for digit in _digits(values):
        order = order[np.argsort(digit[order], kind="stable")]
    return order
