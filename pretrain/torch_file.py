"""torch files without code: written whole or not at all, read with `weights_only=True`."""

import pickle
from pathlib import Path
from typing import Any

import torch

from pretrain.errors import UsageError
from pretrain.run import atomic


def write(path: Path, content: dict[str, Any]) -> None:
    """Save plain values and tensors; equal content gives equal bytes."""
    # a handle, not a name: torch would write the name into the file
    with atomic(path) as temporary, open(temporary, "wb") as handle:
        torch.save(content, handle)


def read(path: Path) -> Any:
    """Load plain values and tensors to the CPU.

    Raises:
        UsageError: no such file, a folder, cut short, no torch file, or holding code.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; a file is needed.")
    if not path.exists():
        raise UsageError(f"there is no file {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "REDUCE" in str(error):
            raise UsageError(
                f"{path} holds Python objects beside tensors and plain values. It was not read: "
                "such a file can run code. Save its state_dict alone, in the program it is from."
            ) from error
        raise UsageError(_broken(path)) from error
    except PermissionError:
        raise
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError) as error:
        raise UsageError(_broken(path)) from error


def _broken(path: Path) -> str:
    return (
        f"{path} ({path.stat().st_size:,} bytes) is cut short or no torch file. "
        "Copy or download it again."
    )
