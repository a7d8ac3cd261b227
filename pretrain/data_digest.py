"""Which data a run saw, as one number: the same wherever the files lie and however old they are.

Of annotations every byte counts. Of an image its name below the data's folder, its size and 4 KiB
each of its beginning, middle and end count; that is all of an image of up to 12 KiB. So one JPEG,
PNG, WebP or AVIF is told from another, but uncompressed pixels (BMP, TIFF, PPM) that differ between
these places alone are not: `--digest bytes` adds a second number, over all bytes.

Sizes and times enter neither. They only tell which files must be read again (`cache.hash_files`),
so what is given another content, but the old size, modification and change time, is not noticed on
the machine that has read it before.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from pretrain.cache import cache_folder, hash_content, hash_files, hash_sample
from pretrain.reading import check, read_json

_REMEMBERED = 50  # files; a cluster's jobs may unpack their data into a new folder each time


class FileSet(NamedTuple):
    """What files of one kind come to."""

    files: int
    names: str
    """Hash of their names, sorted."""
    content: str
    """Hash of what was read of them, in that order."""


class Digest(TypedDict, total=False):
    """What RUN/data.json holds."""

    annotations: FileSet
    images: FileSet
    start: FileSet
    """Of the weights that the run began with, where they are no backbone: no data, in no number."""
    digest: str
    """Over annotations and images: 16 hexadecimal digits, as all of them."""
    digest_bytes: str
    """Over all bytes of the images, where they were asked for."""


@dataclass(frozen=True)
class DataFiles:
    """The files that a run reads."""

    roots: tuple[Path, ...]
    """Names are relative to these folders: the data's, and one of images that lie elsewhere."""
    images: Iterable[str | Path]
    """Their paths, asked for once: ImageNet's are not kept as a million texts."""
    annotations: Sequence[str | Path] = ()
    by: Literal["sample", "bytes"] = "sample"
    """How much of the images counts."""
    start: Path | None = None
    """A file of weights that the run begins with."""

    @cached_property
    def digest(self) -> Digest:
        """As the files are at the first call; one that cannot be read counts as such."""
        root = os.fsencode(os.path.abspath(self.roots[0]))
        folder, key = cache_folder() / "digests", hashlib.sha256(root).hexdigest()[:16]
        memories = folder / f"{key}.json", folder / f"{key}-{self.by}.json"
        hash_image = hash_sample if self.by == "sample" else _hash_both
        annotations = hash_files(self._by_name(self.annotations), memories[0])
        images = hash_files(self._by_name(self.images), memories[1], hash_image)
        sampled = {name: text and text[:32] for name, text in images.items()}
        parts = _file_set(annotations), _file_set(sampled)
        number = _hash(f"{value}" for part in parts for value in part)
        digest = Digest(annotations=parts[0], images=parts[1], digest=number)
        if self.start is not None:
            (content,) = hash_files({os.path.abspath(self.start): self.start}, memories[0]).values()
            digest["start"] = _file_set({"start": content})
        if self.by == "bytes":
            digest["digest_bytes"] = _file_set(images).content
        _forget(folder, but=memories)
        return digest

    @property
    def summary(self) -> dict[str, str]:
        """What a result says: `digest` and, where it was asked for, `digest_bytes`."""
        return {key: str(text) for key, text in self.digest.items() if key.startswith("digest")}

    def _by_name(self, paths: Iterable[str | Path]) -> dict[str, str]:
        """Each file by its name: below a root, or below the common folder of those elsewhere."""
        roots = [str(root) for root in self.roots if str(root) != "."]
        roots += map(os.path.abspath, self.roots)
        prefixes = sorted((os.path.join(root, "") for root in roots), key=len, reverse=True)
        files, elsewhere = dict[str, str](), list[str]()

        def add(path: str, name: str) -> None:
            name = name.replace(os.sep, "/")
            while files.setdefault(name, path) != path:  # one of that name is below another root
                name += "'"

        for path in map(str, paths):
            for place in (path, os.path.abspath(path)):
                if prefix := next(filter(place.startswith, prefixes), None):
                    add(path, place[len(prefix) :])
                    break
            else:
                elsewhere.append(path)
        if elsewhere:
            common = os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in elsewhere])
            for path in elsewhere:
                add(path, os.path.relpath(path, common))
        return files


def read_digest(path: Path) -> Digest:
    """What RUN/data.json holds; nothing where it is not there, as in runs of before.

    Raises:
        UsageError: it cannot be read.
    """
    return check(read_json(path), Digest, str(path)) if os.path.lexists(path) else {}


def is_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether both have a digest, and nothing differs between them."""
    both = before.get("digest") and now.get("digest")
    return bool(both) and not describe_changes(before, now)


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two digests, in words; what only one of them has counts as equal."""
    both, lines = before.keys() & now.keys(), list[str]()
    for kind in sorted(both & {"annotations", "images", "start"}):
        old, new = FileSet(*before[kind]), FileSet(*now[kind])
        if old.files != new.files:
            lines.append(f"{kind}: {old.files:,} files then, {new.files:,} now")
        elif old.names != new.names:
            lines.append(f"{kind}: as many files, some with another name or in another folder")
        elif old.content != new.content:
            lines.append(f"{kind}: files of the same names, some with another content")
    numbers = sorted(key for key in both if key.startswith("digest") and before[key] != now[key])
    return lines or [f"{key}: {before[key]} then, {now[key]} now" for key in numbers]


def _hash_both(file: FileIO) -> str:
    sample = hash_sample(file)
    file.seek(0)
    return sample + hash_content(file)


def _file_set(hashes: Mapping[str, str | None]) -> FileSet:
    names = sorted(hashes)
    return FileSet(len(names), _hash(names), _hash(str(hashes[name]) for name in names))


def _hash(texts: Iterable[str]) -> str:
    """16 hexadecimal digits."""
    content = "\0".join(texts).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _forget(folder: Path, but: Iterable[Path]) -> None:
    """Remove the memories beyond so many that were not used for longest; `but` are used now."""
    for path in but:
        with suppress(OSError):
            os.utime(path)
    with suppress(OSError):
        for path in sorted(folder.iterdir(), key=os.path.getmtime)[:-_REMEMBERED]:
            path.unlink()
