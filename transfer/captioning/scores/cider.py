"""CIDEr-D (Vedantam et al., CVPR 2015, section 4), which MS-COCO's evaluation code calls CIDEr.

A caption is a vector of its n-grams, each weighted by how often it stands there times
log(images) - log(max(1, images with it)); two are compared by cosines with the caption's weights
clipped to the reference's, times a Gaussian of their difference in length (sigma 6, lengths
counted in bigrams as the reference does), averaged over orders and references, times ten. Without
clipping and Gaussian it is the paper's plain CIDEr.

With a single image every weight is log(1) = 0 and so is the score: give document frequencies from
a larger corpus.
"""

import numpy as np

from transfer.captioning.scores.arrays import Floats, Ints
from transfer.captioning.scores.ngrams import ORDERS, Ngrams

_SIGMA = 6.0


def weights(documents: Ints | Floats, num_images: float) -> Floats:
    """Inverse document frequencies from the numbers of images that hold each n-gram."""
    return np.log(num_images) - np.log(np.maximum(documents, 1))


def norms(ngrams: list[Ngrams], idf: list[Floats], num_captions: int) -> Floats:
    """(C, 4) lengths of the captions' vectors.

    Args:
        ngrams: of each order, their runs and entries.
        idf: (R,) of each order, the weight of each run's n-gram.
        num_captions: C.
    """
    columns = [
        np.bincount(found.caption, (found.times * weight[found.run]) ** 2, num_captions)
        for found, weight in zip(ngrams, idf, strict=True)
    ]
    return np.sqrt(np.stack(columns, axis=1))


def similarity(
    products: Floats, norms_said: Floats, norms_wanted: Floats, difference: Ints | None
) -> Floats:
    """(P,) of each pair, in [0, 10].

    Args:
        products: (P, 4) sums of products of weights.
        norms_said: (P, 4) of the captions.
        norms_wanted: (P, 4) of the references.
        difference: (P,) in length, which in words is that in bigrams but for a caption without
            words, whose products are 0; None for plain CIDEr.
    """
    below = norms_said * norms_wanted
    cosines = products / np.where(below == 0, 1, below)
    mean = cosines.sum(axis=1) / len(ORDERS)
    if difference is not None:
        mean *= np.exp(-(difference**2) / (2 * _SIGMA**2))
    return 10 * mean
