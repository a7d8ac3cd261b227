"""ROUGE-L (Lin, ACL 2004 workshop) as MS-COCO's evaluation code computes it.

The longest common subsequences of all pairs at once, by bits: the words of one caption of a pair
are the bits of a machine word, which one addition and three logical operations carry over each word
of the other (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from transfer.captioning.scores.arrays import Floats, Ints, stable_order, starts_of
from transfer.captioning.scores.words import Captions

_BETA = 1.2
_WIDTHS: dict[int, Any] = {16: np.uint16, 32: np.uint32, 64: np.uint64}
_BLOCK = 1 << 14  # pairs at a time: their bits stay in the processor's cache


def rouge_l(said: Captions, wanted: Captions, pair_said: Ints, pair_wanted: Ints) -> Floats:
    """ROUGE-L of each caption against its references, in [0, 1].

    As in the reference implementation the best precision and the best recall may come from
    different references, and a caption without words counts as one empty word, so that it agrees
    with a reference without words.

    Args:
        said: C captions.
        wanted: the references.
        pair_said: (P,) the caption of each pair, ascending; each caption has at least one pair.
        pair_wanted: (P,) its reference.
    """
    common = lcs_lengths(said, wanted, pair_said, pair_wanted)
    own, other = said.counts[pair_said], wanted.counts[pair_wanted]
    common = np.where((own == 0) & (other == 0), 1, common)
    heads = np.searchsorted(pair_said, np.arange(len(said)))
    precision = np.maximum.reduceat(common / np.maximum(own, 1), heads)
    recall = np.maximum.reduceat(common / np.maximum(other, 1), heads)
    product = (1 + _BETA**2) * precision * recall
    below = np.where(product > 0, recall + _BETA**2 * precision, 1)
    return product / below


def lcs_lengths(one: Captions, two: Captions, pair_one: Ints, pair_two: Ints) -> Ints:
    """(P,) length of the longest common subsequence of each pair."""
    lengths = np.zeros(len(pair_one), np.int64)
    width_one, width_two = one.counts[pair_one], two.counts[pair_two]
    # the side with fewer words becomes the bits
    for bits, text, pair_bits, pair_text, mine in (
        (two, one, pair_two, pair_one, width_two <= width_one),
        (one, two, pair_one, pair_two, width_two > width_one),
    ):
        least = 0
        for width in _WIDTHS:
            counts = bits.counts[pair_bits]
            chosen = np.flatnonzero(mine & (counts > least) & (counts <= width))
            chosen = chosen[stable_order(counts[chosen])]
            for part in np.array_split(chosen, len(chosen) // _BLOCK + 1):
                lengths[part] = _by_machine_words(
                    bits, text, pair_bits[part], pair_text[part], width
                )
            least = width
        for place in np.flatnonzero(mine & (bits.counts[pair_bits] > least)):
            lengths[place] = _by_long_integers(
                bits, text, int(pair_bits[place]), int(pair_text[place])
            )
    return lengths


def _by_machine_words(
    bits: Captions, text: Captions, pair_bits: Ints, pair_text: Ints, width: int
) -> Ints:
    if not len(pair_bits):
        return np.zeros(0, np.int64)
    order = stable_order(text.counts[pair_text])[::-1]  # longest first: they go on longest
    pair_bits, pair_text = pair_bits[order], pair_text[order]
    kind = _WIDTHS[width]
    counts, remaining = bits.counts[pair_bits], text.counts[pair_text]
    starts = starts_of(bits.counts)[pair_bits]
    heads = starts_of(text.counts)[pair_text]
    # a row a bit: the words there, and a number that is no word where the caption has ended
    last, none = len(bits.words) - 1, max(bits.words.max(initial=0), text.words.max(initial=0)) + 1
    number: Any = np.uint16 if none < 1 << 16 else np.uint32
    own = bits.words.astype(number)
    grid = [
        np.where(place < counts, own[np.minimum(starts + place, last)], number(none))
        for place in range(int(counts.max()))
    ]
    state = np.full(len(pair_bits), np.iinfo(kind).max, kind)
    other = text.words.astype(number)
    equal, bit = np.empty(len(pair_bits), bool), np.empty(len(pair_bits), kind)
    for step in range(int(remaining[0])):
        going = int(np.searchsorted(-remaining, -step))  # those with more than `step` words
        word = other[heads[:going] + step]
        match = np.zeros(going, kind)
        for place, row in enumerate(grid):
            np.equal(row[:going], word, out=equal[:going])
            np.multiply(equal[:going], kind(1 << place), out=bit[:going])
            match |= bit[:going]
        hit = state[:going] & match
        state[:going] = (state[:going] + hit) | (state[:going] & ~match)
    lengths = np.zeros(len(pair_bits), np.int64)
    lengths[order] = np.bitwise_count(~state)
    return lengths


def _by_long_integers(bits: Captions, text: Captions, row_bits: int, row_text: int) -> int:
    """The same for one pair of long captions, on Python's integers."""
    places: dict[int, int] = {}
    for place, word in enumerate(_row(bits, row_bits)):
        places[word] = places.get(word, 0) | 1 << place
    state = everything = (1 << int(bits.counts[row_bits])) - 1
    for word in _row(text, row_text):
        hit = state & (match := places.get(word, 0))
        state = ((state + hit) | (state & ~match)) & everything
    return (~state & everything).bit_count()


def _row(captions: Captions, row: int) -> Iterator[int]:
    end = int(captions.counts[: row + 1].sum())
    yield from captions.words[end - int(captions.counts[row]) : end].tolist()
