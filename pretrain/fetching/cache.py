"""The folder of fetched shards: bounded, shared by all processes of a machine, safe against kills.

    ROOT/STORE/shards/train-000003.tar         whole; its time is that of its last use
    ROOT/STORE/shards/.train-000003.tar.lock   held by the one process that fetches it
    ROOT/.lock                                 held while sizes are counted, or a file gets its name

What is being fetched counts in full from its beginning. The least recently used go first; who has
one open reads on. Where what is being fetched leaves no room, the next one waits for it, or is not
fetched ahead.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from stat import S_ISREG

from filelock import FileLock, Timeout

from pretrain.files import publish, remove

_TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")  # see pretrain.files.draft
_PATIENCE = 60.0  # seconds


class NoRoom(Exception):
    """All the room is being fetched into."""


class ShardCache:
    """A folder for shards of any stores."""

    def __init__(self, root: Path, most: int) -> None:
        """Nothing is made yet.

        Args:
            root: the folder.
            most: bytes that it may hold.
        """
        self.root, self.most = root, most

    @staticmethod
    def use(path: Path, size: int | None) -> bool:
        """Whether a file of that size is there; it then counts as used now."""
        try:
            if size not in (None, path.stat().st_size):
                return False
        except FileNotFoundError:
            return False
        with suppress(OSError):  # of another user: it goes by the time of its fetching
            os.utime(path)
        return True

    @contextmanager
    def fetching(self, path: Path, wait: bool = True) -> Iterator[None]:
        """Be the only one that fetches a shard; Timeout where another does and `wait` is false."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_name(f".{path.name}.lock")).acquire(-1 if wait else 0):
            for rest in path.parent.glob(f".{escape(path.name)}.*.tmp"):
                remove(rest)  # whose process was killed: under this lock it would count for ever
            yield

    def reserve(self, temporary: Path, size: int, wait: bool = True) -> None:
        """Make a file of that size, which what is used least makes room for.

        What is being fetched may leave none. Then it waits, and after a minute goes over the bound
        rather than stand still; where `wait` is false it raises NoRoom instead.
        """
        end = time.monotonic() + _PATIENCE
        while not self._reserve(temporary, size, is_late=time.monotonic() >= end):
            if not wait:
                raise NoRoom
            time.sleep(0.05)

    def publish(self, temporary: Path, path: Path) -> None:
        """Give what was fetched its name, not amid a count: that would miss it under both names."""
        publish(temporary, path, _lock(self.root / ".lock"))

    def _reserve(self, temporary: Path, size: int, is_late: bool) -> bool:
        with _lock(self.root / ".lock"):
            kept = sorted(self._shards())
            fetched = sum(length for _, length, path in kept if path.name.startswith("."))
            if fetched and fetched + size > self.most and not is_late:
                return False
            total = sum(length for _, length, _ in kept) + size
            for _, length, path in kept:
                if total <= self.most:
                    break
                if not path.name.startswith("."):
                    with suppress(OSError):
                        path.unlink()
                        total -= length
            temporary.touch()
            os.truncate(temporary, size)
            return True

    def _shards(self) -> Iterator[tuple[int, int, Path]]:
        """(time of use, size, path) of all, and of what is being fetched."""
        for path in self.root.glob("*/shards/**/*"):
            begun = _TEMPORARY.fullmatch(path.name)
            if begun and not _is_held(path.with_name(f".{begun[1]}.lock")):
                remove(path)  # whose process was killed
            elif begun or not path.name.startswith("."):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    if S_ISREG(status.st_mode):
                        yield status.st_mtime_ns, status.st_size, path


def _lock(path: Path) -> FileLock:
    """One object a use: threads of a process keep each other out too."""
    return FileLock(path, fallback_to_soft=False)


def _is_held(path: Path) -> bool:
    try:
        with _lock(path).acquire(0):
            return False
    except Timeout:
        return True
