"""ROUGE-L (Lin, ACL 2004 workshop) as MS-COCO's evaluation code computes it."""

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cpdist

from transfer.captioning.scores.arrays import Floats, Ints
from transfer.captioning.scores.tokenizer import TokenIds

_BETA = 1.2


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
    rows = [one.rows[row] for row in pair_one.tolist()]
    others = [two.rows[row] for row in pair_two.tolist()]
    return cpdist(rows, others, scorer=LCSseq.similarity, dtype=np.int64)
