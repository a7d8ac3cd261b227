"""Shards at an address: what is read is what lies on a disk, or a clear error in bounded time."""

import io
import json
import logging
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from pretrain.config import (
    DatasetConfig,
    LoaderConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
)
from pretrain.data import Transformed, open_data
from pretrain.data.crops import Square
from pretrain.engine import pretrain
from pretrain.errors import UsageError
from pretrain.fetching import client
from pretrain.fetching.cache import NoRoom, ShardCache
from pretrain.fetching.source import File, Patience, Source
from pretrain.run import Run
from pretrain.shards import find_store
from pretrain.shards.pack import PackOptions, PackSplit, pack
from pretrain.training import Loader, make_fabric
from tests.forked import until
from tests.serving import Quiet, serving

pytestmark = [
    pytest.mark.usefixtures("no_pictures", "credentials"),
    pytest.mark.skipif(sys.platform == "win32", reason="sockets of POSIX"),
]
QUICK = Patience(stall=8.0, tries=3, pause=0.01)  # on a busy machine too
SHARDS, EACH = 10, 6
NUMBERS = count()
EXPIRED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"""


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def split(name: str, count: int, first: int) -> PackSplit:
    return PackSplit(
        split=name,
        names=[f"c{number % 2}/{number}.png" for number in range(count)],
        read=lambda number: picture(first + number),
        sizes=np.full(count, 3000),
        classes=("c0", "c1"),
        labels=np.arange(count) % 2,
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Ten shards to train on, two to score."""
    out = tmp_path_factory.mktemp("packed") / "tiny"
    splits = [split("train", SHARDS * EACH, 0), split("val", 2 * EACH, 1000)]
    pack(splits, out, PackOptions(samples_per_shard=EACH))
    return out


class Faults(BaseHTTPRequestHandler):
    """What stands before the S3 server: passes on, or fails as often as it was told."""

    upstream = ""
    asked: ClassVar[Counter] = Counter()
    """GETs by the last part of the path."""
    rules: ClassVar[dict[str, list[str]]] = {}
    """Last part of the path -> what happens to the next requests; "*" for all others."""
    release = threading.Event()

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        if self.command == "GET":
            self.asked[name] += 1
        waiting = self.rules.get(name) or self.rules.get("*") or [""]
        always = waiting[0] == "always"
        fault = waiting[always]
        if self.command == "HEAD" and fault in ("cut", "stall"):
            fault = ""  # of an answer with a body, which comes next
        elif not always:
            waiting.pop(0)
        if fault and fault.isdigit():
            return self.reply(int(fault), {}, EXPIRED if fault == "400" else b"")
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return self.connection.close()
        headers = {key: text for key, text in self.headers.items() if key.lower() != "connection"}
        request = urllib.request.Request(
            self.upstream + self.path, headers=headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request) as answer:
                content = answer.read()
                status, sent = answer.status, dict(answer.headers)
        except urllib.error.HTTPError as error:
            content, status, sent = error.read(), error.code, dict(error.headers)
        if fault in ("cut", "stall") and self.command == "GET":
            self.reply(status, sent, content[: len(content) // 2])
            if fault == "stall":
                self.wfile.flush()
                self.release.wait(60)
            return None
        return self.reply(status, sent, content)

    do_HEAD = do_GET

    def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        headers = {key.title(): text for key, text in headers.items()}
        headers = {"Content-Length": str(len(content)), **headers, "Connection": "close"}
        for key, text in headers.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture(scope="module")
def server():
    """moto's S3, and the proxy before it; gives the address of both."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3 = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    s3.start()
    Faults.upstream = "http://{}:{}".format(*s3.get_host_and_port())
    with serving(Faults) as address:
        yield address
    s3.stop()


@pytest.fixture
def credentials(server, tmp_path, monkeypatch):
    """As a user has them; a cache of the test's own; no fault yet."""
    values = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
              "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": server,
              "AWS_EC2_METADATA_DISABLED": "true", "XDG_CACHE_HOME": str(tmp_path / "cache"),
              "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}  # fmt: skip
    for key, text in values.items():
        monkeypatch.setenv(key, text)
    monkeypatch.setattr(client, "PATIENCE", QUICK)
    Faults.asked, Faults.rules, Faults.release = Counter(), {}, threading.Event()
    yield
    Faults.release.set()


def put(url: str, content: bytes, method: str = "PUT") -> None:
    who = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"
    headers = {"Authorization": who, "Content-Type": "application/octet-stream",
               "X-Amz-Acl": "public-read"}  # fmt: skip
    urllib.request.urlopen(urllib.request.Request(url, content, headers, method=method)).close()


class Bucket:
    """A store's files in S3."""

    def __init__(self, name: str, files: Path) -> None:
        self.name, self.files = name, files
        put(f"{Faults.upstream}/{name}", b"")
        for path in files.glob("*.*"):
            self.put(path.name, path.read_bytes())

    @property
    def web(self) -> str:
        """Without s3fs, which takes half a second to import."""
        return f"{os.environ['AWS_ENDPOINT_URL']}/{self.name}/data/tiny"

    @property
    def url(self) -> str:
        return f"s3://{self.name}/data/tiny"

    def put(self, name: str, content: bytes) -> None:
        put(f"{Faults.upstream}/{self.name}/data/tiny/{name}", content)

    def remove(self, name: str) -> None:
        put(f"{Faults.upstream}/{self.name}/data/tiny/{name}", b"", "DELETE")


@pytest.fixture
def bucket(packed, credentials) -> Bucket:
    return Bucket(f"bucket-{next(NUMBERS)}", packed)


def config(data: object, **changes) -> PretrainConfig:
    loader = {
        "workers": 0,
        **{k: changes.pop(k) for k in ("workers", "shard_cache") if k in changes},
    }
    return PretrainConfig(
        name="test",
        data=str(data),
        epochs=2,
        batch_size=10,
        loader=LoaderConfig(**loader),
        dataset=DatasetConfig(image_size=32, crop_pct=1.0, min_scale=0.5, shard_window=2),
        model=ModelConfig(arch="test_byobnet"),
        optimizer=OptimizerConfig(lr=0.05),
        **changes,
    )


def train(folder: Path, data: object, stop_after: int | None = None, **changes):
    result = pretrain(
        config(data, **changes), Run(folder), make_fabric("cpu"), stop_after=stop_after
    )
    return result.backbone["fingerprint"], result.metrics["train_loss"], result.data["digest"]


@pytest.fixture(scope="module")
def wanted(packed, tmp_path_factory):
    """The run of the store on a disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pretrain.engine.draw_curves", lambda *_: None)
        patch.setattr("pretrain.engine.draw_mixed_batch", lambda *_: None)
        return train(tmp_path_factory.mktemp("wanted") / "run", packed)


def shard_bytes(packed: Path, shards: float) -> float:
    """So many shards in GiB."""
    return shards * (packed / "train-000000.tar").stat().st_size / 2**30


def cached(folder: Path) -> list[Path]:
    return sorted(folder.glob("cache/cutmix-transfer/shards/*/shards/*.tar"))


def test_a_run_from_s3_has_the_bits_of_one_from_a_disk(bucket, packed, wanted, tmp_path):
    # two windows of two shards, and what is fetched meanwhile: less than half of the store
    cache = {"shard_cache": shard_bytes(packed, 5.2), "workers": 2}
    Faults.rules = {"train-000004.tar": ["reset", "cut"], "train-000007.tar": ["500", "503"]}
    assert train(tmp_path / "run", bucket.url, **cache) == wanted
    assert sum(path.stat().st_size for path in cached(tmp_path)) <= shard_bytes(packed, 5.2) * 2**30
    assert not [*tmp_path.glob("cache/**/*.tmp")]
    assert not any(Faults.rules.values())


def test_stopped_and_resumed_from_an_empty_cache(bucket, packed, wanted, tmp_path, full):
    if not full:
        pytest.skip("four trainings; runs with --full")
    from pretrain.errors import Stopped

    cache = {"shard_cache": shard_bytes(packed, 5.2)}
    with pytest.raises(Stopped):
        train(tmp_path / "run", bucket.web, stop_after=4, **cache)
    shutil.rmtree(tmp_path / "cache")
    assert train(tmp_path / "run", bucket.web, **cache) == wanted


def read_all(store, split: str = "train") -> list:
    reader = store.splits[split]
    return reader.read_many(range(len(reader.index)))


def test_all_is_there_and_is_fetched_once(bucket, packed):
    store, here = find_store(bucket.web), find_store(packed)
    for name in ("train", "val"):
        assert read_all(store, name) == read_all(here, name)
        assert store.splits[name].index.classes == here.splits[name].index.classes
        assert store.splits[name].index.name(7) == here.splits[name].index.name(7)
    assert store.digest_files().digest == here.digest_files().digest
    # another process of the machine
    again = find_store(bucket.web)
    assert read_all(again) == read_all(here)
    assert {name: count for name, count in Faults.asked.items() if count > 1} == {"_info.json": 2}


def test_forked_readers_of_one_store_fetch_each_shard_once(bucket, packed):
    store, here = find_store(bucket.web), find_store(packed)
    expected = read_all(here)
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            found = read_all(store)
            store.splits["train"].locate.fetcher._end()  # as where a fork drops its copy
            os._exit(0 if found == expected else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert Faults.asked["train-000003.tar"] == 1


def test_what_is_needed_next_is_fetched_before(bucket, packed):
    reader = find_store(bucket.web).splits["train"]
    epoch = reader.order(2, seed=3)(0)
    read = reader.read_many(epoch[0:10])  # all of it of the first window
    assert epoch.shards[:2].tolist() == sorted({*(epoch[0:12] // EACH)}, key=[*epoch.shards].index)
    names = {reader.index.shards[number].file for number in epoch.shards[:4]}
    folder = reader.index.path.parent / "shards"
    until(lambda: {path.name for path in folder.glob("*.tar")} == names)
    Faults.rules = {"*": ["always", "404"]}
    read += reader.read_many(epoch[10:24])  # the rest of it, and the next one
    assert read == find_store(packed).splits["train"].read_many(epoch[0:24])
    # who reads in order has the next two
    assert {name for name in Faults.asked if name.endswith(".tar")} == names


def spoil(kind: str, number: int, bucket: Bucket) -> None:
    """Let a shard of train be bad in some way."""
    name = f"train-{number:06}.tar"
    content = bytearray((bucket.files / name).read_bytes())
    content[2000] ^= 1
    if kind == "missing":
        bucket.remove(name)
    elif kind == "cut":
        bucket.put(name, bytes(content[:7000]))
    elif kind == "changed":
        bucket.put(name, bytes(content))
    elif kind == "crc32":  # the description is of the changed one, and the index is not
        bucket.put(name, bytes(content))
        info = json.loads((bucket.files / "_info.json").read_text())
        info["splits"]["train"]["blake2b"][number] = blake2b(content, digest_size=16).hexdigest()
        bucket.put("_info.json", json.dumps(info).encode())
    else:
        Faults.rules[name] = ["always", {"forbidden": "403", "expired": "400"}.get(kind, "500")]


SPOILT = {
    "missing": r"there is no {0}\. Put it there again",
    "cut": r"{0} has 7,000 bytes, in its index [0-9,]+: it was cut or replaced\. Put the",
    "changed": r"{0} has the hash \w{{32}}, in the store's _info\.json \w{{32}}: it was changed",
    "crc32": r"the sample c\d/\d+\.png in the shard {0} is not what was packed: crc32",
    "forbidden": r"{0} may not be read \(.*must find credentials",
    "expired": r"{0} may not be read \(The provided token has expired.*FSSPEC_S3_ANON=true",
    "fails": r"{0} cannot be fetched \(.*; tried 3 times\)\. Give the same command",
}


def test_each_bad_shard_is_named_and_all_others_are_read(bucket, packed):
    for number, kind in enumerate(SPOILT):
        spoil(kind, number, bucket)
    found, here = read_all(find_store(bucket.url)), read_all(find_store(packed))
    for number, message in enumerate(SPOILT.values()):
        bad = [str(one) for one in found[number * EACH : (number + 1) * EACH] if one not in here]
        assert re.match(message.format(f"{bucket.url}/train-{number:06}.tar"), bad[0]), bad[0]
        assert len(bad) == (1 if "crc32" in message else EACH)
    assert found[len(SPOILT) * EACH :] == here[len(SPOILT) * EACH :]


@pytest.mark.parametrize(
    ("kind", "workers"),
    [(kind, workers) for kind in SPOILT for workers in (0, 1, 2)],
)
def test_a_run_that_needs_a_bad_shard_ends(kind, workers, request, monkeypatch, full):
    if not full and (workers, kind) not in {(1, "crc32"), (2, "missing")}:
        pytest.skip("--full")
    bucket = request.getfixturevalue("bucket")
    if kind != "fails":  # is said at once: nothing is tried again
        monkeypatch.setattr(client, "PATIENCE", Patience(pause=3600))
    spoil(kind, 3, bucket)
    url = bucket.url if kind == "expired" else bucket.web
    message = SPOILT[kind].format(f"{url}/train-000003.tar")
    data = open_data(url, config("").dataset)
    loader = Loader(
        Transformed(data.train, Square(32)),
        workers=workers,
        batch_size=10,
        shuffle=True,
        order=data.train.reader.order(2, 0),
    )
    with pytest.raises(UsageError, match=f"^{message}"):
        for _ in loader.epoch(0):
            pass


def test_a_stalled_server_is_given_up(bucket, tmp_path):
    source = Source(bucket.url, Patience(stall=30, tries=2, pause=0.01))
    source.read("_info.json")
    source.patience = Patience(stall=0.3, tries=2, pause=0.01)
    Faults.rules = {"train-000003.tar": ["always", "stall"]}
    with pytest.raises(UsageError, match=r"nothing came in 0\.3 seconds; tried 2 times"):
        source.copy(File("train-000003.tar"), tmp_path / "copy")


def test_no_bucket_no_store_no_index(bucket, packed, monkeypatch, full):
    if not full:
        pytest.skip("many refusals; runs with --full")
    with pytest.raises(UsageError, match=r"there is no s3://nothing-here/x/_info\.json"):
        find_store("s3://nothing-here/x")
    with pytest.raises(UsageError, match="it names no host"):
        find_store("s3://")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match=r"may not be read \(Unable to locate credentials\)"):
        find_store(bucket.url)
    with pytest.raises(UsageError, match=r"needs gcsfs: pip install 'cutmix-transfer\[remote\]'"):
        find_store("gs://bucket/x")
    info = json.loads((packed / "_info.json").read_text())
    for one in info["splits"].values():
        del one["index"]
    bucket.put("_info.json", json.dumps(info).encode())
    with pytest.raises(UsageError, match=r"has no index of its shards.*pack it there"):
        find_store(bucket.web)
    bucket.put("_info.json", b"<html>")
    with pytest.raises(UsageError, match="does not describe a store"):
        find_store(bucket.web)


def test_a_store_that_was_packed_anew_is_another_one(bucket, packed, tmp_path, full):
    if not full:
        pytest.skip("several helpers; runs with --full")
    before = find_store(bucket.web)
    read_all(before)
    anew = tmp_path / "anew"
    splits = [split("train", SHARDS * EACH, 500), split("val", 2 * EACH, 1000)]
    pack(splits, anew, PackOptions(samples_per_shard=EACH))
    for path in anew.glob("*.*"):
        bucket.put(path.name, path.read_bytes())
    assert read_all(find_store(bucket.web)) == read_all(find_store(anew))
    assert read_all(before) == read_all(find_store(packed))  # of the cache


def test_what_is_damaged_in_the_cache_is_fetched_again(bucket, packed, tmp_path, full):
    if not full:
        pytest.skip("several helpers; runs with --full")
    here = read_all(find_store(packed))
    read_all(find_store(bucket.web))
    for path in cached(tmp_path)[:2]:
        content = bytearray(path.read_bytes())
        content[600:2000] = bytes(1400)
        path.write_bytes(content)
    cached(tmp_path)[3].write_bytes(b"cut")
    store = find_store(bucket.web)
    assert read_all(store) == here
    # an index too
    path = store.splits["train"].index.path
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert read_all(find_store(bucket.web)) == here


def test_a_cache_below_two_windows_is_refused(bucket, packed):
    options = config("").dataset
    with pytest.raises(UsageError, match=r"two windows of 2 shards of train take .* --loader") as e:
        open_data(bucket.web, options, shard_bytes(packed, 3))
    assert "--dataset.shard_window 1" in str(e.value)
    shards = find_store(bucket.web).splits["train"].locate
    enough = replace(shards, most=round(shard_bytes(packed, 4.5) * 2**30))
    enough.require_room(2)
    with pytest.raises(UsageError, match="two windows of 3 shards"):
        enough.require_room(3)
    # a window that holds all needs no second one
    replace(shards, most=round(shard_bytes(packed, 10.5) * 2**30)).require_room(100)


def test_a_full_disk_is_one_message(bucket):
    from tests.conftest import limited

    with limited(20_000):
        store = find_store(bucket.web)
    with pytest.raises(UsageError, match=r"train-000000\.tar cannot be written: File too large"):
        store.splits["train"].read(0)


KILLED = """
import sys
from pretrain.fetching.client import Fetcher
from pretrain.fetching.server import Request
from pretrain.fetching.source import File

file = File("train-000000.tar", int(sys.argv[2]))
Fetcher(sys.argv[1], 2**20).ask(Request(folder="old/shards", want=file))
"""


def test_killed_at_any_moment(bucket, packed, tmp_path):
    """The process that fetches ends with the one that reads; what it began is no loss."""
    Faults.rules = {"train-000000.tar": ["stall"]}
    size = (packed / "train-000000.tar").stat().st_size
    process = subprocess.Popen([sys.executable, "-c", KILLED, bucket.web, str(size)])
    until(lambda: Faults.asked["train-000000.tar"])
    (draft,) = tmp_path.glob("cache/**/*.tmp")
    processes = Path("/proc").glob("[0-9]*")
    (server,) = [one for one in processes if state_and_parent(one)[1] == process.pid]
    process.kill()
    process.wait()
    until(lambda: state_and_parent(server)[0] in ("Z", "gone"))  # nobody may collect it
    assert draft.stat().st_size == size
    store = find_store(bucket.web)
    store.splits["train"].read(0)
    assert not draft.exists()
    # the one that fetches is killed
    end = store.splits["train"].locate.fetcher._end
    end.peek()[2][0].kill()
    with pytest.raises(UsageError, match=r"the process that fetches from http://.* was killed"):
        store.splits["train"].read(9)


def test_nobody_waits_for_a_process_that_cannot_answer(bucket, packed):
    """As where it may open no more files: it ends, and who asks hears of it."""
    store = find_store(bucket.web)
    process = store.splits["train"].locate.fetcher._end.peek()[2][0]
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, 3))
    with pytest.raises(UsageError):  # it may have been about to take this one
        store.splits["train"].read(0)
    with pytest.raises(UsageError, match=r"the process that fetches from http://.* was killed"):
        store.splits["train"].read(0)


def state_and_parent(process: Path) -> tuple[str, int]:
    with suppress(OSError):
        state, parent, *_ = (process / "stat").read_text().rpartition(")")[2].split()
        return state, int(parent)
    return "gone", 0


def test_the_least_recently_used_make_room(tmp_path, monkeypatch):
    cache = ShardCache(tmp_path, 1000)
    folder = tmp_path / "store" / "shards"
    folder.mkdir(parents=True)
    for age, name in enumerate("abcd"):
        (folder / name).write_bytes(bytes(250))
        os.utime(folder / name, (100 + age, 100 + age))
    assert cache.use(folder / "a", 250)
    assert not cache.use(folder / "a", 251)
    (folder / ".e.7.tmp").write_bytes(bytes(900))  # of a killed process
    with open(folder / "b", "rb") as held:
        with cache.fetching(folder / "e"):
            cache.reserve(folder / ".e.123.tmp", 400)
            assert sorted(path.name for path in folder.iterdir()) == [
                ".e.123.tmp", ".e.lock", "a", "d"]  # fmt: skip
            # what is being fetched counts, is not taken for a rest of a killed process, and stays:
            # what has no room beside it waits, and takes none from others meanwhile
            waiting = threading.Thread(
                target=cache.reserve, args=(folder / ".f.123.tmp", 700), daemon=True
            )
            waiting.start()
            waiting.join(0.3)
            assert waiting.is_alive()
            with pytest.raises(NoRoom):
                cache.reserve(folder / ".g.123.tmp", 700, wait=False)
            assert {".e.123.tmp", "a", "d"} <= {path.name for path in folder.iterdir()}
            os.utime(folder / ".e.123.tmp", (200, 200))
            cache.publish(folder / ".e.123.tmp", folder / "e")
            waiting.join(60)
        assert {path.name for path in folder.iterdir() if path.name[-1] != "k"} == {
            ".f.123.tmp", "a"}  # fmt: skip
        assert len(held.read()) == 250
    cache.reserve(folder / ".g.5.tmp", 10)
    assert not (folder / ".f.123.tmp").exists()
    monkeypatch.setattr("pretrain.fetching.cache._PATIENCE", 0.1)
    with cache.fetching(folder / "h"):
        cache.reserve(folder / ".h.5.tmp", 900)
        cache.reserve(folder / ".i.5.tmp", 900)  # over the bound rather than never
        assert (folder / ".h.5.tmp").exists()


def test_nothing_gets_its_name_amid_a_count(tmp_path, monkeypatch):
    """Listed under the old name and looked at under that, it was missed: one shard too many."""
    cache = ShardCache(tmp_path, 1000)
    folder = tmp_path / "store" / "shards"
    counted = cache._shards

    def renamed_meanwhile():
        for _, size, path in [*counted()]:
            publishing.start()
            publishing.join(0.2)
            with suppress(FileNotFoundError):
                yield path.stat().st_mtime_ns, size, path

    with cache.fetching(folder / "a"), cache.fetching(folder / "b"):
        cache.reserve(folder / ".a.1.tmp", 600)
        publishing = threading.Thread(
            target=cache.publish, args=(folder / ".a.1.tmp", folder / "a"), daemon=True
        )
        monkeypatch.setattr(cache, "_shards", renamed_meanwhile)
        with pytest.raises(NoRoom):
            cache.reserve(folder / ".b.1.tmp", 600, wait=False)
        publishing.join(60)
        monkeypatch.setattr(cache, "_shards", counted)
        cache.reserve(folder / ".b.1.tmp", 600, wait=False)
        assert not (folder / "a").exists()


def test_a_plain_web_server(packed, tmp_path, full):
    """Python's own knows no ranges."""
    if not full:
        pytest.skip("a second server; runs with --full")
    from functools import partial

    with serving(partial(Quiet, directory=str(packed))) as address:
        store = find_store(f"{address}/")
        assert read_all(store) == read_all(find_store(packed))
        with pytest.raises(UsageError, match=r"there is no http://.*/nothing/_info\.json"):
            find_store(f"{address}/nothing")
    with pytest.raises(UsageError, match=r"_info\.json cannot be fetched \(.*tried 3 times"):
        find_store(address)  # nobody is there any more


class Hub(BaseHTTPRequestHandler):
    """As much of huggingface.co as a file system of its library asks for."""

    folder = Path()

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        if path.startswith("/api/datasets/user/tiny"):
            files = [
                {"type": "file", "path": f"v1/{file.name}", "size": file.stat().st_size, "oid": "0"}
                for file in sorted(self.folder.iterdir())
                if file.is_file()
            ]
            about = {"id": "user/tiny", "sha": "0" * 40, "private": False, "tags": []}
            content = json.dumps(files if "/tree/" in path else about).encode()
        elif path.startswith("/datasets/user/tiny/resolve/main/v1/"):
            first, last = map(int, re.findall(r"\d+", self.headers["range"]))
            content = (self.folder / path.rpartition("/")[2]).read_bytes()[first : last + 1]
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_the_hub(packed, monkeypatch):
    monkeypatch.setattr(Hub, "folder", packed)
    with serving(Hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        store = find_store("hf://datasets/user/tiny/v1")
        assert read_all(store) == read_all(find_store(packed))
        with pytest.raises(UsageError, match=r"there is no hf://.*, or it is private: `hf auth"):
            find_store("hf://datasets/user/other/v1")


def test_ranges(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("pretrain.fetching.source._RANGE", 1000)
    content = bytes(range(256)) * 20
    bucket.put("big", content)
    source = Source(bucket.web, QUICK)
    with pytest.raises(UsageError, match=r"has 5,120 bytes, in its index 5,000"):
        source.copy(File("big", 5000), tmp_path / "copy")
    Faults.rules = {"big": ["pass", "pass", "500", "cut", "pass", "reset"]}
    source.copy(File("big", len(content)), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


def test_the_process_that_fetches_is_small():
    code = "import sys, pretrain.fetching.server as _; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
