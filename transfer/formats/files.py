"""From a file to plain values and tensors: by its content, without code, within its own size.

    zip with data.pkl      torch.save since 1.6        torch.load(weights_only=True)
    magic number           torch.save before           torch.load(weights_only=True)
    pickle                 detectron2, MSRA, CIFAR      pretrain.safe_pickle
    length and "{"         safetensors
    zip with *.npy         NumPy archive                numpy.load(allow_pickle=False)
    *.index.json           names and the files they are in, each of the above

What a header announces is compared with what the file holds before it is read, so that a hostile
file cannot take more memory than a small multiple of its own size.
"""

import hashlib
import json
import re
import struct
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from pretrain import safe_pickle, torch_file
from pretrain.cache import file_sha256
from pretrain.errors import UsageError, first_line

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# readers trust their input: what they raise at a torn file
_DAMAGE = (*safe_pickle.DAMAGE, zipfile.BadZipFile, struct.error, safetensors.SafetensorError)
_MAX_MEMBERS = 100_000
_MAX_TENSORS = 100_000
_MAX_INDEX = 2**24  # bytes
_INDEX = ".index.json"


class Arguments:
    """Stands where a checkpoint names argparse.Namespace: plain attributes, nothing more."""


class Record(dict[Any, Any]):
    """Stands for other programs' configurations and logs: plain attributes and entries."""


class _Array(np.ndarray):
    """Stands where numpy.ndarray is named: empty, until NumPy fits shape and bytes to it."""

    def __new__(cls, *_: Any) -> "_Array":
        return np.empty(0, np.uint8).view(cls)


def _text(*parts: str) -> str:
    """For a path, which pickles as its parts."""
    return "/".join(map(str, parts))


def _method(owner: Any, name: str) -> str:
    """Stands where getattr is named, by which mmengine's logs name methods; looks up nothing."""
    return name


# found in other programs' checkpoints, and inert: plain attributes, plain numbers
_INERT = [
    (Arguments, "argparse.Namespace"),
    (safe_pickle.number_type, "numpy.dtype"),
    (_Array, "numpy.ndarray"),
    (_method, "builtins.getattr"),
    *(
        (function, f"numpy.{module}.multiarray.{name}")
        for module in ("core", "_core")
        for name, function in (("scalar", safe_pickle.number), ("_reconstruct", _Array))
    ),
    *(
        (Record, name)
        for name in (
            "mmengine.logging.history_buffer.HistoryBuffer",
            "mmengine.config.config.ConfigDict",
            "yacs.config.CfgNode",
            "fvcore.common.config.CfgNode",
            "easydict.EasyDict",
            "addict.addict.Dict",
            "vissl.utils.hydra_config.AttrDict",
            "lightning.fabric.utilities.data.AttributeDict",
            "lightning_fabric.utilities.data.AttributeDict",
        )
    ),
    *(
        (_text, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")  # the latter of Python 3.13
        for name in ("PosixPath", "WindowsPath", "PurePosixPath")
    ),
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
    rb"\xff\xd8\xff|\x89PNG": "an image, not a checkpoint",
}
_SAVE = 'torch.save({}, "weights.pth") makes a file that is read here'
# archives and folders that hold a network, but not as names and tensors: a file in them, what it is
_PROGRAMS = (
    (r"(.*/)?constants\.pkl", "a TorchScript program. "
     + _SAVE.format('torch.jit.load("{path}").state_dict()')),
    (r"(.*/)?(archive_format|serialized_exported_program\.json)", "a program of torch.export. "
     + _SAVE.format('dict(torch.export.load("{path}").state_dict)')),
    (r".*model\.weights\.h5", "a Keras archive: its layers have other names and other orders of "
     "axes. Put its arrays into timm's network of the same function (tf_...) and save that"),
    (r"(.*/)?saved_model\.pb", "a TensorFlow SavedModel: a graph with variables. Put its arrays "
     "into timm's network of the same function (tf_...) and save that"),
    (r"[^/]*\.distcp", "a distributed checkpoint without its .metadata, which is written last: the "
     "save was not finished, or the folder was not copied whole"),
)  # fmt: skip


def describe_program(names: Iterable[str], path: Path) -> str | None:
    """What an archive or folder with these files in it is, and how it becomes a checkpoint."""
    for name in names:
        for pattern, description in _PROGRAMS:
            if re.fullmatch(pattern, name):
                return f"{path} is {description.replace('{path}', str(path))}."
        if name == "data.pkl":
            return (
                f"{path} is a torch file that was unpacked. Pack its folder, the one that holds "
                f"data.pkl, again: python -m zipfile -c weights.pth {path.with_suffix('')}"
            )
    return None


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
    if path.name.endswith(_INDEX):
        return _open_shards(path, size)
    with ThreadPoolExecutor(1) as hashing:
        sha256 = hashing.submit(file_sha256, path)  # beside the reading, on another core
        container, content, metadata = _read_content(path, size)
        return CheckpointFile(path, container, content, sha256.result(), size, metadata)


def _read_content(path: Path, size: int) -> tuple[str, Any, dict[str, str]]:
    """The kind of file, what it holds, and the strings of a header."""
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
        if path.name == "data.pkl" and (path.parent / "data").is_dir():
            raise UsageError(str(describe_program([path.name], path.parent)))
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
    return container, content, metadata


def _load_torch(path: Path) -> Any:
    with torch.serialization.safe_globals(_INERT):  # type: ignore[arg-type]
        return torch_file.read(path)


def _open_zip(path: Path, size: int) -> tuple[str, Any]:
    names = check_members(path, size)
    if program := describe_program(names, path):
        raise UsageError(program)
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


def check_members(path: Path, size: int, part: IO[bytes] | None = None) -> list[str]:
    """Names of the members; UsageError where two have one name, or they are larger than the file.

    Torch and NumPy do not pack; people who repack do. Weights hardly become smaller by it.
    """
    try:
        with zipfile.ZipFile(part or path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except _DAMAGE as error:
        raise safe_pickle.damaged(path, f"zip archive ({first_line(error)})") from error
    names = [member.filename for member in members]
    is_packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    announced = sum(member.file_size for member in members)
    if len(members) > _MAX_MEMBERS or announced > (4 * size if is_packed else size):
        raise UsageError(
            f"{path} ({size:,} bytes) announces {len(members):,} members of {announced:,} bytes: "
            "more than it can hold. It was not read."
        )
    if len(set(names)) != len(names):
        raise UsageError(f"{path} holds two members of one name. It was not read.")
    return names


def _open_shards(path: Path, size: int) -> CheckpointFile:
    """All files of an index, which lie beside it; the hash is that of their hashes."""
    if size > _MAX_INDEX:
        raise UsageError(f"{path} ({size:,} bytes) is too large for an index. It was not read.")
    try:
        places = dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
        parts = sorted({str(part) for part in places.values()})
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise safe_pickle.damaged(path, f"index of weights ({first_line(error)})") from error
    if bad := [part for part in parts if Path(part).name != part or part.endswith(_INDEX)]:
        raise UsageError(f"{path} names {bad[0]!r}, which is no file beside it. It was not read.")
    shards = {part: open_file(path.parent / part) for part in parts}
    content: dict[str, Any] = {}
    for name, part in places.items():
        if not isinstance(shards[part].content, dict) or name not in shards[part].content:
            raise UsageError(f"{path}: {part} does not hold {name}, which the index says.")
        content[name] = shards[part].content[name]
    digest = hashlib.sha256("".join(shard.sha256 for shard in shards.values()).encode())
    container = f"{next(iter(shards.values())).container}, {len(shards)} files"
    total = sum(shard.size for shard in shards.values())
    return CheckpointFile(path, container, content, digest.hexdigest(), total, {})


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
