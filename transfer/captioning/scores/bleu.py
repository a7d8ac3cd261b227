"""BLEU (Papineni et al., ACL 2002) with the constants of MS-COCO's evaluation code.

The effective reference length is the closest to the caption's own (the shorter of two). Counts are
smoothed by 1e-15 above and 1e-9 below the line, which decides the value where an order has no
match.
"""

import numpy as np

from transfer.captioning.scores.arrays import Floats, Ints
from transfer.captioning.scores.ngrams import ORDERS

_TINY, _SMALL = 1e-15, 1e-9


def statistics(own: Ints, wanted: Ints, pair_said: Ints, matches: Ints) -> Ints:
    """What BLEU is made of, a row a caption: rows of several captions may be added.

    Args:
        own: (C,) words of each caption.
        wanted: (P,) words of the reference in each pair of a caption and one of its references.
        pair_said: (P,) the caption of each pair, ascending; each caption has at least one.
        matches: (C, 4) n-grams of each order that its references have, each counted at most as
            often as the reference with most of it has it.

    Returns:
        (C, 10) own length, closest reference length, matches, possible matches.
    """
    heads = np.searchsorted(pair_said, np.arange(len(own)))
    scale = int(wanted.max(initial=0)) + 1  # ranked by distance, then by length
    ranked = np.abs(wanted - own[pair_said]) * scale + wanted
    closest = np.minimum.reduceat(ranked, heads) % scale
    possible = np.maximum(own[:, None] - np.array(ORDERS) + 1, 0)
    return np.concatenate([own[:, None], closest[:, None], matches, possible], axis=1)


def bleu(rows: Ints) -> Floats:
    """(C, 4) BLEU-1 to 4 of rows of `statistics`, in [0, 1]."""
    own, closest, matches, possible = rows[:, 0], rows[:, 1], rows[:, 2:6], rows[:, 6:10]
    precisions = np.cumprod((matches + _TINY) / (possible + _SMALL), axis=1)
    ratio = (own + _TINY) / (closest + _SMALL)
    penalty = np.exp(np.minimum(1 - 1 / ratio, 0))
    return precisions ** (1 / np.array(ORDERS)) * penalty[:, None]
