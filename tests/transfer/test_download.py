"""Downloads from a loopback server that misbehaves: the right file or a message, never half."""

import hashlib
import http.client
import http.server
import json
import os
import random
import re
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pretrain.errors import UsageError
from tests.conftest import ROOT
from tests.serving import serving
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
        known = self.headers.get("If-Range") == etag or trick.get("ignores_names")
        fits = wanted and known and not trick.get("no_range")
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
            total = len(content) + trick.get("more", 0)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{total}")
        self.send_header("Content-Type", trick.get("type", "application/octet-stream"))
        if not trick.get("no_length"):
            self.send_header("Content-Length", str(trick.get("says", len(content) - start)))
        if etag:
            self.send_header("ETag", etag)
        for header, value in trick.get("headers", {}).items():
            self.send_header(header, value)
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


@pytest.mark.parametrize(
    ("then", "headers"),
    [
        ({"etag": '"two"'}, {}),
        ({"etag": None}, {}),
        ({"content": CONTENT[::-1] + b"longer"}, {}),
        ({"content": CONTENT[:500_000]}, {}),
        ({"etag": None, "headers": {"Last-Modified": "Tue, 03 Nov 2026 08:00:00 GMT"}},
         {"Last-Modified": "Mon, 02 Nov 2026 08:00:00 GMT"}),
    ],
)  # fmt: skip
def test_a_range_of_another_file_is_not_spliced(then, headers, server):
    """Whose server sends it although If-Range names another: nothing of the old part is kept."""
    etag = {} if not headers else {"etag": None}
    new = {"content": CONTENT[::-1], "ignores_names": True, **then}
    url = server.url("net.pth", cuts=[400_000], then=new, headers=headers, **etag)
    path = get(url, None, trust=True)
    assert path.read_bytes() == new["content"]
    assert server.requests[1] == ("net.pth", "bytes=400000-")


def test_a_part_of_a_file_is_not_the_file(server):
    with pytest.raises(UsageError, match="another range"):
        get(server.url("net.pth", cuts=[9] * 50, more=5, ignores_names=True), None, trust=True)


def test_two_cuts_that_take_turns_come_to_an_end(server):
    with pytest.raises(UsageError, match="connection ended"):
        get(server.url("net.pth", etag=None, cuts=[500, 900] * 20))
    assert len(server.requests) < 12


@pytest.mark.parametrize("name", ["gzip", "br", "identity, gzip"])
def test_what_is_sent_packed_is_refused(name, server, cache):
    url = server.url("net.pth", headers={"Content-Encoding": name})
    with pytest.raises(UsageError, match=f"Content-Encoding: {name}"):
        get(url, None, trust=True)
    assert names(cache) == {".lock"}


def test_nothing_is_no_file(server, cache):
    for sha256 in (None, hashlib.sha256(b"").hexdigest()):
        with pytest.raises(UsageError, match="an empty file"):
            get(server.url("net.pth", content=b""), sha256, trust=True)
    assert names(cache) == {".lock"}


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


def test_a_length_that_comes_later_is_no_other_file(server, cache):
    """A body of unknown length that broke off goes on by a range, which says the length."""
    url = server.url("net.pth")
    part = cached_path(url).with_name(cached_path(url).name + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    begun = {"url": url, "validator": '"one"', "total": None}
    part.with_name(part.name + ".json").write_text(json.dumps(begun))
    assert get(url).read_bytes() == CONTENT
    assert server.requests == [("net.pth", "bytes=1000-")]


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


@pytest.mark.parametrize(
    "url",
    ["ftp://x/y.pth", "file:///etc/passwd", "http:///y.pth", "http://", "http://[::1/y", "s3://",
     "http://x:99999/y", "http://x:port/y", "http://a..b/y", f"http://{'a' * 70}.org/y",
     "http://me:secret@x.org/y", "http://x/\n", "http://x/\udcff", "http://x\u2100/y",
     "s3://b/k::file:///etc/passwd", "//x/y", ""],
)  # fmt: skip
def test_addresses_that_nobody_can_be_asked_for(url):
    named = repr(url).replace("me:secret", "...")  # a password is not repeated
    with pytest.raises(UsageError, match=re.escape(named)):
        get(url)


HEAD = b"HTTP/1.1 200 OK\r\n"
BODY = b"\r\nbody"
ANSWERS = {
    "nothing": b"",
    "no HTTP": b"220 mail ready\r\n\r\n",
    "another HTTP": b"HTTP/9.9 200 OK\r\n" + BODY,
    "no number": b"HTTP/1.1 OK\r\n" + BODY,
    "controls in words": b"HTTP/1.1 404 \x1b[31mred\r\n" + BODY,
    "status 204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "status 299": b"HTTP/1.1 299 Odd\r\nContent-Length: 4\r\n" + BODY,
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "long line": HEAD + b"X: " + b"a" * 70_000 + b"\r\n" + BODY,
    "many headers": HEAD + b"X: a\r\n" * 200 + BODY,
    "length below 0": HEAD + b"Content-Length: -5\r\n" + BODY,
    "length in words": HEAD + b"Content-Length: four\r\n" + BODY,
    "length of 5,000 digits": HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n" + BODY,
    "two lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 3\r\n" + BODY,
    "length of another alphabet": HEAD + b"Content-Length: \xd9\xa4\r\n" + BODY,
    "too short": HEAD + b"Content-Length: 9\r\n" + BODY,
    "packed on the way": HEAD + b"Transfer-Encoding: gzip, chunked\r\n" + BODY,
    "chunks in words": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nbody\r\n0\r\n\r\n",
    "chunk below 0": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nbody\r\n0\r\n\r\n",
    "chunk cut": HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nbody",
    "range unasked": b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-3/9\r\n" + BODY,
    "range in words": b"HTTP/1.1 206 Part\r\nContent-Range: some\r\n" + BODY,
    "range missing": b"HTTP/1.1 206 Part\r\n" + BODY,
    "range of 5,000 digits": b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-3/" + b"4" * 5000 + BODY,
    "range backwards": b"HTTP/1.1 206 Part\r\nContent-Range: bytes 4-0/4\r\n" + BODY,
    **{
        f"leads to {place.decode('latin-1')}": b"HTTP/1.1 302 F\r\nLocation: " + place + b"\r\n\r\n"
        for place in (b"http://[", b"http://x:99999/", b"http://", b"javascript:a", b"http://a..b/",
                      b"", b"ftp://x/y", b"file:///etc/passwd", b"http://u:p@x/", b"\xff\xfe://")
    },
    "leads nowhere": b"HTTP/1.1 302 Found\r\n\r\n",
}  # fmt: skip
GOOD_ANSWERS = {
    "letters beyond ASCII": HEAD + b"X-Name: \xe9\xff\r\nETag: \xe9\r\n" + BODY,
    "folded header": HEAD + b'ETag: "a\r\n b"\r\n' + BODY,
    "no type": HEAD + b"Content-Type: ;;;\r\n" + BODY,
    "all as a range": b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-3/4\r\n" + BODY,
}


@pytest.fixture(scope="module")
def raw():
    """The address of a server that answers /NAME by ANSWERS, and nothing more."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            name = int(self.rfile.readline().split()[1].strip(b"/"))
            while self.rfile.readline().strip():
                pass
            self.wfile.write([*ANSWERS.values(), *GOOD_ANSWERS.values()][name])

    with serving(Answer) as address:
        yield address


@pytest.mark.parametrize("name", [*ANSWERS, *GOOD_ANSWERS])
def test_odd_answers_are_one_message(name, raw, cache):
    url = f"{raw}/{[*ANSWERS, *GOOD_ANSWERS].index(name)}"
    if name in GOOD_ANSWERS:
        assert get(url, None, trust=True).read_bytes() == b"body"
        return
    with pytest.raises(UsageError) as refused:
        get(url, None, trust=True)
    assert url in str(refused.value)
    assert str(refused.value).isprintable()
    assert not cached_path(url).exists()


@pytest.fixture
def bucket(monkeypatch):
    """A file system of fsspec in memory, under the names of the services."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = ("s3", "gs", "hf")
        store: dict = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

        @classmethod
        def _strip_protocol(cls, path):
            return "/" + path.partition("://")[2] if "://" in path else path

    for scheme in Bucket.protocol:
        monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, scheme, Bucket)
    return Bucket()


@pytest.mark.parametrize("scheme", ["s3", "gs", "hf"])
def test_files_of_other_services(scheme, bucket, cache):
    bucket.pipe("/bucket/net.pth", CONTENT)
    url = f"{scheme}://bucket/net.pth"
    assert get(url).read_bytes() == CONTENT
    with pytest.raises(UsageError, match="--trust"):
        get(f"{scheme}://bucket/other.pth", None)
    with pytest.raises(UsageError, match=r"bucket/other.pth cannot be fetched"):
        get(f"{scheme}://bucket/other.pth", None, trust=True)
    bucket.pipe("/bucket/empty.pth", b"")
    with pytest.raises(UsageError, match="an empty file"):
        get(f"{scheme}://bucket/empty.pth", None, trust=True)
    bucket.pipe("/bucket/net.pth", b"another")
    assert get(url).read_bytes() == CONTENT  # from the cache


def test_a_service_whose_package_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    known = sys.modules["fsspec.registry"]._registry  # it may have been imported before
    monkeypatch.delitem(known, "s3", raising=False)
    with pytest.raises(UsageError, match=r"needs s3fs: pip install 'cutmix-transfer\[remote\]'"):
        get("s3://bucket/net.pth")


def test_a_file_that_changes_as_it_is_read_is_not_kept(bucket, monkeypatch, cache):
    bucket.pipe("/bucket/net.pth", CONTENT)
    true = download._copy

    def changing(*arguments):
        true(*arguments)
        bucket.pipe("/bucket/net.pth", CONTENT[::-1])

    monkeypatch.setattr(download, "_copy", changing)
    with pytest.raises(UsageError, match="changed on the way"):
        get("s3://bucket/net.pth", None, trust=True)


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


@pytest.mark.parametrize("name", ["part", "part.json"])
def test_a_folder_in_the_place_of_a_part_goes(name, server, cache):
    url = server.url("net.pth")
    path = cached_path(url)
    path.with_name(f"{path.name}.{name}").mkdir(parents=True)
    assert get(url).read_bytes() == CONTENT


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
