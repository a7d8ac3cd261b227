"""A store at an address: its description and indexes at once, its shards when they are needed.

    CACHE/shards/NAME-HASH/_info.json, train.index ...   as they are there
    CACHE/shards/NAME-HASH/shards/train-000003.tar       for as long as there is room

HASH is of the address and of _info.json, which has the hashes of indexes and shards: a store that
was packed anew is another one, and nothing of the old one is read for it. Who fetches, and how long
that may take: see `pretrain.fetching`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from pretrain.errors import UsageError, first_line
from pretrain.fetching.client import Fetcher
from pretrain.fetching.server import Request
from pretrain.fetching.source import File
from pretrain.files import remove, write_text
from pretrain.shards.index import ShardIndex

_NEXT = 2
"""Shards that are fetched ahead of one that is read where no order was told: in scoring."""


class _Index(msgspec.Struct):
    file: str
    blake2b: str | None = None


class _Split(msgspec.Struct):
    index: _Index | None = None
    blake2b: tuple[str, ...] = ()


class _Info(msgspec.Struct):
    splits: dict[str, _Split]


@dataclass(frozen=True, eq=False)
class RemoteShards:
    """From the number of a shard to its file on this machine."""

    split: str
    index: ShardIndex
    hashes: tuple[str, ...]
    """Of the shards; empty where _info.json does not say them."""
    fetcher: Fetcher
    most: int
    """Bytes that the cache may hold."""

    def __call__(self, number: int) -> Path:
        """Fetched if need be.

        Raises:
            UsageError: it does not come, and why.
        """
        following = range(number + 1, min(number + 1 + _NEXT, len(self.index.shards)))
        self._ask(number, ahead=following)
        return self._folder / self.index.shards[number].file

    def expect(self, shards: NDArray[np.int64]) -> None:
        """Say which shards are read next, in this order: they are fetched ahead."""
        self._ask(None, ahead=shards.tolist(), ordered=True)

    def renew(self, number: int, inode: int) -> bool:
        """Fetch a shard again that is not what was packed; whether there is another one now."""
        return self._ask(number, bad=inode)

    def address(self, number: int) -> str:
        """Of a shard, for messages."""
        return f"{self.fetcher.url}/{self.index.shards[number].file}"

    def require_room(self, window: int) -> None:
        """Raise UsageError where the cache cannot hold two windows of shards."""
        sizes = sorted((shard.bytes for shard in self.index.shards), reverse=True)
        if (needed := sum(sizes[: 2 * window])) > self.most:
            fitting = next(n for n in range(window, -1, -1) if sum(sizes[: 2 * n]) <= self.most)
            smaller = f", or --dataset.shard_window {fitting}" if fitting else ""
            raise UsageError(
                f"loader.shard_cache is {self.most / 2**30:.4g} GiB; two windows of {window} shards"
                f" of {self.split} take {needed / 2**30:.4g}. Give --loader.shard_cache "
                f"{np.ceil(needed / 2**30 * 100) / 100:g} or more{smaller}."
            )

    @property
    def _folder(self) -> Path:
        return self.index.path.parent / "shards"

    def _ask(
        self,
        number: int | None,
        ahead: Sequence[int] = (),
        bad: int = 0,
        ordered: bool = False,
    ) -> bool:
        request = Request(
            folder=f"{self.index.path.parent.name}/shards",
            want=None if number is None else self._file(number),
            bad=bad,
            split=self.split,
            ahead=tuple(map(self._file, ahead)),
            ordered=ordered,
        )
        return self.fetcher.ask(request).renewed

    def _file(self, number: int) -> File:
        shard = self.index.shards[number]
        return File(shard.file, shard.bytes, self.hashes[number] if self.hashes else None)


def fetch_indexes(url: str, most: int) -> dict[str, RemoteShards]:
    """Fetch a store's description and indexes into the cache; what finds the shards of each split.

    Args:
        url: of the store.
        most: bytes of shards that the cache may hold.

    Raises:
        UsageError: there is no store, it has no indexes, or it cannot be fetched.
    """
    from pretrain.shards.store import INFO, open_indexes

    fetcher = Fetcher(url, most)
    content = fetcher.ask(Request(want=File(INFO))).content
    try:
        info = msgspec.json.decode(content, type=_Info)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{fetcher.url}/{INFO} does not describe a store of shards ({first_line(error)}). "
            "Give the address of a folder that tools/pack.py wrote."
        ) from error
    indexes = [split.index for split in info.splits.values() if split.index is not None]
    if not indexes:
        raise UsageError(
            f"{fetcher.url} has no index of its shards, so that all of them would have to be read. "
            "Copy it to a disk, pack it there (python tools/pack.py --data DIR --out STORE) and "
            "upload STORE."
        )
    name = re.sub(r"[^\w.-]", "_", fetcher.url.rpartition("/")[2], flags=re.ASCII)[-60:]
    key = hashlib.blake2b(fetcher.url.encode() + b"\0" + content, digest_size=8).hexdigest()
    folder = fetcher.root / f"{name}-{key}"
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    if not (folder / INFO).is_file():
        write_text(folder / INFO, content.decode("utf-8"))

    files = [File(Path(index.file).name, blake2b=index.blake2b) for index in indexes]
    for file in files:
        fetcher.ask(Request(folder=folder.name, want=file))
    try:
        found = open_indexes(folder)
    except UsageError:  # it was damaged here
        for file in files:
            remove(folder / file.name)
            fetcher.ask(Request(folder=folder.name, want=file))
        found = open_indexes(folder)
    return {
        split: RemoteShards(split, index, info.splits[split].blake2b, fetcher, most)
        for split, index in found.items()
    }
