"""The n-grams of all references, arranged to be compared with captions.

Letters: I images, W references, C captions, P pairs of a caption and a reference of its image,
R runs of equal n-grams, Q (n-gram, image), E (n-gram, reference).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
from transfer.captioning.scores.ngrams import ORDERS, Ngrams, NgramTable, count_ngrams
from transfer.captioning.scores.tokenizer import TokenIds


class _Order(NamedTuple):
    """One order's n-grams by image."""

    keys: Ints
    """(Q,) ascending: run times I plus image."""
    most: Ints
    """(Q,) the largest number of times a reference of the image has the n-gram."""
    heads: Ints
    """(Q + 1,) where its entries begin."""
    entries: Ngrams
    """Whose E entries are the references' n-grams by image."""
    idf: Floats
    """(R + 1,) weight of each n-gram and, last, of any other."""


class ReferenceIndex:
    """References whose words are numbered from 0 on, image by image."""

    def __init__(
        self,
        references: TokenIds,
        sizes: Ints,
        names: Sequence[str],
        frequencies: cider.DocumentFrequencies | None,
    ) -> None:
        """Count the n-grams.

        Args:
            references: W references.
            sizes: (I,) how many each image has.
            names: the words by number.
            frequencies: of a larger corpus; None counts the images here.
        """
        self.counts, self._sizes, self._starts = references.counts, sizes, starts_of(sizes)
        self._num_words, self._frequencies = len(names), frequencies
        image = np.repeat(np.arange(len(sizes)), sizes)
        ngrams = count_ngrams(references)
        if frequencies is None:
            documents = [found.count_images(image) for found in ngrams]
            idf = [cider.inverse_frequencies(images, len(sizes)) for images in documents]
        else:
            self._numbers = frequencies.word_numbers(names)
            idf = frequencies.idf(ngrams, self._numbers)
        self._norms = cider.norms(ngrams, idf, len(references))
        self._table = NgramTable(ngrams)
        unseen = cider.inverse_frequencies(np.zeros(1), len(sizes))  # of what no image has
        self._orders = []
        for found, weights in zip(ngrams, idf, strict=True):
            keys = found.run.astype(np.int64) * len(sizes) + image[found.caption]
            heads = np.flatnonzero(changes(keys))
            most = np.maximum.reduceat(found.times, heads) if len(heads) else heads
            ends = np.append(heads, len(keys))
            self._orders.append(_Order(keys[heads], most, ends, found, np.append(weights, unseen)))

    def pairs(self, image: Ints) -> tuple[Ints, Ints]:
        """(P,) and (P,) each caption of the images `image` (C,) beside each reference of its image.

        The captions ascend, and so do the references of each.
        """
        return spread(self._starts[image], self._sizes[image])

    def compare(
        self, captions: TokenIds, image: Ints, unseen: Iterable[str], clipped: bool = True
    ) -> tuple[Ints, Floats]:
        """Compare captions with the references of their images.

        Args:
            captions: C captions, their words numbered as in the references.
            image: (C,) the image of each.
            unseen: the words that stand in no reference, numbered behind those that do.
            clipped: CIDEr-D, or without clipping and length penalty the plain CIDEr.

        Returns:
            (C, 4) n-grams shared, each at most as often as the reference with most of it has it;
            (C,) CIDEr.
        """
        caption_of, reference_of = self.pairs(image)
        # from a reference of a caption's image to their pair
        shift = starts_of(self._sizes[image]) - self._starts[image]
        ngrams = count_ngrams(captions)
        names = list(unseen)
        words = np.append(np.arange(self._num_words), np.full(len(names), -1))
        runs = self._table.find(ngrams, words)
        if self._frequencies is None:
            idf = [order.idf[run] for run, order in zip(runs, self._orders, strict=True)]
        else:
            numbers = np.append(self._numbers, self._frequencies.word_numbers(names))
            idf = self._frequencies.idf(ngrams, numbers)
        matches = np.zeros((len(captions), len(ORDERS)), np.int64)
        products = np.zeros((len(caption_of), len(ORDERS)))
        for column, (found, run_of, order) in enumerate(
            zip(ngrams, runs, self._orders, strict=True)
        ):
            run = run_of[found.run]
            known = np.flatnonzero(run >= 0)
            keys = run[known] * len(self._sizes) + image[found.caption[known]]
            group = find_sorted(order.keys, keys)
            known, group = known[group >= 0], group[group >= 0]
            caption, times = found.caption[known], found.times[known]
            matches[:, column] = np.bincount(
                caption, np.minimum(times, order.most[group]), len(captions)
            )
            # every entry of the n-gram in a reference of the same image
            which, entry = spread(order.heads[group], order.heads[group + 1] - order.heads[group])
            weight = order.idf[run[known]][which]
            own, other = times[which] * weight, order.entries.times[entry] * weight
            products[:, column] = np.bincount(
                order.entries.caption[entry] + shift[caption][which],
                (np.minimum(own, other) if clipped else own) * other,
                len(caption_of),
            )
        similar = cider.similarity(
            products,
            cider.norms(ngrams, idf, len(captions))[caption_of],
            self._norms[reference_of],
            captions.counts[caption_of] - self.counts[reference_of] if clipped else None,
        )
        return matches, np.bincount(caption_of, similar, len(captions)) / self._sizes[image]
