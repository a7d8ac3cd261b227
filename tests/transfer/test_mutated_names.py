"""Lists, records, sidecars and names with something wrong: a message, no wait, nothing in silence.

What is left out of a list is named; a download goes on to the right bytes or is refused; a sidecar
gives a backbone that can be used, or is refused.
"""

import hashlib
import json
import random
from typing import Any

import pytest
import torch
import yaml

from pretrain.errors import UsageError
from tests.mutations import as_yaml, draws, mutate, mutate_text, mutate_value
from tests.serving import Quiet, serving
from tests.transfer.formats.making import tame
from transfer import download, formats, hub
from transfer.download import Address, cached_path, fetch
from transfer.formats import sidecar

CASES = {"list": 150, "record": 250, "name": 400, "sidecar": 200}
MARKS = ("", "\x00", "\n", "\xff", "é", "\u2100", ":", "://", "#", "@", "[", "..", "%", "::", " ")
CONTENT = random.Random(2).randbytes(50_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_lists(full, tmp_path, monkeypatch, capsys):
    """Every entry is there or named, and an entry that was not changed works."""
    from tools.download import main

    content = yaml.safe_load(hub.LIST.read_text(encoding="utf-8"))
    content["backbones"] = dict(list(content["backbones"].items())[:4])
    path = tmp_path / "list.yaml"
    monkeypatch.setattr(hub, "LIST", path)
    refused: list[str] = []
    left_out = 0
    for draw in draws("list", CASES["list"], full):
        structured = draw.random() < 0.7
        if structured:
            changed = mutate_value(content, draw)
            write = draw.choice([as_yaml, as_yaml, json.dumps])
            data = write(changed).encode("utf-8", "surrogatepass")
        else:
            data = mutate_text(as_yaml(content).encode(), draw)
        path.write_bytes(data)
        try:
            entries, problems = hub.read_list(path)
        except UsageError as error:
            refused.append(str(error))
            continue
        left_out += len(problems)
        assert all(str(path) in problem for problem in problems)
        if structured:
            for name, entry in changed["backbones"].items():
                named = any(problem.startswith(f"{path}, {name!r}: ") for problem in problems)
                assert (name in entries) != named
                same = (content["defaults"], content["backbones"].get(name))
                if (changed["defaults"], entry) == same:
                    assert name in entries
        capsys.readouterr()
        main(["--list"])
        said = capsys.readouterr()
        assert all(name in said.out for name in entries)
        assert said.err.count("left out: ") == len(problems)
        for name in list(entries)[:1]:
            with pytest.raises(UsageError):  # of unknown hash, or a web page's
                hub.locate(name)
    assert refused
    assert all(str(path) in message for message in refused)
    assert left_out


class Resuming(Quiet):
    """Knows no ranges; a part is begun again."""

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        start = start if self.headers.get("If-Range") == '"one"' and start < len(CONTENT) else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:])


@pytest.fixture
def url():
    with serving(Resuming) as address:
        yield f"{address}/net.pth"


def test_records(full, url, capsys):
    """Of a file that is verified, and of one that is begun: its bytes, or a message."""
    path = cached_path(url)
    part = path.with_name(path.name + ".part")
    verified = {"url": url, "sha256": SHA256, "size": len(CONTENT), "fetched": "x", "hash": "y"}
    begun = {"url": url, "validator": '"one"', "total": len(CONTENT)}
    path.parent.mkdir(parents=True)
    refused: list[str] = []
    named = 0
    for draw in draws("record", CASES["record"], full):
        is_part = draw.random() < 0.5
        content = begun if is_part else verified
        data = mutate(content, json.dumps, draw)
        for file in path.parent.iterdir():
            file.unlink()
        file = part if is_part else path
        file.write_bytes(CONTENT[: draw.randrange(1, 50_000)] if is_part else CONTENT)
        download._record(file).write_bytes(data)
        try:
            found = fetch(Address(url), trust=is_part, pause=lambda _: None)
            assert found.read_bytes() == CONTENT
        except UsageError as error:
            refused.append(str(error))
        named += "left out, a record of a download: " in capsys.readouterr().err
        assert fetch(Address(url, SHA256), pause=lambda _: None).read_bytes() == CONTENT
    assert refused
    assert not [message for message in refused if "is not known" not in message]
    assert named


NAMES = (
    f"https://example.org/net.pth#sha256={SHA256}", "http://127.0.0.1:9/a/net.pth?dl=1",
    "hf:owner/net@main", "hf://owner/name/net.pth", "s3://bucket/net.pth", "gs://bucket/a/net.pth",
    "cutmix-resnet50", "timm:resnet50.a1_in1k", "torchvision:resnet18/IMAGENET1K_V1",
    "runs/a/backbone.pth",
)  # fmt: skip


def test_names(full, monkeypatch, tmp_path):
    """No name leads to a traceback, asked for by whoever trusts whatever comes."""
    monkeypatch.chdir(tmp_path)

    def nobody(*_: object) -> Any:
        raise download._TryAgain("nobody there")

    monkeypatch.setattr(download, "_open", nobody)
    monkeypatch.setattr(download, "_TRIES", 1)
    failures = []
    for draw in draws("name", CASES["name"], full):
        name = draw.choice(NAMES)
        for _ in range(draw.choice([1, 1, 2, 4])):
            place = draw.randrange(len(name) + 1)
            middle = draw.choice([*MARKS, name[:place], "9" * 400])
            name = name[:place] + middle + name[place + draw.choice([0, 1, 5]) :]
        name = name.replace("\xff", "\udcff")  # as the system hands over bytes that are no text
        try:
            path, _ = hub.locate(name, trust=True)
            assert path.exists()
        except UsageError:
            pass
        except Exception as error:
            failures.append(f"{name!r}: {error!r}")
    assert not failures, "\n".join([str(len(failures)), *failures[:20]])


def test_sidecars(full, tmp_path, capsys):
    """Beside a bare state dict: a backbone that describes itself, or a message."""
    net = tame("test_resnet", num_classes=5)
    file = tmp_path / "net.pth"
    torch.save(dict(net.weights), file)
    content = sidecar.describe(net, None, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    content["provenance"] |= {
        "recipe": {"name": "a", "mixing": {"method": "cutmix", "others": [{"method": "mixup"}]}},
        "stated": {"notes": ["a"], "assumed": ["b"], "conventions": "c"},
        "classes": list("abcde"),
        "versions": {"torch": "2"},
    }
    path, refused = file.with_suffix(".json"), []
    for draw in draws("sidecar", CASES["sidecar"], full):
        path.write_bytes(mutate(content, json.dumps, draw))
        try:
            read = formats.read(file)
        except UsageError as error:
            refused.append(str(error))
            continue
        read.describe()
        assert all(isinstance(text, str) for text in (*read.notes, *read.output_names))
    assert refused
    assert all(str(tmp_path) in message for message in refused)
