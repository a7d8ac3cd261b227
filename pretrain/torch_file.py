"""torch files without code: written whole or not at all, read with `weights_only=True`."""

import pickle
import re
from pathlib import Path
from typing import IO, Any

import torch

from pretrain.errors import UsageError
from pretrain.files import atomic
from pretrain.safe_pickle import damaged, require_file


def write(path: Path, content: dict[str, Any]) -> None:
    """Save plain values and tensors; equal content gives equal bytes."""
    # a handle, not a name: torch would write the name into the file
    with atomic(path, size_of(content)) as temporary, open(temporary, "wb") as handle:
        torch.save(content, handle)


def size_of(content: Any) -> int:
    """Bytes of all tensors in dicts, lists and tuples."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    values = content.values() if isinstance(content, dict) else content
    return sum(map(size_of, values)) if isinstance(content, dict | list | tuple) else 0


def read(path: Path, part: IO[bytes] | None = None) -> Any:
    """Load plain values and tensors to the CPU.

    Args:
        path: the file.
        part: what of it is a torch file; None for the whole.

    Raises:
        UsageError: no such file, a folder, cut short, no torch file, or holding code.
    """
    require_file(path)
    try:
        return torch.load(part or path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch trusts its input: a torn file ends in any error there is
        if isinstance(error, pickle.UnpicklingError) and re.search("GLOBAL|REDUCE", str(error)):
            raise UsageError(
                f"{path} holds Python objects beside tensors and plain values. It was not read: "
                "such a file can run code. Save its state_dict alone, in the program it is from."
            ) from error
        raise damaged(path, "torch file") from error
