"""The 1- to 4-grams of many captions, sorted and counted as integers.

An n-gram is its first word and the (n-1)-gram behind it. So the places sorted by (n-1)-gram, moved
one to the left and sorted stably by their word, are the places sorted by n-gram: one radix pass an
order, and equal n-grams lie side by side.

Letters: T words in all, C captions, R runs of equal n-grams, E entries (an n-gram in a caption).
"""

from dataclasses import dataclass

import numpy as np

from transfer.captioning.scores.tokens import Captions, Ints

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
    words, num_words = captions.words, len(captions.words)
    caption = np.repeat(np.arange(len(captions)), captions.counts)
    left = np.repeat(np.cumsum(captions.counts), captions.counts) - np.arange(num_words)
    run_at = np.zeros(num_words + 1, np.int64)  # of the n-gram that begins at a place
    places = np.arange(num_words)
    found = []
    for order in ORDERS:
        if order > 1:
            places = places[places > 0] - 1
            places = places[left[places] >= order]
        places = places[_stable_order(words[places])]
        first, rest = words[places], run_at[places + 1] if order > 1 else np.zeros_like(places)
        is_new = _changes(first) | _changes(rest)
        heads = np.flatnonzero(is_new)
        run = np.cumsum(is_new) - 1
        run_at[places] = run
        of_caption = caption[places]
        entries = np.flatnonzero(is_new | _changes(of_caption))
        times = np.diff(entries, append=len(places))
        found.append(Ngrams(first[heads], rest[heads], run[entries], of_caption[entries], times))
    return found


def _changes(values: Ints) -> np.ndarray:
    """Where a value differs from the one before it; the first always does."""
    flags = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=flags[1:])
    return flags


def _stable_order(values: Ints) -> Ints:
    """Like argsort(kind="stable") of numbers from 0 on, by radix passes over 16 bits."""
    order = np.argsort((values & 0xFFFF).astype(np.uint16), kind="stable")
    largest, shift = int(values.max(initial=0)), 16
    while largest >> shift:
        digit = ((values[order] >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit, kind="stable")]
        shift += 16
    return order
