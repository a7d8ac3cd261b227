"""Where each sample of a split lies in its shards: one file, mapped into memory, never unpickled.

The container is safetensors. Its columns have a row a sample, N of them, in the order of the
shards and within a shard in that of the tar:

    offset      uint32   of the image's first byte in its shard, in blocks of 512 bytes (tar's)
    size        uint32   bytes of the image
    crc32       uint32   of these bytes
    label       uint16 or uint32   position in `classes`; not there without classes
    name_end    uint32 or uint64   where the sample's name ends in `names`
    names       uint8    the names one behind the other, UTF-8: the path that the image had in its
                         split, such as n01440764/n01440764_10026.JPEG; bytes that are no UTF-8
                         stand as they are
    text_offset, text_size, text_crc32   the same of a second member (captions), where there is one

and its metadata, under "index", says as JSON: format, classes, shards (file, samples, bytes), what
texts are, and which members of the shards are left out.
Labels and names are mapped: processes that open one index share their pages, and opening reads none
of them. Where members lie is read a shard at a time, when that is opened.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrain.errors import UsageError, first_line
from pretrain.files import atomic
from pretrain.reading import check

INDEX_FORMAT: Final = "shards/1"
BLOCK = 512
"""Bytes: what a member of a tar begins at a multiple of."""
_PLACE = ("offset", "size", "crc32")
_TEXT = ("text_offset", "text_size", "text_crc32")
_KINDS = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64}
"""What safetensors calls them."""


class Shard(msgspec.Struct, frozen=True):
    """A tar file of a split."""

    file: str
    """Its name beside the index, or its path below the folder of the store."""
    samples: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    bytes: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    """Of the whole file."""


class _Head(msgspec.Struct):
    format: Literal["shards/1"]
    shards: Annotated[tuple[Shard, ...], msgspec.Meta(min_length=1)]
    classes: tuple[str, ...] = ()
    text: Literal["json", "txt"] = "json"
    left_out: dict[str, int] = {}


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
    text: Literal["json", "txt"]
    """What the second members are, where there are any (`has_texts`)."""
    left_out: Mapping[str, int]
    """Ending -> members of the shards that are in no column."""
    columns: Mapping[str, NDArray[Any]]
    """Parts of one map of the file."""
    begins: Mapping[str, int]
    """Where each of them begins in it."""

    @staticmethod
    def open(path: Path) -> "ShardIndex":
        """Map an index into memory.

        Raises:
            UsageError: it cannot be read, or its columns do not fit its shards.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:  # refuses what is cut or overlaps
                text = (file.metadata() or {}).get("index", "null")
            head: _Head = check(json.loads(text), _Head, "its metadata")
            shards, classes, others = head.shards, head.classes, head.left_out
            index = ShardIndex(path, shards, classes, head.text, others, *_map(path))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise _unusable(path, first_line(error)) from error
        if problem := index._problem():
            raise _unusable(path, problem)
        return index

    def _problem(self) -> str | None:
        """What is wrong with head and columns, without looking at a row."""
        wanted = {*_PLACE, "name_end", "names", *(["label"] if self.classes else [])}
        wanted |= {*_TEXT} if self.has_texts else set()
        if missing := sorted(wanted - self.columns.keys()):
            return f"it lacks {', '.join(missing)}"
        for name, column in self.columns.items():
            if column.ndim != 1 or (name in (*_PLACE, *_TEXT) and column.dtype != np.uint32):
                return f"{name} is {column.dtype} {column.shape}"
            if name != "names" and len(column) != len(self):
                return f"{name} has {len(column):,} rows, its shards {len(self):,} samples"
        for shard in self.shards:
            if os.path.isabs(shard.file) or ".." in Path(shard.file).parts:
                return f"its shard {shard.file} lies elsewhere"
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
        content = self.columns["names"][first : int(ends[number])].tobytes()
        return content.decode("utf-8", "surrogateescape")

    def rows(self, shard: int, texts: bool = False) -> NDArray[np.uint32]:
        """Where the images of a shard lie, or their texts: (samples, 3) of offset, size, crc32.

        Read and not mapped: so a process holds what it needs of the shards that it has open.

        Raises:
            UsageError: the index cannot be read, or names a place outside the shard, or a class
                that there is none of.
        """
        first, end = self.starts[shard : shard + 2].tolist()
        parts = list[NDArray[np.uint32]]()
        try:
            with open(self.path, "rb", buffering=0) as file:
                for name in _TEXT if texts else _PLACE:
                    file.seek(self.begins[name] + 4 * first)
                    parts.append(np.frombuffer(file.read(4 * (end - first)), np.uint32))
            rows = np.stack(parts, axis=1)
        except (OSError, ValueError) as error:
            raise _unusable(self.path, first_line(error)) from error
        ends = rows[:, 0].astype(np.int64) * BLOCK + rows[:, 1]
        if ends.max() > self.shards[shard].bytes:
            raise _unusable(
                self.path,
                f"{self.name(first + int(ends.argmax()))} ends at byte {ends.max():,} of "
                f"{self.shards[shard].file}, which has {self.shards[shard].bytes:,}",
            )
        if self.classes and (label := self.labels[first:end].max()) >= len(self.classes):
            raise _unusable(self.path, f"it has class {label} of {len(self.classes):,}")
        return rows


def _unusable(path: Path, problem: str) -> UsageError:
    return UsageError(
        f"{path} is no index of shards that can be read ({problem}). Fetch it again; "
        "`python tools/pack.py --index DIR` makes it anew of the shards."
    )


def _map(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    """The columns of a file, and where they begin in it."""
    content = np.memmap(path, np.uint8, "r")
    body = 8 + int.from_bytes(content[:8].tobytes(), "little")
    head = json.loads(content[8:body].tobytes())
    head.pop("__metadata__", None)
    if strange := [
        f"{name} is {one['dtype']}" for name, one in head.items() if one["dtype"] not in _KINDS
    ]:
        raise ValueError(", ".join(strange))
    spans = {name: [body + n for n in column["data_offsets"]] for name, column in head.items()}
    columns = {
        name: content[slice(*spans[name])].view(_KINDS[column["dtype"]]).reshape(column["shape"])
        for name, column in head.items()
    }
    return columns, {name: begin for name, (begin, _) in spans.items()}


def write_index(
    path: Path,
    shards: Sequence[Shard],
    names: Sequence[str],
    members: Sequence[Member] | NDArray[np.int64],
    *,
    classes: Sequence[str] = (),
    labels: ArrayLike | None = None,
    texts: Sequence[Member] | NDArray[np.int64] | None = None,
    text: Literal["json", "txt"] = "json",
    left_out: Mapping[str, int] | None = None,
) -> None:
    """Write an index, whole or not at all: the same bytes for the same samples.

    Args:
        path: of the index, beside the shards.
        shards: in order.
        names: of the samples, in the order of the shards.
        members: of the images; as an array (N, 4), with columns as Member's.
        classes: their names.
        labels: positions in `classes`.
        texts: of second members.
        text: what they are.
        left_out: ending -> members of the shards that are not named here.

    Raises:
        UsageError: a member of 4 GiB or more, or one that begins behind 2 TiB of a shard.
    """
    encoded = [os.fsencode(name) for name in names]
    columns: dict[str, NDArray[Any]] = {}
    for kind, parts in ((_PLACE, members), (_TEXT, texts)):
        if parts is not None:
            table = np.asarray(parts, np.int64).reshape(-1, 4)
            columns |= zip(kind, _places(table, shards, names), strict=True)
    ends = np.cumsum([len(name) for name in encoded], dtype=np.uint64)
    columns["name_end"] = ends.astype(np.uint32) if ends[-1] < 2**32 else ends
    columns["names"] = np.frombuffer(b"".join(encoded), np.uint8)
    if labels is not None:
        numbers = np.asarray(labels, np.int64)
        assert numbers.min() >= 0
        assert numbers.max() < len(classes)
        columns["label"] = numbers.astype(np.uint16 if len(classes) <= 2**16 else np.uint32)
    save_columns(path, shards, columns, classes, text, left_out or {})


def save_columns(
    path: Path,
    shards: Sequence[Shard],
    columns: Mapping[str, NDArray[Any]],
    classes: Sequence[str],
    text: Literal["json", "txt"],
    left_out: Mapping[str, int],
) -> None:
    """Write an index of columns as they are in the file; see `write_index`."""
    from safetensors.numpy import save_file

    head = _Head(INDEX_FORMAT, tuple(shards), tuple(classes), text, dict(left_out))
    with atomic(path) as temporary:
        save_file(dict(columns), temporary, {"index": json.dumps(msgspec.to_builtins(head))})


def _places(
    members: NDArray[np.int64], shards: Sequence[Shard], names: Sequence[str]
) -> list[NDArray[np.uint32]]:
    """Offsets in blocks, sizes and checksums of (N, 4) members; what does not fit is refused."""
    counts = [shard.samples for shard in shards]
    assert np.array_equal(members[:, 0], np.repeat(np.arange(len(shards)), counts))
    assert not (members[:, 1] % BLOCK).any()
    table = members[:, 1:] // (BLOCK, 1, 1)
    assert table.min() >= 0
    if len(large := np.flatnonzero(table.max(axis=1) >= 2**32)):
        _, offset, size, _ = members[large[0]].tolist()
        raise UsageError(
            f"{names[large[0]]} has {size:,} bytes and begins at byte {offset:,} of its shard; a "
            f"sample may have {2**32 - 1:,}, and begin before {2**32 * BLOCK:,}. Leave it out, or "
            "give less samples a shard."
        )
    return [column.astype(np.uint32) for column in table.T]
