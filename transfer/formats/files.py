"""From a file to plain values and tensors: by its content, without code, within its own size.

    zip with data.pkl      torch.save since 1.6        torch.load(weights_only=True)
    magic number           torch.save before           torch.load(weights_only=True)
    pickle                 detectron2, MSRA, CIFAR      pretrain.safe_pickle
    length and "{"         safetensors
    zip with *.npy         NumPy archive                numpy.load(allow_pickle=False)

What a header announces is compared with what the file holds before it is read, so that a hostile
file cannot take more memory than a small multiple of its own size.
"""

import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from pretrain import safe_pickle, torch_file
from pretrain.errors import UsageError, first_line
from transfer.cache import file_sha256

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# readers trust their input: what they raise at a torn file
_DAMAGE = (*safe_pickle.DAMAGE, zipfile.BadZipFile, struct.error, safetensors.SafetensorError)
_MAX_MEMBERS = 100_000
_MAX_TENSORS = 100_000


class Arguments:
    """Stands where a checkpoint names argparse.Namespace: plain attributes, nothing more."""


# found in other programs' checkpoints, and inert: plain attributes, plain numbers
_INERT = [
    (Arguments, "argparse.Namespace"),
    (safe_pickle.number_type, "numpy.dtype"),
    (safe_pickle.number, "numpy.core.multiarray.scalar"),
    (safe_pickle.number, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]

# beginnings of files that people try, and what to do about them
_FOREIGN = {
    rb"\x89HDF\r\n": "an HDF5 file (Keras). Save the weights from PyTorch or timm",
    rb"<!DO|<htm|<HTM": "a web page, not a checkpoint. Download the file itself",
    rb"\x1f\x8b": "a gzip archive. Unpack it first",
    rb"version https://git-lfs": "a pointer of Git LFS. Fetch the file itself (git lfs pull)",
    rb"\x08[\x07\x08]\x12\x07pytorch": "an ONNX graph, which holds no named weights. Give the "
    "checkpoint",
}


@dataclass(frozen=True)
class CheckpointFile:
    """A file's content, and what kind of file it is."""

    path: Path
    container: str
    content: Any
    sha256: str
    size: int
    metadata: dict[str, str]
    """safetensors: the strings of its header."""


def open_file(path: Path) -> CheckpointFile:
    """Read a checkpoint file of any container.

    Raises:
        UsageError: no such file, cut short, lying about its sizes, holding code, or unknown.
    """
    size = safe_pickle.require_file(path)
    with open(path, "rb") as handle:
        head = handle.read(64)
    metadata: dict[str, str] = {}
    is_pickle = head[:1] == b"\x80" or (head[:1] in b"(c]}" and path.suffix in (".pkl", ".pickle"))
    if head.startswith(b"PK"):
        container, content = _open_zip(path, size)
    elif head.startswith(_LEGACY_MAGIC):
        container, content = "torch file of before 1.6", _load_torch(path)
    # behind a length that lies, `{` alone does not make a pickle a safetensors file
    elif head[8:9] == b"{" and (head[4:8] == bytes(4) or not is_pickle):
        container = "safetensors"
        content, metadata = _open_safetensors(path)
    elif is_pickle:
        container, content = "pickle", safe_pickle.load(path)
    else:
        for beginning, description in _FOREIGN.items():
            if re.match(beginning, head.lstrip()):
                raise UsageError(f"{path} is {description}.")
        raise UsageError(
            f"{path} ({size:,} bytes) is no checkpoint that is known here: neither a torch file, "
            "nor safetensors, nor a pickle of arrays, nor a NumPy archive. It may be cut short."
        )
    _check_size(path, size, content)
    return CheckpointFile(path, container, content, file_sha256(path), size, metadata)


def _load_torch(path: Path) -> Any:
    with torch.serialization.safe_globals(_INERT):  # type: ignore[arg-type]
        return torch_file.read(path)


def _open_zip(path: Path, size: int) -> tuple[str, Any]:
    names = _check_members(path, size)
    if any(name.endswith("data.pkl") for name in names):
        return "torch file", _load_torch(path)
    if names and all(name.endswith(".npy") for name in names):
        try:
            with np.load(path, allow_pickle=False) as archive:
                return "npz", dict(archive)
        except _DAMAGE as error:
            kind = f"NumPy archive of plain numbers ({first_line(error)})"
            raise safe_pickle.damaged(path, kind) from error
    raise UsageError(
        f"{path} is a zip archive, but neither of torch nor of NumPy (it holds "
        f"{', '.join(names[:5]) or 'nothing'}). Unpack it and give the checkpoint inside."
    )


def _check_members(path: Path, size: int) -> list[str]:
    """Names of the members; UsageError where one is packed, doubled or larger than the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _DAMAGE as error:
        raise safe_pickle.damaged(path, f"zip archive ({first_line(error)})") from error
    names = [member.filename for member in members]
    is_npz = all(name.endswith(".npy") for name in names)
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    announced = sum(member.file_size for member in members)
    if packed and not is_npz:
        raise UsageError(
            f"{path} holds packed members ({packed[0]}), which torch never writes. It was not read."
        )
    if len(members) > _MAX_MEMBERS or announced > (4 * size if is_npz else size):
        raise UsageError(
            f"{path} ({size:,} bytes) announces {len(members):,} members of {announced:,} bytes: "
            "more than it can hold. It was not read."
        )
    if len(set(names)) != len(names):
        raise UsageError(f"{path} holds two members of one name. It was not read.")
    return names


def _open_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and the texts of the header, which the library holds against the file's size."""
    try:
        with safetensors.safe_open(path, framework="pt") as archive:
            names = list(archive.keys())
            if len(names) > _MAX_TENSORS:
                raise ValueError(f"{len(names):,} tensors")
            return {name: archive.get_tensor(name) for name in names}, archive.metadata() or {}
    except _DAMAGE as error:
        raise safe_pickle.damaged(path, f"safetensors file ({first_line(error)})") from error


def _check_size(path: Path, size: int, content: Any) -> None:
    """Refuse what grows when it is written out: a tensor of one number and a billion places."""
    entries, total, pending = 0, 0, [content]
    while pending:
        value = pending.pop()
        entries += 1
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
        elif isinstance(value, Tensor):
            total += value.numel() * value.element_size()  # its nbytes fails where it is sparse
        elif isinstance(value, np.ndarray):
            total += value.nbytes
        if total > 4 * size + 2**20 or entries > 20 * _MAX_TENSORS + size // 2:
            raise UsageError(
                f"{path} ({size:,} bytes) announces more tensors than it holds. It was not read."
            )
