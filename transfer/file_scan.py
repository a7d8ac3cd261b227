"""What is read of many files: in parallel, and not read twice while the files are the same."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from pretrain.cache import cache_folder, cached_json
from pretrain.progress import bar

T = TypeVar("T")


def scan_files(
    paths: Sequence[str],
    read: Callable[[str], T],
    load: Callable[[Any], T],
    *,
    kind: str,
    least: int,
    title: str | None = None,
) -> list[T]:
    """`read` of each file, in order.

    The cache's key is a hash of every file's name, size and time of change.

    Args:
        paths: of the files.
        read: a function of a module, from a path to what JSON can hold.
        load: from that as JSON holds it (named tuples as lists) to what `read` gives.
        kind: of what is read; a folder of the cache.
        least: fewer are read faster than they are sent to a process, or looked up.
        title: of a progress bar; None shows none.
    """
    path = _cache_file(paths, kind) if len(paths) >= least else None
    return cached_json(
        path, lambda rows: [load(row) for row in rows], lambda: _read_all(paths, read, least, title)
    )


def _read_all(
    paths: Sequence[str], read: Callable[[str], T], least: int, title: str | None
) -> list[T]:
    processes = min(os.cpu_count() or 1, len(paths) // least)
    fork = multiprocessing.get_context("fork")
    chunk = max(1, min(least, len(paths) // (4 * max(processes, 1))))
    found = list[T]()
    with (
        bar(title or "", len(paths), "files", shown=title is not None) as advance,
        ProcessPoolExecutor(processes, fork) if processes > 1 else nullcontext() as pool,
    ):
        for one in pool.map(read, paths, chunksize=chunk) if pool else map(read, paths):
            found.append(one)
            advance(1)
    return found


def _cache_file(paths: Sequence[str], kind: str) -> Path | None:
    digest = blake2b(digest_size=16)
    try:
        for path in paths:
            status = os.stat(path)
            digest.update(f"{path}:{status.st_size}:{status.st_mtime_ns}\n".encode())
    except (OSError, ValueError):
        return None
    return cache_folder() / kind / f"{digest.hexdigest()}.json"
