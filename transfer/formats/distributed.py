"""Folders of torch.distributed.checkpoint: `.metadata`, and pieces of tensors in `.distcp` files.

`.metadata` is a pickle of names and of where the pieces of each tensor lie; a piece is a torch file
of one tensor, within a file. Nothing in either is run, and values that are no tensors are left.
"""

import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain import safe_pickle, torch_file
from pretrain.cache import file_sha256
from pretrain.errors import UsageError, first_line
from transfer.formats.files import CheckpointFile, check_members

METADATA = ".metadata"


class _Entry:
    """Stands for every class of the metadata: plain attributes, whatever it is made of."""

    def __new__(cls, *_: Any) -> "_Entry":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            vars(self).update(state)


_CLASSES = ("Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata",
            "ChunkStorageMetadata", "TensorProperties", "StorageMeta", "_StorageInfo",
            "_MEM_FORMAT_ENCODING", "MEM_FORMAT_ENCODING")  # fmt: skip
_MODULES = ("checkpoint.metadata", "checkpoint.filesystem", "_shard.sharded_tensor.metadata")
_DTYPES = [name for name, value in vars(torch).items() if isinstance(value, torch.dtype)]
_ALLOWED: dict[tuple[str, str], Any] = {
    **{(f"torch.distributed.{m}", name): _Entry for m in _MODULES for name in _CLASSES},
    **dict.fromkeys((("torch", name) for name in _DTYPES), _Entry),
    **{(m, "PosixPath"): _Entry for m in ("pathlib", "pathlib._local")},
    ("torch.serialization", "_get_layout"): _Entry,
    ("torch", "Size"): tuple,
}


def open_folder(folder: Path) -> CheckpointFile:
    """The tensors of a folder, nested as they were saved; the hash is that of the files' hashes.

    Raises:
        UsageError: a piece missing, cut short, elsewhere or twice there, or holding code.
    """
    path = folder / METADATA
    metadata = safe_pickle.load(path, more=_ALLOWED)
    content: dict[str, Any] = {}
    try:
        places: dict[str, list[tuple[Sequence[int], Any]]] = defaultdict(list)
        for index, place in metadata.storage_data.items():
            places[index.fqn].append((getattr(index, "offset", ()), place))
        files = {place.relative_path for found in places.values() for _, place in found}
        parts = [path, *(_find_part(folder, name) for name in sorted(files))]
        total = sum(part.stat().st_size for part in parts)
        if sum(place.length for found in places.values() for _, place in found) > total:
            raise UsageError(f"{folder} announces more pieces than it holds. It was not read.")
        keys = getattr(metadata, "planner_data", None) or {}
        for name, entry in metadata.state_dict_metadata.items():
            if not hasattr(entry, "chunks"):
                continue
            pieces = [(offset, _read_piece(folder, place)) for offset, place in places[name]]
            inner = content
            *outer, last = keys.get(name, (name,))
            for key in outer:
                inner = inner.setdefault(key, {})
            inner[last] = _join(tuple(entry.size), pieces)
            if inner[last] is None:
                raise UsageError(
                    f"{folder}: the pieces of {name} do not make up a tensor of {(*entry.size,)}. "
                    "Some are missing, or of another save: copy the whole folder again."
                )
    except UsageError:
        raise
    except safe_pickle.DAMAGE as error:
        kind = f"metadata of torch.distributed.checkpoint ({first_line(error)})"
        raise safe_pickle.damaged(path, kind) from error
    digest = hashlib.sha256("".join(map(file_sha256, parts)).encode()).hexdigest()
    container = f"distributed checkpoint, {len(parts)} files"
    return CheckpointFile(folder, container, content, digest, total, {})


def _find_part(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).name != name:
        raise UsageError(
            f"{folder / METADATA} names {name!r}, which is no file beside it. It was not read."
        )
    if not path.is_file():
        raise UsageError(f"{folder} lacks {name}, which its metadata names: copy all of it again.")
    return path


def _read_piece(folder: Path, place: Any) -> Tensor:
    """From its file, within the bytes that are announced."""
    path, begin, length = folder / place.relative_path, place.offset, place.length
    if packed := getattr(place, "transform_descriptors", None):
        raise UsageError(
            f"{folder}: its pieces are packed ({', '.join(map(str, packed))}), which is not read. "
            "Save it without extensions of the storage writer."
        )
    with open(path, "rb") as handle:
        handle.seek(begin)
        held = handle.read(length) if length > 0 else b""
    if len(held) != length:
        raise safe_pickle.damaged(path, "whole part of a distributed checkpoint")
    check_members(path, length, io.BytesIO(held))
    piece = torch_file.read(path, io.BytesIO(held))
    if not isinstance(piece, Tensor) or piece.layout != torch.strided:
        raise ValueError("a piece that is no dense tensor")
    if piece.numel() * piece.element_size() > length:
        raise ValueError("a piece that is larger than its file")
    return piece


def _join(size: tuple[int, ...], pieces: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor | None:
    """The tensor of these pieces at their offsets; None unless each element is there once."""
    if not pieces or sum(piece.numel() for _, piece in pieces) != math.prod(size):
        return None
    if pieces[0][1].shape == size:
        return pieces[0][1]
    whole = pieces[0][1].new_empty(size)
    covered = torch.zeros(size, dtype=torch.bool)
    for offsets, piece in pieces:
        box = tuple(slice(at, at + n) for at, n in zip(offsets, piece.shape, strict=True))
        if whole[box].shape != piece.shape or whole.dtype != piece.dtype:
            return None
        whole[box] = piece
        covered[box] = True
    return whole if bool(covered.all()) else None
