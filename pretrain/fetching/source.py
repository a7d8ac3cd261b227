"""One file from an address, in bounded time whatever the network, the server or a library does.

A file comes in ranges, so that what broke off goes on where it was. A range that has not come in
`stall` seconds has failed. What has failed is tried again, later each time; libraries try again on
their own as well, and their tries are cut off by `stall`. What cannot get better (no such file, no
right to read it, another size) is an error at once.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from hashlib import blake2b, file_digest
from io import BytesIO, FileIO
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import msgspec

from pretrain.address import REMOTE, check_address
from pretrain.errors import UsageError, first_line, printable

_RANGE = 8 * 2**20  # bytes
_SMALL = 2**28  # bytes, of a file that is read whole
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"retries": {"total_max_attempts": 1}}},
    "http": {"client_kwargs": {"trust_env": True}},  # as curl: the proxies of the environment
}
_OPTIONS["https"] = _OPTIONS["http"]
_RIGHTS = {
    "s3": "`aws sts get-caller-identity` must work here; for a public bucket set "
    "FSSPEC_S3_ANON=true",
    "gs": "`gcloud auth application-default login` gives them",
    "hf": "`hf auth login` gives the right to read it",
}

T = TypeVar("T")


class Patience(msgspec.Struct, frozen=True):
    """How long a file may take that does not come."""

    stall: float = 20.0
    """Seconds for a range of 8 MiB."""
    tries: int = 8
    """Without a byte in between: by default that is one minute of waiting between them, and four
    minutes where each of them stalls."""
    pause: float = 0.5
    """Seconds before the second try; twice as long before each further one, up to 30."""


class File(msgspec.Struct, frozen=True):
    """A file of a store, and what is known of it."""

    name: str
    """Below the address of the store."""
    size: int | None = None
    """Bytes."""
    blake2b: str | None = None
    """Of all bytes, 32 hexadecimal digits."""


def _hash(file: FileIO) -> str:
    """As `pretrain.cache.hash_content`, which would bring NumPy."""
    return file_digest(file, partial(blake2b, digest_size=16)).hexdigest()


class _TryAgain(Exception):
    """What may not happen again."""


class Source:
    """The files of a store. Threads may share it."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.url, self.patience = url.rstrip("/"), patience
        self.scheme = check_address(url)
        self._system: Any = None
        self._lock = threading.Lock()

    def read(self, name: str) -> bytes:
        """The content of a small file; errors as of `copy`."""
        target = BytesIO()
        self._copy(File(name), target, self.patience.tries, _SMALL)
        return target.getvalue()

    def copy(self, file: File, target: Path, tries: int | None = None) -> None:
        """Write a file to `target`, over what is there.

        Args:
            file: what is known is checked, its size before anything is fetched.
            target: where it is to lie.
            tries: in place of those of `patience`.

        Raises:
            UsageError: it is not there, has another size or hash, may not be read, does not come.
        """
        target.touch()
        with open(target, "r+b", buffering=0) as handle:
            self._copy(file, handle, tries or self.patience.tries)
            handle.truncate()
            handle.seek(0)
            if file.blake2b and (found := _hash(handle)) != file.blake2b:
                raise UsageError(
                    f"{self._address(file.name)} has the hash {found}, in the store's _info.json "
                    f"{file.blake2b}: it was changed. Put the packed one back in its place; if the "
                    "store was packed anew just now, give the same command again."
                )

    def _address(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _copy(
        self, file: File, target: FileIO | BytesIO, tries: int, most: int | None = None
    ) -> None:
        """Range by range; after a failure it goes on if the file still has that size."""
        address, size, done, failed = self._address(file.name), None, 0, 0
        while size is None or done < size:
            try:
                if size is None:
                    size = self._size(address, file.size)
                    if most is not None and size > most:
                        raise UsageError(
                            f"{address} has {size:,} bytes; at most {most:,} are read."
                        )
                content = self._range(address, done, min(done + _RANGE, size), size)
            except _TryAgain as error:
                failed += 1
                if failed >= tries:
                    raise UsageError(
                        f"{address} cannot be fetched ({error}; tried {failed} times). Give the "
                        "same command again, to continue a run with --resume, when its server "
                        "answers."
                    ) from error
                time.sleep(min(30.0, self.patience.pause * 2 ** (failed - 1)))
                size = None
                continue
            target.write(content)
            done += len(content)
            failed = 0

    def _size(self, address: str, wanted: int | None) -> Any:
        """Of a file, in bytes, which is the one that is wanted."""
        try:
            size = self._ask(address, lambda system: system.info(address)["size"])
        except _TryAgain as error:
            if error.__cause__ is not None:  # an answer to HEAD has no body; this one says why
                self._ask(address, lambda system: system.cat_file(address, start=0, end=1))
            raise
        if size is None and wanted is None:
            raise UsageError(f"{address}: its server does not say its size. Take another server.")
        if wanted is not None and size not in (wanted, None):
            raise UsageError(
                f"{address} has {size:,} bytes, in its index {wanted:,}: it was cut or replaced. "
                "Put the packed one back in its place."
            )
        return wanted if size is None else size

    def _range(self, address: str, start: int, end: int, size: int) -> bytes:
        """Bytes from `start` on, up to `end` or fewer; more where a server sends all it has."""
        if start == end:
            return b""
        content = self._ask(address, lambda system: system.cat_file(address, start=start, end=end))
        if len(content) == size:
            content = content[start:]
        elif not 0 < len(content) <= end - start:
            raise _TryAgain(f"it sent {len(content):,} bytes of {end - start:,} asked for")
        return content

    def _ask(self, address: str, call: Callable[[Any], T]) -> T:
        """What a file system answers, within `stall` seconds; a thread that hangs is left behind.

        Raises:
            _TryAgain: it may answer otherwise next time.
            UsageError: it will not.
        """
        answer: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()

        def run() -> None:
            try:
                answer.put((call(self._connected()), None))
            except Exception as error:  # each service has errors of its own
                answer.put((None, error))

        threading.Thread(target=run, daemon=True).start()
        try:
            value, error = answer.get(timeout=self.patience.stall)
        except Empty:
            self._system = None  # its connections may hang for ever
            raise _TryAgain(f"nothing came in {self.patience.stall:g} seconds") from None
        if error is None:
            return value
        self._refuse(address, error)
        raise _TryAgain(printable(first_line(error), 200)) from error

    def _connected(self) -> Any:
        """A file system of this process that nothing has gone wrong with."""
        with self._lock:
            if self._system is None:
                import fsspec

                options = _OPTIONS.get(self.scheme, {})
                self._system = fsspec.filesystem(
                    self.scheme, skip_instance_cache=True, use_listings_cache=False, **options
                )
            return self._system

    def _refuse(self, address: str, error: Exception) -> None:
        """Raise UsageError for what will not get better."""
        # fsspec's http says "not found" of whatever goes wrong when it asks for a size
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
        if isinstance(cause, Exception) and type(cause).__module__.startswith("aiohttp"):
            error = cause
        name, response = type(error).__name__, getattr(error, "response", None)
        status = getattr(error, "status", None) or getattr(response, "status_code", None)
        package = REMOTE.get(self.scheme, "aiohttp")
        if isinstance(error, ImportError):
            raise UsageError(
                f"{address} needs {package}: pip install 'cutmix-transfer[remote]'."
            ) from error
        if isinstance(error, FileNotFoundError) or status in (404, 410):
            private = f", or it is private: {_RIGHTS['hf']}" if self.scheme == "hf" else ""
            raise UsageError(
                f"there is no {address}{private}. Put it there again (packing the same data gives "
                "the same bytes), or give the address of a store that is whole."
            ) from error
        is_right = isinstance(error, PermissionError) or status in (401, 403)
        if is_right or "Credential" in name or "Token" in name:
            rights = _RIGHTS.get(self.scheme, "an address without a password must do")
            raise UsageError(
                f"{address} may not be read ({printable(first_line(error), 200)}). {package} must "
                f"find credentials that allow it: {rights}."
            ) from error
