"""From an address to a verified local file: resumed, locked, and never a bad file under its name.

    CACHE/NAME            the file, verified
    CACHE/NAME.json       address, SHA-256, size, when, and whether the hash was known or trusted
    CACHE/NAME.part       what has come so far; CACHE/NAME.part.json, what the server called it
    CACHE/NAME.lock       held while one process downloads

CACHE is `pretrain.cache.cache_folder`. A part goes on by Range with If-Range, and what the server
then sends must be of the same name and size: a file that has changed there is started again and
never spliced. s3://, gs:// and hf:// are read by fsspec, whole.
"""

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
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar
from urllib.parse import quote, unquote, urlsplit

import msgspec

from pretrain.address import REMOTE, check_address
from pretrain.cache import cache_folder, file_sha256
from pretrain.errors import UsageError, first_line, printable
from pretrain.files import draft, lock, remove, write_text
from pretrain.progress import bar, log
from pretrain.reading import check, read_json

_CHUNK = 2**18
_TRIES = 5  # without a byte of progress in between
_TIMEOUT = 30.0  # seconds without a byte
_HEADERS = {"User-Agent": "cutmix-transfer", "Accept-Encoding": "identity"}

T = TypeVar("T")
_HEADER = r"[ -~\xa0-\xff]+"  # what may be sent back
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


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

    def __post_init__(self) -> None:
        """Refuse what no library can ask for."""
        check_address(self.url)

    @property
    def scheme(self) -> str:
        """Such as https."""
        return urlsplit(self.url).scheme


class _Verified(TypedDict):
    """NAME.json, as far as it is read."""

    sha256: Sha256


class _Begun(TypedDict):
    """NAME.part.json: by which strong ETag or date the server knows the file, and its size."""

    validator: Annotated[str, msgspec.Meta(pattern=rf"^{_HEADER}\Z")] | None
    total: int | None


class _TryAgain(Exception):
    """What the network or the server did may not happen again."""


def cached_path(url: str) -> Path:
    """The file's path: its own name behind the beginning of its address's hash."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    name = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[-100:] or "file"
    return cache_folder() / f"{sha256(url.encode()).hexdigest()[:10]}-{name}"


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
    path = cached_path(address.url)
    if _is_cached(path, address):
        return path
    if address.sha256 is None and not trust:
        raise UsageError(
            f"the SHA-256 of {address.url} is not known, so the file could be anything. Give it "
            "(URL#sha256=...), or take what comes: python tools/download.py "
            f"'{address.name or address.url}' --trust"
        )
    part = path.with_name(path.name + ".part")
    busy = f"another process downloads {address.url}"
    with lock(path.with_name(path.name + ".lock"), busy, wait=True), draft(path):
        if _is_cached(path, address):  # another process was faster
            return path
        _receive(address, part, pause)
        digest = _verify(address, part)
        record = {"url": address.url, "sha256": digest, "size": _size(part)}
        record["fetched"] = datetime.now(UTC).isoformat(timespec="seconds")
        record["hash"] = "known beforehand" if address.sha256 else "unknown beforehand, trusted"
        _write(path, record)
        os.replace(part, path)
        _remove(part)
    return path


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _write(path: Path, record: Any) -> None:
    write_text(_record(path), json.dumps(record, indent=2) + "\n")


def _read(path: Path, kind: Any) -> Any:
    """The record beside a file; None where there is none, or no good one, which is logged."""
    try:
        file = _record(path)
        return check(read_json(file), kind, str(file)) if os.path.lexists(file) else None
    except UsageError as error:
        log(f"left out, a record of a download: {error}")
        return None


def _is_cached(path: Path, address: Address) -> bool:
    """The cached file still is what was recorded and what is asked for; a bad one is removed."""
    record, known = _read(path, _Verified), address.sha256 or ""
    expected = record["sha256"] if record else known
    if not path.is_file() or not expected or not expected.startswith(known):
        return False
    if file_sha256(path).startswith(expected):
        return True
    log(f"removed: {path} is not what was fetched from {address.url}")
    path.unlink()
    return False


def _verify(address: Address, part: Path) -> str:
    """The hash of what came; a part that is not what it should be is removed."""
    size, digest = _size(part), file_sha256(part)
    if size == 0:
        problem = "an empty file"
    elif address.size is not None and size != address.size:
        problem = f"{size:,} bytes, expected {address.size:,}"
    elif address.sha256 is not None and not digest.startswith(address.sha256):
        problem = (
            f"a file of SHA-256 {digest}, expected {address.sha256}: it is another file, or it was "
            "changed on the way"
        )
    else:
        return digest
    _remove(part)
    raise UsageError(f"{address.url} gave {problem}. Not kept.")


def _remove(part: Path) -> None:
    remove(part)
    remove(_record(part))


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _receive(address: Address, part: Path, pause: Callable[[float], None]) -> None:
    """Fill `part`, trying again from where it broke off as long as more comes than ever before."""
    tries, most = 0, _size(part)
    once = _receive_remote if address.scheme in REMOTE else _receive_once
    while True:
        try:
            return once(address, part)
        except _TryAgain as error:
            tries = 0 if _size(part) > most else tries + 1
            most = max(most, _size(part))
            if tries >= _TRIES or isinstance(error.__cause__, socket.gaierror):
                kept = "What has come is kept; the same command goes on from there. "
                raise UsageError(
                    f"{address.url} cannot be fetched ({_message(error)}). "
                    f"{kept if _size(part) else ''}A file that is in the cache needs no network."
                ) from error
            pause(min(8.0, 0.5 * 2**tries))


def _message(error: Exception) -> str:
    """What an error says, for a terminal."""
    return printable(first_line(error), 200)


def _receive_remote(address: Address, part: Path) -> None:
    """The whole file, by fsspec."""
    _remove(part)
    package = REMOTE[address.scheme]
    try:
        from fsspec.core import url_to_fs

        system, name = url_to_fs(address.url)
        key = system.ukey(name)
        source = system.open(name, "rb")
    except ImportError as error:
        raise UsageError(
            f"{address.url} needs {package}: pip install 'cutmix-transfer[remote]'."
        ) from error
    except Exception as error:  # each service has errors of its own
        raise UsageError(
            f"{address.url} cannot be fetched ({_message(error)}). {package} must "
            "find it, and the right to read it."
        ) from error
    with source:
        _copy(lambda: source.read(_CHUNK), part, 0, getattr(source, "size", None), address)
    system.invalidate_cache()
    if _ask(lambda: system.ukey(name)) != key:
        _remove(part)
        raise _TryAgain("it was changed on the way")


def _receive_once(address: Address, part: Path) -> None:
    """One request by HTTP."""
    start, begun = _size(part), _read(part, _Begun)
    headers = dict(_HEADERS)
    if start and begun and begun["validator"]:
        headers |= {"Range": f"bytes={start}-", "If-Range": begun["validator"]}
    else:
        _remove(part)
        start, begun = 0, None
    try:
        response = _open(address, headers)
    except _TryAgain as error:
        if isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code == 416:
            _remove(part)  # nothing behind what is here: start again
        raise
    with response:
        validator, total = _validator(response.headers), _total(response, address)
        changed = begun and (begun["validator"] != validator or begun["total"] not in (None, total))
        if response.status != 206:
            start = 0
        elif changed or not _goes_on(response, start):
            _remove(part)
            raise _TryAgain("the server sent another range, or of another file")
        if start == 0:
            remove(part)
            _write(part, {"url": address.url, "validator": validator, "total": total})
        _copy(lambda: response.read1(_CHUNK), part, start, total, address)


def _open(address: Address, headers: dict[str, str]) -> Any:
    """The response, of status 200 or 206."""
    try:
        url = quote(address.url, safe="%/:=&?~#+!$,;'@()*[]")  # spaces and letters beyond ASCII
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.build_opener(_Redirects()).open(request, None, _TIMEOUT)
        if response.status in (200, 206):
            return response
        problem = f"HTTP {response.status}"
        response.close()
    except urllib.error.HTTPError as error:
        problem = f"HTTP {error.code} {printable(str(error.reason), 200)}"
        error.close()
        if error.code >= 500 or error.code in (408, 416, 429):
            raise _TryAgain(problem) from error
    except (http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        cause = reason if isinstance(reason, Exception) else error
        raise _TryAgain(_message(cause)) from cause
    except UsageError:
        raise
    except ValueError as error:  # of an address that it leads to
        problem = _message(error)
    raise UsageError(f"{address.url} cannot be fetched: {problem}.")


def _validator(headers: Any) -> str | None:
    """By what If-Range knows the file again: bytes of equal weak names may differ."""
    etag = headers.get("ETag") or "W/"
    name = headers.get("Last-Modified", "") if etag.startswith("W/") else etag
    return name if re.fullmatch(_HEADER, name) else None


def _total(response: Any, address: Address) -> int | None:
    """The size of the whole file, where the answer says it; refuses what is not the plain file."""
    headers = response.headers
    kind = headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise UsageError(
            f"{address.url} is a web page ({kind}), not a file. Open it in a browser, download "
            "the file itself and give its path."
        )
    allowed = {
        "Content-Encoding": "|identity",
        "Transfer-Encoding": "|identity|chunked",
        "Content-Length": r"|\d{1,15}",
        "Content-Range": r"|bytes \d{1,15}-\d{1,15}/\d{1,15}",
    }
    for name, pattern in allowed.items():
        value = ", ".join(headers.get_all(name, ())).strip()
        if not re.fullmatch(pattern, value, re.ASCII | re.IGNORECASE):
            raise UsageError(
                f"{address.url} comes with {name}: {printable(value, 200)}, so it may be another "
                "file. Download it in a browser, and give its path."
            )
    digits = headers.get("Content-Length")
    if response.status == 206:
        digits = headers.get("Content-Range", "").rpartition("/")[2]
    total = int(digits) if digits else None
    if None not in (address.size, total) and total != address.size:
        raise UsageError(
            f"{address.url} announces {total:,} bytes, expected {address.size:,}. Not fetched."
        )
    return total


def _goes_on(response: Any, start: int) -> bool:
    """Whether a partial answer is all of the file from `start` on."""
    span = response.headers.get("Content-Range") or "0-0/0"
    first, last, total = map(int, re.findall(r"\d+", span))
    return (first, last + 1) == (start, total) and response.length in (None, total - start)


def _copy(
    read: Callable[[], bytes], part: Path, start: int, total: int | None, address: Address
) -> None:
    """Append the body; a server that sends more than it announced, or than is expected, is cut."""
    most = address.size if address.size is not None else total
    done = start
    title = part.name.partition("-")[2].removesuffix(".part")
    with (
        draft(part, most),
        open(part, "ab" if start else "wb") as handle,
        bar(title, (most or 0) // 2**20, "MiB", start // 2**20) as advance,
    ):
        while chunk := _ask(read):
            handle.write(chunk)
            advance((done + len(chunk)) // 2**20 - done // 2**20)
            done += len(chunk)
            if most is not None and done > most:
                _remove(part)
                raise UsageError(f"{address.url} sends more than its {most:,} bytes. Not kept.")
        handle.flush()
        os.fsync(handle.fileno())
    if total is not None and done < total:
        raise _TryAgain(f"the connection ended after {done:,} of {total:,} bytes")


def _ask(call: Callable[[], T]) -> T:
    """What a call over the network gives; its errors are not those of this disk."""
    try:
        return call()
    except Exception as error:
        raise _TryAgain(_message(error)) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A few redirects, never away from https, never in a circle."""

    max_redirections = 5
    inf_msg = "leads in a circle: "

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            if Address(newurl).scheme not in {"https", req.type}:
                raise UsageError("which is not safe")
        except UsageError as error:
            raise UsageError(f"{req.full_url} leads to {newurl!r}: {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)
