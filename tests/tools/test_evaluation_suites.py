"""tools/evaluate.py --suite, as a user calls it: what is asked for, kills, what may not change."""

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from tests.forked import start
from tests.tools.test_pretraining_tools import run
from tests.tools.test_tools import fails
from tools.evaluate import data_of
from tools.support.command import Parser
from transfer import task
from transfer.evaluation import suites
from transfer.evaluation.config import OodConfig
from transfer.evaluation.session import Session


@pytest.mark.parametrize(
    ("given", "wanted", "found"),
    [
        (["d"], ["ood"], {"ood": "d"}),
        (["ood=d"], ["ood"], {"ood": "d"}),
        (["ood=d", "calibration=e"], ["ood", "calibration"], {"ood": "d", "calibration": "e"}),
        (["a=b"], ["ood"], {"ood": "a=b"}),  # a folder of that name
    ],
)
def test_the_data_of_each_suite(given, wanted, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d", "e", "a=b"):
        Path(name).mkdir()
    assert data_of(given, wanted) == found


@pytest.mark.parametrize(
    ("given", "wanted", "said"),
    [
        (["d"], ["ood", "calibration"], "--data d: several suites want SUITE=DIR each: ood=DIR"),
        (["d", "e"], ["ood"], "--data d: several suites want SUITE=DIR"),
        (["ood=d", "ood=e"], ["ood"], "--data names ood twice: d and e"),
        (["ood=d"], ["calibration"], "--suite does not name ood"),
        (["ood=d"], ["ood", "calibration"], "calibration has none; give calibration=DIR"),
        (["ood="], ["ood"], "its folder is empty text; give ood=DIR"),
    ],
)
def test_data_of_no_suite(given, wanted, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d", "e"):
        Path(name).mkdir()
    with pytest.raises(UsageError) as error:
        data_of(given, wanted)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["a"], ["a"]),
        (["a,b", "c d"], ["a,b", "c d"]),
        (["[a, b]"], ["a", "b"]),
        (["a", "--ood.foreign", "b"], ["b"]),
        ([], []),
    ],
)
def test_folders_as_words(words, found):
    parser = Parser()
    parser.add_class_arguments(OodConfig, "ood", fail_untyped=True)
    given = ["--ood.foreign", *words] if words else []
    assert parser.parse(given).ood.foreign == found


def test_every_suite_has_what_the_tool_and_the_report_read():
    assert len({suite.section for suite in suites.SUITES}) == len(suites.SUITES)
    for suite in suites.SUITES:
        assert task.load(f"{suite.module}:open_data")
        assert task.load(f"{suite.module}:evaluate")
        assert task.load(suite.config)()  # every option has a default
        keys = [metric.key for metric in suite.metrics]
        assert len(set(keys)) == len(keys) > 0


def test_mistakes(backbone, backbone_file, worlds, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = worlds["classification"]
    words = ["--backbone", backbone_file, "--device", "cpu"]
    for more, said in (
        (["--suite", "oood", "--data", data], "there is no suite 'oood'; there are robustness"),
        (["--suite", "ood,ood", "--data", data], "each suite may stand once"),
        (["--suite", "", "--data", data], "there is no suite ''"),
        (["--suite", "calibration", "--data", "nowhere"], "there is no folder nowhere"),
        (["--suite", "calibration", "--data", worlds["detection"]], "no images"),
        (
            ["--suite", "omnibenchmark", "--data", data, "--split", "val"],
            "--split is val, but omnibenchmark does not know it",
        ),
        (
            ["--suite", "calibration", "--data", data, "--ood.noise", "3"],
            "options --ood.* are given, but --suite does not name ood",
        ),
        (["--data", data, "--calibration.bins", "3"], "--suite does not name calibration"),
        (["--data", data, data], "--data names 2 folders; without --suite give one"),
        (["--suite", "calibration", "--data", data, "--calibration.bins", "0"], "calibration.bins"),
        (["--suite", "calibration", "--data", data, "--calibration.bin", "3"], "calibration.bins"),
    ):
        fails("evaluate", *words, *more, capsys=capsys, said=said)
    broken = replace(backbone, weights={**backbone.weights})
    broken.weights["fc.bias"] = torch.full_like(broken.weights["fc.bias"], torch.nan)
    broken.save(tmp_path / "nan.pth")
    fails("evaluate", "--backbone", "nan.pth", "--suite", "robustness", "--data", data,
          "--class-order", "alphabetical", capsys=capsys,
          said="weights of the backbone are infinite or nan: fc.bias")  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["nan.pth"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    spec = BackboneSpec(arch="test_resnet", input_size=(3, 32, 32), num_classes=10)
    path = tmp_path_factory.mktemp("tiny") / "tiny.pth"
    Backbone.of(spec.create(10, seed=3), spec, Provenance(seed=3)).save(path)
    return path


def arguments(tiny: Path, worlds: dict[str, Path], out: str) -> list[object]:
    data = worlds["classification"]
    return ["--backbone", tiny, "--device", "cpu", "--workers", 0, "--batch-size", 8,
            "--class-order", "alphabetical", "--suite", "calibration,ood,robustness",
            "--robustness.parts", "attacks", "occlusion", "between", "--out", out,
            "--data", f"robustness={data}", f"calibration={data}", f"ood={data}"]  # fmt: skip


def measured(folder: Path) -> dict:
    result = json.loads((folder / "result.json").read_text())
    return {key: result[key] for key in ("metric", "metrics", "data", "config", "backbone")}


def test_a_run_that_stops_after_each_part(tiny, worlds, tmp_path, monkeypatch):
    """It continues to the same values, and computes no part twice."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())
    run("evaluate", *arguments(tiny, worlds, "whole"))
    whole = measured(Path("whole"))
    assert whole["metric"].startswith("robustness.")  # the order of the suites, not of the words
    assert list(whole["metrics"]) == ["robustness", "ood", "calibration"]

    computed: list[str] = []

    def stopping(method):
        def keep(session, name, compute):
            def once():
                if len(computed) > before:
                    raise KeyboardInterrupt
                computed.append(f"{session.suite}/{name}")
                return compute()

            return method(session, name, once)

        return keep

    monkeypatch.setattr(Session, "part", stopping(Session.part))
    monkeypatch.setattr(Session, "tensors", stopping(Session.tensors))
    while not Path("stopped/result.json").exists():
        before = len(computed)
        with suppress(KeyboardInterrupt):
            run("evaluate", *arguments(tiny, worlds, "stopped"))
        assert len(computed) == before + 1
    kept = Path("whole/parts").rglob("*.*")
    assert sorted(computed) == sorted(f"{one.parent.name}/{one.stem}" for one in kept)
    assert measured(Path("stopped")) == whole


def test_what_may_not_change_under_a_run(tiny, worlds, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(worlds["classification"], "data")
    words = ["--backbone", tiny, "--device", "cpu", "--workers", 0, "--out", "run",
             "--class-order", "alphabetical", "--suite", "calibration", "--data"]  # fmt: skip
    run("evaluate", *words, "data")
    capsys.readouterr()
    fails("evaluate", *words, "data", capsys=capsys, said="finished run")
    Path("run/result.json").unlink()
    fails("evaluate", *words, "data", "--calibration.bins", "3", capsys=capsys, said="bins")
    Path("data").rename("moved")
    run("evaluate", *words, "moved", "--batch-size", 4)  # the same data elsewhere
    capsys.readouterr()
    Path("run/result.json").unlink()
    part = Path("run/parts/calibration/temperature.json")
    content = json.loads(part.read_text())
    part.write_text(json.dumps(content | {"run": "another"}))
    fails("evaluate", *words, "moved", capsys=capsys, said="is a part of another run. Remove it")
    part.write_text(json.dumps(content)[:-9])
    fails("evaluate", *words, "moved", capsys=capsys, said="cannot be read. Remove it")
    Path("moved").rename("data")
    next(Path("data").rglob("val/*/*.*")).unlink()
    fails("evaluate", *words, "data", capsys=capsys, said="the data has changed")


@pytest.mark.parametrize("content", [b"", b"[1]", b"PK", None])
def test_a_damaged_part(content, tmp_path):
    session = Session(fabric=Fabric(accelerator="cpu"), folder=tmp_path, suite="ood")
    for keep, name in ((session.part, "a.json"), (session.tensors, "a.pth")):
        path = tmp_path / "parts/ood" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if content is None else path.write_bytes(content)
        with pytest.raises(UsageError) as error:
            keep("a", dict)
        assert f"{path}, a finished part of this run, cannot be read. Remove it" in str(error.value)


def test_an_interrupt_says_how_to_go_on(tiny, worlds, tmp_path):
    words = ["--backbone", tiny, "--device", "cpu", "--workers", 0, "--class-order", "alphabetical",
             "--suite", "robustness", "--robustness.pgd_steps", 1000, "--out", "out",
             "--data", worlds["classification"]]  # fmt: skip
    err, begun = tmp_path / "err.txt", tmp_path / "out" / "config.yaml"
    with err.open("w") as stream:
        process = start("evaluate", *words, cwd=tmp_path, stdout=stream, stderr=stream)
        while process.poll() is None and not begun.exists():
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert err.read_text().splitlines()[-1] == "interrupted; the same command goes on"
    assert not (tmp_path / "out" / "result.json").exists()
