"""From an address to a verified local file: resumed, locked, and never a bad file under its name.

    CACHE/NAME            the file, verified
    CACHE/NAME.json       address, SHA-256, size, when, and whether the hash was known or trusted
    CACHE/NAME.part       what has come so far; CACHE/NAME.part.json, what the server called it
    CACHE/NAME.lock       held while one process downloads

CACHE is $XDG_CACHE_HOME/cutmix-transfer, or ~/.cache/cutmix-transfer. A part goes on by Range with
If-Range, so that a file that has changed on the server is begun anew and never spliced.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pretrain.errors import UsageError
from pretrain.progress import bar
from pretrain.run import write_text

_CHUNK = 2**18
_TRIES = 5  # without a byte of progress in between
_TIMEOUT = 30.0  # seconds without a byte
_MAX_REDIRECTS = 5
_PAGES = ("text/html", "application/xhtml+xml")


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


class Cut(Exception):
    """The connection ended early, or the server stumbled: worth another try."""


def cache_folder() -> Path:
    """Where downloads are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cutmix-transfer"


def cached_path(url: str) -> Path:
    """The file's place: its own name behind the beginning of its address's hash."""
    parts = urlsplit(url)
    name = re.sub(r"[^\w.+-]", "_", unquote(parts.path).rpartition("/")[2])[-100:] or "file"
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
    scheme = urlsplit(address.url).scheme
    if scheme not in ("http", "https"):
        raise UsageError(f"{address.url} cannot be fetched: only http and https can.")
    path = cached_path(address.url)
    if (held := _from_cache(path, address)) is not None:
        return held
    if address.sha256 is None and not trust:
        raise UsageError(
            f"the SHA-256 of {address.url} is not known, so the file could be anything. Give it "
            "(URL#sha256=...), or take what comes: python tools/download.py "
            f"'{address.name or address.url}' --trust"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        if (held := _from_cache(path, address)) is not None:  # another process was faster
            return held
        part = path.with_name(path.name + ".part")
        try:
            _receive(address, part, pause)
            digest = _verify(address, part)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                _forget(part)
                raise UsageError(
                    f"no room in {path.parent} for {address.url}. Free some, or set "
                    "XDG_CACHE_HOME to another disk."
                ) from error
            raise
        record = {
            "url": address.url,
            "sha256": digest,
            "size": part.stat().st_size,
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            "hash": "known beforehand" if address.sha256 else "unknown beforehand, trusted",
        }
        write_text(_record(path), json.dumps(record, indent=2) + "\n")
        os.replace(part, path)
        _forget(part)
    return path


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _from_cache(path: Path, address: Address) -> Path | None:
    """The cached file if it still is what was recorded and what is wanted; a bad one is removed."""
    if not path.exists() or not _record(path).exists():
        return None
    try:
        record = json.loads(_record(path).read_text(encoding="utf-8"))
        recorded = str(record["sha256"])
    except (ValueError, KeyError, TypeError):
        return None
    wanted = address.sha256
    if wanted is not None and not recorded.startswith(wanted):
        return None
    if _sha256(path) != recorded:
        path.unlink()
        return None
    return path


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; the others wait, and then find the file."""
    with open(path.with_name(path.name + ".lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _verify(address: Address, part: Path) -> str:
    """The hash of what came; a part that is not what it should be is removed."""
    size, digest = part.stat().st_size, _sha256(part)
    if address.size is not None and size != address.size:
        _forget(part)
        raise UsageError(f"{address.url} gave {size:,} bytes, expected {address.size:,}. Not kept.")
    if address.sha256 is not None and not digest.startswith(address.sha256.lower()):
        _forget(part)
        raise UsageError(
            f"{address.url} gave a file of SHA-256 {digest}, expected {address.sha256}: it is "
            "another file, or it was changed on the way. Not kept."
        )
    return digest


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


def _receive(address: Address, part: Path, pause: Callable[[float], None]) -> None:
    """Fill `part`, trying again from where it broke off as long as something comes."""
    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive_once(address, part)
            return
        except (
            Cut,
            http.client.HTTPException,
            urllib.error.URLError,
            TimeoutError,
            ConnectionError,
        ) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT):
                raise reason from error
            came = (part.stat().st_size if part.exists() else 0) > before
            tries = 0 if came else tries + 1
            if tries >= _TRIES or isinstance(reason, socket.gaierror):
                words = str(reason) or type(reason).__name__
                raise UsageError(
                    f"{address.url} cannot be fetched ({words}). What has come is kept; the same "
                    "command goes on from there. A file that is in the cache needs no network."
                ) from error
            pause(min(8.0, 0.5 * 2**tries))


def _receive_once(address: Address, part: Path) -> None:
    """One request; raises Cut where the body ended early."""
    start, headers = _resume_headers(part)
    request = urllib.request.Request(address.url, headers=headers)
    opener = urllib.request.build_opener(_Redirects())
    try:
        response = opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # nothing behind what is here: begin anew
                _forget(part)
                raise Cut("the server has no such range") from error
            if error.code >= 500 or error.code in (408, 429):
                raise Cut(f"HTTP {error.code} {error.reason}") from error
            raise UsageError(
                f"{address.url} cannot be fetched: HTTP {error.code} {error.reason}."
            ) from error
    with response:
        kind = response.headers.get_content_type()
        if kind in _PAGES:
            raise UsageError(
                f"{address.url} is a web page ({kind}), not a file. Open it in a browser, download "
                "the file itself and give its path."
            )
        if response.status == 206 and not _continues(response, start):
            _forget(part)
            raise Cut("the server sent another range")
        if response.status != 206:
            start = 0
        total = _total(response, start)
        if address.size is not None and total is not None and total != address.size:
            raise UsageError(
                f"{address.url} announces {total:,} bytes, expected {address.size:,}. Not fetched."
            )
        if start == 0:
            _remember(part, response, address.url)
        _copy(response, part, start, total, address)


def _resume_headers(part: Path) -> tuple[int, dict[str, str]]:
    """Where to go on, and the headers that ask for it; a part without a strong name is dropped."""
    headers = {"User-Agent": "cutmix-transfer", "Accept-Encoding": "identity"}
    if not part.exists() or part.stat().st_size == 0:
        return 0, headers
    try:
        name = json.loads(_record(part).read_text(encoding="utf-8"))["validator"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if not name:
        _forget(part)
        return 0, headers
    start = part.stat().st_size
    return start, {**headers, "Range": f"bytes={start}-", "If-Range": name}


def _remember(part: Path, response: Any, url: str) -> None:
    etag = response.headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    validator = strong or response.headers.get("Last-Modified")
    part.unlink(missing_ok=True)
    write_text(_record(part), json.dumps({"url": url, "validator": validator}) + "\n")


def _continues(response: Any, start: int) -> bool:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return found is not None and int(found.group(1)) == start


def _total(response: Any, start: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None


def _copy(response: Any, part: Path, start: int, total: int | None, address: Address) -> None:
    """Append the body; a server that sends more than it announced, or than is expected, is cut."""
    most = address.size if address.size is not None else total
    done = start
    title = part.name.partition("-")[2].removesuffix(".part")
    with (
        open(part, "ab" if start else "wb") as handle,
        bar(title, (most or 0) // 2**20, "MiB", start // 2**20) as advance,
    ):
        while chunk := _read(response):
            handle.write(chunk)
            advance((done + len(chunk)) // 2**20 - done // 2**20)
            done += len(chunk)
            if most is not None and done > most:
                _forget(part)
                raise UsageError(f"{address.url} sends more than its {most:,} bytes. Not kept.")
        handle.flush()
        os.fsync(handle.fileno())
    if total is not None and done < total:
        raise Cut(f"the connection ended after {done:,} of {total:,} bytes")


def _read(response: Any) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (ConnectionError, http.client.HTTPException, TimeoutError) as error:
        raise Cut(str(error) or type(error).__name__) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A few redirects, never away from https, never in a circle."""

    max_redirections = _MAX_REDIRECTS
    max_repeats = 1

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        target = urlsplit(newurl)
        if target.scheme not in ("http", "https") or (
            urlsplit(req.full_url).scheme == "https" and target.scheme != "https"
        ):
            raise UsageError(f"{req.full_url} leads to {newurl}, which is not safe. Not followed.")
        followed = getattr(req, "redirect_dict", {})
        if len(followed) >= self.max_redirections or newurl in followed:
            raise UsageError(f"{req.full_url} leads in a circle (to {newurl}). Not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
