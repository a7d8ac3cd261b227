"""The grid's plan and its matching, without a process and without torch."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pretrain.errors import UsageError
from pretrain.files import holder
from pretrain.run import Result, Run
from transfer import grid
from transfer.grid import Job, JobStatus, job_status

PRINT = "0123456789abcdef"
BACKBONE = {"name": "resnet, cutmix", "arch": "resnet", "method": "cutmix", "fingerprint": PRINT,
            "recipe": None, "dataset": None, "epochs": None, "seed": 3}  # fmt: skip


@pytest.fixture
def data(tmp_path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def job(data) -> Job:
    config = {"name": "r", "backbone": "b.pth", "data": str(data), "epochs": 4,
              "loader": {"workers": 1}, "solver": {"lr": 0.1}, "seed": 3}  # fmt: skip
    return Job(
        task="detection",
        name="b",
        seed=3,
        backbone=BACKBONE,
        config=config,
        data={"name": "world", "train": 10},
        options=("--backbone", "b.pth", "--seed", "3"),
    )


def finish(job: Job, out: Path, *, config=None, data=None, fingerprint=PRINT, note=True) -> Run:
    """What the tool leaves."""
    run = Run(out / job.folder)
    config = {**job.config, **(config or {})}
    run.start(config, fingerprint if note else None)
    run.finish(
        Result(
            task=job.task,
            metric="AP50",
            metrics={"AP50": 43.21},
            backbone={**BACKBONE, "fingerprint": fingerprint},
            data={"name": "world", "train": 10, "test": 5, **(data or {})},
            seed=job.seed,
            config=config,
            seconds=2.0,
            environment={},
        )
    )
    return run


def test_a_result_that_matches_is_taken(job, tmp_path):
    assert job_status(job, tmp_path).state == "waiting"
    finish(job, tmp_path)
    status = job_status(job, tmp_path)
    assert status.state == "done"
    assert grid.headline(status.result) == "AP50 43.2"
    other = replace(status.result, task="captioning", metric="CIDEr", metrics={"CIDEr": 0.8421})
    assert grid.headline(other) == "CIDEr 84.2"  # in percent, as a table shows it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"solver": {"lr": 0.2}}}, "solver.lr: 0.2 there, 0.1 here"),
        ({"config": {"seed": 4}}, "seed: 4 there"),
        ({"config": {"data": "/elsewhere"}}, "data: '/elsewhere' there"),
        ({"fingerprint": "f" * 16}, "backbone: ffffffffffffffff there"),
        ({"fingerprint": "f" * 16, "note": False}, "backbone: ffffffffffffffff there"),
    ],
)
def test_another_result_is_an_error_not_overwritten(change, message, job, tmp_path):
    finish(job, tmp_path, **change)
    status = job_status(job, tmp_path)
    assert status.state == "failed"
    assert "another configuration is in this folder" in status.why
    assert message in status.why
    assert f"Give another --out, or remove {tmp_path / job.folder}." in status.why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 11}, "data, train: 11 there, 10 here"),
        ({"name": "other"}, "data, name: 'other' there"),
        ({"digest": "aa"}, "data, digest: 'aa' there, 'bb' here"),
    ],
)
def test_a_result_of_other_data_is_not_this_one(change, message, job, tmp_path):
    job = replace(job, data={**job.data, "digest": "bb"})
    finish(job, tmp_path, data=change)
    status = job_status(job, tmp_path)
    assert status.state == "failed"
    assert f"a result of other data is in this folder ({message}" in status.why
    assert f"Give another --out, or remove {tmp_path / job.folder}." in status.why


def test_a_result_of_before_has_no_digest(job, tmp_path):
    finish(job, tmp_path)
    assert job_status(replace(job, data={**job.data, "digest": "bb"}), tmp_path).state == "done"


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"loader": {"workers": 7}}},  # no bit depends on it
        {"config": {"backbone": "moved/b.pth"}},  # the fingerprint is what counts
        {"note": False},
    ],
)
def test_what_does_not_count_is_let_pass(change, job, tmp_path):
    finish(job, tmp_path, **change)
    assert job_status(job, tmp_path).state == "done"


def test_data_under_another_name_for_the_same_place(job, data, tmp_path, monkeypatch):
    monkeypatch.chdir(data.parent)
    finish(job, tmp_path, config={"data": "data"})
    assert job_status(job, tmp_path).state == "done"


def test_a_network_of_random_weights_is_known_by_what_it_was_given(job, tmp_path):
    run = finish(job, tmp_path)
    content = json.loads((run.folder / "result.json").read_text())
    content["backbone"]["fingerprint"] = "random"
    (run.folder / "result.json").write_text(json.dumps(content))
    assert job_status(job, tmp_path).state == "done"


def test_an_unfinished_run_is_taken_up_only_where_its_tool_would(job, tmp_path):
    run = Run(tmp_path / job.folder)
    run.start(job.config, PRINT)
    assert job_status(job, tmp_path).state == "waiting"
    for other in (
        replace(job, config={**job.config, "epochs": 5}),
        replace(job, config={**job.config, "backbone": "c.pth"}),
        replace(job, backbone={"fingerprint": "f" * 16}),
    ):
        status = job_status(other, tmp_path)
        assert status.state == "failed"
        assert re.search(r"was started (with another configuration|from another back)", status.why)


DEEP = "[" * 350 + "]" * 350
KEYS = ("task", "metric", "metrics", "backbone", "data", "seed", "config", "seconds", "format",
        "config.data", "config.backbone", "config.epochs", "config.loader", "metrics.AP50",
        "backbone.fingerprint", "data.train")  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_wrong_types_in_a_result_are_one_line(key, job, tmp_path):
    file = finish(job, tmp_path).folder / "result.json"
    text, states = file.read_text(), set()
    for value in (7, -1.5, [1], None, "x", {"a": 1}, True, 10**400, 1e300, json.loads(DEEP)):
        content = json.loads(text)
        outer, _, inner = key.rpartition(".")
        (content[outer] if outer else content)[inner] = value
        file.write_text(json.dumps(content))
        status = job_status(job, tmp_path)
        states.add(status.state)
        if status.state == "done":  # what is asked for here does not depend on it
            assert len(grid.headline(status.result)) < 100
            assert grid.seconds_left([status], 1, 0.0) == 0
        else:
            assert f"Give another --out, or remove {file.parent}." in status.why
    assert states <= {"done", "failed"}
    assert "failed" in states


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("result.json", (b"{}", b"[1", b'{"format": "result/1"}', b"\0\0", b"null", b"\xff",
                         DEEP.encode(), DEEP.encode() * 20)),
        ("config.yaml", (b"a: [1\n", b"- 1\n", b"3\n", b"", b"a: \xe4", b"\0", b"a: 2020-13-45",
                         b"a: " + DEEP.encode(), b"a: " + DEEP.encode() * 3)),
        ("backbone.txt", (b"\xff", b"f" * 16)),
        ("backbone.txt", None),
        ("config.yaml", None),
        ("result.json", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("finished", [True, False])
def test_files_that_are_none_are_one_line(name, contents, finished, job, tmp_path):
    run = finish(job, tmp_path)
    if not finished and name != "result.json":
        (run.folder / "result.json").unlink()
    for content in contents or (None,):
        (run.folder / name).unlink(missing_ok=True)
        if content is None:
            os.mkfifo(run.folder / name)  # reading it would block
        else:
            (run.folder / name).write_bytes(content)
        status = job_status(job, tmp_path)
        if name == "config.yaml" and finished:
            assert status.state == "done"  # the result has the configuration
        else:
            assert status.state == "failed"
            assert str(run.folder) in status.why
            assert "--out" in status.why


def test_an_unreadable_lock_is_an_error_that_names_it(job, tmp_path):
    (tmp_path / job.folder).mkdir(parents=True)
    os.mkfifo(Run(tmp_path / job.folder).lock_file)
    with pytest.raises(UsageError, match=r"b-seed3/\.lock cannot be opened"):
        holder(Run(tmp_path / job.folder).lock_file)


def test_names_of_folders():
    names = ["runs/cutmix-seed0/backbone.pth", "runs/none-seed0/", "timm:resnet50.a1_in1k", "x.pth",
             "hf:owner/net@main", "https://a.b/c/d.pth#sha256=00"]  # fmt: skip
    prints = [f"{number:016x}" for number in range(len(names))]
    assert grid.labels(names, prints) == [
        "cutmix-seed0", "none-seed0", "resnet50.a1_in1k", "x", "net-main", "d"]  # fmt: skip
    assert grid.labels(["a/x.pth", "b/x.pth"], ["1" * 16, "2" * 16]) == ["x-11111111", "x-22222222"]
    # x with seed 0 would lie where x-seed0 does
    assert grid.labels(["x.pth", "x-seed0.pth", "x-seed1.pth"], prints[:3]) == [
        f"x-{prints[0][:8]}", "x-seed0", "x-seed1"]  # fmt: skip
    with pytest.raises(UsageError, match=r"a/x.pth and b/x.pth have the fingerprint 1111"):
        grid.labels(["a/x.pth", "b/x.pth"], ["1" * 16] * 2)


def test_a_seed_stands_once_in_a_name(job):
    one = replace(job, name="none-seed3")
    assert one.folder == Path("detection/none-seed3")
    assert one.log == Path("logs/detection/none-seed3.log")
    assert one.title == "detection none seed 3"
    other = replace(one, seed=0)  # of the transfer, not of the pretraining
    assert other.folder == Path("detection/none-seed3-seed0")
    assert other.title == "detection none-seed3 seed 0"


def test_replicates_come_one_after_the_other(job):
    def made(task, name, seed):
        return replace(job, task=task, name=name, seed=seed)

    jobs = [made(task, name, seed) for task in ("captioning", "detection") for name in "ab"
             for seed in (1, 0)]  # fmt: skip
    found = [(c.seed, c.task, c.name) for c in grid.order(jobs)]
    assert found == [(seed, task, name) for seed in (0, 1) for task in ("detection", "captioning")
                     for name in "ab"]  # fmt: skip


def test_the_command_is_the_same_for_a_new_run_and_a_stopped_one(job, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "python")
    words = grid.command(job, Path("my out"), Path("tools"))
    assert words == ["python", "tools/finetune_det.py", "--backbone", "b.pth", "--seed", "3",
                     "--resume", "auto", "--out", "my out/detection/b-seed3"]  # fmt: skip
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / "a b")
    line = grid.shell_line(job, Path("my out"), Path("tools"))
    assert line == (
        f"cd '{tmp_path}/a b' && {{ test -e 'my out/detection/b-seed3/result.json' || python "
        "tools/finetune_det.py --backbone b.pth --seed 3 --resume auto --out "
        "'my out/detection/b-seed3'; }"
    )


def test_what_a_failed_run_said():
    assert grid.last_error("epoch 1\nerror: no room\nnote: x\n\n") == "no room"
    assert grid.last_error("Traceback:\n  File\nValueError: bad\n") == "ValueError: bad"
    assert grid.last_error(" \n") == "it said nothing"
    several = "error: these are wrong:\n  a, b\n  c\nnote: x\n"
    assert grid.last_error(several) == "these are wrong: a, b c"


def test_progress_is_read_from_the_log(job, tmp_path):
    from tools.support.grid_display import progress

    assert progress(job, tmp_path) == "epoch 0 of 4"
    run = Run(tmp_path / job.folder)
    run.start(job.config)
    for epoch in (1, 2):
        run.log({"epoch": epoch})
    for line in (b'{"epoch": 3, "lo', b"\xff", b"[1]", b'{"epoch": "x"}', b"9" * 5000,
                 b'{"epoch": 4, "loss": ' + DEEP.encode() * 3 + b"}"):  # fmt: skip
        with open(run.log_file, "ab") as handle:
            handle.write(line + b"\n")
        assert progress(job, tmp_path) == "epoch 2 of 4"
    run.log({"epoch": 3, "loss": 10**400})
    assert progress(job, tmp_path) == "epoch 3 of 4"
    run.log_file.unlink()
    os.mkfifo(run.log_file)
    assert progress(job, tmp_path) == "epoch 0 of 4"


def test_time_left(job, tmp_path):
    finish(job, tmp_path)
    result, expected = job_status(job, tmp_path).result, {}

    def left(slots, *statuses):
        """(task, state, seconds it took or has taken so far) of each job."""
        made = [
            JobStatus(replace(job, task=task, expected=expected.get(task)), state,
                      started=-seconds,
                      result=replace(result, seconds=seconds) if state == "done" else None)
            for task, state, seconds in statuses
        ]  # fmt: skip
        return grid.seconds_left(made, slots, now=0.0)

    done = [("detection", "done", 50.0), ("detection", "done", 70.0), ("captioning", "done", 20.0)]
    running, waiting = ("detection", "running", 15.0), ("captioning", "waiting", 0.0)
    assert left(1, *done, running, waiting, waiting) == 85
    assert left(1, *done, ("detection", "elsewhere", 15.0), waiting, waiting) == 85
    assert left(2, *done, running, waiting) == 45  # the longest
    assert left(1, *done, ("detection", "running", 99.0)) == 0  # longer than the mean
    assert left(1, *done, ("classification", "waiting", 0.0)) is None
    assert left(1) == 0
    expected.update(detection=30.0, classification=5.0)  # detection took twice as long
    assert left(1, *done, ("classification", "waiting", 0.0)) == 10
    assert left(1, ("classification", "waiting", 0.0)) == 5


def test_the_file_for_the_report(job, tmp_path):
    one, two = (replace(job, seed=seed) for seed in (1, 2))
    statuses = [JobStatus(one, "done"), JobStatus(job, "failed", "bad"), JobStatus(two, "running")]
    grid.write_grid(statuses, tmp_path)
    content = json.loads((tmp_path / "grid.json").read_text())
    assert content["format"] == "grid/2"
    assert [row["state"] for row in content["jobs"]] == ["done", "failed", "missing"]
    assert content["jobs"][1] == {
        "task": "detection", "backbone": dict(job.backbone), "seed": 3,
        "folder": "detection/b-seed3", "state": "failed", "why": "bad"}  # fmt: skip


def test_the_file_for_the_report_keeps_the_jobs_of_earlier_calls(job, tmp_path):
    """By folder; what was planned once and never begun is forgotten."""
    assert grid.earlier_jobs(tmp_path) == []
    file = tmp_path / "grid.json"
    failed, begun, never = (replace(job, task="captioning", seed=seed) for seed in (1, 2, 3))
    (tmp_path / begun.folder).mkdir(parents=True)
    statuses = [JobStatus(job, "failed", "bad"), JobStatus(failed, "failed", "no room"),
                JobStatus(begun, "running"), JobStatus(never)]  # fmt: skip
    grid.write_grid(statuses, tmp_path)
    grid.write_grid([JobStatus(job, "done")], tmp_path)
    text = file.read_text()
    assert [(row["folder"], row["state"], row["why"]) for row in json.loads(text)["jobs"]] == [
        ("detection/b-seed3", "done", None), ("captioning/b-seed1", "failed", "no room"),
        ("captioning/b-seed2", "missing", None)]  # fmt: skip

    for broken in ("{", "[1]", "[" * 100_000, '{"format": "grid/2", "jobs": 3}', "{}",
                   '{"format": "grid/2", "jobs": [3]}', '{"format": "grid/1", "cells": 3}',
                   '{"format": [], "jobs": []}', text.replace("grid/2", "grid/0"),
                   text.replace('"detection/b-seed3"', "7")):  # fmt: skip
        file.write_text(broken)
        kept = grid.earlier_jobs(tmp_path)
        assert all(isinstance(row["folder"], str) for row in kept)
        assert len(kept) == (2 if '"folder": 7' in broken else 0)
    file.write_bytes(b"\xff\xfe")
    assert grid.earlier_jobs(tmp_path) == []


def test_the_file_of_before_is_read(job, tmp_path):
    """grid/1: jobs were cells, the method was the arm."""
    row = {"task": "detection", "backbone": {"fingerprint": PRINT, "arm": "cutmix", "variant": "9"},
           "seed": 7, "folder": "detection/b-seed7", "state": "done", "why": None}  # fmt: skip
    (tmp_path / "grid.json").write_text(json.dumps({"format": "grid/1", "cells": [row]}))
    grid.write_grid([JobStatus(job, "done")], tmp_path)
    content = json.loads((tmp_path / "grid.json").read_text())
    assert content["format"] == "grid/2"
    assert [row["seed"] for row in content["jobs"]] == [7, 3]
    renamed = {"fingerprint": PRINT, "method": "cutmix", "recipe_hash": "9"}
    assert content["jobs"][0] == {**row, "backbone": renamed}


def test_a_model_card_names_the_tool_of_every_task(backbone):
    from transfer.release import Release, card

    text = card(Release(backbone=backbone, name="mine", licence="MIT"), "proof")
    block = text.split("Here, for any task:\n\n```sh\n")[1].split("```")[0]
    assert block.splitlines() == [
        f"python tools/finetune_{task}.py --backbone mine/backbone.pth"
        for task in ("cls", "det", "seg", "cap")
    ]
