"""Downloads from a loopback server that misbehaves: the right file or a message, never half."""

import hashlib
import http.client
import http.server
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pretrain.errors import UsageError
from tests.conftest import ROOT
from transfer import download
from transfer.download import Address, cached_path, fetch

CONTENT = random.Random(1).randbytes(1_000_003)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at /NAME; what it does to it is set by name in `tricks`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tricks: dict[str, dict] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()

    def url(self, name: str, **trick: object) -> str:
        self.tricks[name] = dict(trick)
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the game."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        name = self.path.strip("/").split("?")[0]
        trick = self.server.tricks[name]
        wanted = self.headers.get("Range")
        with self.server.lock:
            self.server.requests.append((name, wanted))
            status = trick["status"].pop(0) if trick.get("status") else 200
        if status != 200:
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", trick["to"])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = trick.get("content", CONTENT)
        etag = trick.get("etag", '"one"')
        start = 0
        fits = wanted and self.headers.get("If-Range") == etag and not trick.get("no_range")
        if fits:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            start += trick.get("shift", 0)
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if fits else 200)
        if fits:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", trick.get("type", "application/octet-stream"))
        if not trick.get("no_length"):
            self.send_header("Content-Length", str(trick.get("says", len(content) - start)))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        body = content[start:]
        cuts = trick.get("cuts")
        with self.server.lock:
            cut = cuts.pop(0) if cuts else None
        if "pause" in trick:
            for place in range(0, len(body), len(body) // 10):
                self.wfile.write(body[place : place + len(body) // 10])
                time.sleep(trick["pause"])
        else:
            self.wfile.write(body[:cut])
        if "then" in trick:  # another file from now on
            self.server.tricks[name] = trick["then"]
        if cut is not None or trick.get("no_length"):
            self.close_connection = True


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cutmix-transfer"


def get(url: str, sha256: str | None = SHA256, **options) -> Path:
    return fetch(Address(url, sha256), pause=lambda _: None, **options)


def names(cache: Path) -> set[str]:
    return {path.suffix for path in cache.iterdir()} if cache.exists() else set()


def test_a_file_comes_once(server, cache):
    url = server.url("net.pth")
    path = get(url)
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("-net.pth")
    assert names(cache) == {".pth", ".json", ".lock"}
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert (record["sha256"], record["size"]) == (SHA256, len(CONTENT))
    server.shutdown()
    server.server_close()
    assert get(url) == path  # no network needed
    assert len(server.requests) == 1


@pytest.mark.parametrize("seed", range(6))
def test_cut_at_random_bytes_and_resumed(seed, server):
    draw = random.Random(seed)
    cuts = [draw.randrange(1, len(CONTENT) // 6) for _ in range(5)]
    first = cuts[0]
    path = get(server.url("net.pth", cuts=cuts))
    assert path.read_bytes() == CONTENT
    ranges = [wanted for _, wanted in server.requests]
    assert ranges[:2] == [None, f"bytes={first}-"]
    assert len(ranges) == 6


def test_cut_before_the_first_byte_again_and_again(server, cache):
    with pytest.raises(UsageError, match="connection ended"):
        get(server.url("net.pth", cuts=[0] * 50))
    assert len(server.requests) == download._TRIES
    assert not cached_path(server.url("net.pth")).exists()


def test_resumed_by_another_process(server, cache):
    url = server.url("net.pth", cuts=[300_000, 0, 0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(UsageError, match="goes on from there"):
        get(url)
    part = cached_path(url).with_name(cached_path(url).name + ".part")
    assert part.stat().st_size == 300_000
    server.tricks["net.pth"] = {}
    server.requests.clear()
    assert get(url).read_bytes() == CONTENT
    assert server.requests == [("net.pth", "bytes=300000-")]


def test_a_file_that_changed_meanwhile_is_begun_anew(server):
    """If-Range: the server answers with the whole new file, and nothing is spliced."""
    new = CONTENT[::-1]
    url = server.url("net.pth", cuts=[400_000], then={"content": new, "etag": '"two"'})
    path = get(url, hashlib.sha256(new).hexdigest())
    assert path.read_bytes() == new


@pytest.mark.parametrize("etag", ['W/"weak"', None])
def test_without_a_strong_name_nothing_is_spliced(etag, server):
    path = get(server.url("net.pth", etag=etag, cuts=[200_000]))
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, None]


def test_a_server_without_ranges(server):
    path = get(server.url("net.pth", no_range=True, cuts=[200_000]))
    assert path.read_bytes() == CONTENT


def test_a_server_that_sends_another_range(server):
    assert get(server.url("net.pth", cuts=[200_000], shift=7)).read_bytes() == CONTENT


def test_wrong_content_is_not_kept(server, cache):
    url = server.url("net.pth", content=b"something else" * 1000)
    with pytest.raises(UsageError, match="SHA-256"):
        get(url)
    assert names(cache) == {".lock"}


def test_wrong_size_is_not_fetched(server, cache):
    url = server.url("net.pth")
    with pytest.raises(UsageError, match=r"announces 1,000,003 bytes, expected 5"):
        fetch(Address(url, SHA256, 5), pause=lambda _: None)
    assert names(cache) == {".lock"}


def test_a_body_longer_than_expected_is_cut(server, cache):
    url = server.url("net.pth", no_length=True)
    with pytest.raises(UsageError, match="more than its 5 bytes"):
        fetch(Address(url, None, 5), trust=True, pause=lambda _: None)
    assert names(cache) == {".lock"}


def test_no_length_at_all(server):
    assert get(server.url("net.pth", no_length=True)).read_bytes() == CONTENT


def test_a_shorter_body_than_announced_is_cut_not_kept(server, cache):
    with pytest.raises(UsageError, match="connection ended"):
        get(server.url("net.pth", content=CONTENT[:500], says=1000, etag=None, cuts=[500] * 20))
    assert not cached_path(server.url("net.pth")).exists()


@pytest.mark.parametrize("status", [404, 403, 410])
def test_refused_at_once(status, server):
    with pytest.raises(UsageError, match=str(status)):
        get(server.url("net.pth", status=[status]))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_stumbles_is_asked_again(status, server):
    assert get(server.url("net.pth", status=[status, status])).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_server_that_only_stumbles(server):
    with pytest.raises(UsageError, match="HTTP 500"):
        get(server.url("net.pth", status=[500] * 50))


def test_redirects_are_followed_but_not_in_a_circle(server):
    url = server.url("a.pth", status=[302], to=server.url("b.pth"))
    assert get(url).read_bytes() == CONTENT
    loop = server.url("c.pth", status=[302] * 50, to="/d.pth")
    server.url("d.pth", status=[302] * 50, to="/c.pth")
    with pytest.raises(UsageError, match="circle"):
        get(loop)
    with pytest.raises(UsageError, match="not allowed"):
        get(server.url("e.pth", status=[302], to="file:///etc/passwd"))


def test_a_web_page_is_no_file(server):
    with pytest.raises(UsageError, match="web page"):
        get(server.url("net.pth", type="text/html; charset=utf-8"))


def test_slow_is_waited_for_and_silence_is_not(server, monkeypatch):
    assert get(server.url("slow.pth", pause=0.02)).read_bytes() == CONTENT
    monkeypatch.setattr(download, "_TIMEOUT", 0.15)
    monkeypatch.setattr(download, "_TRIES", 1)
    with pytest.raises(UsageError, match="timed out"):
        get(server.url("silent.pth", pause=0.6, etag=None))


def test_nobody_there():
    with pytest.raises(UsageError, match="cannot be fetched"):
        get("http://127.0.0.1:9/net.pth")


@pytest.mark.parametrize("url", ["ftp://x/y.pth", "file:///etc/passwd"])
def test_only_the_web(url):
    with pytest.raises(UsageError, match="only http"):
        get(url)


def test_an_unknown_hash_needs_trust_and_is_recorded(server):
    url = server.url("net.pth")
    with pytest.raises(UsageError, match="--trust"):
        get(url, None)
    assert server.requests == []
    path = get(url, None, trust=True)
    assert "trusted" in path.with_name(path.name + ".json").read_text()
    assert get(url, None) == path  # once taken, what lies here is known
    path.write_bytes(b"changed on the disk")
    with pytest.raises(UsageError, match="--trust"):
        get(url, None)
    assert not path.exists()


def test_the_beginning_of_a_hash_is_enough(server):
    assert get(server.url("net.pth"), SHA256[:8]).read_bytes() == CONTENT
    with pytest.raises(UsageError, match="expected 00000000"):
        get(server.url("other.pth"), "00000000")


def test_no_room(server, tmp_path, monkeypatch):
    """A disk of 256 KiB, where one may be mounted."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("no small disk can be mounted here")
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(small))
        with pytest.raises(UsageError, match=r"part cannot be written: No space.* 1,000,003 bytes"):
            get(server.url("net.pth"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        assert get(server.url("net.pth")).read_bytes() == CONTENT
        assert server.requests[-1][1] is not None  # goes on
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_two_processes_at_once_fetch_once(server, tmp_path):
    url = server.url("net.pth", pause=0.05)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from transfer.download import Address, fetch\n"
        f"print(fetch(Address({url!r}, {SHA256!r})))\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]  # fmt: skip
    results = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert Path(results[0][0].strip()).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_interrupted_leaves_a_part_that_goes_on(server, monkeypatch, cache):
    url = server.url("net.pth")
    true, count = http.client.HTTPResponse.read1, iter(range(10))

    def interrupted(response, size):
        if next(count) == 2:
            raise KeyboardInterrupt
        return true(response, size)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(url)
    assert not cached_path(url).exists()
    monkeypatch.setattr(http.client.HTTPResponse, "read1", true)
    assert get(url).read_bytes() == CONTENT
    assert server.requests[1][1] is not None
