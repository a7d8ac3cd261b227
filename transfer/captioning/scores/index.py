"""The n-grams of all references, arranged to be compared with captions.

Letters: I images, W references, C captions, P pairs of a caption and a reference of its image,
R runs of equal n-grams, Q (n-gram, image), E (n-gram, reference).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transfer.captioning.scores import cider
from transfer.captioning.scores.arrays import (
    Floats,
    Ints,
    changes,
    find_sorted,
    spread,
    starts_of,
)
from transfer.captioning.scores.frequencies import (
    DocumentFrequencies,
    NgramTable,
    count_documents,
)
from transfer.captioning.scores.ngrams import ORDERS, Ngrams, count_ngrams
from transfer.captioning.scores.words import Captions


@dataclass(frozen=True)
class _Order:
    """One order's n-grams by image."""

    keys: Ints
    """(Q,) ascending: run times I plus image."""
    most: Ints
    """(Q,) the largest number of times a reference of the image has the n-gram."""
    heads: Ints
    """(Q + 1,) where its entries begin."""
    wanted: Ints
    """(E,) the reference of each entry."""
    times: Ints
    """(E,) how often it has the n-gram."""
    idf: Floats
    """(R + 1,) weight of each n-gram and, last, of any other."""

    @staticmethod
    def of(found: Ngrams, image: Ints, num_images: int, idf: Floats) -> "_Order":
        keys = found.run.astype(np.int64) * num_images + image[found.caption]
        heads = np.flatnonzero(changes(keys))
        most = np.maximum.reduceat(found.times, heads) if len(heads) else heads
        ends = np.append(heads, len(keys))
        return _Order(keys[heads], most, ends, found.caption, found.times, idf)


@dataclass(frozen=True)
class Pairs:
    """Each caption beside each of its image's references."""

    said: Ints
    """(P,) the caption, ascending."""
    wanted: Ints
    """(P,) the reference."""
    first: Ints
    """(C,) a caption's first pair."""


@dataclass(frozen=True)
class Matches:
    """What captions share with their references."""

    counts: Ints
    """(C, 4) n-grams shared, each at most as often as the reference with most of it has it."""
    products: Floats
    """(P, 4) sums of products of tf-idf weights."""
    norms: Floats
    """(C, 4) of the captions' vectors."""


class Index:
    """References whose words are numbered from 0 on, image by image."""

    def __init__(
        self,
        wanted: Captions,
        sizes: Ints,
        names: Sequence[str],
        frequencies: DocumentFrequencies | None,
    ) -> None:
        """Count the n-grams.

        Args:
            wanted: W references.
            sizes: (I,) how many each image has.
            names: the words by number.
            frequencies: of a larger corpus; None counts the images here.
        """
        self.sizes, self.counts = sizes, wanted.counts
        self.starts = starts_of(sizes)
        self._num_words, self._frequencies = len(names), frequencies
        image = np.repeat(np.arange(len(sizes)), sizes)
        ngrams = count_ngrams(wanted)
        if frequencies is None:
            idf = [cider.weights(count_documents(found, image), len(sizes)) for found in ngrams]
        else:
            self._numbers = frequencies.numbers(names)
            idf = frequencies.idf(ngrams, self._numbers)
        self.norms = cider.norms(ngrams, idf, len(wanted))
        self._table = NgramTable.of(ngrams)
        unseen = cider.weights(np.zeros(1, np.int64), len(sizes))  # of what no image has
        self._orders = [
            _Order.of(found, image, len(sizes), np.append(weight, unseen))
            for found, weight in zip(ngrams, idf, strict=True)
        ]

    def pairs(self, image: Ints) -> Pairs:
        """The pairs of captions of the images `image` (C,)."""
        sizes = self.sizes[image]
        said, wanted = spread(self.starts[image], sizes)
        return Pairs(said, wanted, starts_of(sizes))

    def match(
        self,
        said: Captions,
        image: Ints,
        pairs: Pairs,
        unseen: Sequence[str],
        clipped: bool = True,
    ) -> Matches:
        """Compare captions with the references of their images.

        Args:
            said: C captions, their words numbered as in the references.
            image: (C,) the image of each.
            pairs: of `self.pairs(image)`.
            unseen: the words that stand in no reference, numbered behind those that do.
            clipped: CIDEr-D's clipping of weights, or none as in plain CIDEr.
        """
        ngrams = count_ngrams(said)
        words = np.arange(self._num_words + len(unseen))
        words[self._num_words :] = -1
        places = self._table.find(ngrams, words)
        idf = self._idf(ngrams, places, unseen)
        counts = np.zeros((len(said), len(ORDERS)), np.int64)
        products = np.zeros((len(pairs.said), len(ORDERS)))
        for column, (found, where, order) in enumerate(
            zip(ngrams, places, self._orders, strict=True)
        ):
            run = where[found.run]
            asked = np.flatnonzero(run >= 0)
            caption = found.caption[asked]
            held = find_sorted(order.keys, run[asked] * len(self.sizes) + image[caption])
            asked, caption, held = asked[held >= 0], caption[held >= 0], held[held >= 0]
            times = found.times[asked]
            counts[:, column] = np.bincount(caption, np.minimum(times, order.most[held]), len(said))
            # every entry of the n-gram in a reference of the same image
            which, entry = spread(order.heads[held], order.heads[held + 1] - order.heads[held])
            weight = order.idf[run[asked]][which]
            own, other = times[which] * weight, order.times[entry] * weight
            shift = pairs.first[caption] - self.starts[image[caption]]
            products[:, column] = np.bincount(
                order.wanted[entry] + shift[which],
                (np.minimum(own, other) if clipped else own) * other,
                len(pairs.said),
            )
        return Matches(counts, products, cider.norms(ngrams, idf, len(said)))

    def _idf(self, ngrams: list[Ngrams], places: list[Ints], unseen: Sequence[str]) -> list[Floats]:
        """(R,) of each order: the weights of the captions' n-grams."""
        if self._frequencies is not None:
            numbers = np.concatenate([self._numbers, self._frequencies.numbers(unseen)])
            return self._frequencies.idf(ngrams, numbers)
        return [order.idf[where] for where, order in zip(places, self._orders, strict=True)]
