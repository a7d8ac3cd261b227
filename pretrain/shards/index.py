"""Where each sample of a split lies in its shards: one file, mapped into memory, never unpickled.

The container is safetensors. Its columns have a row a sample, N of them, in the order of the
shards and within a shard in that of the tar:

    offset      uint32   of the image's first byte in its shard, in blocks of 512 bytes (tar's)
    size        uint32   bytes of the image
    crc32       uint32   of these bytes
    label       uint16 or uint32   position in `classes`; not there without classes
    name_end    uint32   where the sample's name ends in `names`
    names       uint8    the names one behind the other, UTF-8: the path that the image had in its
                         split, such as n01440764/n01440764_10026.JPEG
    text_offset, text_size, text_crc32   the same of a second member (captions), where there is one

and its metadata, under "index", says as JSON: format, classes, shards (file, samples, bytes).
Processes that open one index share its pages; opening reads none of them but the head.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pretrain.errors import UsageError, first_line
from pretrain.files import atomic
from pretrain.reading import check

INDEX_FORMAT: Final = "shards/1"
BLOCK = 512
"""Bytes: what a member of a tar begins at a multiple of."""
_COLUMNS = ("offset", "size", "crc32", "name_end")
_TEXT = ("text_offset", "text_size", "text_crc32")


class Shard(msgspec.Struct, frozen=True):
    """A tar file of a split."""

    file: str
    """Its name beside the index."""
    samples: int
    bytes: int
    """Of the whole file."""


class _Head(msgspec.Struct):
    format: Literal["shards/1"]
    shards: tuple[Shard, ...]
    classes: tuple[str, ...] = ()


class Member(NamedTuple):
    """Where some bytes lie, and what they come to."""

    shard: int
    offset: int
    """Bytes."""
    size: int
    crc32: int


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of a split."""

    path: Path
    shards: tuple[Shard, ...]
    classes: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]

    @staticmethod
    def open(path: Path) -> "ShardIndex":
        """Map an index into memory.

        Raises:
            UsageError: it cannot be read, or its columns do not fit its shards.
        """
        from safetensors import SafetensorError, safe_open

        remedy = "Fetch it again; `python tools/pack.py --index DIR` makes it anew of the shards."
        try:
            with safe_open(path, framework="pt") as file:
                columns = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
                text = (file.metadata() or {}).get("index", "null")
            head: _Head = check(json.loads(text), _Head, "its metadata")
        except (SafetensorError, OSError, ValueError) as error:
            raise UsageError(
                f"{path} is no index of shards that can be read ({first_line(error)}). {remedy}"
            ) from error
        index = ShardIndex(path, head.shards, head.classes, columns)
        if problem := index._problem():
            raise UsageError(f"{path} is no index of shards ({problem}). {remedy}")
        return index

    def _problem(self) -> str | None:
        """What is wrong with heads and columns, without looking at a row."""
        count = int(self.starts[-1])
        wanted = {*_COLUMNS, "names", *(["label"] if self.classes else [])}
        if missing := sorted(wanted - self.columns.keys()):
            return f"it lacks {', '.join(missing)}"
        for name, column in self.columns.items():
            if column.ndim != 1 or column.dtype.kind != "u":
                return f"{name} is {column.dtype} {column.shape}"
            if name != "names" and len(column) != count:
                return f"{name} has {len(column):,} rows, its shards {count:,} samples"
        if any(one.samples < 1 for one in self.shards) or not self.shards:
            return "a shard without samples"
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardIndex.open, (self.path,)  # a process that is spawned maps it itself

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(shards + 1,): the number of each shard's first sample, and that of all samples."""
        counts = [0, *(shard.samples for shard in self.shards)]
        return np.cumsum(counts, dtype=np.int64)

    @property
    def labels(self) -> NDArray[Any]:
        """(N,) unsigned, positions in `classes`."""
        return self.columns["label"]

    @property
    def has_texts(self) -> bool:
        """Whether samples have a second member."""
        return _TEXT[0] in self.columns

    def name(self, number: int) -> str:
        """The path that a sample's image had in its split."""
        ends = self.columns["name_end"]
        first = int(ends[number - 1]) if number else 0
        return self.columns["names"][first : int(ends[number])].tobytes().decode("utf-8", "replace")

    def members(
        self, numbers: Sequence[int] | NDArray[np.int64], texts: bool = False
    ) -> list[Member]:
        """Where the images of samples lie, or their texts."""
        chosen = np.asarray(numbers, np.int64)
        names = _TEXT if texts else ("offset", "size", "crc32")
        shards = np.searchsorted(self.starts, chosen, side="right") - 1
        offset, size, crc32 = (self.columns[name][chosen] for name in names)
        offsets = offset.astype(np.int64) * BLOCK
        return [*map(Member, shards.tolist(), offsets.tolist(), size.tolist(), crc32.tolist())]


def write_index(
    path: Path,
    shards: Sequence[Shard],
    names: Sequence[str],
    members: Sequence[Member],
    *,
    classes: Sequence[str] = (),
    labels: Sequence[int] | NDArray[Any] | None = None,
    texts: Sequence[Member] | None = None,
) -> None:
    """Write an index, whole or not at all: the same bytes for the same samples.

    Args:
        path: of the index, beside the shards.
        shards: in order.
        names: of the samples, in the order of the shards.
        members: of the images.
        classes: their names.
        labels: positions in `classes`.
        texts: of second members.
    """
    from safetensors.numpy import save_file

    def unsigned(values: Any) -> NDArray[np.uint32]:
        return np.asarray(values, np.int64).astype(np.uint32, casting="unsafe")

    encoded = [name.encode("utf-8") for name in names]
    columns: dict[str, NDArray[Any]] = {
        "name_end": unsigned(np.cumsum([len(name) for name in encoded])),
        "names": np.frombuffer(b"".join(encoded), np.uint8),
    }
    for beginning, parts in (("", members), ("text_", texts)):
        if parts is not None:
            columns[f"{beginning}offset"] = unsigned([one.offset // BLOCK for one in parts])
            columns[f"{beginning}size"] = unsigned([one.size for one in parts])
            columns[f"{beginning}crc32"] = unsigned([one.crc32 for one in parts])
    if labels is not None:
        kind = np.uint16 if len(classes) <= 2**16 else np.uint32
        columns["label"] = np.asarray(labels).astype(kind)
    head = _Head(INDEX_FORMAT, tuple(shards), tuple(classes))
    with atomic(path) as temporary:
        save_file(columns, temporary, {"index": json.dumps(msgspec.to_builtins(head))})
