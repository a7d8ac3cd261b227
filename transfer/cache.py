"""The folder of what is downloaded or computed once, and the hash of a file's content."""

import hashlib
import os
from pathlib import Path


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/cutmix-transfer, or ~/.cache/cutmix-transfer."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cutmix-transfer"


def file_sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
