"""Images in a tar file, laid out as image folders are: found by its heads, read at their places."""

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import UsageError, shorten
from pretrain.files import atomic
from pretrain.held_out import HELD_OUT, Indices, hold_out
from pretrain.images import SUFFIXES, ClassFolders
from pretrain.progress import log
from pretrain.shards.pack import PackSplit
from pretrain.shards.scan import require_end

_SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


@dataclass(frozen=True, eq=False)
class TarContents:
    """Reads members of an archive by their numbers."""

    path: Path
    places: NDArray[np.int64]
    """(N, 2): offset and size."""

    def __call__(self, number: int) -> bytes:
        """A member's content."""
        offset, size = self.places[number].tolist()
        with open(self.path, "rb", buffering=0) as file:
            file.seek(offset)
            return file.read(size)


@dataclass(frozen=True, eq=False)
class _Tree:
    """What an archive holds, by paths as if it were a folder."""

    folder: Path
    """The archive, or the one folder in it that holds everything."""
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Offset and size of each."""
    folders: set[str] = field(default_factory=set)
    others: list[str] = field(default_factory=list)


def open_archive(path: Path, work: Path) -> list[PackSplit]:
    """The splits of SPLIT/CLASS/x.jpg or CLASS/x.jpg in a tar file, or in one folder of it.

    Args:
        path: the archive; gzip's, bzip2's and xz's are unpacked to a plain one first.
        work: the folder for that.

    Raises:
        UsageError: no archive, cut short, no images in class folders, shards of WebDataset.
    """
    plain = _unpack(path, work)
    tree = _read_tree(path, plain)
    status = path.stat()

    def split_of(split: str, listed: ClassFolders, chosen: Indices) -> PackSplit:
        paths, below = [listed.paths[number] for number in chosen], len(str(listed.folder)) + 1
        places = np.array([tree.images[name] for name in paths], np.int64).reshape(-1, 2)
        return PackSplit(
            split=split,
            names=[name[below:] for name in paths],
            read=TarContents(plain, places),
            sizes=places[:, 1],
            changed=max(status.st_mtime, status.st_ctime),
            newest=str(path),
            classes=tuple(listed.images),
            labels=np.array(listed.labels, np.int64)[chosen],
        )

    splits = [name for name in _SPLIT_OF if str(tree.folder / name) in tree.folders]
    if not splits:
        listed = _list_classes(tree, tree.folder)
        listed.refuse_splits()
        names = [name[len(str(tree.folder)) + 1 :] for name in listed.paths]
        parts = hold_out(names, listed.labels, np.arange(len(names)), HELD_OUT, "val")
        log(f"note: {path} has no splits: {len(parts[1]):,} of {len(names):,} images become val")
        return [
            split_of(*pair) for pair in (("train", listed, parts[0]), ("val", listed, parts[1]))
        ]
    if "train" not in splits or len({_SPLIT_OF[name] for name in splits}) < len(splits):
        raise UsageError(
            f"{path} holds {', '.join(splits)}; expected train, at most one of val, valid and "
            "validation, and perhaps test. Unpack it, and name folders by --train, --val, --test."
        )
    found = []
    for name in splits:
        folder = tree.folder / name
        if name == "test" and not any(_class_of(image, folder) for image in tree.images):
            log(f"note: {path}: test has no images in class folders and is left out")
            continue
        listed = _list_classes(tree, folder)
        found.append(split_of(_SPLIT_OF[name], listed, np.arange(len(listed.paths))))
    return found


def _unpack(path: Path, work: Path) -> Path:
    """A tar file that can be read at any place."""
    with open(path, "rb") as file:
        head = file.read(8)
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None:
        return path
    plain = work / f"{path.name}.tar"
    if not plain.exists() or plain.stat().st_mtime < path.stat().st_mtime:
        log(f"note: {path} is unpacked to {plain}, which goes when all is packed")
        with opener(path) as source, atomic(plain) as temporary, open(temporary, "wb") as to:
            while content := _read_on(source, path):
                to.write(content)
    return plain


def _read_on(source: Any, path: Path) -> bytes:
    """The next bytes of a compressed file."""
    try:
        return bytes(source.read(2**22))
    except (
        OSError,
        lzma.LZMAError,
        zlib.error,
        EOFError,
    ) as error:  # bz2's and gzip's are OSErrors
        raise UsageError(f"{path} cannot be unpacked: {error}. Fetch it again.") from error


def _read_tree(path: Path, plain: Path) -> _Tree:
    """Heads of all members; hidden ones are skipped, as in folders."""
    tree = _Tree(path)
    try:
        with tarfile.open(plain, "r:") as archive:
            for member in archive:
                parts = [part for part in member.name.split("/") if part not in ("", ".")]
                if any(part.startswith(".") and part != ".." for part in parts):
                    continue
                name = "/".join((str(path), *parts))
                folders = parts if member.isdir() else parts[:-1]
                tree.folders.update(
                    "/".join((str(path), *folders[:n])) for n in range(1, len(folders) + 1)
                )
                if member.isdir():
                    continue
                if member.islnk():  # of one content, the first place
                    member = archive._find_link_target(member)  # type: ignore[attr-defined]
                if name.lower().endswith(SUFFIXES) and member.isreg() and not member.issparse():
                    tree.images[name] = member.offset_data, member.size
                else:
                    tree.others.append(name)
            require_end(archive.fileobj, archive.offset)  # type: ignore[arg-type]
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise UsageError(
            f"{path} cannot be read as a tar file: {error}. Fetch it again."
        ) from error
    stems = {os.path.splitext(name)[0] for name in tree.images}
    beside = [name for name in tree.others if name.endswith((".cls", ".json"))]
    if any(os.path.splitext(name)[0] in stems for name in beside):
        raise UsageError(
            f"{path} is a shard of WebDataset: give the folder that holds all of them."
        )
    inner = [name for name in tree.folders if name.count("/") == str(path).count("/") + 1]
    depth = min((name.count("/") for name in tree.images), default=0) - str(path).count("/")
    is_around = len(inner) == 1 and depth > 2 and Path(inner[0]).name not in _SPLIT_OF
    return _Tree(Path(inner[0]), tree.images, tree.folders, tree.others) if is_around else tree


def _class_of(name: str, folder: Path) -> str | None:
    """The class folder that a path lies in."""
    below = name.removeprefix(f"{folder}/")
    return below.split("/", 1)[0] if below != name and "/" in below else None


def _list_classes(tree: _Tree, folder: Path) -> ClassFolders:
    """What `pretrain.images.list_classes` is of a folder, checked."""
    images = defaultdict[str, list[str]](list)
    for name in sorted(tree.folders):
        if os.path.dirname(name) == str(folder):
            images[os.path.basename(name)] = []
    inside = sorted(name for name in tree.images if name.startswith(f"{folder}/"))
    for name in inside:
        if label := _class_of(name, folder):
            images[label].append(name)
    others = sorted(name for name in tree.others if name.startswith(f"{folder}/"))
    if not any(images.values()):
        there = shorten([*others, *inside], 3) or "nothing"
        raise UsageError(
            f"{folder} holds no images in class folders ({there}). "
            "Expected CLASS/*.jpg or SPLIT/CLASS/*.jpg; archives of archives, such as ImageNet's, "
            "are unpacked by `python tools/prepare_data.py imagenet --repair DIR`."
        )
    beside = [name for name in inside if not _class_of(name, folder)]
    listed = ClassFolders(folder, dict(images), others, beside)
    listed.check()
    for note in listed.notes():
        log(f"note: {note}")
    return listed
