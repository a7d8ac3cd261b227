"""CIDEr-D (Vedantam et al., CVPR 2015, section 4), which MS-COCO's evaluation code calls CIDEr.

A caption is a vector of its n-grams, each weighted by how often it stands there times
log(images) - log(max(1, images with it)); two are compared by cosines with the caption's weights
clipped to the reference's, times a Gaussian of their difference in length (sigma 6, lengths
counted in bigrams as the reference does), averaged over orders and references, times ten.

With a single image every weight is log(1) = 0 and so is the score: give document frequencies from
a larger corpus (`frequencies`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transfer.captioning.scores.arrays import Floats, Ints
from transfer.captioning.scores.ngrams import ORDERS, Ngrams, NgramTable

_SIGMA = 6.0


def norms(ngrams: list[Ngrams], idf: list[Floats], num_captions: int) -> Floats:
    """(C, 4) lengths of the captions' vectors.

    Args:
        ngrams: of each order, their runs and entries.
        idf: (R,) of each order, the weight of each run's n-gram.
        num_captions: C.
    """
    columns = [
        np.bincount(grams.caption, (grams.times * weight[grams.run]) ** 2, num_captions)
        for grams, weight in zip(ngrams, idf, strict=True)
    ]
    return np.sqrt(np.stack(columns, axis=1))


def similarity(products: Floats, norms_one: Floats, norms_two: Floats, difference: Ints) -> Floats:
    """(P,) of each pair of a caption and a reference, in [0, 10].

    Args:
        products: (P, 4) sums of products of weights.
        norms_one: (P, 4) of the captions.
        norms_two: (P, 4) of the references.
        difference: (P,) in length, which in words is that in bigrams but for a caption without
            words, whose products are 0.
    """
    below = norms_one * norms_two
    cosines = products / np.where(below == 0, 1, below)
    mean = cosines.sum(axis=1) / len(ORDERS)
    return 10 * (mean * np.exp(-(difference**2) / (2 * _SIGMA**2)))


@dataclass(frozen=True)
class DocumentFrequencies:
    """For each n-gram the number of images whose captions hold it, and the number of images."""

    words: Mapping[str, int]
    table: NgramTable
    documents: Sequence[Ints | Floats]
    """(R + 1,) of each order, and last the 0 of what is not there."""
    num_images: float

    @staticmethod
    def of(
        words: Mapping[str, int], ngrams: list[Ngrams], sizes: Sequence[int] | Ints
    ) -> "DocumentFrequencies":
        """From n-grams of captions image by image; `sizes`: how many captions each image has."""
        image = np.repeat(np.arange(len(sizes)), sizes)
        documents = [np.append(grams.count_images(image), 0) for grams in ngrams]
        return DocumentFrequencies(words, NgramTable(ngrams), documents, len(sizes))

    def word_numbers(self, names: Iterable[str]) -> Ints:
        """The number of each word, or -1."""
        return np.array([self.words.get(name, -1) for name in names], np.int64)

    def idf(self, runs: list[Ints]) -> list[Floats]:
        """The weight of each n-gram, of each order, by its position in the table (or -1)."""
        return [
            np.log(self.num_images) - np.log(np.maximum(documents[run], 1))
            for run, documents in zip(runs, self.documents, strict=True)
        ]
