"""What readers ask of the process that fetches; see `server`."""

import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import msgspec

import pretrain
from pretrain.cache import cache_folder
from pretrain.errors import UsageError
from pretrain.fetching.server import Answer, Options, Request
from pretrain.fetching.source import Patience

PATIENCE = Patience()


class Fetcher:
    """The process that fetches the files of one store, asked from any process of the run."""

    def __init__(self, url: str, most: int) -> None:
        """Start it; it ends with this object, or with this process.

        Args:
            url: of the store.
            most: bytes of shards that the cache may hold, of all stores.
        """
        self.url, self.root = url.rstrip("/"), cache_folder() / "shards"
        place = tempfile.gettempdir()
        # the name of a socket may have 107 bytes
        folder = Path(tempfile.mkdtemp(prefix="cutmix-", dir="/tmp" if len(place) > 80 else place))
        self.address = str(folder / "fetch")
        options = Options(url, str(self.root), most, PATIENCE, self.address, os.getpid())
        paths = [str(Path(pretrain.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [sys.executable, "-m", "pretrain.fetching.server", msgspec.json.encode(options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,  # a run that is told to stop reads to the end of its step
        )
        self._end = weakref.finalize(self, _end, process, folder, os.getpid())
        assert process.stdout is not None
        with process.stdout as output:
            if not output.readline():
                raise RuntimeError("pretrain.fetching.server did not start; its error stands above")

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.url, self.root, self.address)

    def ask(self, request: Request) -> Answer:
        """Wait for the answer.

        Raises:
            UsageError: it is an error, or there is nobody to answer.
        """
        try:
            with Client(self.address, "AF_UNIX") as connection:
                connection.send_bytes(msgspec.json.encode(request))
                answer = msgspec.json.decode(connection.recv_bytes(), type=Answer)
        except (OSError, EOFError) as error:
            raise UsageError(
                f"the process that fetches from {self.url} was killed; the machine may be out of "
                "memory. Give the same command again, to continue a run with --resume."
            ) from error
        if answer.error is not None:
            raise UsageError(answer.error)
        return answer


def _again(url: str, root: Path, address: str) -> Fetcher:
    """The same one, in a process that was spawned."""
    fetcher = Fetcher.__new__(Fetcher)
    fetcher.url, fetcher.root, fetcher.address = url, root, address
    return fetcher


def _end(process: subprocess.Popen, folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork that drops its copy
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
