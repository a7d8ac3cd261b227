"""The process that fetches the files of one store: python -m pretrain.fetching.server OPTIONS.

It listens on a socket and ends with the process that started it. What readers wait for is fetched
at once; what they will need next is fetched ahead by a few threads, each shard once a machine. To
fetch ahead is tried once: who needs the shard then tries on, and hears why it does not come.
"""

import os
import shutil
import sys
import time
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from threading import Condition, Lock, Thread

import msgspec

from pretrain.errors import UsageError
from pretrain.fetching.cache import ShardCache
from pretrain.fetching.source import File, Patience, Source
from pretrain.files import draft

_AHEAD = 4
"""Shards that are fetched ahead at once."""
_REMEMBERED = 60.0  # seconds: the samples of a batch need not each wait for the same failure


class Options(msgspec.Struct, frozen=True):
    """What the process is started with."""

    url: str
    root: str
    """Of the cache."""
    most: int
    """Bytes of shards."""
    patience: Patience
    address: str
    """Of the socket, in a folder of its own."""
    parent: int
    """Process that it ends with."""


class Request(msgspec.Struct, frozen=True):
    """What a reader asks."""

    folder: str = ""
    """Of the cache, for what is to lie there; without it the answer holds the content."""
    want: File | None = None
    bad: int = 0
    """The inode of a shard that is not what was packed: it is fetched again, once a run."""
    split: str = ""
    ahead: tuple[File, ...] = ()
    """Shards that will be needed, in this order."""
    ordered: bool = False
    """That is the split's order; otherwise it is a guess, good where no order was told."""


class Answer(msgspec.Struct, frozen=True):
    """What it gets."""

    error: str | None = None
    content: bytes = b""
    renewed: bool = False
    """There is another file than the bad one."""


class _Server:
    def __init__(self, options: Options) -> None:
        self.source = Source(options.url, options.patience)
        self.cache = ShardCache(Path(options.root), options.most)
        self._ahead: dict[str, list[tuple[Path, File]]] = {}
        self._ordered = set[str]()
        self._changed = Condition()
        self._failed: dict[Path, tuple[float, str]] = {}
        self._renewed = set[Path]()
        self._renewing = Lock()
        for _ in range(_AHEAD):
            Thread(target=self._fetch_ahead, daemon=True).start()

    def answer(self, connection: Connection) -> None:
        with connection:
            try:
                request = msgspec.json.decode(connection.recv_bytes(), type=Request)
                answer = self._answer(request)
            except UsageError as error:
                answer = Answer(str(error))
            except Exception as error:
                answer = Answer(f"what fetches shards failed: {type(error).__name__}: {error}")
            try:
                connection.send_bytes(msgspec.json.encode(answer))
            except OSError:
                return  # who asked has ended

    def _answer(self, request: Request) -> Answer:
        folder, file = self.cache.root / request.folder, request.want
        if request.ordered or request.split not in self._ordered:
            with self._changed:
                # the first is needed first, and goes last where there is no room for all
                files = [(folder / one.name, one) for one in request.ahead]
                for path, one in reversed(files):
                    self.cache.use(path, one.size)
                self._ahead[request.split] = files
                self._ordered |= {request.split} if request.ordered else set()
                self._changed.notify_all()
        if file is None:
            return Answer()
        if not request.folder:
            return Answer(content=self.source.read(file.name))
        path = folder / file.name
        when, message = self._failed.get(path, (0.0, ""))
        if message and time.monotonic() - when < _REMEMBERED and not path.is_file():
            return Answer(message)
        try:
            if request.bad:
                return Answer(renewed=self._renew(path, file, request.bad))
            self._fetch(path, file)
        except UsageError as error:
            self._failed[path] = time.monotonic(), str(error)
            raise
        return Answer()

    def _fetch(self, path: Path, file: File, bad: int = 0, ahead: bool = False) -> None:
        """Have a shard or an index in the cache; ahead, not if it would wait for others."""
        if not bad and self.cache.use(path, file.size):
            return
        with self.cache.fetching(path, wait=not ahead):
            if self.cache.use(path, file.size) and _inode(path) not in (0, bad):
                return
            with draft(path, file.size) as temporary:
                if file.size is not None:  # an index is none of those that make room
                    self.cache.reserve(temporary, file.size, wait=not ahead)
                self.source.copy(file, temporary, tries=1 if ahead else None)
                self.cache.publish(temporary, path)

    def _renew(self, path: Path, file: File, bad: int) -> bool:
        """Whether there is another file than the bad one, which is fetched again once."""
        with self._renewing:
            if path in self._renewed and _inode(path) == bad:
                return False
            self._fetch(path, file, bad=bad)
            self._renewed.add(path)
            return True

    def _fetch_ahead(self) -> None:
        while True:
            with self._changed:
                while not any(self._ahead.values()):
                    self._changed.wait()
                path, file = next(files for files in self._ahead.values() if files).pop(0)
            try:
                self._fetch(path, file, ahead=True)
            except Exception:  # who needs it tries on, and hears of it
                continue


def _inode(path: Path) -> int:
    """0 for what is not there, or has just made room."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def main() -> None:
    """Serve until the process that started this one has ended."""
    options = msgspec.json.decode(sys.argv[1], type=Options)
    server = _Server(options)
    listener = Listener(options.address, "AF_UNIX", backlog=256)

    def end_with_parent() -> None:
        while os.getppid() == options.parent:
            time.sleep(0.5)
        shutil.rmtree(Path(options.address).parent, ignore_errors=True)
        os._exit(0)  # threads may hang in a library

    Thread(target=end_with_parent, daemon=True).start()
    print("ready", flush=True)
    os.dup2(2, 1)  # nobody reads there any more
    while True:  # an error ends the process: who asks must not wait for nobody
        Thread(target=server.answer, args=(listener.accept(),), daemon=True).start()


if __name__ == "__main__":
    main()
