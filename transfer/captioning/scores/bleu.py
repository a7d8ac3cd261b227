"""BLEU (Papineni et al., ACL 2002) with the constants of MS-COCO's evaluation code.

The effective reference length is the closest to the caption's own (the shorter of two). Counts
are smoothed by 1e-15 above and 1e-9 below the line, which decides the value where an order has
no match.
"""

import math
from collections.abc import Sequence

from transfer.captioning.scores.ngrams import ORDERS, count_ngrams

_TINY, _SMALL = 1e-15, 1e-9
Words = Sequence[str]


def bleu(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> tuple[list[float], list[list[float]]]:
    """BLEU-1 to 4 of the corpus, and of each image.

    Args:
        references: for each image its tokenized captions, at least one.
        hypotheses: for each image one tokenized caption.
    """
    rows = [_statistics(wanted, said) for wanted, said in zip(references, hypotheses, strict=True)]
    total = [sum(column) for column in zip(*rows, strict=True)]
    return _from_statistics(total), [_from_statistics(row) for row in rows]


def _statistics(wanted: Sequence[Words], said: Words) -> list[int]:
    """Own length, reference length, matches of each order, possible matches of each order."""
    most: dict[tuple[str, ...], int] = {}
    for caption in wanted:
        for ngram, count in count_ngrams(caption).items():
            most[ngram] = max(count, most.get(ngram, 0))
    matches = dict.fromkeys(ORDERS, 0)
    for ngram, count in count_ngrams(said).items():
        matches[len(ngram)] += min(count, most.get(ngram, 0))
    closest = min((abs(len(caption) - len(said)), len(caption)) for caption in wanted)[1]
    possible = [max(0, len(said) - order + 1) for order in ORDERS]
    return [len(said), closest, *matches.values(), *possible]


def _from_statistics(row: Sequence[int]) -> list[float]:
    own, reference, counts = row[0], row[1], row[2:]
    ratio = (own + _TINY) / (reference + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for order, matched, possible in zip(ORDERS, counts[:4], counts[4:], strict=True):
        product *= (matched + _TINY) / (possible + _SMALL)
        scores.append(product ** (1 / order) * penalty)
    return scores
