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
    counts = np.append(one.counts, two.counts)
    none = max(one.words.max(initial=0), two.words.max(initial=0)) + 1  # a number that is no word
    words = np.concatenate([one.words, two.words, [none]])
    words = words.astype(np.uint16 if none < 1 << 16 else np.uint32)
    bits, text = np.stack([pair_one, len(one) + pair_two])
    # the side with fewer words becomes the bits
    bits, text = np.where(counts[text] <= counts[bits], (text, bits), (bits, text))
    starts = starts_of(counts)
    spans = np.stack([starts[bits], counts[bits], starts[text], counts[text]])
    lengths = np.zeros(len(bits), np.int64)
    least = 0
    for width in _WIDTHS:
        pairs = np.flatnonzero((spans[1] > least) & (spans[1] <= width))
        pairs = pairs[np.argsort(spans[1, pairs], kind="stable")]
        for part in np.array_split(pairs, len(pairs) // _BLOCK + 1):
            lengths[part] = _by_machine_words(words, spans[:, part], _WIDTHS[width])
        least = width
    for pair in np.flatnonzero(spans[1] > least):
        start, count, head, remaining = spans[:, pair]
        lengths[pair] = _by_long_integers(
            words[start : start + count].tolist(), words[head : head + remaining].tolist()
        )
    return lengths


def _by_machine_words(words: Ints, spans: Ints, kind: Any) -> Ints:
    """For captions of at most as many words as `kind` has bits.

    Args:
        words: of all captions, and last a number that is no word.
        spans: (4, P) start and length of the caption that becomes the bits, and of the other.
        kind: the unsigned integer.
    """
    order = np.argsort(spans[3], kind="stable")[::-1]  # longest first: they go on longest
    starts, counts, heads, remaining = spans[:, order]
    last = len(words) - 1
    grid = [  # a row a bit: the words there, and no word where the caption has ended
        words[np.where(bit < counts, starts + bit, last)]
        for bit in range(int(counts.max(initial=0)))
    ]
    state = np.full(len(order), np.iinfo(kind).max, kind)
    equal, mask = np.empty(len(order), bool), np.empty(len(order), kind)
    for step in range(int(remaining.max(initial=0))):
        going = int(np.searchsorted(-remaining, -step))  # those with more than `step` words
        word = words[heads[:going] + step]
        match = np.zeros(going, kind)
        for bit, row in enumerate(grid):
            np.equal(row[:going], word, out=equal[:going])
            np.multiply(equal[:going], kind(1 << bit), out=mask[:going])
            match |= mask[:going]
        hit = state[:going] & match
        state[:going] = (state[:going] + hit) | (state[:going] & ~match)
    lengths = np.zeros(len(order), np.int64)
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
