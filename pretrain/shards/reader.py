"""Reads samples by number, each checked by its crc32; a shard is checked by its size when opened.

No Python object a sample, no seek, no tar library: `os.pread` at the place that the index names.
"""

import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from pretrain.shards.index import Member, ShardIndex

_MOST_OPEN = 128
"""Shards that a process keeps open."""


class ShardReader:
    """The samples of a split, from files on this machine."""

    def __init__(self, index: ShardIndex, locate: Callable[[int], Path]) -> None:
        """Nothing is opened yet.

        Args:
            index: of the split.
            locate: number of a shard -> its file, fetched if need be; raises UsageError.
        """
        self.index, self.locate = index, locate
        self._open: dict[int, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardReader, (self.index, self.locate)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, number: int, text: bool = False) -> bytes:
        """The image of a sample as its file's bytes, or its text.

        Raises:
            UsageError: the shard is missing, cut or replaced, or the sample is not what was packed.
        """
        (member,) = self.index.members([number], text)
        return self._read(number, member)

    def read_many(
        self, numbers: Sequence[int] | Any, text: bool = False
    ) -> "Iterable[bytes | UsageError]":
        """The same of several; an error stands in its sample's place."""
        found: list[bytes | UsageError] = []
        descriptors, pread, crc32 = self._open, os.pread, zlib.crc32
        for number, member in zip(numbers, self.index.members(numbers, text), strict=True):
            shard, offset, size, wanted = member
            descriptor = descriptors.get(shard)
            if descriptor is not None:
                content = pread(descriptor, size, offset)
                if crc32(content) == wanted and len(content) == size:
                    found.append(content)
                    continue
            try:
                found.append(self._read(int(number), member))
            except UsageError as error:
                found.append(error)
        return found

    def _read(self, number: int, member: Member) -> bytes:
        path = None
        try:
            descriptor = self._open.get(member.shard)
            if descriptor is None:
                descriptor = self._open_shard(member.shard)
            content = os.pread(descriptor, member.size, member.offset)
        except OSError as error:
            path = path or self.locate(member.shard)
            raise UsageError(
                f"the shard {path} cannot be read ({error.strerror or error}), in it the sample "
                f"{self.index.name(number)}. Fetch or pack it again."
            ) from error
        if len(content) != member.size or zlib.crc32(content) != member.crc32:
            raise UsageError(
                f"the sample {self.index.name(number)} in the shard {self.locate(member.shard)} is "
                f"not what was packed: crc32 {zlib.crc32(content):08x} of {len(content):,} bytes, "
                f"in its index {member.crc32:08x} of {member.size:,}. Fetch or pack that shard "
                "again; `python tools/pack.py --verify DIR` finds all such."
            )
        return content

    def _open_shard(self, number: int) -> int:
        """A descriptor of a shard, checked by its size."""
        path, shard = self.locate(number), self.index.shards[number]
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        size = os.fstat(descriptor).st_size
        if size != shard.bytes:
            os.close(descriptor)
            raise UsageError(
                f"the shard {path} has {size:,} bytes, in its index {shard.bytes:,}: it was cut or "
                "replaced. Fetch or pack it again."
            )
        while len(self._open) >= _MOST_OPEN:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[number] = descriptor
        return descriptor
