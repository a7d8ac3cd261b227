"""Reads a store again, every byte: shards against `_info.json`, members against the index.

By Python's tar library, by which nothing of ours reads samples: what it finds is what others find.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from pretrain.cache import new_hash
from pretrain.errors import UsageError, first_line
from pretrain.progress import bar
from pretrain.reading import check, read_json
from pretrain.shards.index import BLOCK, ShardIndex
from pretrain.shards.names import possible_keys
from pretrain.shards.processes import in_processes
from pretrain.shards.store import INFO, find_store, is_packed

_MOST = 10
"""Problems of a shard that are named."""


class _Split(msgspec.Struct):
    num_samples: int
    filenames: tuple[str, ...]
    shard_lengths: tuple[int, ...]
    blake2b: tuple[str, ...]


class _Info(msgspec.Struct):
    splits: dict[str, _Split]
    classes: tuple[str, ...]


def verify(root: Path, workers: int = 1) -> list[str]:
    """What is wrong with a store: a line each, with shard and sample; none where all is as packed.

    A store that we have not packed has no hashes, keys and classes to compare: of it the index is.

    Args:
        root: the folder.
        workers: processes.

    Raises:
        UsageError: no store.
    """
    try:
        store = find_store(root)
    except UsageError as error:  # of an index
        return [str(error)]
    if store is None:
        raise UsageError(f"{root} holds no shards. `python tools/pack.py --data DIR` packs them.")
    indexes = {split: reader.index for split, reader in store.splits.items()}
    hashes, problems = dict[str, str](), list[str]()
    if is_ours := is_packed(root):
        info: _Info = check(read_json(root / INFO, largest=2**30), _Info, str(root / INFO))
        for split in sorted(info.splits.keys() ^ indexes.keys()):
            problems.append(f"{INFO} or {split}.index: only one of them has {split}")
        for split, facts in info.splits.items():
            hashes |= zip(facts.filenames, facts.blake2b, strict=False)
            if len(facts.filenames) != len(facts.blake2b):
                problems.append(f"{INFO}: its hashes of {split} are not one a shard")
            if (index := indexes.get(split)) is None:
                continue
            if index.classes != info.classes:
                problems.append(f"{INFO}: its classes are not those of {index.path.name}")
            shards = [(shard.file, shard.samples) for shard in index.shards]
            if shards != [*zip(facts.filenames, facts.shard_lengths, strict=True)]:
                problems.append(f"{INFO}: its shards of {split} are not those of {index.path.name}")
            if facts.num_samples != len(index):
                counts = f"{facts.num_samples:,} samples of {split}, {len(index):,}"
                problems.append(f"{INFO} counts {counts} are in {index.path.name}")
    files = {shard.file for index in indexes.values() for shard in index.shards}
    if any(index.path.parent == root for index in indexes.values()):
        problems += [
            f"{path} is in no index"
            for path in sorted(root.glob("*.tar"))
            if path.name not in files and path.stat().st_size  # empty: all its images were corrupt
        ]
    check_shard = _ShardCheck(root, [*indexes.values()], is_ours, hashes)
    total = sum(map(len, indexes.values()))
    with bar("verifying", total, "images") as advance:
        found = dict[int, list[str]]()
        for number, lines in in_processes(check_shard, range(len(check_shard.places)), workers):
            found[number] = lines
            which, shard = check_shard.places[number]
            advance(check_shard.indexes[which].shards[shard].samples)
    return [*problems, *(line for number in sorted(found) for line in found[number])]


class _ShardCheck:
    """Checks shards by their numbers in the store."""

    def __init__(
        self, root: Path, indexes: Sequence[ShardIndex], is_ours: bool, hashes: Mapping[str, str]
    ) -> None:
        self.root, self.indexes, self.is_ours, self.hashes = root, indexes, is_ours, hashes
        self.places = [
            (n, shard) for n, one in enumerate(indexes) for shard in range(len(one.shards))
        ]

    def __call__(self, number: int) -> list[str]:
        """What is wrong with a shard."""
        which, shard = self.places[number]
        facts = self.indexes[which].shards[shard]
        path = self.root / facts.file
        problems = list[str]()
        if path.exists() and not path.is_file():  # a pipe would block
            return [f"{path} is no file"]
        try:
            size = path.stat().st_size
            problems.extend(self._check(path, which, shard))
        except OSError as error:
            return [f"{path} cannot be read: {error.strerror or error}"]
        except (UsageError, tarfile.TarError) as error:
            problems.append(first_line(error))
        if size != facts.bytes:
            problems.insert(0, f"it has {size:,} bytes, in the index {facts.bytes:,}")
        if (wanted := self.hashes.get(facts.file)) and not problems:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, new_hash).hexdigest()
            if found != wanted:
                problems.append(f"its hash is {found}, in {INFO} {wanted}")
        more = len(problems) - _MOST
        problems[_MOST:] = [f"{more:,} more"] if more > 0 else []
        return [f"{path}: {problem}" for problem in problems]

    def _check(self, path: Path, which: int, shard: int) -> Iterator[str]:
        index, first = self.indexes[which], int(self.indexes[which].starts[shard])
        with tarfile.open(path, "r:", encoding="utf-8") as tar:
            members = {info.offset_data: info for info in tar}
            following = dict(pairwise(members.values()))
        with open(path, "rb") as file:

            def read(info: tarfile.TarInfo) -> bytes:
                file.seek(info.offset_data)
                return file.read(info.size)

            for kind in ("image", "captions") if index.has_texts else ("image",):
                rows = index.rows(shard, texts=kind == "captions").tolist()
                for number, (block, size, crc32) in enumerate(rows, first):
                    path_in_split = index.name(number)
                    name = f"sample {path_in_split}"
                    info = members.pop(block * BLOCK, None)
                    if info is None or info.size != size:
                        found = "none" if info is None else f"one of {info.size:,}"
                        at = f"of {size:,} bytes at byte {block * BLOCK:,}"
                        yield f"{name}: its {kind} should be a member {at}; there is {found}"
                        continue
                    if (crc := zlib.crc32(read(info))) != crc32:
                        yield f"{name}: the crc32 of its {kind} is {crc:08x}, packed {crc32:08x}"
                    if not self.is_ours:
                        continue
                    key = info.name.rpartition(".")[0]
                    if key not in (keys := possible_keys(path_in_split)):
                        yield f"{name}: its {kind} is called {info.name}, its key is {keys[0]}"
                    if index.classes:
                        label = str(index.labels[number])
                        beside = following.get(info)
                        if beside is None or beside.name != f"{key}.cls":
                            yield f"{name}: no member {key}.cls follows its image"
                            continue
                        if (text := read(beside).decode("ascii", "replace")) != label:
                            yield f"{name}: its .cls says {text!r:.20}, its class is {label}"
                        del members[beside.offset_data]
        for info in members.values() if self.is_ours else ():
            yield f"its member {info.name} is in no index"
