"""ROUGE-L (Lin, ACL 2004 workshop) as MS-COCO's evaluation code computes it.

The longest common subsequences of all pairs at once, by bits: the words of one caption of a pair
are the bits of a machine word, which one addition and three logical operations carry over each word
of the other (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004).
"""

from typing import Any

import numpy as np

from transfer.captioning.scores.arrays import Floats, Ints, starts_of
from transfer.captioning.scores.tokenizer import TokenIds

_BETA = 1.2
_WIDTHS: dict[int, Any] = {16: np.uint16, 32: np.uint32, 64: np.uint64}
_BLOCK = 1 << 14  # pairs at a time: their bits stay in the processor's cache


def rouge_l(captions: TokenIds, references: TokenIds, caption: Ints, reference: Ints) -> Floats:
    """ROUGE-L of each caption against its references, in [0, 1].

    As in the reference implementation the best precision and the best recall may come from
    different references, and a caption without words counts as one empty word, so that it agrees
    with a reference without words.

    Args:
        captions: C captions.
        references: all of them.
        caption: (P,) the caption of each pair, ascending; each caption has at least one pair.
        reference: (P,) its reference.
    """
    common = lcs_lengths(captions, references, caption, reference)
    own, other = captions.counts[caption], references.counts[reference]
    common = np.where((own == 0) & (other == 0), 1, common)
    heads = np.searchsorted(caption, np.arange(len(captions)))
    precision = np.maximum.reduceat(common / np.maximum(own, 1), heads)
    recall = np.maximum.reduceat(common / np.maximum(other, 1), heads)
    product = (1 + _BETA**2) * precision * recall
    below = np.where(product > 0, recall + _BETA**2 * precision, 1)
    return product / below


def lcs_lengths(one: TokenIds, two: TokenIds, pair_one: Ints, pair_two: Ints) -> Ints:
    """(P,) length of the longest common subsequence of each pair."""
    lengths = np.zeros(len(pair_one), np.int64)
    two_is_shorter = two.counts[pair_two] <= one.counts[pair_one]
    # the side with fewer words becomes the bits
    for bits, text, pair_bits, pair_text, chosen in (
        (two, one, pair_two, pair_one, two_is_shorter),
        (one, two, pair_one, pair_two, ~two_is_shorter),
    ):
        counts = np.where(chosen, bits.counts[pair_bits], 0)
        least = 0
        for width in _WIDTHS:
            pairs = np.flatnonzero((counts > least) & (counts <= width))
            pairs = pairs[np.argsort(counts[pairs], kind="stable")]
            for part in np.array_split(pairs, len(pairs) // _BLOCK + 1):
                lengths[part] = _by_machine_words(
                    bits, text, pair_bits[part], pair_text[part], width
                )
            least = width
        for pair in np.flatnonzero(counts > least):
            lengths[pair] = _by_long_integers(
                _words(bits, pair_bits[pair]), _words(text, pair_text[pair])
            )
    return lengths


def _by_machine_words(
    bits: TokenIds, text: TokenIds, pair_bits: Ints, pair_text: Ints, width: int
) -> Ints:
    if not len(pair_bits):
        return np.zeros(0, np.int64)
    # longest first: they go on longest
    order = np.argsort(text.counts[pair_text], kind="stable")[::-1]
    pair_bits, pair_text = pair_bits[order], pair_text[order]
    kind = _WIDTHS[width]
    counts, remaining = bits.counts[pair_bits], text.counts[pair_text]
    starts = starts_of(bits.counts)[pair_bits]
    heads = starts_of(text.counts)[pair_text]
    # a row a bit: the words there, and a number that is no word where the caption has ended
    last, none = len(bits.words) - 1, max(bits.words.max(initial=0), text.words.max(initial=0)) + 1
    number: Any = np.uint16 if none < 1 << 16 else np.uint32
    own, other = bits.words.astype(number), text.words.astype(number)
    grid = [
        np.where(bit < counts, own[np.minimum(starts + bit, last)], number(none))
        for bit in range(int(counts.max()))
    ]
    state = np.full(len(pair_bits), np.iinfo(kind).max, kind)
    equal, mask = np.empty(len(pair_bits), bool), np.empty(len(pair_bits), kind)
    for step in range(int(remaining[0])):
        going = int(np.searchsorted(-remaining, -step))  # those with more than `step` words
        word = other[heads[:going] + step]
        match = np.zeros(going, kind)
        for bit, row in enumerate(grid):
            np.equal(row[:going], word, out=equal[:going])
            np.multiply(equal[:going], kind(1 << bit), out=mask[:going])
            match |= mask[:going]
        hit = state[:going] & match
        state[:going] = (state[:going] + hit) | (state[:going] & ~match)
    lengths = np.zeros(len(pair_bits), np.int64)
    lengths[order] = np.bitwise_count(~state)
    return lengths


def _by_long_integers(bits: list[int], text: list[int]) -> int:
    """The same for one pair of long captions, on Python's integers."""
    masks: dict[int, int] = {}
    for bit, word in enumerate(bits):
        masks[word] = masks.get(word, 0) | 1 << bit
    state = everything = (1 << len(bits)) - 1
    for word in text:
        hit = state & (match := masks.get(word, 0))
        state = ((state + hit) | (state & ~match)) & everything
    return (~state & everything).bit_count()


def _words(captions: TokenIds, row: int) -> list[int]:
    end = int(captions.counts[: row + 1].sum())
    return captions.words[end - int(captions.counts[row]) : end].tolist()
