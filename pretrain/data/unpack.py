"""ImageNet as it is downloaded, into class folders: three tar archives, or Hugging Face's parquet.

    ROOT/ILSVRC2012_img_train.tar       an archive of each class    -> ROOT/train/SYNSET/*.JPEG
    ROOT/ILSVRC2012_img_val.tar         50,000 images               -> ROOT/val/SYNSET/*.JPEG
    ROOT/ILSVRC2012_devkit_t12.tar.gz   the labels of val
    ROOT/data/train-00000-of-00294.parquet, ...                     -> the same two folders

A split is unpacked in ROOT/.SPLIT.unpacking and renamed when it is complete, so that what was
broken off is no data set. Its pieces (a class, a thousand images, a shard) are marked there when
they are on the disk, and are not unpacked again.
"""

import errno
import gzip
import hashlib
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pretrain.check_results import CheckResult, ok
from pretrain.data.parquet import find_shards, imagenet_classes, read_shard, require_all
from pretrain.data.validation_labels import find_labels, read_labels
from pretrain.errors import UsageError
from pretrain.files import draft, draft_folder, publish, remove
from pretrain.progress import bar

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
PUBLISHED: dict[str, tuple[int | None, str]] = {
    TRAIN: (147_897_477_120, "1d675b47d978889d74fa0da5fadfb00e"),
    VAL: (6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"),
    DEVKIT: (None, "fa75699e90414af021442c21a62c3abf"),
}
"""Bytes and MD5 of the archives; torchvision's datasets/imagenet.py has the hashes."""
_IMAGES = 1_000  # of val in a piece
_CHUNK = 2**24  # bytes that are hashed at once

Images = Iterable[tuple[str, str, bytes]]
"""Class folder, file name, content."""


class Piece(NamedTuple):
    """What one thread unpacks; it is done or not done."""

    name: str
    size: int
    """Bytes, about."""
    read: Callable[[], Images]


# ---- the splits


def unpack_imagenet(root: Path) -> list[CheckResult]:
    """Unpack the splits that are not there yet; archives and shards stay.

    Raises:
        UsageError: an archive is not the published one, or damaged; a shard is missing; val has no
            labels; there is no room on the disk.
    """
    free = [split for split in ("train", "val", "test") if _is_free(root / split)]
    pieces, sources = dict[str, list[Piece]](), dict[str, str]()
    for split, archive, list_pieces in (("train", TRAIN, _classes), ("val", VAL, _validation)):
        if split in free and (root / archive).is_file():
            pieces[split], sources[split] = list_pieces(root), archive
    for split, shards in find_shards(root).items() if {"train", "val"} & {*free} else ():
        if split in free and split not in pieces:
            require_all(shards)
            sources[split] = f"{len(shards)} parquet files"
            pieces[split] = [
                Piece(s.stem, s.stat().st_size, partial(read_shard, s)) for s in shards
            ]
    undone = {
        split: [piece for piece in pieces[split] if not _mark(root, split, piece.name).exists()]
        for split in pieces
    }
    # blocks of the file system are filled up
    needed = {split: sum(piece.size for piece in undone[split]) * 51 // 50 for split in pieces}
    _require_room(root, [*pieces], sum(needed.values()))
    for split, source in sources.items():
        if source in PUBLISHED:
            _verify(root / source, _mark(root, split, source))
    for split in pieces:
        with draft(root / split, needed[split]):
            _unpack(root, split, pieces[split], undone[split])
    for split in {"train", "val", "test"} - {*free}:
        remove(_place(root, split))  # a kill came between the renaming and this
    return [
        ok(f"{root / split} unpacked from {source}, which can be removed")
        for split, source in sources.items()
    ]


def _require_room(root: Path, splits: list[str], size: int) -> None:
    """Raise UsageError where so many bytes do not fit on the disk."""
    for split in splits[:1]:
        with draft(root / split, size):
            if shutil.disk_usage(root).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unpack(root: Path, split: str, pieces: list[Piece], undone: list[Piece]) -> None:
    place = _place(root, split) / split

    def write(piece: Piece) -> None:
        for folder, name, content in piece.read():
            path = place / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{name}.tmp")
            try:
                temporary.write_bytes(content)
                os.replace(temporary, path)
            except BaseException:
                remove(temporary)
                raise
        _set(_mark(root, split, piece.name))

    done = sum(piece.size for piece in pieces) - sum(piece.size for piece in undone)
    in_threads(f"unpacking {split}", [(partial(write, p), p.size) for p in undone], done)
    if (root / split).exists():  # an empty folder
        (root / split).rmdir()
    os.replace(place, root / split)
    remove(place.parent)


def in_threads(title: str, tasks: Sequence[tuple[Callable[[], None], int]], done: int = 0) -> None:
    """Call functions in several threads with a bar; the first error ends it.

    Args:
        title: of the bar.
        tasks: functions, and the bytes that each works on.
        done: bytes that were worked on before.
    """
    total = done + sum(size for _, size in tasks)
    with (
        bar(title, total // 10**6, "MB", done // 10**6) as advance,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        sizes = {pool.submit(task): size for task, size in tasks}
        try:
            for future in as_completed(sizes):
                future.result()
                advance(sizes[future] / 1e6)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _place(root: Path, split: str) -> Path:
    return root / f".{split}.unpacking"


def _mark(root: Path, split: str, name: str) -> Path:
    """The file that says that a piece is done."""
    return _place(root, split) / "done" / name


def _set(mark: Path) -> None:
    sync()
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def sync() -> None:
    """Put everything that was written onto the disk; file by file it takes many times as long."""
    if hasattr(os, "sync"):  # Windows has none
        os.sync()


def _is_free(folder: Path) -> bool:
    """Whether there is no such folder, or an empty one."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


# ---- the archives


def _check_size(archive: Path) -> None:
    """Raise UsageError unless an archive is as long as the published one."""
    found, size = archive.stat().st_size, PUBLISHED[archive.name][0]
    if size is not None and found != size:
        what = "cut short: go on with" if found < size else "another: repeat"
        raise UsageError(
            f"{archive} has {found:,} bytes, the published one {size:,}. It is {what} its download."
        )


def _verify(archive: Path, mark: Path | None = None) -> None:
    """Raise UsageError unless an archive is the published one; `mark` says that it was before."""
    if mark is not None and mark.exists():
        return
    found, md5 = archive.stat().st_size, PUBLISHED[archive.name][1]
    state = hashlib.md5(usedforsecurity=False)
    with (
        bar(f"checking {archive.name}", found // 10**6, "MB") as advance,
        open(archive, "rb", buffering=0) as file,
    ):
        while block := file.read(_CHUNK):
            state.update(block)
            advance(len(block) / 1e6)
    if state.hexdigest() != md5:
        raise UsageError(
            f"{archive} is damaged, or another file: its MD5 is {state.hexdigest()}, that of the "
            f"published one {md5}. Download it again."
        )
    if mark is not None:
        with draft(mark):
            _set(mark)


def unpack_devkit(root: Path) -> None:
    """The development kit, which says what the validation images show, where it is an archive."""
    archive = root / DEVKIT
    if archive.is_file() and not (root / DEVKIT.removesuffix(".tar.gz")).exists():
        _verify(archive)
        unpack_beside(archive)


def unpack_beside(archive: Path) -> None:
    """Put what is in a .tar.gz beside it, folder by folder; see extract."""
    with draft_folder(archive.with_name(archive.name.removesuffix(".tar.gz"))) as folder:
        extract(archive, folder)
        for entry in folder.iterdir():
            publish(entry, archive.with_name(entry.name))


def extract(path: Path, folder: Path) -> None:
    """Unpack an archive of files and folders; one with anything else is refused.

    Raises:
        UsageError: it is damaged, has links or devices, or a member would leave `folder`.
    """

    def check(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        if not (member.isreg() or member.isdir()):
            raise tarfile.ReadError(f"{member.name!r} is a link or a device")
        return tarfile.data_filter(member, folder)

    with _open(path) as archive:
        archive.extractall(folder, filter=check)


@contextmanager
def _open(path: Path) -> Iterator[tarfile.TarFile]:
    """An archive; UsageError where it is none, or damaged, here or in what is done with it."""
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UsageError(f"{path} cannot be unpacked: {error}. Download it again.") from error


def _classes(root: Path) -> list[Piece]:
    """The archives in that of the training images."""
    path = root / TRAIN
    _check_size(path)

    def read(member: tarfile.TarInfo) -> Images:
        with _open(path) as outer, tarfile.open(fileobj=outer.extractfile(member)) as inner:
            for image in inner:
                yield member.name.removesuffix(".tar"), image.name, _content(inner, image)

    with _open(path) as archive:
        members = archive.getmembers()
    if other := [member.name for member in members if not re.fullmatch(r"n\d+\.tar", member.name)]:
        raise UsageError(f"{path} holds {other[0]!r}, which is no archive of a class.")
    return [Piece(member.name, member.size, partial(read, member)) for member in members]


def _validation(root: Path) -> list[Piece]:
    """The validation images by thousands, in the order of their names."""
    path = root / VAL
    _check_size(path)
    with _open(path) as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name)
    unpack_devkit(root)
    names = [member.name for member in members]
    synsets = read_labels(find_labels(root, "val"), names, [*imagenet_classes()])

    def read(start: int) -> Images:
        with _open(path) as archive:
            for number in range(start, min(start + _IMAGES, len(members))):
                yield synsets[number], names[number], _content(archive, members[number])

    starts = range(0, len(members), _IMAGES)
    sizes = [sum(member.size for member in members[start : start + _IMAGES]) for start in starts]
    return [
        Piece(f"images-{start}", size, partial(read, start))
        for start, size in zip(starts, sizes, strict=True)
    ]


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """What is in a member; ReadError unless it is a file with a plain name."""
    is_file = member.isreg() and not member.issparse()
    if not is_file or not re.fullmatch(r"\w[\w.-]*", member.name, re.ASCII):
        raise tarfile.ReadError(f"{member.name!r} is no image")
    file = archive.extractfile(member)
    assert file is not None
    return file.read()
