"""Counts of the 1- to 4-grams of a caption, which every score here starts from."""

from collections import Counter
from collections.abc import Sequence

ORDERS = (1, 2, 3, 4)


def count_ngrams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    """How often each n-gram stands in `words`."""
    return Counter(
        tuple(words[start : start + order])
        for order in ORDERS
        for start in range(len(words) - order + 1)
    )
