"""METEOR's English data as arrays: from the jar and the paraphrase table of METEOR 1.5.

The table has 5.3 million lines of a phrase and a paraphrase, 270 MB of text. Here a phrase is a
number: its words (43,139 in all, so 16 bits each) are packed into integers, and phrases are found
by them, words 1 to 4 first, then 5 and 6, then 7.
"""

import gzip
import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.captioning.scores.arrays import Ints, find_sorted
from transfer.captioning.scores.meteor.normalize import read_prefixes
from transfer.captioning.scores.pieces import LONGEST, Pieces

_BLOCK = 1 << 22  # bytes of the table at a time
MAX_WORDS = 7  # of a phrase
_NONE = 0xFFFF
Array = NDArray[Any]


def build(jar: Path, table: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Everything that scoring needs: small things by name, and arrays."""
    with zipfile.ZipFile(jar) as archive:
        function, prefixes, synsets, exceptions = (
            archive.read(name).decode("utf-8")
            for name in (
                "function/english.words",
                "nonbreaking/english.prefixes",
                "synonym/english.synsets",
                "synonym/english.exceptions",
            )
        )
    about = {"function_words": function.split(), "prefixes": read_prefixes(prefixes)}
    phrase_words, arrays = _paraphrases(table)
    return about, {**_words(synsets, exceptions, phrase_words), **arrays}


def stem_words(words: Iterable[str]) -> list[str]:
    """The Snowball stems (Porter 2) of English words.

    METEOR has the algorithm as it was until 2025, which is what snowballstemmer 2.2 does; nltk's
    version differs on some words (`realization`), snowballstemmer 3 on others (`added`).
    """
    # not snowballstemmer.stemmer(): that gives another library's where one is installed
    from snowballstemmer.english_stemmer import EnglishStemmer

    stemmer = EnglishStemmer()
    return [stemmer.stemWord(word) for word in words]


def sorted_words(words: Iterable[str]) -> Array:
    """Words as a sorted array of bytes, to be searched in."""
    return np.array(sorted(word.encode("utf-8") for word in words))


def _words(synsets: str, exceptions: str, phrase_words: list[str]) -> dict[str, Array]:
    """All words that something is known about, sorted, and what that is.

    The number in phrases (0 for none), the stem of those in phrases (-1 for others, which are rare:
    stemming all would take longer than all the rest), the synsets, and the base forms of irregular
    inflections. Entries of several words (`domestic_dog`) are left out: no word equals one.
    """
    lines = synsets.splitlines()
    rows = {
        word: [int(number) for number in numbers.split()]
        for word, numbers in zip(lines[::2], lines[1::2], strict=True)
        if "_" not in word
    }
    lines = exceptions.splitlines()
    bases: dict[str, list[str]] = {}
    for base, inflected in zip(lines[::2], lines[1::2], strict=True):
        for word in inflected.split():
            if "_" not in word:
                bases.setdefault(word, []).append(base)
    words = sorted_words({*rows, *bases, *chain.from_iterable(bases.values()), *phrase_words})
    names = [word.decode("utf-8") for word in words]
    place = {word: number for number, word in enumerate(names)}
    in_phrases = {word: number for number, word in enumerate(phrase_words, start=1)}
    stems, number = np.unique(
        [word.encode("utf-8") for word in stem_words(phrase_words)], return_inverse=True
    )
    stem = np.full(len(names), -1, np.int32)
    stem[[place[word] for word in phrase_words]] = number
    return {
        "words": words,
        "phrase_word": np.array([in_phrases.get(word, 0) for word in names], np.uint16),
        "stems": stems,
        "stem": stem,
        **_rows("synsets", [rows.get(word, []) for word in names]),
        **_rows("bases", [[place[base] for base in bases.get(word, ())] for word in names]),
    }


def _rows(name: str, rows: list[list[int]]) -> dict[str, Array]:
    flat = [number for row in rows for number in row]
    starts = np.cumsum([0, *map(len, rows)])
    return {f"{name}_starts": starts.astype(np.int32), name: np.array(flat, np.int32)}


def _paraphrases(table: Path) -> tuple[list[str], dict[str, Array]]:
    """The words of phrases, the phrases, and the paraphrases of each in the order of the table.

    `targets` holds the paraphrases of phrase `sources[k]` at `source_starts[k]` and on; a phrase is
    found among `sorted_sources`, its k in `by_phrase`. The places of `targets` sorted by paraphrase
    are `by_target`, those of phrase p at `target_starts[p]` and on.
    """
    vocabulary = Pieces(slot_bits=20)
    targets, sources, counts = [], [], []
    for block in _triples(table):
        words = _phrases(block, vocabulary)
        is_head = np.ones(len(words) // 2, bool)  # the table is sorted by phrase
        is_head[1:] = (words[2::2] != words[:-2:2]).any(axis=1)
        heads = np.flatnonzero(is_head)
        targets.append(words[1::2])
        sources.append(words[::2][heads])
        counts.append(np.diff(heads, append=len(is_head)))
    names = sorted(vocabulary)
    rank = np.zeros(_NONE + 1, np.uint16)  # 0 is no word
    rank[[vocabulary[word] for word in names]] = np.arange(1, len(names) + 1)
    targets, sources = [rank[part] for part in targets], [rank[part] for part in sources]
    phrases = Phrases.of([*targets, *sources])
    target = np.concatenate([phrases.find(part).astype(np.int32) for part in targets])
    source = np.concatenate([phrases.find(part).astype(np.int32) for part in sources])
    del targets, sources
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    heads = np.flatnonzero(np.diff(source, prepend=-1))  # one may go on in the next block
    source, by_phrase = source[heads], np.argsort(source[heads]).astype(np.int32)
    by_target = np.argsort(target, kind="stable").astype(np.int32)
    target_counts = np.bincount(target, minlength=len(phrases))
    return names, {
        "phrases_4": phrases.four,
        "phrases_6": phrases.six,
        "phrases_7": phrases.seven,
        "sources": source,
        "sorted_sources": source[by_phrase],
        "by_phrase": by_phrase,
        "source_starts": np.append(starts[heads], len(target)).astype(np.int32),
        "targets": target,
        "by_target": by_target,
        "target_starts": np.concatenate([[0], np.cumsum(target_counts)]).astype(np.int32),
    }


@dataclass(frozen=True)
class Phrases:
    """Phrases of up to seven words, each word a number from 1 on of 16 bits.

    A phrase's number is its place in `four`, or behind them in `six`, or behind those in `seven`.
    """

    four: NDArray[np.uint64]
    """Ascending: words 1 to 4."""
    six: NDArray[np.uint64]
    """Ascending: place in `four`, words 5 and 6."""
    seven: NDArray[np.uint64]
    """Ascending: place in `six`, word 7."""

    def __len__(self) -> int:
        return len(self.four) + len(self.six) + len(self.seven)

    @staticmethod
    def of(parts: list[NDArray[np.uint16]]) -> "Phrases":
        """The phrases that are the rows of arrays (P, 7), 0 where there is no word."""
        four = np.unique(np.concatenate([_first(part) for part in parts]))
        long = np.concatenate([part[part[:, 4] > 0] for part in parts])
        six = np.unique(_behind(np.searchsorted(four, _first(long)), long[:, 4], long[:, 5]))
        longest = long[long[:, 6] > 0]
        place = np.searchsorted(four, _first(longest))
        place = np.searchsorted(six, _behind(place, longest[:, 4], longest[:, 5]))
        return Phrases(four, six, np.unique(_behind(place, longest[:, 6])))

    def find(self, words: NDArray[np.uint16]) -> Ints:
        """(P,) the number of each row, or -1."""
        numbers = find_sorted(self.four, _first(words))
        long = np.flatnonzero((words[:, 4] > 0) & (numbers >= 0))
        keys = _behind(numbers[long], words[long, 4], words[long, 5])
        numbers[words[:, 4] > 0] = -1
        six = find_sorted(self.six, keys)
        numbers[long] = np.where(six < 0, -1, six + len(self.four))
        longest = np.flatnonzero((words[long, 6] > 0) & (six >= 0))
        seven = find_sorted(self.seven, _behind(six[longest], words[long[longest], 6]))
        numbers[words[:, 6] > 0] = -1
        numbers[long[longest]] = np.where(seven < 0, -1, seven + len(self.four) + len(self.six))
        return numbers


def _first(words: NDArray[np.uint16]) -> NDArray[np.uint64]:
    key = words[:, 0].astype(np.uint64)
    for column in (1, 2, 3):
        key = (key << np.uint64(16)) | words[:, column]
    return key


def _behind(place: Ints, *words: NDArray[np.uint16]) -> NDArray[np.uint64]:
    key = place.astype(np.uint64)
    for word in words:
        key = (key << np.uint64(16)) | word
    return key


def _triples(table: Path) -> Iterator[bytes]:
    """The text of the table in blocks of whole entries: probability, phrase, paraphrase."""
    with gzip.open(table, "rb") as handle:
        reader = io.BufferedReader(handle, _BLOCK)  # type: ignore[type-var]
        while block := reader.read(_BLOCK):
            lines = block + reader.readline()
            while lines.count(b"\n") % 3:
                lines += reader.readline()
            yield lines


def _phrases(block: bytes, vocabulary: Pieces) -> NDArray[np.uint16]:
    """(2 P, 7) the phrase and the paraphrase of each entry as word numbers, 65,535 for none."""
    text = b"\n" + block + b"\0" * LONGEST
    chars = np.frombuffer(text, np.uint8)[: len(block) + 1]
    breaks = np.flatnonzero(chars == 10)
    parts = (chars == 10) | (chars == 32)
    starts = np.flatnonzero(parts[:-1] & ~parts[1:]) + 1
    lengths = np.flatnonzero(~parts[:-1] & parts[1:]) + 1 - starts
    line = np.searchsorted(breaks, starts) - 1
    wanted = line % 3 > 0
    starts, lengths, line = starts[wanted], lengths[wanted], line[wanted]
    heads = np.searchsorted(line, line)  # the first word of each word's line
    numbers = vocabulary.find(text, starts, lengths)
    if len(vocabulary) > _NONE:
        raise ValueError(f"more than {_NONE} different words: not METEOR 1.5's English table")
    words = np.full((len(breaks) - 1, MAX_WORDS), _NONE, np.uint16)
    words[line, np.arange(len(line)) - heads] = numbers
    return words[np.arange(len(words)) % 3 > 0]
