"""What is computed once and kept in `pretrain.cache.cache_folder`; the hash of a file's content."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pretrain.errors import UsageError
from pretrain.files import write_text

T = TypeVar("T")


def file_sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cached_json(path: Path | None, load: Callable[[Any], T], compute: Callable[[], T]) -> T:
    """What a file of the cache holds; where it does not, it is computed and kept there.

    Args:
        path: named by a hash of all that the content depends on; None keeps nothing.
        load: JSON's lists and texts -> the content.
        compute: the content, of what JSON can hold (named tuples become lists).
    """
    if path is not None:
        with contextlib.suppress(OSError, ValueError, TypeError):  # none, or a damaged one
            return load(json.loads(path.read_text(encoding="utf-8")))
    content = compute()
    if path is not None:
        with contextlib.suppress(UsageError):  # without a writable home it is computed next time
            write_text(path, json.dumps(content))
    return content
