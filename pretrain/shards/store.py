"""A folder or an address with shards in splits."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pretrain.address import check_address
from pretrain.cache import cache_folder, hash_files
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError
from pretrain.reading import check, read_json
from pretrain.shards.index import Shard, ShardIndex
from pretrain.shards.reader import ShardReader
from pretrain.shards.scan import find_tars, scan

INFO = "_info.json"
SPLITS = ("train", "val", "test")


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
    return re.match(r"[A-Za-z][\w+.-]*://", str(data)) is not None


def find_store(data: str | Path, cache_gib: float = 64.0) -> Store | None:
    """The store at a folder or an address; None where a folder holds no shards.

    Args:
        data: as --data gives it.
        cache_gib: largest size of what is kept of a remote store on this machine.

    Raises:
        UsageError: it cannot be read, or an address holds no store.
    """
    if is_url(data):
        return _open_remote(str(data), cache_gib)
    root = Path(data)
    if not root.is_dir():
        return None
    indexes = open_indexes(root) or scan(root, find_tars(root))
    readers = {
        split: ShardReader(index, LocalShards(index, root)) for split, index in indexes.items()
    }
    notes = [
        f"{root}: {count:,} members {ending} of the shards of {split} are left out"
        for split, index in indexes.items()
        for ending, count in sorted(index.left_out.items())
    ]
    return Store(root.resolve().name, str(data), readers, tuple(notes)) if readers else None


def _open_remote(url: str, cache_gib: float) -> Store:
    """A store whose shards are fetched when they are needed."""
    from pretrain.shards.remote import fetch_indexes

    if check_address(url) in ("http", "https") and "?" in url:
        raise UsageError(
            f"{url.partition('?')[0]}?... has a query, which a store has not. Give "
            "the address of the folder alone."
        )
    scheme, _, place = url.partition("://")
    url = f"{scheme.lower()}://{place.rstrip('/')}"
    shards = fetch_indexes(url, int(cache_gib * 2**30))
    readers = {split: ShardReader(one.index, one) for split, one in shards.items()}
    return Store(url.rpartition("/")[2], url, readers)


class _IndexFile(msgspec.Struct):
    file: str
    blake2b: str


class _Split(msgspec.Struct):
    index: _IndexFile | None = None


class _Info(msgspec.Struct):
    splits: dict[str, _Split]


def open_indexes(folder: Path) -> dict[str, ShardIndex]:
    """The indexes that were packed into a folder, by split; none where there are none.

    Those that `_info.json` names are checked by their hash; they are read for it once.

    Raises:
        UsageError: one is missing, cannot be read, or is another than was packed.
    """
    info = _Info({})
    if (path := folder / INFO).is_file():
        info = check(read_json(path, largest=2**30), _Info, str(path))
    elif (folder / ".pack").is_dir():
        raise UsageError(
            f"the shards in {folder} are not all packed. Give the command of `tools/pack.py` that "
            "wrote them again: it goes on."
        )
    named = {split: one.index for split, one in info.splits.items() if one.index is not None}
    files = {split: folder / f"{split}.index" for split in SPLITS}
    files |= {split: folder / Path(one.file).name for split, one in named.items()}
    root = hashlib.sha256(os.fsencode(os.path.abspath(folder))).hexdigest()[:16]
    memory = cache_folder() / "digests" / f"{root}-index.json"
    hashes = hash_files({split: files[split] for split in named}, memory)
    for split, one in named.items():
        if hashes[split] != one.blake2b:
            what = "is not what was packed" if files[split].is_file() else "is missing"
            raise UsageError(
                f"{files[split]} {what} with {path}: its hash is {hashes[split]}, there "
                f"{one.blake2b}. Fetch it again; `python tools/pack.py --index {folder}` makes it "
                "anew of the shards."
            )
    there = {split: file for split, file in files.items() if file.is_file()}
    return {split: ShardIndex.open(there[split]) for split in SPLITS if split in there}


def is_packed(folder: Path) -> bool:
    """Whether `tools/pack.py` wrote a store."""
    path = folder / INFO
    info = read_json(path, largest=2**30) if path.is_file() else None
    return isinstance(info, dict) and "packed" in info


@dataclass(frozen=True)
class LocalShards:
    """The shards of a split that lie in a folder."""

    index: ShardIndex
    root: Path

    def __call__(self, number: int) -> Path:
        """The file of a shard; UsageError where there is none."""
        path = self.root / self.index.shards[number].file
        if not os.path.isfile(path):
            raise UsageError(
                f"there is no shard {path}, which {self.index.path.name} counts. Fetch or pack it "
                "again."
            )
        return path

    def lost(self) -> dict[Shard, str]:
        """Shards that are missing or have another size, and which of these."""
        found = dict[Shard, str]()
        folders = {os.path.dirname(shard.file) for shard in self.index.shards}
        sizes = {
            os.path.join(folder, entry.name): entry.stat().st_size
            for folder in folders
            for entry in os.scandir(self.root / folder)
            if entry.name.endswith(".tar") and entry.is_file()
        }
        for shard in self.index.shards:
            size = sizes.get(shard.file)
            if size is None:
                found[shard] = "is missing"
            elif size != shard.bytes:
                found[shard] = f"has {size:,} bytes of {shard.bytes:,}"
        return found
