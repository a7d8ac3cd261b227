"""METEOR's English data on this machine: words from its jar, paraphrases from an index in a cache.

The paraphrase table has 5.3 million entries of a phrase and a paraphrase, 270 MB of text. In the
index a phrase is a number, its position among the sorted hashes of all phrases; the hash is 64 bits
of the numbers of its words. (Of METEOR's 2.6 million phrases no two share one, and a phrase that is
none of them has that of one with a probability of 1e-13.)
"""

import gzip
import importlib.util
import io
import itertools
import os
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pretrain.cache import cache_folder
from pretrain.errors import UsageError
from pretrain.files import atomic, draft
from transfer.captioning.scores.arrays import changes

JAR = "meteor-1.5.jar"
_JAR_FILES = ("function/english.words", "nonbreaking/english.prefixes", "synonym/english.synsets",
              "synonym/english.exceptions")  # fmt: skip
HOW_TO_GET_IT = "METEOR needs its data: pip install pycocoevalcap 'snowballstemmer<3'"
_NO_FOLDER = f"there is no pycocoevalcap in this environment. {HOW_TO_GET_IT}"
MAX_WORDS = 7  # of a phrase
POWERS = np.array([pow(0x9E3779B97F4A7C15, n, 1 << 64) for n in range(MAX_WORDS)], np.uint64)
"""A phrase's hash is the sum of its words' numbers times these."""
_BLOCK = 1 << 22  # bytes of the table at a time
Arrays = dict[str, NDArray[Any]]

# words that stemmers of different years disagree on
_STEMS = {"added": "ad", "university": "univers", "evening": "even", "realization": "realiz"}

# regular inflections: ending, and what the base has instead; the first that gives a word counts
_ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
    ("men", "man"), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"),
    ("ing", ""), ("er", ""), ("est", ""), ("er", "e"), ("est", "e"),
)  # fmt: skip


def find_folder() -> Path | None:
    """The folder of an installed pycocoevalcap that holds METEOR's jar and paraphrase table."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "meteor"
    return folder if all(path.exists() for path in _files(folder)) else None


def why_not() -> str | None:
    """Why METEOR cannot be computed in this environment, and what to do; None where it can."""
    return _NO_FOLDER if find_folder() is None else _stemmer_problem()


@dataclass(frozen=True)
class MeteorData:
    """What METEOR knows of English words and phrases."""

    function_words: frozenset[str]
    prefixes: dict[str, bool]
    """Words that may be followed by a dot within a sentence; True: only before a number."""
    synsets: dict[str, str]
    """The numbers of each word's synsets, between spaces."""
    bases: dict[str, list[str]]
    """The base forms of irregular inflections."""
    stems: dict[str, str]
    """Of the words in phrases, in the order of their numbers, which begin with 1."""
    index: Arrays
    """See `build_index`."""

    @classmethod
    def open(
        cls, folder: Path | None = None, log: Callable[[str], None] = lambda text: None
    ) -> Self:
        """Read METEOR's data and the index of its phrases; make it where the cache has none.

        Args:
            folder: holds meteor-1.5.jar and data/paraphrase-en.gz; None takes that of an installed
                pycocoevalcap.
            log: called before the index is made, which takes some ten seconds.

        Raises:
            UsageError: no data, data of another version, no stemmer, or a cache that cannot be
                written; the message says what to do.
        """
        folder = folder or find_folder()
        if folder is None:
            raise UsageError(_NO_FOLDER)
        jar, table = _files(folder)
        for path in (jar, table):
            if not path.exists():
                raise UsageError(f"{folder} is no METEOR folder: it has no {path.name}.")
        if (problem := _stemmer_problem()) is not None:
            raise UsageError(problem)
        try:
            words = _read_jar(jar)
            index = _open_index(table, log)
        except (gzip.BadGzipFile, EOFError, zlib.error, LookupError, ValueError) as error:
            raise UsageError(f"{folder} does not hold METEOR 1.5's data: {error}") from error
        names, stems = (index[name].item().decode().split("\n") for name in ("words", "stems"))
        return cls(*words, dict(zip(names, stems, strict=True)), index)

    def stem(self, words: Iterable[str]) -> list[str]:
        """The stem of each word."""
        words = list(words)
        rare = [word for word in words if word not in self.stems]
        known = self.stems | dict(zip(rare, stem_words(rare), strict=True))
        return [known[word] for word in words]

    def synsets_of(self, word: str) -> frozenset[int]:
        """The synsets of a word and of its base forms.

        Base forms come from the list of irregular inflections, or by the first regular ending that
        leaves a known word.
        """
        forms = [word, *self.bases.get(word, ())]
        if len(forms) == 1 and len(word) > 2 and not word.endswith("ss"):
            regular = (
                word.removesuffix(ending) + instead
                for ending, instead in _ENDINGS
                if word.endswith(ending)
            )
            forms += [next((form for form in regular if self.synsets.get(form)), word)]
        return frozenset(
            int(number)
            for form in forms
            if "_" not in form  # several words, such as `domestic_dog`
            for number in self.synsets.get(form, "").split()
        )


def stem_words(words: Iterable[str]) -> list[str]:
    """The Snowball stems (Porter 2) of English words.

    METEOR has the algorithm as it was until 2025, which is what snowballstemmer 2.2 does; nltk's
    version differs on some words (`realization`), snowballstemmer 3 on others (`added`).
    """
    # not snowballstemmer.stemmer(): that gives another library's where one is installed
    from snowballstemmer.english_stemmer import EnglishStemmer

    stemmer = EnglishStemmer()
    return [stemmer.stemWord(word) for word in words]


def _stemmer_problem() -> str | None:
    """By what it does: a later one is silent about stemming otherwise."""
    try:
        stems = stem_words(_STEMS)
    except ImportError:
        return f"there is no snowballstemmer in this environment. {HOW_TO_GET_IT}"
    for (word, expected), stem in zip(_STEMS.items(), stems, strict=True):
        if stem != expected:
            return (
                f"the snowballstemmer of this environment makes {stem!r} of {word!r}, METEOR "
                f"{expected!r}: it is another version. {HOW_TO_GET_IT}"
            )
    return None


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / JAR, folder / "data" / "paraphrase-en.gz"


# ---- words


def _read_jar(
    jar: Path,
) -> tuple[frozenset[str], dict[str, bool], dict[str, str], dict[str, list[str]]]:
    """Function words, prefixes, synsets and base forms: see `MeteorData`."""
    try:
        with zipfile.ZipFile(jar) as archive:
            function, prefixes, synsets, exceptions = (
                archive.read(name).decode("utf-8") for name in _JAR_FILES
            )
    except zipfile.BadZipFile as error:
        raise UsageError(f"{jar} is no jar: {error}") from error
    lines = exceptions.splitlines()
    bases: dict[str, list[str]] = {}
    for base, inflected in zip(lines[::2], lines[1::2], strict=True):
        for word in inflected.split():
            bases.setdefault(word, []).append(base)
    lines = synsets.splitlines()
    by_word = dict(zip(lines[::2], lines[1::2], strict=True))
    return frozenset(function.split()), read_prefixes(prefixes), by_word, bases


def read_prefixes(text: str) -> dict[str, bool]:
    """The table from a file with a word a line, comments behind #."""
    lines = (line.partition("#") for line in text.splitlines())
    notes = {word.strip(): note.strip().startswith("NUMERIC_ONLY") for word, _, note in lines}
    return {word: only_before_numbers for word, only_before_numbers in notes.items() if word}


# ---- phrases


def _open_index(table: Path, log: Callable[[str], None]) -> Arrays:
    """The index of a table from the cache; made where there is none or a damaged one."""
    with open(table, "rb") as handle:  # a gzip file ends with a checksum and the size
        handle.seek(-min(8, table.stat().st_size), os.SEEK_END)
        path = cache_folder() / f"meteor-index-4-{handle.read().hex()}.npy"
    try:
        return read_arrays(path)
    except (OSError, ValueError, EOFError):
        pass
    with draft(path) as temporary:  # before the index is made, which takes a while
        temporary.touch()
    log(f"indexing METEOR's data once, into {path}")
    write_arrays(path, build_index(table))
    return read_arrays(path)


def build_index(table: Path) -> Arrays:
    """The paraphrase table as arrays of N entries and P phrases.

    Returns:
        words, stems: texts, a word and its stem a line, in the order of the words' numbers.
        phrases: (P,) hashes, ascending.
        of both sides, source (the phrase) and target (the paraphrase):
        SIDE_starts: (P + 1,) where each phrase's entries begin in the arrays sorted by this side.
        SIDE_entries: (N,) the entries, in the order of the table for each phrase.
        SIDE_others: (N,) the phrase on the other side of each of these.
    """
    # words are numbered from 1 on; between lines stands -1, and between two spaces nothing
    vocabulary = defaultdict(itertools.count(1).__next__, {"\n": -1, "": 0})
    hashes = np.concatenate([_hash_phrases(block, vocabulary) for block in _entries(table)])
    phrases, positions = np.unique(hashes, return_inverse=True)
    source, target = positions.astype(np.int32).reshape(-1, 2).T
    words = list(vocabulary)[2:]
    arrays: Arrays = {
        "words": np.array("\n".join(words).encode()),
        "stems": np.array("\n".join(stem_words(words)).encode()),
        "phrases": phrases,
    }
    for side, own, other in (("source", source, target), ("target", target, source)):
        entries = np.argsort(own, kind="stable").astype(np.int32)
        counts = np.bincount(own, minlength=len(phrases))
        arrays[f"{side}_starts"] = np.append(0, np.cumsum(counts)).astype(np.int32)
        arrays[f"{side}_entries"] = entries
        arrays[f"{side}_others"] = other[entries]
    return arrays


def _entries(table: Path) -> Iterator[bytes]:
    """The text of the table in blocks of whole entries: probability, phrase, paraphrase."""
    with gzip.open(table, "rb") as handle:
        reader = io.BufferedReader(handle, _BLOCK)  # type: ignore[type-var]
        while block := reader.read(_BLOCK):
            lines = block + reader.readline()
            while lines.count(b"\n") % 3:
                lines += reader.readline()
            yield lines


def _hash_phrases(block: bytes, vocabulary: dict[str, int]) -> NDArray[np.uint64]:
    """(2 E,) the hashes of each entry's phrase and paraphrase."""
    lines = block.decode().split("\n")
    del lines[::3]
    words = " \n ".join(lines).split(" ")
    numbers = np.fromiter(map(vocabulary.__getitem__, words), np.int64, len(words))
    line = np.cumsum(numbers < 0)[numbers > 0]
    heads = np.flatnonzero(changes(line))
    position = np.arange(len(line)) - np.repeat(heads, np.diff(heads, append=len(line)))
    return np.add.reduceat(numbers[numbers > 0].astype(np.uint64) * POWERS[position], heads)


# ---- arrays in one file


def write_arrays(path: Path, arrays: Arrays) -> None:
    """As one NumPy record, complete or not at all; two processes may do so at the same time."""
    fields = [(name, array.dtype, array.shape) for name, array in arrays.items()]
    record = np.zeros((), np.dtype(fields, align=True))
    for name, array in arrays.items():
        record[name] = array
    with atomic(path, record.nbytes) as temporary, open(temporary, "wb") as handle:
        np.save(handle, record)


def read_arrays(path: Path) -> Arrays:
    """What `write_arrays` was given; the arrays are read from disk where they are touched.

    Raises:
        ValueError, EOFError: the file is cut short or no such file.
    """
    record = np.load(path, mmap_mode="r")
    return {name: np.asarray(record[name]) for name in record.dtype.names}
