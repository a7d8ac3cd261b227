"""Raw pickles of other programs (CIFAR, detectron2, MSRA), read without running code.

A pickle is a program. This reader lets it build plain values and NumPy arrays of plain numbers,
and nothing else: every global that is not in the list below is refused by name. A file cannot make
it take more memory than a small multiple of its own size.
"""

import pickle
from codecs import encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from pretrain.errors import UsageError, first_line

# readers trust their input: a torn stream ends in any of these
DAMAGE = (pickle.UnpicklingError, RuntimeError, MemoryError, EOFError, ValueError, LookupError,
          TypeError, AttributeError, OSError)  # fmt: skip


def load(
    path: Path,
    encoding: Literal["latin1", "bytes"] = "latin1",
    more: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
) -> Any:
    """Read a pickle of plain values and NumPy arrays.

    Args:
        path: the file.
        encoding: how strings of Python 2 are read; latin1 keeps every byte as one character.
        more: what stands for further globals (module, name), which must be inert.

    Raises:
        UsageError: no such file, no pickle, cut short, or holding anything that needs code.
    """
    size = require_file(path)
    with open(path, "rb") as handle:
        try:
            unpickler = _Unpickler(_BoundedFile(handle, size), encoding=encoding)
            unpickler.allowed = {**_ALLOWED, **(more or {})}
            return unpickler.load()
        except _ForbiddenError as error:
            raise UsageError(
                f"{path} holds {error}. It was not read: such a file can run code. Save plain "
                "values and NumPy arrays, in the program it is from."
            ) from error
        except DAMAGE as error:
            raise damaged(path, f"pickle of plain values ({first_line(error)})") from error


def require_file(path: Path) -> int:
    """The size of a file, in bytes; UsageError where there is none, or a pipe (it would block)."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; a file is needed.")
    if not path.exists():
        raise UsageError(f"there is no file {path}.")
    if not path.is_file():
        raise UsageError(f"{path} is a pipe or a device. Write what it gives to a file.")
    return path.stat().st_size


def damaged(path: Path, kind: str) -> UsageError:
    """The error for a file that is torn, or not of that kind."""
    return UsageError(
        f"{path} ({path.stat().st_size:,} bytes) is cut short or no {kind}. "
        "Copy or download it again."
    )


class _ForbiddenError(Exception):
    """A global that is not in the list."""


class _BoundedFile:
    """A file that never answers a request for more bytes than it has left.

    A length in a header may lie: reading 2**60 bytes would first reserve them.
    """

    def __init__(self, handle: IO[bytes], size: int) -> None:
        self._handle, self._left = handle, size

    def read(self, count: int) -> bytes:
        if count < 0 or count > self._left:
            raise EOFError(f"{count:,} bytes announced, {self._left:,} left")
        self._left -= count
        return self._handle.read(count)

    def readline(self) -> bytes:
        line = self._handle.readline(self._left)
        if not line.endswith(b"\n"):
            raise EOFError("a line has no end")
        self._left -= len(line)
        return line

    def readinto(self, buffer: bytearray | memoryview) -> int:
        buffer[:] = self.read(len(buffer))
        return len(buffer)


def _empty_array(*_: Any) -> np.ndarray:
    """For numpy's `_reconstruct`: the shape and the bytes follow, and NumPy compares them."""
    return np.empty(0, np.uint8)


def number_type(*arguments: Any) -> np.dtype:
    """numpy.dtype, but for booleans, integers, floats and short strings only."""
    dtype: np.dtype = np.dtype(*arguments)
    if dtype.kind not in "biufSU" or dtype.itemsize > 4096:
        raise _ForbiddenError(f"an array of {dtype}")
    return dtype


def number(dtype: np.dtype, content: bytes | str) -> Any:
    """One value of a dtype, for numpy's `scalar`."""
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype, count=1)[0]


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """For `_codecs.encode`: how protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise _ForbiddenError(f"text encoded as {encoding!r}")
    return encode(text, encoding)


class _ArrayType:
    """Stands where numpy.ndarray is named (an argument of `_reconstruct`); makes nothing."""


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _bytes,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): number_type,
    **{
        (module, name): function
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, function in (("_reconstruct", _empty_array), ("scalar", number))
    },
}


# the one written in Python: its memo is a dictionary, where the one in C would reserve as many
# entries as a file asks for
class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
    allowed: Mapping[tuple[str, str], Callable[..., Any]]

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise _ForbiddenError(f"the global {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _ForbiddenError("a reference to something outside the file")
