"""From an address to a verified local file: resumed, locked, and never a bad file under its name.

    CACHE/NAME            the file, verified
    CACHE/NAME.json       address, SHA-256, size, when, and whether the hash was known or trusted
    CACHE/NAME.part       what has come so far; CACHE/NAME.part.json, what the server called it
    CACHE/NAME.lock       held while one process downloads

CACHE is `transfer.cache.cache_folder`. A part goes on by Range with If-Range, so that a file that
has changed on the server is started again and never spliced.
"""

import errno
import fcntl
import hashlib
import http.client
import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.progress import bar
from transfer.cache import cache_folder, file_sha256

_CHUNK = 2**18
_TRIES = 5  # without a byte of progress in between
_TIMEOUT = 30.0  # seconds without a byte
_HEADERS = {"User-Agent": "cutmix-transfer", "Accept-Encoding": "identity"}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_TRY_AGAIN = (http.client.HTTPException, TimeoutError, ConnectionError, urllib.error.URLError)


@dataclass(frozen=True)
class Address:
    """What to fetch, and what is known of it."""

    url: str
    sha256: str | None = None
    """All 64 digits, or the beginning that torchvision and timm put into their file names."""
    size: int | None = None
    """Bytes, where known."""
    name: str | None = None
    """What the user typed, where it was not the address."""


def cached_path(url: str) -> Path:
    """The file's path: its own name behind the beginning of its address's hash."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    name = re.sub(r"[^\w.+-]", "_", name)[-100:] or "file"
    return cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:10]}-{name}"


def fetch(
    address: Address, *, trust: bool = False, pause: Callable[[float], None] = time.sleep
) -> Path:
    """The verified file, from the cache where it is.

    Args:
        address: where it is, and its hash where known.
        trust: take a file whose hash is unknown; what came is recorded, later uses must equal it.
        pause: waits between tries, in seconds.

    Raises:
        UsageError: not there, not what its hash says, no hash and no trust, or no room.
    """
    if urlsplit(address.url).scheme not in ("http", "https"):
        raise UsageError(f"{address.url} cannot be fetched: only http and https can.")
    path = cached_path(address.url)
    if _is_cached(path, address):
        return path
    if address.sha256 is None and not trust:
        raise UsageError(
            f"the SHA-256 of {address.url} is not known, so the file could be anything. Give it "
            "(URL#sha256=...), or take what comes: python tools/download.py "
            f"'{address.name or address.url}' --trust"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process at a time
        if _is_cached(path, address):  # another one was faster
            return path
        part = path.with_name(path.name + ".part")
        try:
            _receive(address, part, pause)
            digest = _verify(address, part)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _remove(part)
            raise UsageError(
                f"no room in {path.parent} for {address.url}. Free some, or set XDG_CACHE_HOME to "
                "another disk."
            ) from error
        record = {"url": address.url, "sha256": digest, "size": part.stat().st_size}
        record["fetched"] = datetime.now(UTC).isoformat(timespec="seconds")
        record["hash"] = "known beforehand" if address.sha256 else "unknown beforehand, trusted"
        write_text(_record(path), json.dumps(record, indent=2) + "\n")
        os.replace(part, path)
        _remove(part)
    return path


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_record(path: Path, key: str) -> str:
    """An entry of the record beside a file; empty where there is none."""
    try:
        return str(json.loads(_record(path).read_text(encoding="utf-8"))[key] or "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _is_cached(path: Path, address: Address) -> bool:
    """The cached file still is what was recorded and what is asked for; a bad one is removed."""
    recorded = _read_record(path, "sha256")
    if not path.exists() or not recorded or not recorded.startswith(address.sha256 or ""):
        return False
    if file_sha256(path) != recorded:
        path.unlink()
        return False
    return True


def _verify(address: Address, part: Path) -> str:
    """The hash of what came; a part that is not what it should be is removed."""
    size, digest = part.stat().st_size, file_sha256(part)
    if address.size is not None and size != address.size:
        _remove(part)
        raise UsageError(f"{address.url} gave {size:,} bytes, expected {address.size:,}. Not kept.")
    if address.sha256 is not None and not digest.startswith(address.sha256.lower()):
        _remove(part)
        raise UsageError(
            f"{address.url} gave a file of SHA-256 {digest}, expected {address.sha256}: it is "
            "another file, or it was changed on the way. Not kept."
        )
    return digest


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _receive(address: Address, part: Path, pause: Callable[[float], None]) -> None:
    """Fill `part`, trying again from where it broke off as long as something comes."""
    tries = 0
    while True:
        before = _size(part)
        try:
            return _receive_once(address, part)
        except _TRY_AGAIN as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, OSError) and reason.errno in _NO_ROOM:
                raise reason from error
            tries = 0 if _size(part) > before else tries + 1
            if tries >= _TRIES or isinstance(reason, socket.gaierror):
                raise UsageError(
                    f"{address.url} cannot be fetched ({str(reason) or type(reason).__name__}). "
                    "What has come is kept; the same command goes on from there. A file that is in "
                    "the cache needs no network."
                ) from error
            pause(min(8.0, 0.5 * 2**tries))


def _receive_once(address: Address, part: Path) -> None:
    """One request; raises ConnectionError where another is worth a try."""
    request = urllib.request.Request(address.url, headers=_HEADERS)
    start, validator = _size(part), _read_record(part, "validator")
    if start and validator:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", validator)
    else:
        _remove(part)
    try:
        response: Any = urllib.request.build_opener(_Redirects()).open(request, None, _TIMEOUT)
    except urllib.error.HTTPError as error:
        status = f"HTTP {error.code} {error.reason}"
        with error:
            if error.code == 416:  # nothing behind what is here: start again
                _remove(part)
            if error.code >= 500 or error.code in (408, 416, 429):
                raise ConnectionError(status) from error
            raise UsageError(f"{address.url} cannot be fetched: {status}.") from error
    with response:
        headers = response.headers
        kind = headers.get_content_type()
        if kind in ("text/html", "application/xhtml+xml"):
            raise UsageError(
                f"{address.url} is a web page ({kind}), not a file. Open it in a browser, download "
                "the file itself and give its path."
            )
        if response.status != 206:
            start = 0
        elif not headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            _remove(part)
            raise ConnectionError("the server sent another range")
        length = headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        if None not in (address.size, total) and total != address.size:
            raise UsageError(
                f"{address.url} announces {total:,} bytes, expected {address.size:,}. Not fetched."
            )
        if start == 0:
            etag = headers.get("ETag") or "W/"
            validator = headers.get("Last-Modified") if etag.startswith("W/") else etag
            part.unlink(missing_ok=True)
            record = {"url": address.url, "validator": validator}
            write_text(_record(part), json.dumps(record) + "\n")
        _copy(response, part, start, total, address)


def _copy(response: Any, part: Path, start: int, total: int | None, address: Address) -> None:
    """Append the body; a server that sends more than it announced, or than is expected, is cut."""
    most = address.size if address.size is not None else total
    done = start
    title = part.name.partition("-")[2].removesuffix(".part")
    with (
        open(part, "ab" if start else "wb") as handle,
        bar(title, (most or 0) // 2**20, "MiB", start // 2**20) as advance,
    ):
        while chunk := response.read1(_CHUNK):
            handle.write(chunk)
            advance((done + len(chunk)) // 2**20 - done // 2**20)
            done += len(chunk)
            if most is not None and done > most:
                _remove(part)
                raise UsageError(f"{address.url} sends more than its {most:,} bytes. Not kept.")
        handle.flush()
        os.fsync(handle.fileno())
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A few redirects, never away from https, never in a circle."""

    max_redirections = 5
    inf_msg = "leads in a circle: "

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in {"https", req.type}:
            raise UsageError(f"{req.full_url} leads to {newurl}, which is not safe. Not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
