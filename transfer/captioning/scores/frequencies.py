"""In how many images each n-gram stands: what CIDEr weighs n-grams by.

Usually the references of a scoring themselves; for few images, or for rewards while training, a
larger corpus (`DocumentFrequencies.count`, or a file of the field: `read`).
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import UsageError
from transfer.captioning.scores.arrays import Floats, Ints, changes, find_sorted
from transfer.captioning.scores.cider import weights
from transfer.captioning.scores.ngrams import ORDERS, Ngrams, count_ngrams
from transfer.captioning.scores.words import Captions, Words


@dataclass(frozen=True)
class NgramTable:
    """The n-grams of some captions, to look others up in."""

    keys: list[Ints]
    """(R,) of each order, ascending: the first word times the runs one order lower, plus the run
    of the rest. A run's number is its place."""

    @staticmethod
    def of(ngrams: list[Ngrams]) -> "NgramTable":
        """The table of what `count_ngrams` found."""
        sizes = [1, *(len(found) for found in ngrams)]
        return NgramTable(
            [found.first * size + found.rest for found, size in zip(ngrams, sizes, strict=False)]
        )

    def find(self, ngrams: list[Ngrams], words: Ints) -> list[Ints]:
        """(R,) of each order: the place of each n-gram in this table, or -1.

        Args:
            ngrams: of other captions.
            words: the number here of each of their words, or -1.
        """
        places = np.zeros(1, np.int64)
        result: list[Ints] = []
        size = 1
        for keys, wanted in zip(self.keys, ngrams, strict=True):
            first, rest = words[wanted.first], places[wanted.rest]
            asked = np.flatnonzero((first >= 0) & (rest >= 0))
            found = find_sorted(keys, first[asked] * size + rest[asked])
            places = np.full(len(wanted), -1)
            places[asked] = found
            result.append(places)
            size = len(keys)
        return result


@dataclass(frozen=True)
class DocumentFrequencies:
    """For each n-gram the number of images whose captions hold it, and the number of images."""

    words: Mapping[str, int]
    table: NgramTable
    documents: Sequence[Ints | Floats]
    """(R + 1,) of each order, and last the 0 of what is not there."""
    num_images: float

    @staticmethod
    def count(
        corpus: Mapping[Any, Sequence[str]], tokenized: bool = False
    ) -> "DocumentFrequencies":
        """From the captions of each image of a corpus, raw or cut already."""
        words = Words()
        flat = [caption for captions in corpus.values() for caption in captions]
        if not flat:
            raise UsageError("the corpus for document frequencies has no captions.")
        counts = np.array([len(captions) for captions in corpus.values()])
        ngrams = count_ngrams(words.split(words.cut(flat, tokenized)))
        image = np.repeat(np.arange(len(counts)), counts)
        documents = [np.append(count_documents(found, image), 0) for found in ngrams]
        return DocumentFrequencies(words, NgramTable.of(ngrams), documents, len(counts))

    @staticmethod
    def read(path: Path) -> "DocumentFrequencies":
        """A pickle of the field: {"document_frequency": {(word, ...): images}, "ref_len": images}.

        Such files come with ruotianluo's and vrama91's CIDEr code. Nothing but dictionaries,
        tuples, strings and numbers is unpickled.

        Raises:
            UsageError: no file, or another content.
        """
        try:
            with open(path, "rb") as handle:
                content = _PlainUnpickler(handle, encoding="utf-8").load()
            counts, num_images = content["document_frequency"], float(content["ref_len"])
            if not isinstance(counts, dict) or num_images < 1:
                raise ValueError(f"{type(counts).__name__} of {num_images:g} images")
            rows = [tuple(map(str, ngram)) for ngram in counts]
            values = np.array([float(value) for value in counts.values()])
        except FileNotFoundError:
            raise UsageError(f"there is no file {path}.") from None
        # the pickle machine trusts its input: a torn stream ends in any of these
        except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path} holds no document frequencies ({type(error).__name__}: {error}); expected "
                'a pickle of {"document_frequency": {(word, ...): images}, "ref_len": images}.'
            ) from error
        return _from_dictionary(rows, values, num_images)

    def numbers(self, names: Sequence[str]) -> Ints:
        """The number of each word, or -1."""
        return np.fromiter((self.words.get(name, -1) for name in names), np.int64, len(names))

    def idf(self, ngrams: list[Ngrams], numbers: Ints) -> list[Floats]:
        """(R,) of each order: the weight of each n-gram of other captions.

        Args:
            ngrams: of captions whose words are numbered otherwise.
            numbers: the number here of each of their words, or -1.
        """
        found = self.table.find(ngrams, numbers)
        return [
            weights(documents[places], self.num_images)
            for places, documents in zip(found, self.documents, strict=True)
        ]


def count_documents(found: Ngrams, image: Ints) -> Ints:
    """(R,) the number of images that hold each n-gram; `image` (C,) ascends."""
    is_new = changes(found.run) | changes(image[found.caption])
    return np.bincount(found.run[is_new], minlength=len(found))


def _from_dictionary(
    rows: list[tuple[str, ...]], values: Floats, num_images: float
) -> DocumentFrequencies:
    """Each n-gram is a caption of its own; that of n words holds one n-gram of order n."""
    words = Words()
    counts = np.array([len(row) for row in rows], np.int64)
    flat = np.array([words[word] for row in rows for word in row], np.int64)
    ngrams = count_ngrams(Captions(flat, counts))
    documents = []
    for order, found in zip(ORDERS, ngrams, strict=True):
        whole = counts[found.caption] == order
        column = np.zeros(len(found) + 1)
        column[found.run[whole]] = values[found.caption[whole]]
        documents.append(column)
    return DocumentFrequencies(words, NgramTable.of(ngrams), documents, num_images)


class _PlainUnpickler(pickle.Unpickler):
    """Plain values only; the field's files hold defaultdicts of floats."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "defaultdict"):
            return lambda *_: {}
        if module in ("builtins", "__builtin__") and name in ("float", "int"):
            return {"float": float, "int": int}[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
