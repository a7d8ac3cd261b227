"""Writes a store: shards in several processes, then indexes and `_info.json`, last.

Which sample comes into which shard is settled before the first is written, so any number of
processes writes the same bytes. A shard appears whole; what is known of it is kept in
OUT/.pack/SHARD.json until all are there. Killed, the same command goes on behind the shards that
are there; another command is refused.

The members are laid out as WebDataset has them: KEY.jpg, then KEY.cls (the class as a number) or
KEY.json (captions); see `names` for KEY. Heads say nothing of owner and time.
"""

import errno
import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, features

from pretrain.cache import new_hash
from pretrain.errors import UsageError, shorten
from pretrain.files import atomic, draft, lock, remove, write_text
from pretrain.images import decode_bytes
from pretrain.progress import bar, log
from pretrain.reading import check, read_json
from pretrain.shards.index import BLOCK, INDEX_FORMAT, Shard, write_index
from pretrain.shards.names import escaped, member_keys, readable, split_ending
from pretrain.shards.processes import in_processes
from pretrain.shards.store import INFO, open_indexes
from pretrain.training.seeds import generator

_WORK = ".pack"
_RESAMPLING = Image.Resampling.BICUBIC
_SAMPLED = 48
"""Images that are resized to estimate the room for all."""
_JPEG = ("jpg", "jpeg", "jfif")


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What the bytes of a store depend on beside its samples."""

    samples_per_shard: int = 1000
    """At most; the shards of a split are filled evenly."""
    seed: int = 0
    """Of the order of train."""
    short_side: int | None = None
    """Pixels; images with a larger one are resized to it."""
    quality: int = 90
    """Of the JPEG files that resizing writes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PackSplit:
    """The samples of a split, in their order."""

    split: str
    """train, val or test."""
    names: Sequence[str]
    """Paths of the images in the split."""
    read: Callable[[int], bytes]
    """Number of a sample -> its image's file; raises UsageError or OSError. Goes to processes."""
    sizes: NDArray[np.int64]
    """Bytes of the images, about."""
    changed: float = 0.0
    """When the last of the files was changed, seconds since the epoch."""
    newest: str = ""
    """Which that was."""
    classes: tuple[str, ...] = ()
    labels: NDArray[np.int64] | None = None
    """Positions in `classes`."""
    texts: Sequence[bytes] = ()
    """Of second members."""

    @cached_property
    def keys(self) -> list[str]:
        """Of the samples, see `names`."""
        return member_keys(self.names)

    @property
    def escaped(self) -> list[tuple[str, str]]:
        """(name, key) where the key is not simply the name without its ending."""
        return escaped(self.keys, self.names)

    def digest(self) -> str:
        """Of all but the images' content."""
        state = new_hash()
        columns = [self.sizes, *([] if self.labels is None else [self.labels])]
        for texts in (self.names, self.classes):
            state.update(json.dumps([*texts]).encode())
        for column in columns:
            state.update(column.tobytes())
        for text in self.texts:
            state.update(text)
        return state.hexdigest()


class ShardPart(msgspec.Struct, frozen=True):
    """What is known of a shard that is written."""

    shard: Shard
    blake2b: str
    kept: bytes
    """Numbers of its samples, int64."""
    corrupt: tuple[str, ...]
    """What was wrong with those left out."""
    members: bytes
    """(samples, 3) int64: offset, size and crc32 of the images."""
    texts: bytes
    resized: int
    endings: dict[str, list[str]]
    """Of its images, as packed: what their names end in."""


class _Shards(msgspec.Struct):
    filenames: tuple[str, ...]
    bytes: tuple[int, ...]
    blake2b: tuple[str, ...]


class _Info(msgspec.Struct):
    splits: dict[str, _Shards]


@dataclass(frozen=True)
class _Task:
    split: PackSplit
    number: int
    samples: NDArray[np.int64]

    @property
    def file(self) -> str:
        return f"{self.split.split}-{self.number:06d}.tar"


@dataclass(frozen=True)
class _Job:
    """What a process needs to know."""

    out: Path
    options: PackOptions
    tasks: Sequence[_Task]

    def part_path(self, task: _Task) -> Path:
        return self.out / _WORK / f"{task.file}.json"

    def write(self, number: int) -> ShardPart:
        """Write a shard and what is known of it."""
        task = self.tasks[number]
        path = self.out / task.file
        with atomic(path) as temporary:
            part = _write_shard(temporary, task, self.options)
            if not part.kept:  # all its images are corrupt
                temporary.touch()
        write_text(self.part_path(task), msgspec.json.encode(part).decode())
        return part

    def find(self, task: _Task) -> ShardPart | None:
        """What is known of a shard that is there."""
        try:
            part: ShardPart = check(read_json(self.part_path(task), largest=2**30), ShardPart, "")
            size = (self.out / task.file).stat().st_size
        except (UsageError, OSError):
            return None
        return part if size == part.shard.bytes else None


def pack(
    splits: Sequence[PackSplit],
    out: Path,
    options: PackOptions,
    *,
    workers: int = 1,
    max_corrupt: int = 0,
) -> dict[str, Any]:
    """Write a store, or go on with it; what `_info.json` holds.

    Args:
        splits: in the order train, val, test.
        out: the folder.
        options: see there.
        workers: processes.
        max_corrupt: images of each split that may be left out.

    Raises:
        UsageError: names that cannot be packed, too many images that cannot be decoded, another
            command's shards in `out`, no room.
    """
    for split in splits:
        if bad := [name for name in split.classes if name != readable(name)]:
            raise UsageError(
                f"the class {readable(bad[0])} of {split.split} is no text in UTF-8, which the "
                "names of classes must be. Rename it."
            )
    job = _Job(out, options, [task for split in splits for task in _plan(split, options)])
    plan = _describe(splits, options)
    with lock(out / _WORK / "lock", f"another pack writes into {out}"):
        if (out / INFO).exists():
            remove(out / _WORK)
            info = read_json(out / INFO, largest=2**30)
            _compare(out, info.get("packed") if isinstance(info, dict) else None, plan)
            _write_lost(job, check(info, _Info, str(out / INFO)), workers)
            open_indexes(out)
            remove(out / _WORK)
            log(f"{out} is complete; `python tools/pack.py --verify {out}` reads it again")
            return dict(info)
        _begin(out, plan, splits)
        for torn in (*out.glob(".*.tmp"), *(out / _WORK).glob(".*.tmp")):  # of a process killed
            remove(torn)
        parts = {number: part for number, task in enumerate(job.tasks) if (part := job.find(task))}
        if parts:
            log(f"{len(parts):,} of {len(job.tasks):,} shards are there")
        _require_room(job, parts)
        counts, corrupt = (
            [len(task.samples) for task in job.tasks],
            defaultdict[str, list[str]](list),
        )
        undone = [number for number in range(len(counts)) if number not in parts]
        done = sum(counts[number] for number in parts)
        with bar("packing", sum(counts), "images", done) as advance:
            written = in_processes(job.write, undone, workers)
            for number, part in chain(list(parts.items()), written):
                split = job.tasks[number].split
                for text in part.corrupt:
                    log(f"left out: {text}")
                    corrupt[split.split].append(text)
                _check_corrupt(job, split, corrupt[split.split], max_corrupt)
                if number not in parts:
                    advance(counts[number])
                parts[number] = part
        info = _finish(job, splits, [parts[number] for number in range(len(counts))], plan)
        remove(out / _WORK)
    return info


def require_place(out: Path) -> None:
    """Raise UsageError where a folder holds what packing did not write."""
    is_ours = (out / INFO).exists() or (out / _WORK).exists()
    if others := sorted(os.listdir(out)) if out.is_dir() and not is_ours else []:
        raise UsageError(
            f"{out} holds {shorten(others)}; shards come into a folder of their own. Name another "
            "--out."
        )


# ---- the plan


def _plan(split: PackSplit, options: PackOptions) -> list[_Task]:
    """Which samples come into which shard: train in a random order, the others as they are."""
    count = len(split.names)
    order = np.arange(count)
    if split.split == "train":
        order = torch.randperm(count, generator=generator(options.seed, "packing")).numpy()
    shards = np.array_split(order, -(-count // options.samples_per_shard))
    return [_Task(split, number, samples) for number, samples in enumerate(shards)]


def _describe(splits: Sequence[PackSplit], options: PackOptions) -> dict[str, Any]:
    """All that the bytes depend on, as `_info.json` keeps it."""
    described: dict[str, Any] = {"format": INDEX_FORMAT, **asdict(options)}
    if options.short_side is None:
        del described["quality"]
    else:
        libraries = [features.version(name) for name in ("jpg", "libjpeg_turbo", "zlib")]
        described["pillow"] = " ".join(map(str, (Image.__version__, *libraries)))  # type: ignore[attr-defined]
    for split in splits:
        described[f"samples of {split.split}"] = len(split.names)
        described[f"files of {split.split}"] = split.digest()
    return described


def _compare(out: Path, there: Any, plan: Mapping[str, Any]) -> None:
    """Raise UsageError unless a store is of the same command."""
    before = there if isinstance(there, dict) else {}
    differences = [
        f"{key.replace('_', ' ')} {before.get(key, 'none')}, now {plan.get(key, 'none')}"
        for key in (*plan, *(before.keys() - plan.keys()))
        if before.get(key) != plan.get(key)
    ]
    if differences:
        raise UsageError(
            f"{out} holds shards of another command or of other files: "
            f"{shorten(differences)}. Give that command again, name another --out, or remove {out}."
        )


def _begin(out: Path, plan: dict[str, Any], splits: Sequence[PackSplit]) -> None:
    """Say what is to become of a folder, or see that it is the same."""
    path = out / _WORK / "plan.json"
    if path.exists() and any(out.glob("*.tar")):
        _compare(out, read_json(path), plan)
        for split in splits:
            if split.changed > path.stat().st_mtime:
                raise UsageError(
                    f"{split.newest} was changed since packing into {out} began. Remove {out} and "
                    "give the same command again, or name another --out."
                )
        return
    write_text(path, json.dumps(plan, indent=1))


def _require_room(job: _Job, parts: Mapping[int, ShardPart]) -> None:
    """Raise UsageError where what is left to write does not fit on the disk."""
    undone = [task for number, task in enumerate(job.tasks) if number not in parts]
    content = sum(int(task.split.sizes[task.samples].sum()) for task in undone)
    count = sum(len(task.samples) for task in undone)
    if job.options.short_side is not None and undone:
        content = int(content * _shrinkage(undone, job.options))
    texts = sum(
        len(task.split.texts[n]) for task in undone if task.split.texts for n in task.samples
    )
    size = content + texts + count * 5 * BLOCK // 2 * (1 + bool(texts))
    with draft(job.out / "shards", size):
        if shutil.disk_usage(job.out).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _shrinkage(tasks: Sequence[_Task], options: PackOptions) -> float:
    """Bytes that resizing leaves of an image, as a share, measured on a few."""
    pairs = [(task.split, int(number)) for task in tasks for number in task.samples[:_SAMPLED]]
    before = after = 0
    for split, number in pairs[:: max(1, len(pairs) // _SAMPLED)]:
        try:
            content = split.read(number)
            after += len(encode(content, split.names[number], options)[0])
            before += len(content)
        except (UsageError, OSError):  # named when it is packed
            continue
    return after / before * 1.05 if before else 1.0


# ---- a shard


def _write_shard(path: Path, task: _Task, options: PackOptions) -> ShardPart:
    split, state = task.split, new_hash()
    kept, corrupt, members, texts = [], [], [], []
    resized, endings = 0, defaultdict[str, set[str]](set)
    with open(path, "wb") as file:

        def put(content: bytes) -> None:
            file.write(content)
            state.update(content)

        def add(name: str, content: bytes) -> tuple[int, int, int]:
            put(member_head(name, len(content)))
            offset = file.tell()
            put(content)
            put(bytes(-len(content) % BLOCK))
            return offset, len(content), zlib.crc32(content)

        for number in task.samples.tolist():
            name, key = split.names[number], split.keys[number]
            try:
                content, ending, is_resized = encode(split.read(number), name, options)
            except (UsageError, OSError) as error:
                corrupt.append(readable(str(error)))
                continue
            kept.append(number)
            members.append(add(f"{key}.{ending}", content))
            if split.labels is not None:
                add(f"{key}.cls", b"%d" % split.labels[number])
            if split.texts:
                texts.append(add(f"{key}.json", split.texts[number]))
            resized += is_resized
            endings[ending].add(split_ending(name)[1])
        if kept:
            put(bytes(2 * BLOCK))
        size = file.tell()
    return ShardPart(
        Shard(task.file, len(kept), size),
        state.hexdigest(),
        np.array(kept, np.int64).tobytes(),
        tuple(corrupt),
        np.array(members, np.int64).tobytes(),
        np.array(texts, np.int64).tobytes(),
        resized,
        {ending: sorted(ends) for ending, ends in endings.items()},
    )


def member_head(name: str, size: int) -> bytes:
    """The head of a tar member: USTAR where the name fits, else with PAX's records before it."""
    info = tarfile.TarInfo(name)  # mode 0644, owner 0, time 0
    info.size = size
    if name.isascii():
        try:
            return info.tobuf(tarfile.USTAR_FORMAT)
        except ValueError:  # too long
            pass
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8")


def encode(content: bytes, name: str, options: PackOptions) -> tuple[bytes, str, bool]:
    """What is packed of an image, its ending, and whether it was resized.

    An image whose short side is no larger is packed as it is. Pillow's bicubic filter with
    antialias is what most published networks are evaluated with: where they resize to this short
    side, nothing is left to do. What is called JPEG or WebP becomes JPEG (4:2:0), all else PNG,
    which loses nothing more. The name decides, as a PNG among JPEGs would be lost to readers that
    look for one ending. The pixels are those that the trainers see: RGB, not turned by EXIF, and
    without a tag or a profile by which others would turn or recolour them.

    Raises:
        UsageError: it cannot be decoded.
    """
    image = decode_bytes(bytearray(content), name)
    named = split_ending(name)[1].lower().removeprefix(".")
    ending = "jpg" if named in _JPEG else named or _format(content)
    short, long = sorted(image.shape[-2:])
    if options.short_side is None or short <= options.short_side:
        return content, ending, False
    sides = (options.short_side, int(options.short_side * long / short))  # as torchvision's Resize
    height, width = sides if image.shape[-2] == short else sides[::-1]
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy())
    resized, buffer = pixels.resize((width, height), _RESAMPLING), BytesIO()
    if ending in ("jpg", "webp"):
        resized.save(buffer, "JPEG", quality=options.quality, subsampling="4:2:0")
        return buffer.getvalue(), "jpg", True
    resized.save(buffer, "PNG")
    return buffer.getvalue(), "png", True


def _format(content: bytes) -> str:
    """The ending of an image whose name has none."""
    with Image.open(BytesIO(content)) as image:
        return {"JPEG": "jpg"}.get(image.format or "", (image.format or "img").lower())


def _check_corrupt(job: _Job, split: PackSplit, corrupt: Sequence[str], most: int) -> None:
    """Raise UsageError where more is left out than a split may lack."""
    if len(corrupt) > most:
        raise UsageError(
            f"{len(corrupt):,} images of {split.split} cannot be packed, {most:,} may be left out; "
            f"the first: {corrupt[0]} Give --max-corrupt N to leave them out and go on from here, "
            f"or repair them, remove {job.out}, and give the same command again."
        )


# ---- the end


def _write_lost(job: _Job, info: _Info, workers: int) -> None:
    """Write shards of a complete store again that were removed or cut."""
    known = {
        file: (size, blake2b)
        for split in info.splits.values()
        for file, size, blake2b in zip(split.filenames, split.bytes, split.blake2b, strict=False)
    }
    sizes = {path.name: path.stat().st_size for path in job.out.glob("*.tar") if path.is_file()}
    files = [task.file for task in job.tasks]
    lost = [
        n for n, file in enumerate(files) if file in known and sizes.get(file) != known[file][0]
    ]
    for number, part in in_processes(job.write, lost, workers):
        if part.blake2b != known[files[number]][1]:
            remove(job.out / files[number])
            raise UsageError(
                f"{job.out / files[number]} is lost, and its images are not what they were. Fetch "
                f"it again, or remove {job.out} and give the same command again."
            )
        log(f"{job.out / files[number]} was lost and is written again")


def _finish(
    job: _Job, splits: Sequence[PackSplit], parts: Sequence[ShardPart], plan: dict[str, Any]
) -> dict[str, Any]:
    """Write the indexes and then `_info.json`; what that holds."""
    described, left_out = dict[str, Any](), dict[str, list[str]]()
    for split in splits:
        own = [part for part, task in zip(parts, job.tasks, strict=True) if task.split is split]
        own = [part for part in own if part.kept]
        path = job.out / f"{split.split}.index"
        _write_index(path, split, own)
        described[split.split] = {
            "name": split.split,
            "num_samples": sum(part.shard.samples for part in own),
            "filenames": [part.shard.file for part in own],
            "shard_lengths": [part.shard.samples for part in own],
            "bytes": [part.shard.bytes for part in own],
            "blake2b": [part.blake2b for part in own],
            "index": {"file": path.name, "blake2b": file_hash(path)},
            "resized": sum(part.resized for part in own),
            "endings": _join_endings(part.endings for part in own),
        }
        lost = np.setdiff1d(np.arange(len(split.names)), _kept(own))
        left_out[split.split] = [readable(split.names[number]) for number in lost]
    classes = list(splits[0].classes)
    info = {"splits": described, "classes": classes, "left_out": left_out, "packed": plan}
    write_text(job.out / INFO, json.dumps(info, indent=1) + "\n")
    return info


def _join_endings(parts: Iterable[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    joined = defaultdict[str, set[str]](set)
    for part in parts:
        for ending, names in part.items():
            joined[ending].update(names)
    return {ending: sorted(joined[ending]) for ending in sorted(joined)}


def _kept(parts: Sequence[ShardPart]) -> NDArray[np.int64]:
    """Numbers of the samples in the shards, in their order."""
    return np.frombuffer(b"".join(part.kept for part in parts), np.int64)


def _write_index(path: Path, split: PackSplit, parts: Sequence[ShardPart]) -> None:
    kept = _kept(parts)
    shards = np.repeat(np.arange(len(parts)), [part.shard.samples for part in parts])
    images, texts = (
        np.frombuffer(b"".join(getattr(part, kind) for part in parts), np.int64).reshape(-1, 3)
        for kind in ("members", "texts")
    )
    every = split.labels
    labels = None if every is None else every[kept]
    if lost := [] if every is None else np.setdiff1d(every, every[kept]).tolist():
        raise UsageError(
            f"{split.split}: no image of class {shorten([split.classes[n] for n in lost])} can be "
            "packed. Repair its images or remove the class, and name another --out."
        )
    write_index(
        path,
        [part.shard for part in parts],
        [split.names[number] for number in kept],
        np.column_stack((shards, images)),
        classes=split.classes,
        labels=labels,
        texts=np.column_stack((shards, texts)) if len(texts) else None,
    )


def file_hash(path: Path) -> str:
    """BLAKE2b of a file, 32 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, new_hash).hexdigest()
