"""Makes lost or damaged indexes of a packed store anew, to the byte: `_info.json` has their hash.

A key says the path of its image but for what that ended in, which `_info.json` says of all.
"""

import os
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from pretrain.errors import UsageError, first_line
from pretrain.files import draft_folder, publish
from pretrain.progress import bar
from pretrain.reading import check, read_json
from pretrain.shards.index import Member, Shard, write_index
from pretrain.shards.names import member_keys, unescape
from pretrain.shards.pack import file_hash
from pretrain.shards.processes import in_processes
from pretrain.shards.store import INFO


class _IndexFile(msgspec.Struct):
    file: str
    blake2b: str


class _Split(msgspec.Struct):
    filenames: tuple[str, ...]
    blake2b: tuple[str, ...]
    index: _IndexFile
    endings: dict[str, list[str]]


class _Info(msgspec.Struct):
    splits: dict[str, _Split]
    classes: tuple[str, ...]


class _Content(NamedTuple):
    """Of a shard."""

    shard: Shard
    keys: list[str]
    endings: list[str]
    images: list[tuple[int, int, int]]
    """Offset, size, crc32."""
    labels: list[int]
    texts: list[tuple[int, int, int]]


@dataclass(frozen=True)
class _Reader:
    root: Path
    files: Sequence[str]
    hashes: Sequence[str]

    def __call__(self, number: int) -> _Content:
        path = self.root / self.files[number]
        content = _Content(Shard(path.name, 1, 1), [], [], [], [], [])
        try:
            if path.exists() and not path.is_file():  # a pipe would block
                raise UsageError(f"the shard {path} is no file. Fetch it again.")
            if file_hash(path) != self.hashes[number]:
                raise UsageError(f"the shard {path} is not what was packed. Fetch it again.")
            with tarfile.open(path, "r:", encoding="utf-8") as tar:
                for info in tar:
                    file = tar.extractfile(info)
                    assert file is not None
                    data = file.read()
                    place = info.offset_data, info.size, zlib.crc32(data)
                    key, _, ending = info.name.rpartition(".")
                    if ending == "cls":
                        content.labels.append(int(data))
                    elif ending == "json":
                        content.texts.append(place)
                    else:
                        content.keys.append(key)
                        content.endings.append(ending)
                        content.images.append(place)
        except (OSError, tarfile.TarError) as error:
            raise UsageError(f"the shard {path} cannot be read: {first_line(error)}.") from error
        return content._replace(shard=Shard(path.name, len(content.keys), path.stat().st_size))


def restore_indexes(root: Path, workers: int = 1) -> list[Path]:
    """Write the indexes of a packed store anew, from its shards.

    Args:
        root: the folder, with `_info.json`.
        workers: processes.

    Raises:
        UsageError: a shard is missing or another, or what names ended in cannot be told.
    """
    info: _Info = check(read_json(root / INFO, largest=2**30), _Info, str(root / INFO))
    written = []
    for split, facts in info.splits.items():
        read, found = _Reader(root, facts.filenames, facts.blake2b), dict[int, _Content]()
        with bar(f"reading {split}", len(facts.filenames), "shards") as advance:
            for number, content in in_processes(read, range(len(facts.filenames)), workers):
                found[number] = content
                advance(1)
        contents = [found[number] for number in range(len(facts.filenames))]
        path = root / os.path.basename(facts.index.file)
        with draft_folder(path) as folder:
            temporary = folder / path.name
            _write(temporary, contents, facts.endings, info.classes)
            if file_hash(temporary) != facts.index.blake2b:
                raise UsageError(
                    f"{path} cannot be made of the shards alone: names of {split} ended in "
                    f"{facts.endings}, and keys do not say which in what. Fetch or pack it again."
                )
            publish(temporary, path)
        written.append(path)
    return written


def _write(
    path: Path,
    contents: Sequence[_Content],
    endings: Mapping[str, Sequence[str]],
    classes: Sequence[str],
) -> None:
    keys = [key for content in contents for key in content.keys]
    ends = [endings[ending][0] for content in contents for ending in content.endings]
    names = [unescape(key) + end for key, end in zip(keys, ends, strict=True)]
    # a key that another image would have had ends as its name does
    named = zip(keys, names, member_keys(names), strict=True)
    names = [name if key == made else unescape(key) for key, name, made in named]
    tables = [
        [
            Member(shard, *place)
            for shard, content in enumerate(contents)
            for place in getattr(content, kind)
        ]
        for kind in ("images", "texts")
    ]
    write_index(
        path,
        [content.shard for content in contents],
        names,
        tables[0],
        classes=classes,
        labels=[label for content in contents for label in content.labels] or None,
        texts=tables[1] or None,
    )
