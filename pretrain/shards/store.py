"""A folder or an address with shards in splits."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError
from pretrain.shards.index import ShardIndex
from pretrain.shards.reader import ShardReader

SCHEMES = ("s3", "gs", "http", "https", "hf")
"""Of addresses that `remote` reads."""
INFO = "_info.json"


@dataclass(frozen=True)
class Store:
    """Splits of samples."""

    name: str
    """Of the data set."""
    location: str
    """The folder or the address."""
    splits: dict[str, ShardReader]
    """train, val, test: those that are there, in this order."""
    notes: tuple[str, ...] = ()
    """What a run says of the store."""

    @property
    def index_files(self) -> list[Path]:
        """The indexes, on this machine: every byte of them tells one data set from another."""
        return [reader.index.path for reader in self.splits.values()]

    def digest_files(self, by: str = "sample") -> DataFiles:
        """What a run's digest of its data covers: the indexes, which have each sample's crc32."""
        roots = tuple({path.parent for path in self.index_files})
        return DataFiles(roots, (), self.index_files, by)  # type: ignore[arg-type]


def is_url(data: str | Path) -> bool:
    """Whether --data is an address of a store, such as s3://bucket/imagenet."""
    return str(data).partition("://")[0] in SCHEMES and "://" in str(data)


def find_store(data: str | Path, cache_gib: float = 64.0) -> Store | None:
    """The store at a folder or an address; None where a folder holds no shards.

    Args:
        data: as --data gives it.
        cache_gib: largest size of what is kept of a remote store on this machine.

    Raises:
        UsageError: it cannot be read, or an address holds no store.
    """
    if is_url(data):
        raise NotImplementedError
    root = Path(data)
    if not root.is_dir():
        return None
    splits = {}
    for split in ("train", "val", "test"):
        path = root / f"{split}.index"
        if path.is_file():
            index = ShardIndex.open(path)
            splits[split] = ShardReader(index, partial(_beside, index))
    if not splits:
        return None
    return Store(root.resolve().name, str(data), splits)


def _beside(index: ShardIndex, number: int) -> Path:
    """The file of a shard that lies beside its index."""
    path = index.path.with_name(index.shards[number].file)
    if not os.path.isfile(path):
        raise UsageError(
            f"there is no shard {path}, which {index.path.name} counts. Fetch or pack it again."
        )
    return path
