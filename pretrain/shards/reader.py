"""Reads samples by number, each checked by its crc32; a shard is checked by its size when opened.

No Python object a sample, no seek, no tar library: `os.pread` at the place that the index names.
"""

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pretrain.errors import UsageError, shorten
from pretrain.shards.index import BLOCK, ShardIndex
from pretrain.shards.order import WindowOrder

_MOST_OPEN = 128
"""Shards that a reader keeps open: the next two windows of an order, and more."""
_ROW = Struct("=III")
"""Of `ShardIndex.rows`: offset in blocks, size, crc32."""


class ShardReader:
    """The samples of a split, from files on this machine."""

    def __init__(self, index: ShardIndex, locate: Callable[[int], Path]) -> None:
        """Nothing is opened yet.

        Args:
            index: of the split.
            locate: number of a shard -> its file, fetched if need be; raises UsageError.
        """
        self.index, self.locate = index, locate
        self._open: dict[tuple[int, bool], _OpenShard] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardReader, (self.index, self.locate)  # a process that is spawned opens its own

    def read(self, number: int, text: bool = False) -> bytes:
        """The image of a sample as its file's bytes, or its text.

        Raises:
            UsageError: the shard is missing, cut or replaced, or the sample is not what was packed.
        """
        (content,) = self.read_many([number], text)
        if isinstance(content, UsageError):
            raise content
        return content

    def read_many(self, numbers: ArrayLike, text: bool = False) -> list[bytes | UsageError]:
        """The same of several; an error stands in its sample's place."""
        chosen, starts = np.asarray(numbers, np.int64), self.index.starts
        shards = np.searchsorted(starts, chosen, side="right") - 1
        places = (chosen - starts[shards]) * _ROW.size
        found: list[bytes | UsageError] = []
        opened, pread, crc32, row = self._open, os.pread, zlib.crc32, _ROW.unpack_from
        for number, shard, place in zip(
            chosen.tolist(), shards.tolist(), places.tolist(), strict=True
        ):
            try:
                file = opened.get((shard, text)) or self._open_shard(shard, text)
                offset, size, wanted = row(file.rows, place)
                content = pread(file.descriptor, size, offset * BLOCK)
                if crc32(content) == wanted and len(content) == size:
                    found.append(content)
                elif self._renewed(shard, text, file.descriptor):
                    found += self.read_many([number], text)
                else:
                    found.append(self._changed(number, shard, content, size, wanted))
            except OSError as error:
                found.append(self._unreadable(number, shard, error))
            except UsageError as error:
                found.append(error)
        return found

    def order(self, window: int, seed: int, epochs: int | None = None) -> WindowOrder:
        """The order of each epoch; where shards are fetched, it says in time which are next.

        Args:
            window: shards whose samples are mixed.
            seed: of the run.
            epochs: of the run; None for any number.
        """
        expect = getattr(self.locate, "expect", None)
        return WindowOrder(self.index.starts, window, seed, epochs, expect)

    def require_room(self, window: int) -> None:
        """Raise UsageError where shards are fetched and there is no room for two windows."""
        if (require := getattr(self.locate, "require_room", None)) is not None:
            require(window)

    def require_shards(self, max_corrupt: int, option: str = "--dataset.max_corrupt") -> None:
        """Look at the shards' sizes before they are read, where they lie on this machine.

        Args:
            max_corrupt: samples that may be left out.
            option: how a user allows for more, for the message.

        Raises:
            UsageError: shards are missing or were cut, with more samples than that.
        """
        lost = find() if (find := getattr(self.locate, "lost", None)) is not None else {}
        if (count := sum(shard.samples for shard in lost)) > max_corrupt:
            shards = shorten([f"{shard.file} {problem}" for shard, problem in lost.items()])
            raise UsageError(
                f"{len(lost):,} of the {len(self.index.shards):,} shards that {self.index.path} "
                f"counts cannot be read: {shards}. Fetch or pack them again; {option} {count} or "
                "more trains without their samples."
            )

    def _open_shard(self, number: int, text: bool) -> "_OpenShard":
        """A shard, checked by its size, and where its samples lie."""
        shard, rows = self.index.shards[number], self.index.rows(number, text).tobytes()
        try:
            file = _OpenShard(self.locate(number), rows)
        except FileNotFoundError:  # a cache made room just then
            file = _OpenShard(self.locate(number), rows)
        size = os.fstat(file.descriptor).st_size
        if size != shard.bytes:
            raise UsageError(
                f"the shard {self._where(number)} has {size:,} bytes, in its index "
                f"{shard.bytes:,}: it was cut or replaced. Fetch or pack it again."
            )
        while len(self._open) >= _MOST_OPEN:
            # another thread may read of it: it is closed when nobody holds it
            self._open.pop(next(iter(self._open)))
        self._open[number, text] = file
        return file

    def _renewed(self, shard: int, text: bool, descriptor: int) -> bool:
        """Whether a shard that is not what was packed has been fetched again."""
        renew = getattr(self.locate, "renew", None)
        if renew is None or not renew(shard, os.fstat(descriptor).st_ino):
            return False
        self._open.pop((shard, text), None)
        return True

    def _where(self, shard: int) -> object:
        """Its file, or its address."""
        return getattr(self.locate, "address", self.locate)(shard)

    def _unreadable(self, number: int, shard: int, error: OSError) -> UsageError:
        return UsageError(
            f"the shard {self._where(shard)} cannot be read ({error.strerror or error}), in it the "
            f"sample {self.index.name(number)}. Fetch or pack it again."
        )

    def _changed(
        self, number: int, shard: int, content: bytes, size: int, crc32: int
    ) -> UsageError:
        return UsageError(
            f"the sample {self.index.name(number)} in the shard {self._where(shard)} is not what "
            f"was packed: crc32 {zlib.crc32(content):08x} of {len(content):,} bytes, in its index "
            f"{crc32:08x} of {size:,}. Fetch or pack that shard again; "
            "`python tools/pack.py --verify DIR` finds all such."
        )


class _OpenShard:
    """A file that is closed with the last reference to it."""

    __slots__ = ("descriptor", "rows")

    def __init__(self, path: Path, rows: bytes) -> None:
        self.rows = rows
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "descriptor"):  # it could be opened
            close(self.descriptor)
