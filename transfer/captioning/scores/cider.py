"""CIDEr as MS-COCO's evaluation code computes it: CIDEr-D (Vedantam et al., CVPR 2015, section 4).

Clipped counts, a Gaussian penalty on the difference in length (sigma 6), document frequencies from
the references at hand. Length is counted in bigrams, as there. With a single image every inverse
document frequency is log(1) = 0 and so is the score.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from transfer.captioning.scores.ngrams import ORDERS, count_ngrams

_SIGMA = 6.0
Words = Sequence[str]
Ngram = tuple[str, ...]


@dataclass(frozen=True)
class _Vector:
    """A caption in the space of its n-grams: tf-idf weights, their norm by order, its bigrams."""

    weights: dict[Ngram, float]
    norms: list[float]
    bigrams: int


def cider(
    references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]
) -> tuple[float, list[float]]:
    """CIDEr-D of the corpus (the mean), and of each image, in [0, 10].

    Args:
        references: for each image its tokenized captions, at least one.
        hypotheses: for each image one tokenized caption.
    """
    counts = [[count_ngrams(caption) for caption in wanted] for wanted in references]
    frequency = Counter(ngram for image in counts for ngram in set().union(*image))
    log_images = math.log(len(references))

    def vector(found: Counter[Ngram]) -> _Vector:
        weights = {
            ngram: count * (log_images - math.log(max(1, frequency[ngram])))
            for ngram, count in found.items()
        }
        squares = [0.0] * len(ORDERS)
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight**2
        bigrams = sum(count for ngram, count in found.items() if len(ngram) == 2)
        return _Vector(weights, [math.sqrt(square) for square in squares], bigrams)

    per_image = []
    for said, wanted in zip(hypotheses, counts, strict=True):
        own = vector(count_ngrams(said))
        similar = sum(_similarity(own, vector(caption)) for caption in wanted)
        per_image.append(10 * similar / len(wanted))
    return sum(per_image) / len(per_image), per_image


def _similarity(own: _Vector, other: _Vector) -> float:
    """Mean over the orders of the clipped cosine, times the penalty on length."""
    products = [0.0] * len(ORDERS)
    for ngram, weight in own.weights.items():
        theirs = other.weights.get(ngram, 0.0)
        products[len(ngram) - 1] += min(weight, theirs) * theirs
    cosines = [
        product / (left * right) if left and right else product
        for product, left, right in zip(products, own.norms, other.norms, strict=True)
    ]
    difference = own.bigrams - other.bigrams
    return sum(cosines) / len(ORDERS) * math.exp(-(difference**2) / (2 * _SIGMA**2))
