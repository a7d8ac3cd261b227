"""tools/evaluate.py --suite, as a user calls it: what is asked for, kills, what may not change."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from subprocess import DEVNULL

import pytest

from pretrain.errors import UsageError
from tests.forked import start
from tests.tools.test_pretraining_tools import run
from tests.tools.test_tools import fails
from tools.evaluate import data_of
from tools.support.command import Parser
from transfer import task
from transfer.evaluation import suites
from transfer.evaluation.config import OodConfig


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
    assert data_of(given, wanted) == {key: Path(name) for key, name in found.items()}


@pytest.mark.parametrize(
    ("given", "wanted", "said"),
    [
        (["d"], ["ood", "calibration"], "--data d: several suites want SUITE=DIR each: ood=DIR"),
        (["d", "e"], ["ood"], "--data d: several suites want SUITE=DIR"),
        (["ood=d", "ood=e"], ["ood"], "--data names ood twice: d and e"),
        (["ood=d"], ["calibration"], "--suite does not name ood"),
        (["ood=d"], ["ood", "calibration"], "calibration has none; give calibration=DIR"),
        (["nowhere"], ["ood"], "there is no folder nowhere"),
        (["ood="], ["ood"], "there is no folder (empty)"),
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


def test_mistakes(backbone_file, worlds, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = worlds["classification"]
    words = ["--backbone", backbone_file, "--device", "cpu"]
    for more, said in (
        (["--suite", "oood", "--data", data], "there is no suite 'oood'; there are robustness"),
        (["--suite", "ood,ood", "--data", data], "each suite may stand once"),
        (["--suite", "", "--data", data], "there is no suite ''"),
        (["--suite", "calibration", "--data", "nowhere"], "there is no folder nowhere"),
        (["--suite", "calibration", "--data", worlds["detection"]], "no images"),
        (["--data", data, data], "--data names 2 folders; without --suite give one"),
        (["--suite", "calibration", "--data", data, "--calibration.bins", "0"], "calibration.bins"),
        (["--suite", "calibration", "--data", data, "--calibration.bin", "3"], "calibration.bins"),
    ):
        fails("evaluate", *words, *more, capsys=capsys, said=said)
    assert list(tmp_path.iterdir()) == []


def arguments(backbone_file: Path, worlds: dict[str, Path], out: str) -> list[object]:
    data = worlds["classification"]
    return ["--backbone", backbone_file, "--device", "cpu", "--workers", 0, "--batch-size", 8,
            "--class-order", "alphabetical", "--suite", "calibration,robustness",
            "--robustness.parts", "attacks", "occlusion", "between",
            "--data", f"robustness={data}", f"calibration={data}", "--out", out]  # fmt: skip


def measured(folder: Path) -> dict:
    result = json.loads((folder / "result.json").read_text())
    return {key: result[key] for key in ("metric", "metrics", "data", "config", "backbone")}


def test_a_run_that_is_killed_again_and_again(backbone_file, worlds, tmp_path, monkeypatch):
    """After each new part, by SIGKILL: the last one continues to the same values."""
    monkeypatch.chdir(tmp_path)
    run("evaluate", *arguments(backbone_file, worlds, "whole"))
    whole = measured(Path("whole"))
    assert whole["metric"].startswith("robustness.")  # the order of the suites, not of the words
    assert list(whole["metrics"]) == ["robustness", "calibration"]

    words, kills = arguments(backbone_file, worlds, "killed"), 0
    parts = len(list(Path("whole/parts").rglob("*.*")))
    while not Path("killed/result.json").exists():
        before = len(list(Path("killed").glob("parts/*/[!.]*")))
        process = start("evaluate", *words, stdout=DEVNULL, stderr=DEVNULL)
        while process.poll() is None:
            if len(list(Path("killed").glob("parts/*/[!.]*"))) > before:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                break
            time.sleep(0.002)
        assert kills <= parts
    assert kills >= min(3, parts)
    assert measured(Path("killed")) == whole


def test_what_may_not_change_under_a_run(backbone_file, worlds, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(worlds["classification"], "data")
    words = ["--backbone", backbone_file, "--device", "cpu", "--workers", 0, "--out", "run",
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
    Path("moved").rename("data")
    next(Path("data").rglob("val/*/*.*")).unlink()
    fails("evaluate", *words, "data", capsys=capsys, said="the data has changed")


def test_an_interrupt_says_how_to_go_on(backbone_file, worlds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("err.txt", "w") as err:
        process = start(
            "evaluate", *arguments(backbone_file, worlds, "out"), stdout=err, stderr=err
        )
        while process.poll() is None and not list(Path("out").glob("parts/*/[!.]*")):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert Path("err.txt").read_text().splitlines()[-1] == "interrupted; the same command goes on"
    assert not Path("out/result.json").exists()
