"""BLEU (Papineni et al., ACL 2002) with the constants of MS-COCO's evaluation code.

The effective reference length is the closest to the caption's own (the shorter of two). Counts are
smoothed by 1e-15 above and 1e-9 below the line, which decides the value where an order has no
match.
"""

import numpy as np

from transfer.captioning.scores.arrays import Floats, Ints
from transfer.captioning.scores.ngrams import ORDERS

_TINY, _SMALL = 1e-15, 1e-9


def sufficient_stats(lengths: Ints, reference_lengths: Ints, caption: Ints, matches: Ints) -> Ints:
    """What BLEU is made of, a row a caption: rows of several captions may be added.

    Args:
        lengths: (C,) words of each caption.
        reference_lengths: (P,) words of the reference in each pair of a caption and one of its
            references.
        caption: (P,) the caption of each pair, ascending; each caption has at least one.
        matches: (C, 4) n-grams of each order that its references have, each counted at most as
            often as the reference with most of it has it.

    Returns:
        (C, 10) own length, closest reference length, matches, possible matches.
    """
    heads = np.searchsorted(caption, np.arange(len(lengths)))
    scale = int(reference_lengths.max(initial=0)) + 1  # ranked by distance, then by length
    ranked = np.abs(reference_lengths - lengths[caption]) * scale + reference_lengths
    closest = np.minimum.reduceat(ranked, heads) % scale
    possible = np.maximum(lengths[:, None] - np.array(ORDERS) + 1, 0)
    return np.column_stack([lengths, closest, matches, possible])


def bleu(stats: Ints) -> Floats:
    """(C, 4) BLEU-1 to 4 of rows of `sufficient_stats`, in [0, 1]."""
    length, closest, matches, possible = stats[:, 0], stats[:, 1], stats[:, 2:6], stats[:, 6:10]
    precisions = np.cumprod((matches + _TINY) / (possible + _SMALL), axis=1)
    ratio = (length + _TINY) / (closest + _SMALL)
    penalty = np.exp(np.minimum(1 - 1 / ratio, 0))
    return precisions ** (1 / np.array(ORDERS)) * penalty[:, None]
