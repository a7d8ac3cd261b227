"""Indexes tar files that came without an index: somebody's WebDataset shards, read once.

    DIR/train/00000.tar, DIR/imagenet-train-000000.tar, DIR/data/val-0003.tar      as found
    DIR/.index/KEY/train.index     what comes of them, or below the cache where DIR is read-only
    DIR/.index/parts/...           of one tar each, until all are read: a killed scan goes on

KEY is a hash of the tars' names, sizes and times, so a tar that changes is read again. Samples are
grouped as WebDataset does: neighbours of one path up to the first dot of the base name. Each has
one image and its class (.cls, a number or a word), or captions (.txt, one; .json), or neither.
"""

import hashlib
import multiprocessing
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from pretrain.cache import cache_folder
from pretrain.errors import UsageError, first_line, shorten
from pretrain.files import lock, remove
from pretrain.images import SUFFIXES, class_folders
from pretrain.progress import bar
from pretrain.shards.index import BLOCK, Member, Shard, ShardIndex, save_columns, write_index

CLASS_NAMES = "classes.txt"
"""Beside the tars: names of numbered classes, a line each."""
_SPLIT = re.compile(r"(?<![a-z])(train|val|test)")
_NUMBERED = re.compile(r"(.*?)(\d+)(?:-of-(\d+))?\.(tar|tar\.gz|tgz)")
_MEMBER = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # webdataset's base_plus_ext
_HIDDEN = re.compile(r"^__[^/]*__(/|$)|(^|/)\.[^/]*$")  # and what webdataset takes for metadata
_FOLDERS = ("data", "shards", "default")
"""Where tars are looked for beside folders that are named after a split."""


_LONGEST_CLASS = 1000


class _Tar(NamedTuple):
    path: Path
    set: str
    """Its path without number."""
    number: int
    of: int
    """Tars of the set, where the name says it, else 0."""


def find_tars(root: Path) -> dict[str, list[Path]]:
    """The shards of each split in or right below a folder; none where there are no numbered tars.

    Nor are tars beside a folder of their split that holds something else: it was in them.

    Raises:
        UsageError: tars of no split, two sets of tars for one split, a number that is missing,
            compressed tars, some splits in tars and others in folders.
    """
    folders = [root] + [
        Path(entry.path)
        for entry in sorted(os.scandir(root), key=lambda entry: entry.name)
        if (_SPLIT.search(entry.name) or entry.name in _FOLDERS) and entry.is_dir()
    ]
    tars_in = {folder: _numbered_tars(folder) for folder in folders}
    # an archive of several parts may lie beside the folder that it was unpacked to
    unpacked = {
        split
        for folder in folders[1:]
        if not tars_in[folder] and any(path.name[0] != "." for path in folder.iterdir())
        for split in _SPLIT.findall(folder.name)[-1:]
    }
    found, left = dict[str, list[_Tar]](), dict[str, list[_Tar]]()
    for tar in chain.from_iterable(tars_in.values()):
        words = _SPLIT.findall(tar.path.relative_to(root).as_posix())
        split = words[-1] if words else ""
        (left if split in unpacked else found).setdefault(split, []).append(tar)
    if left and found:
        beside = next(iter(left))
        raise UsageError(
            f"{root} holds shards of {shorten(sorted(found))} and, beside shards of {beside}, a "
            f"folder with the same name and other files. Leave the shards of all splits, or none."
        )
    if (nameless := found.pop("", [])) and not found and not class_folders(root):
        raise UsageError(
            f"{root} holds shards that name no split: {_names(nameless)}. Move them into "
            f"{root}/train and {root}/val, or name them train-000000.tar, val-000000.tar."
        )
    order = ("train", "val", "test")
    return {split: _require_all(split, found[split]) for split in order if split in found}


def _numbered_tars(folder: Path) -> list[_Tar]:
    """Those of sets that are numbered from 0 or 1; an archive such as VOC2012.tar is no shard."""
    tars = list[_Tar]()
    for path in folder.iterdir():
        if path.name[0] != "." and (match := _NUMBERED.fullmatch(path.name)):
            beginning, number, count, _ = match.groups()
            tars.append(_Tar(path, str(folder / beginning), int(number), int(count or 0)))
    begun = {tar.set for tar in tars if tar.number <= 1}
    return sorted(tar for tar in tars if tar.set in begun)


def _require_all(split: str, tars: Sequence[_Tar]) -> list[Path]:
    """In the order of their numbers."""
    tars = sorted(tars, key=lambda tar: tar.number)
    if len(sets := sorted({tar.set for tar in tars})) > 1:
        found = shorten([f"{one}... ({sum(tar.set == one for tar in tars):,})" for one in sets])
        raise UsageError(
            f"several sets of shards are named {split}: {found}. Leave one of them in the folder."
        )
    if packed := [tar for tar in tars if tar.path.suffix != ".tar"]:
        raise UsageError(
            f"compressed shards cannot be read by index: {_names(packed)}. Unpack them: "
            f"gunzip {packed[0].path.parent}/*.gz makes a .tar of each."
        )
    if bad := [tar.path for tar in tars if not tar.path.is_file()]:  # a pipe would block
        raise UsageError(f"the shard {bad[0]} is no file. Fetch the set again.")
    numbers, first = [tar.number for tar in tars], tars[0].number
    end = max(numbers[-1] + 1, *(tar.of for tar in tars))
    missing = sorted({*range(first, end)}.difference(numbers))
    if missing or len({*numbers}) < len(numbers):
        raise UsageError(
            f"{split} has {len(tars):,} shards, such as {tars[0].path}, numbered {first} to "
            f"{end - 1}; missing: {shorten([*map(str, missing)]) or 'none'}. Fetch the set again."
        )
    return [tar.path for tar in tars]


def _names(tars: Sequence[_Tar]) -> str:
    return shorten([tar.path.name for tar in tars])


def scan(root: Path, tars: Mapping[str, Sequence[Path]]) -> dict[str, ShardIndex]:
    """The index of each split, made where it is not there for these very tars.

    Args:
        root: the folder.
        tars: by split, in their order.

    Raises:
        UsageError: a tar that is cut or none, a sample without image or class, or with two images;
            classes of one split that training does not have; no place to write.
    """
    if not tars:
        return {}
    every = [path for paths in tars.values() for path in paths]
    names = next((p for f in (root, every[0].parent) if (p := f / CLASS_NAMES).is_file()), None)
    key = _version(root, [*every, *([names] if names else [])])
    own = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:16]
    places = root / ".index", cache_folder() / "indexes" / own
    for place in places:
        if all((place / key / f"{split}.index").is_file() for split in tars):
            return {split: ShardIndex.open(place / key / f"{split}.index") for split in tars}
    place = places[0] if os.access(root, os.W_OK) else places[1]
    with lock(place / "lock", f"another process indexes the shards of {root}", wait=True):
        if not all((place / key / f"{split}.index").is_file() for split in tars):
            parts = _scan_all(root, every, place / "parts")
            own_parts = {
                split: [ShardIndex.open(parts[path]) for path in paths]
                for split, paths in tars.items()
            }
            classes = _class_names(own_parts, names)
            for split, indexes in own_parts.items():
                _join(place / key / f"{split}.index", indexes, classes)
            for old in place.iterdir():
                if old.name not in (key, "lock"):
                    remove(old)
    return {split: ShardIndex.open(place / key / f"{split}.index") for split in tars}


def _version(root: Path, paths: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        status = path.stat()
        digest.update(os.fsencode(path.relative_to(root)))
        digest.update(f" {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _scan_all(root: Path, paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """An index of each tar; those that are there are not made again."""
    parts = {path: folder / f"{_version(root, [path])}.index" for path in paths}
    undone = [path for path in paths if not parts[path].is_file()]
    processes = min(os.cpu_count() or 1, len(undone) // 2)  # one reads two before others begin
    fork = multiprocessing.get_context("fork")
    with (
        bar("indexing shards", len(paths), "shards", len(paths) - len(undone)) as advance,
        ProcessPoolExecutor(processes, fork) if processes > 1 else nullcontext() as pool,
    ):
        work = partial(_scan_tar, root), undone, [parts[path] for path in undone]
        try:
            for _ in pool.map(*work) if pool else map(*work):
                advance(1)
        except BrokenProcessPool as error:
            raise UsageError(
                f"a process that indexes {root} was killed; the machine may be out of memory. "
                "Give the same command again: it goes on behind the shards that were read."
            ) from error
    return parts


# ---- one tar


class _Sample(NamedTuple):
    name: str
    image: Member
    label: str | None
    text: Member | None


def _scan_tar(root: Path, path: Path, part: Path) -> None:
    """Write the index of one tar."""
    left_out = Counter[str]()
    text: Literal["json", "txt"]
    try:
        with open(path, "rb") as file, open(path, "rb", buffering=0) as content:
            groups = [*_groups(path, file, left_out)]
            members = [group.members for group in groups]
            has_classes = any("cls" in one for one in members)
            text = "txt" if any("txt" in one for one in members) else "json"
            has_texts = not has_classes and any(text in one for one in members)
            wanted = "cls" if has_classes else text if has_texts else None
            samples = [_sample(path, content, group, wanted, left_out) for group in groups]
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UsageError(f"the shard {path} cannot be read ({error.strerror or error}).") from error
    if not samples:
        raise UsageError(f"the shard {path} holds no samples. Remove it, or fetch it again.")
    if len({sample.name for sample in samples}) < len(samples):
        (name, _), *_ = Counter(sample.name for sample in samples).most_common(1)
        raise UsageError(
            f"the shard {path} holds two samples {name}, or their members lie apart. Pack it again."
        )
    labels = [sample.label for sample in samples]
    classes = sorted({label for label in labels if label is not None})
    numbers = {name: number for number, name in enumerate(classes)}
    shard = Shard(path.relative_to(root).as_posix(), len(samples), size)
    write_index(
        part,
        [shard],
        [f"{path.stem}/{sample.name}" for sample in samples],
        [sample.image for sample in samples],
        classes=classes,
        labels=[numbers[label] for label in labels if label is not None] if classes else None,
        texts=[s.text for s in samples if s.text is not None] if has_texts else None,
        text=text,
        left_out=dict(left_out),
    )


@dataclass(frozen=True)
class _Group:
    """The members of a sample, by their ending in lower case."""

    key: str
    members: dict[str, tarfile.TarInfo]


def _groups(path: Path, file: BinaryIO, left_out: Counter[str]) -> Iterator[_Group]:
    """The samples of a tar; UsageError where it is cut, or anything follows that is no member."""
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            members = filter(None, (_member(path, info, left_out) for info in tar))
            for key, group in groupby(members, key=lambda member: member[0]):
                found = dict[str, tarfile.TarInfo]()
                for _, ending, info in group:
                    if ending in found:
                        raise UsageError(f"the shard {path} holds two members {info.name}.")
                    found[ending] = info
                yield _Group(key, found)
            require_end(file, tar.offset)
    except tarfile.TarError as error:
        why = first_line(error)
        raise UsageError(f"the shard {path} is cut or no tar ({why}). Fetch it again.") from error


def require_end(file: BinaryIO, end: int) -> None:
    """See that a tar file ends where tarfile takes it to end.

    There may be a member with a damaged head, a second tar file, or the place of a cut.

    Raises:
        tarfile.ReadError: what is there instead.
    """
    file.seek(end)
    rest = file.read(BLOCK)
    if len(rest) < BLOCK:
        raise tarfile.ReadError(f"it ends at byte {end:,} without the end mark of a tar")
    while rest:
        if rest.count(0) < len(rest):
            raise tarfile.ReadError(f"what follows at byte {end:,} is no member")
        rest = file.read(2**20)


def _member(
    path: Path, info: tarfile.TarInfo, left_out: Counter[str]
) -> tuple[str, str, tarfile.TarInfo] | None:
    """Key, ending and place; None for what belongs to no sample."""
    match = _MEMBER.fullmatch(info.name)
    if info.isdir():
        return None
    if match is None or _HIDDEN.search(info.name):
        left_out["hidden or without ending"] += 1
        return None
    if not info.isreg() or info.issparse():
        raise UsageError(
            f"the shard {path} holds {info.name} as a link or a sparse file, which has no bytes of "
            "its own there. Pack it again with the files themselves."
        )
    return match[1], match[2].lower(), info


def _sample(
    path: Path, file: Any, group: _Group, wanted: str | None, left_out: Counter[str]
) -> _Sample:
    """Where its parts lie; `wanted` is the ending of its class or its captions."""
    images = [one for one in group.members if f".{one.rpartition('.')[2]}" in SUFFIXES]
    where = f"the sample {group.key} in the shard {path}"
    if len(images) != 1:
        found = shorten([f".{ending}" for ending in group.members])
        raise UsageError(
            f"{where} has {len(images) or 'no'} images (its members are {found}); expected one of "
            f"{', '.join(SUFFIXES)}. Leave the others out when packing."
        )
    if wanted is not None and wanted not in group.members:
        found = shorten([f".{ending}" for ending in group.members])
        raise UsageError(
            f"{where} has no .{wanted} (its members are {found}), which others of that shard have. "
            "Pack it again, with all or without any."
        )
    left_out.update(f".{ending}" for ending in group.members.keys() - {images[0], wanted})
    label, text = None, None
    if wanted == "cls":
        label = _read(file, group.members["cls"])[1].decode("utf-8", "surrogateescape").strip()
        # bytes that are no UTF-8 are not printable; numbers of many digits Python does not read
        if not label or not label.isprintable() or len(label) > _LONGEST_CLASS:
            raise UsageError(f"{where} has the class {label!r:.40}; expected a number or a word.")
    elif wanted is not None:
        text, _ = _read(file, group.members[wanted])
    image = group.members[images[0]]
    return _Sample(image.name, _read(file, image)[0], label, text)


def _read(file: Any, info: tarfile.TarInfo) -> tuple[Member, bytes]:
    content = os.pread(file.fileno(), info.size, info.offset_data)
    return Member(0, info.offset_data, info.size, zlib.crc32(content)), content


# ---- all tars of a split


def _class_names(
    parts: Mapping[str, Sequence[ShardIndex]], file: Path | None
) -> dict[str, tuple[int, str]]:
    """What a class is called in the tars -> its number and its name, over all splits."""
    for split, indexes in parts.items():
        for kind, has in (
            ("classes", [bool(index.classes) for index in indexes]),
            ("captions", [index.has_texts and index.text for index in indexes]),
        ):
            if len({*has}) > 1:
                one, other = (indexes[has.index(value)].shards[0].file for value in {*has})
                raise UsageError(
                    f"the shards of {split} differ in having {kind}: {one} and {other}. Leave out "
                    "those of one kind."
                )
    of_split = {
        split: {name for index in indexes for name in index.classes}
        for split, indexes in parts.items()
    }
    found = set[str]().union(*of_split.values())
    if of_split.get("train") and (foreign := sorted(found - of_split["train"])):
        raise UsageError(f"the shards of train have no sample of the classes {shorten(foreign)}.")
    if not all(name.isascii() and name.isdecimal() for name in found):
        return {name: (number, name) for number, name in enumerate(sorted(found))}
    numbers = sorted({int(name) for name in found})
    names = [str(number) for number in numbers]
    if file is not None and numbers:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        lines = [line.strip() for line in lines[: -1 if not lines[-1].strip() else None]]
        if numbers[-1] >= len(lines) or len({*lines}) < len(lines) or "" in lines:
            raise UsageError(
                f"{file} must name classes 0 to {numbers[-1]}, a line each, all different; it has "
                f"{len(lines):,} lines, {len({*lines}):,} different."
            )
        names = [lines[number] for number in numbers]
    place = {number: at for at, number in enumerate(numbers)}
    return {name: (place[int(name)], names[place[int(name)]]) for name in found}


def _join(path: Path, parts: Sequence[ShardIndex], classes: Mapping[str, tuple[int, str]]) -> None:
    """One index of those of single tars."""
    columns = {
        name: np.concatenate([part.columns[name] for part in parts])
        for name in parts[0].columns
        if name not in ("label", "name_end")
    }
    lengths = np.concatenate([np.diff(part.columns["name_end"], prepend=0) for part in parts])
    ends = np.cumsum(lengths, dtype=np.uint64)
    columns["name_end"] = ends.astype(np.uint32) if ends[-1] < 2**32 else ends
    names = [name for _, name in sorted({*classes.values()})] if parts[0].classes else []
    if names:
        kind = np.uint16 if len(names) <= 2**16 else np.uint32
        numbers = [np.array([classes[name][0] for name in part.classes], kind) for part in parts]
        columns["label"] = np.concatenate(
            [table[part.labels] for table, part in zip(numbers, parts, strict=True)]
        )
    left_out = sum((Counter(part.left_out) for part in parts), Counter[str]())
    shards = [part.shards[0] for part in parts]
    save_columns(path, shards, columns, names, parts[0].text, left_out)
