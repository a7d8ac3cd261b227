"""Document frequencies for CIDEr from a larger corpus, or from a file of CIDEr's own code."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import UsageError
from pretrain.safe_pickle import require_file
from transfer.captioning.scores.cider import DocumentFrequencies
from transfer.captioning.scores.ngrams import ORDERS, NgramTable, count_ngrams
from transfer.captioning.scores.tokenizer import TokenIds, Tokenize, Tokenizer


def count_frequencies(
    corpus: Mapping[Any, Sequence[str]],
    tokenized: bool = False,
    tokenizer: str | Tokenize = "ptb",
) -> DocumentFrequencies:
    """Document frequencies from the captions of each image of a corpus, raw or cut already.

    They fit the references that are cut by the same tokenizer; see `References`.
    """
    words = Tokenizer(tokenizer)
    flat = [caption for captions in corpus.values() for caption in captions]
    if not flat:
        raise UsageError("the corpus for document frequencies has no captions.")
    ngrams = count_ngrams(words.split(words.encode(flat, tokenized)))
    return DocumentFrequencies.of(words, ngrams, [len(texts) for texts in corpus.values()])


def read_frequencies(path: Path) -> DocumentFrequencies:
    """Those in a pickle of {"document_frequency": {(word, ...): images}, "ref_len": images}.

    Such files come with ruotianluo's and vrama91's CIDEr code. Nothing but dictionaries,
    tuples, strings and numbers is unpickled.

    Raises:
        UsageError: no file, or another content.
    """
    require_file(path)
    try:
        with open(path, "rb") as handle:
            content = _PlainUnpickler(handle, encoding="utf-8").load()
        counts, num_images = content["document_frequency"], float(content["ref_len"])
        if not isinstance(counts, dict) or num_images < 1:
            raise ValueError(f"{type(counts).__name__} of {num_images:g} images")
        rows = [tuple(map(str, ngram)) for ngram in counts]
        values = np.array([float(value) for value in counts.values()])
    # the pickle machine trusts its input: a torn stream ends in any of these
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} holds no document frequencies ({type(error).__name__}: {error}); expected "
            'a pickle of {"document_frequency": {(word, ...): images}, "ref_len": images}.'
        ) from error
    # each n-gram is a caption of its own; that of n words holds one n-gram of order n
    words = Tokenizer()
    captions = TokenIds.of([[words[word] for word in row] for row in rows])
    ngrams = count_ngrams(captions)
    documents = []
    for order, grams in zip(ORDERS, ngrams, strict=True):
        whole = captions.counts[grams.caption] == order
        column = np.zeros(len(grams) + 1)
        column[grams.run[whole]] = values[grams.caption[whole]]
        documents.append(column)
    return DocumentFrequencies(words, NgramTable(ngrams), documents, num_images)


class _PlainUnpickler(pickle.Unpickler):
    """Plain values only; such files hold defaultdicts of floats."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "defaultdict"):
            return lambda *_: {}
        if module in ("builtins", "__builtin__") and name in ("float", "int"):
            return {"float": float, "int": int}[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
