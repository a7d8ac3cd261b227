"""Which addresses are read, and what each needs. No torch at import."""

import re
from typing import Final
from urllib.parse import urlsplit

from pretrain.errors import UsageError, first_line

REMOTE: Final = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
"""Schemes that fsspec reads, and the package each needs."""


def check_address(url: str) -> str:
    """The scheme of an address, such as https.

    Raises:
        UsageError: no library can ask for it, or it holds a password or a chain of fsspec's.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError as error:
        raise UsageError(f"{url!r} is no address ({first_line(error)}).") from error
    known, remote = ("http", "https", *REMOTE), parts.scheme in REMOTE
    supported = ", ".join(f"{scheme}://" for scheme in known)
    for bad, problem in (
        (parts.scheme not in known, f"{parts.scheme}:// is not supported; {supported} are"),
        (not (parts.netloc if remote else host), "it names no host"),
        (remote and "::" in url, "fsspec would chain what stands behind ::"),
        ("@" in parts.netloc, "download by hand what needs a password, and give its path"),
        (not url.isprintable(), "it holds control characters"),
    ):
        if bad:
            shown = re.sub("//[^/]*@", "//...@", url)  # without the password
            raise UsageError(f"{shown!r} cannot be fetched: {problem}.")
    return parts.scheme
