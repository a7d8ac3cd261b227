"""What is downloaded or computed once, and where; hashes of files, not read twice for them."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.progress import bar
from pretrain.reading import read_bytes
from pretrain.safe_pickle import require_file

_SETTLED = 2_000_000_000  # ns: a file younger than that may change within its time stamp
_BLOCK = 4096  # bytes
_CHUNK = 64  # files that a thread reads before it says so

T = TypeVar("T")

new_hash = partial(hashlib.blake2b, digest_size=16)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/cutmix-transfer, or ~/.cache/cutmix-transfer."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cutmix-transfer"


def file_sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal; UsageError where it is no file, such as a pipe."""
    require_file(path)
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_content(file: FileIO) -> str:
    """The hash of all bytes: BLAKE2b, 32 hexadecimal digits."""
    return hashlib.file_digest(file, new_hash).hexdigest()


def hash_sample(file: BinaryIO) -> str:
    """The hash of the size and of 4 KiB each of beginning, middle and end; the same digits."""
    size = file.seek(0, os.SEEK_END)
    content = new_hash(b"%d " % size)
    for start in (0, max(0, size - _BLOCK) // 2, max(0, size - _BLOCK)):
        file.seek(start)
        content.update(file.read(_BLOCK))
    return content.hexdigest()


def hash_files(
    files: Mapping[str, str | Path],
    memory: Path,
    hash_file: Callable[[FileIO], str] = hash_content,
) -> dict[str, str | None]:
    """A hash of each file, None for one that cannot be read.

    A file whose size and times of change are as they were is not read again, unless it had been
    changed so shortly before it was read that a second change might bear the same time.

    Args:
        files: by the name that a file is remembered under.
        memory: a JSON file that remembers; made anew where it is damaged.
        hash_file: of an open file; always the same for a memory.
    """
    known, now = read_object(memory), time.time_ns()
    hashes, versions, settled = dict[str, str | None](), dict[str, str](), set[str]()
    for name, path in files.items():
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            status = None
        if status is None or not stat.S_ISREG(status.st_mode):  # to open a pipe may take for ever
            hashes[name] = None
            continue
        # the second time is the file system's own: a copy that keeps its age has another
        times = status.st_mtime_ns, status.st_ctime_ns
        version, held = f"{status.st_size} {times[0]} {times[1]} ", known.get(name)
        if isinstance(held, str) and held.startswith(version):
            hashes[name] = held[len(version) :]
            continue
        versions[name] = version
        if now - max(times) > _SETTLED:
            settled.add(name)
    if not versions:
        return hashes

    def read(names: list[str]) -> list[str | None]:
        return [_try(hash_file, files[name]) for name in names]

    unread = list(versions)
    chunks = [unread[start : start + _CHUNK] for start in range(0, len(unread), _CHUNK)]
    with (
        bar("reading files", len(unread), "files") as advance,
        ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool,
    ):
        for names, found in zip(chunks, pool.map(read, chunks), strict=True):
            hashes |= zip(names, found, strict=True)
            advance(len(names))
    new = {name: f"{versions[name]}{hashes[name]}" for name in settled if hashes[name]}
    if new:
        with suppress(UsageError):  # without a writable place they are read again
            write_text(memory, json.dumps(known | new))
    return hashes


def _try(hash_file: Callable[[FileIO], str], path: str | Path) -> str | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return hash_file(file)
    except OSError:
        return None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is none, or it cannot be read."""
    content = _read(path)
    return content if isinstance(content, dict) else {}


def _read(path: Path) -> Any:
    """What a JSON file of the cache holds; None where there is none, or it cannot be read."""
    with suppress(ValueError, RecursionError):  # of which UsageError is one
        return json.loads(read_bytes(path, largest=2**31))
    return None


def cached_json(path: Path | None, load: Callable[[Any], T], compute: Callable[[], T]) -> T:
    """What a file of the cache holds; where it does not, it is computed and kept there.

    Args:
        path: named by a hash of all that the content depends on; None keeps nothing.
        load: JSON's lists and texts -> the content.
        compute: the content, of what JSON can hold (named tuples become lists).
    """
    if path is not None and (kept := _read(path)) is not None:
        with suppress(ValueError, TypeError):  # a damaged one
            return load(kept)
    content = compute()
    if path is not None:
        with suppress(UsageError):  # without a writable home it is computed next time
            write_text(path, json.dumps(content))
    return content
