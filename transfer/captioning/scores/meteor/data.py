"""METEOR's data on this machine: where it is, its index in the cache, what it knows of words."""

import importlib.util
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import UsageError
from transfer.captioning.scores.arrays import Ints
from transfer.captioning.scores.meteor.build import Phrases, build, stem_words
from transfer.captioning.scores.meteor.store import Arrays, read_arrays, write_arrays

_FORMAT = "meteor-index/3"
HOW_TO_GET_IT = (
    "METEOR needs the data of pycocoevalcap: pip install pycocoevalcap 'snowballstemmer<3'"
)

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
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / "meteor"
    return folder if all(path.exists() for path in _files(folder)) else None


def why_not() -> str | None:
    """Why METEOR cannot be computed in this environment, and what to do; None where it can."""
    if find_folder() is None:
        return f"there is no pycocoevalcap in this environment. {HOW_TO_GET_IT}"
    return _why_no_stemmer()


def cache_folder() -> Path:
    """Where indexes are kept: $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cutmix-transfer"


class Data:
    """What METEOR knows of English words and phrases."""

    def __init__(self, about: dict[str, Any], arrays: Arrays) -> None:
        self.function_words = frozenset(about["function_words"])
        self.prefixes: dict[str, bool] = about["prefixes"]
        self.arrays = arrays
        self.phrases = Phrases(arrays["phrases_4"], arrays["phrases_6"], arrays["phrases_7"])

    @staticmethod
    def open(folder: Path | None = None, log: Callable[[str], None] = lambda text: None) -> "Data":
        """Read the index of METEOR's data; make it where the cache has none.

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
            raise UsageError(f"there is no pycocoevalcap in this environment. {HOW_TO_GET_IT}")
        jar, table = _files(folder)
        for path in (jar, table):
            if not path.exists():
                raise UsageError(f"{folder} is no METEOR folder: it has no {path.name}.")
        digest = _digest(jar, table)
        if (reason := _why_no_stemmer()) is not None:
            raise UsageError(reason)
        path = cache_folder() / f"{_FORMAT.replace('/', '-')}-{digest:08x}.bin"
        try:
            return Data(*read_arrays(path))
        except (OSError, ValueError, KeyError):
            _check_can_write(path.parent)
            log(f"indexing METEOR's data once, into {path}")
        try:
            write_arrays(path, *build(jar, table))
        except (zipfile.BadZipFile, EOFError, zlib.error, KeyError, ValueError) as error:
            raise UsageError(f"{folder} does not hold METEOR 1.5's data: {error}") from error
        return Data(*read_arrays(path))

    def find(self, words: Sequence[str]) -> Ints:
        """The place of each word among those that something is known about, or -1."""
        known: NDArray[np.bytes_] = self.arrays["words"]
        encoded = [word.encode("utf-8", "surrogatepass") for word in words]
        width = known.dtype.itemsize
        wanted = np.array([word if len(word) <= width else b"" for word in encoded], known.dtype)
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where((known[places] == wanted) & (wanted != b""), places, -1)

    def stems(self, words: Sequence[str], places: Ints) -> list[bytes]:
        """The stem of each word."""
        numbers = np.where(places < 0, -1, self.arrays["stem"][places])
        stems = self.arrays["stems"][numbers].tolist()
        unknown = np.flatnonzero(numbers < 0).tolist()
        for place, stem in zip(unknown, stem_words(words[place] for place in unknown), strict=True):
            stems[place] = stem.encode("utf-8", "surrogatepass")
        return stems

    def synsets(self, words: Sequence[str], places: Ints) -> list[frozenset[int]]:
        """The synsets of each word and of its base forms.

        Base forms come from the list of irregular inflections, or by the first regular ending that
        leaves a known word.
        """
        is_irregular = np.diff(self.arrays["bases_starts"])[places] > 0
        tries = [
            [word[: len(word) - len(ending)] + instead for ending, instead in _ENDINGS
             if word.endswith(ending)]
            if len(word) > 2 and not word.endswith("ss") and not (place >= 0 and irregular) else []
            for word, place, irregular in zip(words, places, is_irregular, strict=True)
        ]  # fmt: skip
        flat = [form for forms in tries for form in forms]
        known = iter(self.find(flat).tolist() if flat else [])
        result = []
        for place, forms in zip(places.tolist(), tries, strict=True):
            found = [form for form in [next(known) for _ in forms] if form >= 0]
            regular = next((form for form in found if self._row("synsets", form)), None)
            bases = [] if place < 0 else [place, *self._row("bases", place)]
            if regular is not None:
                bases.append(regular)
            result.append(frozenset(n for base in bases for n in self._row("synsets", base)))
        return result

    def _row(self, name: str, place: int) -> list[int]:
        starts = self._starts[name]
        return self._flat[name][starts[place] : starts[place + 1]]

    @cached_property
    def _starts(self) -> dict[str, list[int]]:
        return {name: self.arrays[f"{name}_starts"].tolist() for name in ("synsets", "bases")}

    @cached_property
    def _flat(self) -> dict[str, list[int]]:
        return {name: self.arrays[name].tolist() for name in ("synsets", "bases")}


def _why_no_stemmer() -> str | None:
    """By what it does: a later one is silent about stemming otherwise."""
    try:
        stems = stem_words(_STEMS)
    except ImportError:
        return f"there is no snowballstemmer in this environment. {HOW_TO_GET_IT}"
    for word, stem, wanted in zip(_STEMS, stems, _STEMS.values(), strict=True):
        if stem != wanted:
            return (
                f"the snowballstemmer of this environment makes {stem!r} of {word!r}, METEOR "
                f"{wanted!r}: it is another version. {HOW_TO_GET_IT}"
            )
    return None


def _check_can_write(folder: Path) -> None:
    """Before the index is made, which takes a while; its file is some 90 MB."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"METEOR's index cannot be written into {folder} ({error.strerror}). Set "
            "XDG_CACHE_HOME to a folder that can be written."
        ) from error


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "meteor-1.5.jar", folder / "data" / "paraphrase-en.gz"


def _digest(jar: Path, table: Path) -> int:
    """Of the contents, by the checksums that both files carry."""
    try:
        with zipfile.ZipFile(jar) as archive:
            parts = [f"{entry.filename} {entry.CRC}" for entry in archive.infolist()]
    except zipfile.BadZipFile as error:
        raise UsageError(f"{jar} is no jar: {error}") from error
    with open(table, "rb") as handle:
        handle.seek(-min(8, table.stat().st_size), os.SEEK_END)
        parts.append(handle.read().hex())
    return zlib.crc32("\n".join(parts).encode())
