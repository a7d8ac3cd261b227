"""What lies in a folder of runs besides good results: each is named, and the rest is read."""

import json
import os
from dataclasses import asdict

import pytest

from pretrain.errors import UsageError
from tests.transfer.test_report import result
from transfer.report import read_results, read_runs
from transfer.report.results import GRID_FORMAT

GOOD = asdict(result("pretrain", "none", 0, 1.0))


def put(folder, name: str, text: str | bytes) -> None:
    (folder / name).mkdir(parents=True)
    file = folder / name / "result.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


def changed(**fields) -> str:
    return json.dumps(GOOD | fields)


def nested(depth: int) -> dict:
    content: dict = {}
    for _ in range(depth):
        content = {"a": content}
    return content


BAD = {
    "torn": (json.dumps(GOOD)[:200], "cannot be read as JSON"),
    "empty": ("", "cannot be read as JSON"),
    "foreign": ('{"format": "other"}', "no result of this project (format 'other'"),
    "unformatted": ('{"format": [{"a": 1}]}', "no result of this project"),
    "list": ("[1, 2]", "expected `object`, got [1, 2]"),
    "number": ("3", "expected `object`, got 3"),
    "null": ("null", "expected `object`, got None"),
    "bytes": (b"\xff\xfe\x00", "no text in UTF-8"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "deep_object": ('{"a":' * 100_000, "nested too deeply"),
    "digits": ('{"a": ' + "9" * 5000 + "}", "cannot be read as JSON"),
    "surrogate": (json.dumps(GOOD).replace('"net"', '"\\ud800"'), "no text in UTF-8"),
    "missing_field": (json.dumps({"format": "result/2"}), "missing required field `task`"),
    "wrong_task": (changed(task="juggling"), "task 'juggling'"),
    "task_list": (changed(task=["pretrain"]), "task: expected `str`, got ['pretrain']"),
    "metrics_list": (changed(metrics=[1]), "metrics: expected `object`, got [1]"),
    "text_metric": (changed(metrics={"top1": "91"}), "metrics.top1: expected `float`, got '91'"),
    "true_metric": (changed(metrics={"top1": True}), "metrics.top1: expected `float`, got True"),
    "nan": (
        changed(metrics={"top1": float("nan")}),
        "expected a finite number of at most 1e12 in size, got nan",
    ),
    "infinite": (changed(metrics={"top1": 1}).replace('"top1": 1', '"top1": 1e999'), "got inf"),
    "huge": (changed(metrics={"top1": 10**399}), "metrics.top1: Number out of range"),
    "very_large": (changed(metrics={"top1": 1e300}), "of at most 1e12 in size, got 1e+300"),
    "percent": (
        changed(metrics={"top1": 781.0}),
        "metrics.top1 is 781.0; it must be between 0 and 100",
    ),
    "negative": (changed(metrics={"top1": -0.1}), "is -0.1; it must be between 0 and 100"),
    "fraction": (
        changed(task="captioning", metrics={"CIDEr": 77.6}),
        "metrics.CIDEr is 77.6; it must be between 0 and 10",
    ),
    "unbounded": (
        changed(task="calibration", metrics={"nll": -1.0}),
        "metrics.nll is -1.0; it must be 0 or more",
    ),
    "best_epoch": (
        changed(metrics={"top1": 1.0, "best_epoch": [1]}),
        "best_epoch: expected `int | null`, got [1]",
    ),
    "nested_350": (changed(config=nested(350)), "nested too deeply"),
    "nested_900": (changed(config=nested(900)), "nested too deeply"),
    "config_name": (changed(config={"name": ["r"]}), "config.name: expected `str`, got ['r']"),
    "config_data": (changed(config={"data": 3}), "config.data: expected `str | null`, got 3"),
    "memory": (changed(environment={"peak_memory_mib": 10**399}), "out of range"),
    "device": (
        changed(environment={"device": {}}),
        "environment.device: expected `str | null`, got {}",
    ),
    "data_list": (changed(data=["d"]), "data: expected `object`, got ['d']"),
    "backbone": (changed(backbone={"name": "x"}), "backbone: Object missing required field `arch`"),
    "method": (
        changed(backbone=GOOD["backbone"] | {"method": None}),
        "backbone.method: expected `str`, got None",
    ),
    "seed": (
        changed(backbone=GOOD["backbone"] | {"seed": "0"}),
        "backbone.seed: expected `int | null`, got '0'",
    ),
    "epochs": (
        changed(backbone=GOOD["backbone"] | {"epochs": [3]}),
        "backbone.epochs: expected `float | null`, got [3]",
    ),
    "data": (changed(data={"train": 3}), "data: Object missing required field `name`"),
    "config": (changed(config="x"), "config: expected `object`, got 'x'"),
    "seconds": (changed(seconds=None), "seconds: expected `float`, got None"),
    "long": (changed(task="x" * 9999), "..."),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_and_left_out(name, tmp_path):
    text, said = BAD[name]
    put(tmp_path, "good", json.dumps(GOOD))
    put(tmp_path, f"bad/{name}", text)
    found = read_runs(tmp_path)
    assert [run.folder for run in found.runs] == ["good"]
    (line,) = found.complaints
    assert line.startswith(f"bad/{name}/result.json: ")
    assert said in line
    assert "\n" not in line
    assert len(line) < 300


def test_what_a_run_keeps_for_itself_is_no_other_run(tmp_path):
    put(tmp_path, "a", json.dumps(GOOD))
    put(tmp_path, "a/checkpoints/old", json.dumps(GOOD))
    put(tmp_path, "a/detection", json.dumps(GOOD))  # but a run may lie inside another
    assert [run.folder for run in read_runs(tmp_path).runs] == ["a", "a/detection"]


def test_a_diverged_loss_does_not_hide_what_was_measured(tmp_path):
    put(tmp_path, "a", changed(metrics={"top1": 10.0, "val_loss": float("nan")}))
    assert len(read_runs(tmp_path).runs) == 1


def test_links_are_followed_once_and_loops_are_named(tmp_path):
    put(tmp_path / "elsewhere", "a", json.dumps(GOOD))
    put(tmp_path / "runs", "b", json.dumps(GOOD))
    runs = tmp_path / "runs"
    (runs / "linked").symlink_to(tmp_path / "elsewhere")
    (runs / "again").symlink_to(runs / "b")
    (runs / "loop").symlink_to(runs)
    (runs / "self").symlink_to(runs / "self")
    (runs / "gone").symlink_to(tmp_path / "nowhere")
    found = read_runs(runs)
    assert sorted(run.folder for run in found.runs) == ["b", "linked/a"]
    told = {line.split(":")[0]: line for line in found.complaints}
    assert sorted(told) == ["again", "loop", "self"]
    assert "links to b, which is read already" in told["again"]


def test_what_is_no_file_is_left_out(tmp_path):
    put(tmp_path, "good", json.dumps(GOOD))
    (tmp_path / "folder" / "result.json").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "result.json")  # opening it would wait for ever
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "result.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "large").mkdir()
    with open(tmp_path / "large" / "result.json", "wb") as handle:
        handle.truncate(2**40)
    found = read_runs(tmp_path)
    assert len(found.runs) == 1
    told = {line.split("/")[0]: line for line in found.complaints}
    assert sorted(told) == ["folder", "gone", "large", "pipe"]
    assert "is no file" in told["pipe"]
    assert "1,099,511,627,776 bytes" in told["large"]


def test_a_locked_folder_is_named(tmp_path, monkeypatch):
    put(tmp_path, "good", json.dumps(GOOD))
    put(tmp_path, "locked", json.dumps(GOOD))
    listed = os.scandir

    def scandir(folder):  # permissions do not hold where tests run as root
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = read_runs(tmp_path)
    assert [run.folder for run in found.runs] == ["good"]
    assert found.complaints == ("locked: Permission denied",)


def cell(method: str, state: str, folder: str, **more) -> dict:
    backbone = GOOD["backbone"] | {"method": method}
    cell = {"task": "pretrain", "backbone": backbone, "seed": 0, "folder": folder}
    return cell | {"state": state, "why": None} | more


def test_cells_of_a_grid(tmp_path):
    cells = [
        cell("none", "done", "runs/a"),
        cell("none", "done", "runs/b"),  # its result is gone
        cell("none", "failed", "runs/c", why="exit code 1"),
        cell("none", "failed", "runs/a2"),  # failed, then was run again by hand
        cell("none", "missing", "runs/d"),
        cell("none", "perhaps", "runs/e"),
        cell("none", "missing", "runs/f", backbone={}),
        "nonsense",
    ]
    grid = {"format": "grid/1", "cells": cells}
    put(tmp_path / "grid", "runs/a", json.dumps(GOOD))
    put(tmp_path / "grid", "runs/a2", json.dumps(GOOD))
    (tmp_path / "grid" / "grid.json").write_text(json.dumps(grid))
    found = read_runs(tmp_path)
    assert [(one.folder, one.state, one.why) for one in found.unfinished] == [
        ("grid/runs/b", "missing", "its result.json is gone or cannot be read"),
        ("grid/runs/c", "failed", "exit code 1"),
        ("grid/runs/d", "missing", None),
    ]
    assert "grid/runs/a" in found.unfinished[0].siblings
    assert [line.split(":")[0] for line in found.complaints] == [
        "grid/grid.json, cell 6",
        "grid/grid.json, cell 7",
        "grid/grid.json, cell 8",
    ]
    (tmp_path / "grid" / "grid.json").write_text('{"format": "grid/1", "cells": 3}')
    (told,) = read_runs(tmp_path).complaints
    assert told == "grid/grid.json: cells: expected `array`, got 3"


def test_a_grid_without_a_result_is_something_to_report(tmp_path):
    grid = {"format": "grid/1", "cells": [cell("none", "failed", "a", why="no memory")]}
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    assert read_runs(tmp_path).runs == ()
    assert len(read_runs(tmp_path).unfinished) == 1


def test_nothing_to_report(tmp_path):
    with pytest.raises(UsageError, match="no result"):
        read_results(tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        read_results(tmp_path / "none")
    put(tmp_path, "a", "{")
    with pytest.raises(UsageError, match=r"Left out:\n  a/result.json: cannot be read"):
        read_results(tmp_path)


def in_the_words_of_before(backbone: dict) -> dict:
    names = {"method": "arm", "recipe_hash": "variant"}
    return {names.get(key, key): value for key, value in backbone.items()}


def test_results_and_grids_of_before_are_read(tmp_path):
    backbone = GOOD["backbone"] | {"recipe_hash": "aaaa1111"}
    old = GOOD | {"format": "result/1", "backbone": in_the_words_of_before(backbone)}
    put(tmp_path, "a", json.dumps(old))
    row = cell("none", "missing", "b")
    row |= {"backbone": in_the_words_of_before(backbone)}
    (tmp_path / "grid.json").write_text(json.dumps({"format": "grid/1", "cells": [row]}))
    found = read_runs(tmp_path)
    assert found.complaints == ()
    assert found.runs[0].result.backbone == backbone
    assert found.unfinished[0].backbone == backbone
    put(tmp_path, "c", json.dumps({**old, "backbone": [1]}))
    put(tmp_path, "d", '{"format": "result/1"}')
    told = {line.split("/")[0]: line for line in read_runs(tmp_path).complaints}
    assert "backbone: expected `object`, got [1]" in told["c"]
    assert "backbone: expected `object`, got None" in told["d"]


def test_jobs_of_a_grid(tmp_path):
    jobs = [cell("none", "failed", "a", why="no memory"), "nonsense"]
    (tmp_path / "grid.json").write_text(json.dumps({"format": GRID_FORMAT, "jobs": jobs}))
    found = read_runs(tmp_path)
    assert [(job.folder, job.state, job.why) for job in found.unfinished] == [
        ("a", "failed", "no memory")
    ]
    assert found.complaints == ("grid.json, job 2: expected `object`, got 'nonsense'",)
