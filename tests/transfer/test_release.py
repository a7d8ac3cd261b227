"""A release: what is refused, what stands in its folder, and that it comes back by its entry."""

import functools
import hashlib
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard

from pretrain.backbone import Backbone, Provenance
from pretrain.errors import UsageError
from pretrain.run import Result, Run
from tests.serving import Quiet, serving
from tests.transfer.formats.making import tame
from transfer import hub, privacy, release

COMPLETE = Provenance(
    recipe={"name": "demo", "data": "/home/me/world", "mixing": {"method": "cutmix"}, "epochs": 9},
    dataset="world",
    num_images=5000,
    epochs=9,
    seed=0,
    top1=81.25,
    classes=[f"class {number}" for number in range(10)],
    commit="0" * 40,
    versions={"torch": "2.11.0"},
    created="2026-01-01T00:00:00+00:00",
)


@pytest.fixture(scope="module")
def net() -> Backbone:
    made = tame("resnet10t", input_size=(3, 64, 64), crop_pct=1.0, mean=(0.5, 0.4, 0.3))
    return replace(made, provenance=COMPLETE)


@pytest.fixture
def file(net, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    net.save(tmp_path / "b.pth")
    return tmp_path / "b.pth"


def called(*words: object, capsys, licence: str | None = "MIT") -> tuple[int, str]:
    from tools.release import main
    from tools.support.command import run_main

    code = 0
    words = (*words, "--licence", licence) if licence else words
    try:
        run_main(lambda: main([str(word) for word in words]))
    except SystemExit as ended:
        code = int(ended.code or 0)
    shown = capsys.readouterr()
    return code, shown.out + shown.err


@pytest.fixture
def served(tmp_path):
    """The address of a loopback server that serves tmp_path/served."""
    with serving(functools.partial(Quiet, directory=str(tmp_path / "served"))) as address:
        yield address


def test_a_release_comes_back_through_the_list(net, file, served, capsys, monkeypatch, tmp_path):
    url = f"{served}/ours-1/backbone.pth"
    code, shown = called("--backbone", file, "--name", "ours-1", "--to", "served", "--url", url,
                        licence="Apache-2.0", capsys=capsys)  # fmt: skip
    assert code == 0, shown
    assert "--url is missing" not in shown
    out = tmp_path / "releases" / "ours-1"
    names = ["README.md", "backbone.pth", "config.json", "entry.yaml", "model.safetensors"]
    assert sorted(os.listdir(out)) == sorted(os.listdir("served/ours-1")) == names
    assert os.listdir("releases") == ["ours-1"]

    entry = yaml.safe_load((out / "entry.yaml").read_text())["backbones"]["ours-1"]
    weights = (out / "backbone.pth").read_bytes()
    assert entry["sha256"] == hashlib.sha256(weights).hexdigest()
    assert entry["size"] == len(weights)
    assert entry["row"].startswith("18.75 ")
    assert entry["licence"] == "Apache-2.0"

    monkeypatch.setattr(hub, "LIST", out / "entry.yaml")
    found = hub.resolve("ours-1")
    assert found.fingerprint() == net.fingerprint()
    assert found.method == "cutmix"
    assert hub.resolve(str(out)).fingerprint() == net.fingerprint()
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert torch.equal(model.state_dict()["fc.weight"], net.weights["fc.weight"])
    assert tuple(model.pretrained_cfg["mean"]) == (0.5, 0.4, 0.3)

    code, shown = called("--backbone", file, "--name", "ours-1", capsys=capsys)
    assert (code, "in our list already" in shown) == (2, True)


def test_the_card(net, file, capsys):
    run = Run(Path("runs/det"))
    run.start({"name": "r"})
    run.finish(
        Result(
            task="detection",
            metric="AP50",
            metrics={"AP50": 43.2, "AP": 20.0},
            backbone=net.describe(),
            data={"name": "voc", "train": 3},
            seed=0,
            config={"name": "r", "engine": "torchvision"},
            seconds=1.0,
            environment={"device": "cpu", "commit": None},
        )
    )
    code, shown = called("--backbone", file, "--name", "n", "--results", "runs", capsys=capsys)
    assert code == 0, shown
    text = Path("releases/n/README.md").read_text()
    front = ModelCard(text).data.to_dict()
    assert front["license"] == "mit"
    assert front["library_name"] == "timm"
    assert "cutmix" in front["tags"]
    (index,) = front["model-index"]
    assert index["results"][0]["metrics"][0]["value"] == 81.25
    wanted = ["43.2", "| epochs | 9 |", "method: cutmix", "Unknown: nothing", "timm.create_model"]
    for words in (*wanted, net.fingerprint(), "equal", "mean (0.5, 0.4, 0.3)"):
        assert words in text, words
    assert "In torchvision: it has no resnet10t" in text
    assert "data: world" in text
    assert "/home/me" not in text
    plain = release.card(release.Release(backbone=net, name="n", licence="MIT"), "")
    assert "No transfer of it has been measured" in plain


def test_what_the_card_says_of_torchvision_is_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = replace(tame("resnet18", num_classes=3), provenance=COMPLETE)
    described = release.Release(backbone=net, name="n", licence="MIT", repository="owner/n")
    text = release.card(described, "")
    assert "hf-hub:owner/n" in text
    assert "--to detectron2" in text
    net.save(Path("n/backbone.pth"))
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "vision" in b]
    found: dict = {}
    exec(block, found)
    assert torch.equal(found["model"].fc.weight, net.weights["fc.weight"])


def test_what_is_refused(net, file, capsys, tmp_path):
    weights = dict(net.weights)
    weights["fc.bias"] = torch.full_like(weights["fc.bias"], float("nan"))
    replace(net, weights=weights).save(Path("nan.pth"))
    gaps = replace(COMPLETE, commit=None, top1=None)
    replace(net, provenance=gaps).save(Path("gaps.pth"))
    Path("cut.pth").write_bytes(file.read_bytes()[:5000])
    Path("releases/there").mkdir(parents=True)
    before = sorted(os.listdir())
    for words, wanted in (
        (["--backbone", "nan.pth", "--name", "n"], "not fit for a release: NaN"),
        (["--backbone", "gaps.pth", "--name", "n"], "of itself: top1, commit"),
        (["--backbone", "cut.pth", "--name", "n"], "cut short"),
        (["--backbone", file, "--name", "there"], "releases/there exists"),
        (["--backbone", file, "--name", "cutmix-resnet50"], "in our list already"),
        (["--backbone", file, "--name", "a/b"], "--name is 'a/b'"),
        (["--backbone", file], "--name is missing"),
        (["--backbone", file, "--name", "n", "--url", "x"], "--url is 'x'"),
        (["--backbone", file, "--name", "n", "--push", "owner/n"], "must be hf:owner/name"),
        (["--name", "n"], "--backbone is missing"),
        (["--backbone", file, "--name", "n", "--results", "none"], "no folder none"),
    ):
        code, shown = called(*words, capsys=capsys)
        assert (code, wanted in shown) == (2, True), (words, shown)
    assert sorted(os.listdir()) == before
    code, shown = called("--backbone", file, "--name", "n", licence=None, capsys=capsys)
    assert (code, "--licence is missing" in shown) == (2, True)
    assert os.listdir("releases") == ["there"]


def test_gaps_are_said(net, file, capsys, monkeypatch):
    from tools import download

    replace(net, provenance=replace(COMPLETE, commit=None, top1=None)).save(Path("gaps.pth"))
    code, shown = called("--backbone", "gaps.pth", "--name", "n", "--allow-unknown", capsys=capsys)
    assert (code, "no address yet: --url is missing" in shown) == (0, True), shown
    assert "Unknown: top1, commit" in Path("releases/n/README.md").read_text()
    monkeypatch.setattr(hub, "LIST", Path("releases/n/entry.yaml"))
    download.main(["--list"])
    assert "  no address yet  trained with" in capsys.readouterr().out


def test_an_export_that_is_not_the_network_is_no_release(file, capsys, monkeypatch):
    from transfer.formats import to_timm

    real = to_timm.verify_timm

    def spoiled(backbone, folder):
        levels = [replace(level, difference=level.largest) for level in
                  real(backbone, folder).levels]  # fmt: skip
        return replace(real(backbone, folder), levels=tuple(levels))

    monkeypatch.setattr(to_timm, "verify_timm", spoiled)
    code, shown = called("--backbone", file, "--name", "n", capsys=capsys)
    assert (code, "not the same function" in shown) == (2, True)
    assert not Path("releases").exists()


def test_an_architecture_of_our_own(net, tmp_path):
    ours = replace(tame("resnet20_cifar", input_size=(3, 32, 32)), provenance=COMPLETE)
    described = release.Release(backbone=ours, name="n", licence="MIT")
    release.make(described, tmp_path / "n")
    assert sorted(os.listdir(tmp_path / "n")) == [
        "README.md", "backbone.pth", "entry.yaml", "model.safetensors"]  # fmt: skip
    assert "timm.create_model" not in (tmp_path / "n" / "README.md").read_text()
    assert (
        hub.resolve(str(tmp_path / "n" / "model.safetensors")).fingerprint() == ours.fingerprint()
    )


def test_push(net, file, capsys, monkeypatch):
    import huggingface_hub

    calls = []

    class Stub:
        def create_repo(self, repository, *, exist_ok):
            calls.append(("create", repository, exist_ok))

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            calls.append(("upload", repo_id, sorted(os.listdir(folder_path)), commit_message))
            if repo_id == "owner/full":
                raise OSError("no space there")

    monkeypatch.setattr(huggingface_hub, "HfApi", Stub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    words = ["--backbone", file, "--push", "hf:owner/n"]
    code, shown = called(*words, "--name", "n", capsys=capsys)
    assert (code, "needs a token" in shown) == (2, True)
    assert not calls
    assert not Path("releases").exists()

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    code, shown = called(*words, "--name", "n", capsys=capsys)
    assert code == 0, shown
    assert calls[0] == ("create", "owner/n", True)
    assert calls[1][1:] == ("owner/n", sorted(os.listdir("releases/n")), "Release n")
    entry = yaml.safe_load(Path("releases/n/entry.yaml").read_text())["backbones"]["n"]
    assert entry["url"] == "https://huggingface.co/owner/n/resolve/main/backbone.pth"
    assert "local-dir:" not in Path("releases/n/README.md").read_text()
    assert json.loads(Path("releases/n/config.json").read_text())["architecture"] == "resnet10t"

    words[-1] = "hf:owner/full"
    code, shown = called(*words, "--name", "m", capsys=capsys)
    assert (code, "no space there The release is complete in releases/m" in shown) == (2, True)


def test_what_is_unknown_of_a_foreign_backbone():
    assert release.unknown(COMPLETE) == []
    found = release.unknown(Provenance(source="https://x/y", dataset="ImageNet"))
    assert found[0] == "recipe"
    assert "dataset" not in found
    assert "source_sha256" in found


def test_a_copy_that_fails_leaves_nothing(file, capsys):
    Path("full").write_text("no folder")
    before = sorted(os.listdir())
    code, shown = called("--backbone", file, "--name", "n", "--to", "full", capsys=capsys)
    assert (code, "full/n cannot be written" in shown) == (2, True), shown
    assert sorted(os.listdir()) == before


PLANTED = {
    "data": "/mnt/pl4nted-disk/pl4nted-user/world",
    "init": "../pl4nted-folder/start",
    "note": "from C:\\Users\\Pl4nted User\\nets\\a.pth and ~pl4nted-user/b",
    "more": ["file:///home/pl4nted-user/c", "\\\\pl4nted-server\\share\\d", "nas-pl4nted:/e/f"],
    "loose": "a run of pl4nted-user on pl4nted-host.cluster",
    "link": "http://pl4nted-host:8000/g.pth",
    "secret": "https://example.org/h.pth?token=pl4nted",
    "kept": "https://example.org/i.pth, and/or 1/4",
}


def test_nothing_private_is_told(net, monkeypatch, tmp_path, capsys):
    """Planted in the recipe, in what a foreign file states, in its source and in results."""
    monkeypatch.setattr("socket.gethostname", lambda: "pl4nted-host.cluster")
    monkeypatch.setenv("USER", "pl4nted-user")
    monkeypatch.setenv("LOGNAME", "pl4nted-user")
    planted = replace(
        COMPLETE,
        recipe={**COMPLETE.recipe, **PLANTED},
        source="/home/pl4nted-user/nets/foreign.pth",
        stated={"conventions": "timm's config.json in /home/pl4nted-user/nets"},
        versions={"torch": "2.11 (/opt/pl4nted-env/lib)"},
    )
    described = replace(net, provenance=planted)
    rival = {**net.describe(), "method": "/home/pl4nted-user/rival.pth", "fingerprint": "0" * 16}
    results = [
        Result(
            task="detection", metric="AP50", metrics={"AP50": 43.2, "AP": 20.0}, backbone=backbone,
            data={"name": "pl4nted-user-voc", "train": 3}, seed=0, seconds=1.0,
            config={"name": "r", "engine": "torchvision", "data": "/mnt/pl4nted-disk/voc"},
            environment={"device": "cpu", "commit": None},
        )
        for backbone in (described.describe(), rival)
    ]  # fmt: skip
    ours = release.Release(backbone=described, name="n", licence="MIT", results=results)
    release.make(ours, tmp_path / "n")
    files = {path.name: path.read_bytes() for path in (tmp_path / "n").iterdir()}
    assert len(files) == 5
    for name, content in files.items():
        for text in (content, content.replace(b"\\", b"")):
            assert b"pl4nted" not in text.lower(), name
    read = Backbone.load(tmp_path / "n" / "backbone.pth")
    assert read.fingerprint() == net.fingerprint()
    assert read.provenance.recipe["data"] == "world"
    assert read.provenance.recipe["kept"] == PLANTED["kept"]
    assert read.recipe_hash is not None
    assert read.provenance.source == "foreign.pth"
    logged = capsys.readouterr().err
    assert "left out of the release: recipe.init: '../pl4nted-folder/start'" in logged
    assert "left out of the release: results.data.name: 'pl4nted-user' becomes 'private'" in logged
    card = files["README.md"].decode()
    assert "43.2" in card
    assert "rival.pth" in card


def test_names_change_no_class_and_no_key(net, monkeypatch, tmp_path):
    """They are refused there, unless they may stand."""
    monkeypatch.setenv("LOGNAME", "martin")
    monkeypatch.setenv("SUDO_USER", "train")
    recipe = COMPLETE.recipe | {"data": "world", "dataset": {"train": 1, "classes": ["martin"]}}
    facts = replace(COMPLETE, classes=["purple martin", "martinet"], recipe=recipe)
    described = replace(net, provenance=facts)
    ours = release.Release(backbone=described, name="martins", licence="MIT")
    with pytest.raises(UsageError, match="--public") as refused:
        release.make(ours, tmp_path / "n")
    for words in ("README.md, line 79: 'train'", "config.json, line 7: 'martin'"):
        assert words in str(refused.value)
    release.make(replace(ours, public=["martin", "train"]), tmp_path / "n")
    read = Backbone.load(tmp_path / "n" / "backbone.pth").provenance
    assert (read.classes, read.recipe) == (facts.classes, facts.recipe)


def test_what_is_replaced_is_logged():
    value = {
        "recipe": {"data": "/mnt/x/world", "arch": "resnet50", "martin": 1},
        "stated": {"notes": ["of martin_runs, in ~/a/b.pth", "martini of resnet50"]},
        "classes": ["martin"],
    }
    lines: list[str] = []
    cleaned = privacy.clean(value, ["martin", "resnet"], lines.append)
    assert cleaned == value | {
        "recipe": value["recipe"] | {"data": "world"},
        "stated": {"notes": ["of private_runs, in b.pth", "martini of resnet50"]},
    }
    assert lines == [
        "recipe.data: '/mnt/x/world' becomes 'world'",
        "stated.notes: 'martin' becomes 'private'",
        "stated.notes: '~/a/b.pth' becomes 'b.pth'",
    ]
    assert privacy.find_names("resnet50 of Martin's", ["martin", "resnet"]) == {"martin"}


@pytest.mark.parametrize(
    "piece",
    ["://", "/", "\\", "a@", "~a", "?token", "&key", "://[", "http://[", "/home/", "file:/", "C:/",
     "\\\\a", "/1", " /1", "a.b:", "@-.", "/Users", "//m/0a", "http://a.", "http://a?b&token"],
)  # fmt: skip
def test_any_text_is_searched_in_linear_time(piece, tmp_path):
    text = piece * (60_000 // len(piece))
    started = time.process_time()
    for one in (text, f"http://{text}", f"C:{text}", f"a {text}'"):
        privacy.private_names(one)
        privacy.clean(one, ["someone"], lambda line: None)
    (tmp_path / "a.md").write_text(text)
    privacy.search(tmp_path, ["someone"])
    assert time.process_time() - started < 3


def test_what_cannot_be_taken_out_is_refused(net, monkeypatch, tmp_path):
    monkeypatch.setenv("LOGNAME", "resnet10t")  # a user of the network's own name
    licence = "see /home/pl4nted/LICENCE."
    with pytest.raises(UsageError, match=r"--licence .* private: '/home/pl4nted/LICENCE'\. Give"):
        release.Release(backbone=net, name="n", licence=licence)
    public = ["/home/pl4nted/LICENCE"]
    ours = release.Release(backbone=net, name="n", licence=licence, public=public)
    with pytest.raises(UsageError, match=r"README.md, line \d+: 'resnet10t'.*--public"):
        release.make(ours, tmp_path / "n")
    assert os.listdir(tmp_path) == []
    release.make(replace(ours, public=["resnet10t", *public]), tmp_path / "n")


def test_what_no_list_can_hold_is_refused_by_the_name_of_the_release(net, tmp_path):
    odd = replace(net, provenance=replace(COMPLETE, source="a\x07b"))
    with pytest.raises(UsageError, match=rf"in a list: {tmp_path}/n/entry.yaml, 'n': origin"):
        release.make(release.Release(backbone=odd, name="n", licence="MIT"), tmp_path / "n")


def test_every_place_of_a_file_is_searched(tmp_path):
    """Each kind of file, with a path where only a reader of that kind finds it."""
    import safetensors.torch

    path, names = "/srv/pl4nted/x", ["pl4nted"]
    tensor = torch.frombuffer(bytearray(b"-- /home/pl4nted/x -- "), dtype=torch.uint8)
    torch.save({"a": {"b": [path]}}, tmp_path / "a.pth")
    torch.save({"a": tensor}, tmp_path / "b.pth")
    safetensors.torch.save_file({"w": tensor}, tmp_path / "c.safetensors")
    written = "\\u002fsrv\\u002fother"  # of JSON and of YAML
    header = {"k": f'{{"deep": "{written}"}}'}
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "d.safetensors", header)
    (tmp_path / "e.json").write_text(f'{{"a": ["{written}"]}}')
    (tmp_path / "f.md").write_text(f"# one\n\nin `{path}`\n")
    (tmp_path / "g.yaml").write_text(f'a: "{written}"\n')
    (tmp_path / "h.json").write_text('["https://example.org/a", "1/4"]')
    found = "\n".join(privacy.search(tmp_path, names))
    for name in ("a.pth", "b.pth", "c.safetensors", "d.safetensors", "e.json", "f.md", "g.yaml"):
        assert f"{name}, " in found, name
    assert "h.json" not in found


@pytest.mark.parametrize(
    "text",
    ["# a", "<b onclick=x>", "a | b", "[a](https://x)", "a\n\n## b", "```\nx", "- a", "&lt;"],
)
def test_fields_of_the_card_are_text(text, net):
    """They make no heading, table cell, link or HTML of their own, wherever they stand."""
    from markdown_it import MarkdownIt

    facts = replace(COMPLETE, dataset=text, stated={"note": text}, recipe={"note": text})
    made = replace(net, provenance=facts)
    card = release.card(release.Release(backbone=made, name="n", licence="MIT"), text)
    plain = release.card(release.Release(backbone=net, name="n", licence="MIT"), "plain")
    parser = MarkdownIt("commonmark").enable("table")

    def shape(card: str) -> list[str]:
        tokens = parser.parse(card.split("---\n", 2)[2])
        inside = [inner for token in tokens for inner in token.children or ()]
        kinds = [token.type for token in (*tokens, *inside)]
        return [k for k in kinds if re.match("heading|html|link|td|th|image|bullet|fence", k)]

    assert shape(card).count("td_open") == shape(plain).count("td_open") + 2  # `stated`
    assert [k for k in shape(card) if "td" not in k] == [k for k in shape(plain) if "td" not in k]


@pytest.mark.parametrize("licence", ["", "  ", "MIT\n# x", "\x1b[1m"])
def test_a_licence_is_needed(licence, net):
    with pytest.raises(UsageError, match="--licence is"):
        release.Release(backbone=net, name="n", licence=licence)
