"""Run folders and result files."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from pretrain import files
from pretrain.backbone import recipe_hash
from pretrain.config import PretrainConfig
from pretrain.errors import UsageError
from pretrain.files import atomic, write_text
from pretrain.run import (
    _ADDED,
    Result,
    Run,
    differences,
    environment,
    other_run,
    peak_resident_mib,
    plain,
)
from tests.conftest import ROOT

RESULT = Result(
    task="pretrain",
    metric="top1",
    metrics={"top1": 50.0},
    backbone={
        **dict.fromkeys(("name", "arch", "method", "fingerprint"), "x"),
        **dict.fromkeys(("recipe", "dataset", "epochs", "seed")),
    },
    data={"name": "d"},
    seed=0,
    config={"epochs": 1},
    seconds=1.0,
    environment={},
)


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "one")

    def fail_half_way():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "one"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_result_is_read_as_it_was_written(tmp_path):
    run, result = Run(tmp_path / "run"), replace(RESULT, config=plain(PretrainConfig()))
    run.start(result.config)
    run.finish(result)
    file = run.folder / "result.json"
    assert Result.read(file) == result
    assert run.finished
    file.write_text(json.dumps(asdict(result) | {"of_tomorrow": 1}))
    assert Result.read(file) == result


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[]", "expected `object`, got"),
        ('{"format": "x"}', "no result"),
        (json.dumps(asdict(RESULT) | {"seconds": "1"}), "seconds: expected `float`, got '1'"),
    ],
)
def test_foreign_results_are_refused(tmp_path, text, words):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UsageError, match=words):
        Result.read(tmp_path / "result.json")


def test_nothing_is_created_before_the_start(tmp_path):
    Run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_is_not_taken_over(tmp_path):
    run = Run(tmp_path / "run")
    run.start({"epochs": 1, "model": {"arch": "a"}})
    run.start({"epochs": 1, "model": {"arch": "a"}})  # the same run goes on
    with pytest.raises(UsageError, match=r"model\.arch: 'a' there, 'b' here"):
        run.start({"epochs": 1, "model": {"arch": "b"}})
    run.finish(RESULT)
    with pytest.raises(UsageError, match="finished run"):
        run.start({"epochs": 1, "model": {"arch": "a"}})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(UsageError, match="no run of ours"):
        Run(tmp_path / "mine").start({})
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]


@pytest.mark.parametrize("to", ["nowhere", "itself"])
@pytest.mark.parametrize("name", ["config.yaml", "data.json", "backbone.txt", "log.jsonl"])
def test_a_link_that_leads_nowhere_is_not_taken_for_no_file(name, to, tmp_path):
    run = Run(tmp_path)
    run.start({})
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to(name if to == "itself" else to)
    with pytest.raises(UsageError, match=f"{name}: (No such|Too many).*Give another --out, or rem"):
        run.refuse({}, "b", {})
    (tmp_path / "result.json").symlink_to("nowhere")
    with pytest.raises(UsageError, match="a finished run"):
        run.refuse({}, "b", {})


def test_a_folder_belongs_to_one_process(tmp_path):
    """The kernel's lock: it is gone with the process, however that ends."""
    code = (
        "import sys, pathlib; from pretrain.run import Run\n"
        "run = Run(pathlib.Path(sys.argv[1])); run.start({'epochs': 1})\n"
        "print('taken', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    other = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "taken\n"
    with pytest.raises(UsageError, match="another process is working in"):
        Run(tmp_path / "run").start({"epochs": 1})
    other.kill()
    other.wait()
    (tmp_path / "run" / ".log.jsonl.99.tmp").write_text("torn")
    run = Run(tmp_path / "run")
    run.start({"epochs": 1})
    assert sorted(os.listdir(run.folder)) == [".lock", "config.yaml"]
    run.finish(RESULT)
    assert ".lock" not in os.listdir(run.folder)


def test_a_run_killed_as_it_began_can_begin_again(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.7.tmp").write_text("epo")
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / ".report.html.7.tmp").mkdir()
    (tmp_path / "run" / ".report.html.7.tmp" / "report.html").write_text("<ht")
    Run(tmp_path / "run").start({"epochs": 1})
    assert sorted(os.listdir(tmp_path / "run")) == [".lock", "config.yaml"]


def test_a_run_that_has_just_been_finished_is_not_started_again(tmp_path, monkeypatch):
    other = Run(tmp_path / "run")
    other.start({"epochs": 1})

    def lock(path, busy):
        other.finish(RESULT)
        return files.lock(path, busy)

    monkeypatch.setattr("pretrain.run.lock", lock)
    with pytest.raises(UsageError, match="finished run"):
        Run(tmp_path / "run").start({"epochs": 1})


def test_a_lock_that_stays_is_no_failure(tmp_path, monkeypatch):
    """Windows does not remove what is open."""
    run = Run(tmp_path / "run")
    run.start({"epochs": 1})

    def refuse(*_, **__):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        run.finish(RESULT)
    assert run.finished


def test_the_log_is_cut_back_to_a_checkpoint(tmp_path):
    run = Run(tmp_path)
    run.start({})
    for epoch in (1, 2, 3):
        run.log({"epoch": epoch})
    with open(run.log_file, "a") as handle:
        handle.write('{"epoch": 4, "los')  # a kill while writing
    assert [record["epoch"] for record in run.read_log()] == [1, 2, 3]
    run.cut_log(2)
    assert run.log_file.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'


def test_the_environment_says_what_a_number_needs():
    facts = environment(torch.device("cpu"))
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["peak_memory_mib"] > 50
    assert facts["threads"] == torch.get_num_threads()
    assert facts["device"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to compare with")
def test_the_peak_outlives_what_needed_it():
    block = bytearray(b"\1") * (300 * 2**20)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    del block
    assert peak_resident_mib() >= pages * os.sysconf("SC_PAGE_SIZE") / 2**20 - 1


def test_results_and_recipe_hashes_of_before_are_read_as_they_were():
    """result/1 called the method an arm; a recipe's hash is over the keys it was written with."""
    hashes = {"none-seed0": "2d31d97d", "cutmix-seed0": "54cdff22"}
    for name, expected in hashes.items():
        path = ROOT / "docs" / "results" / "embedded_grid" / "pretrain" / name / "result.json"
        content = json.loads(path.read_text())
        result = Result.read(path)
        assert result.backbone["method"] == name.removesuffix("-seed0")
        if content["format"] == "result/1":
            assert result.backbone["method"] == content["backbone"]["arm"]
            assert recipe_hash(result.config) == expected


def test_a_pretraining_of_before_scored_after_each_epoch():
    today = plain(PretrainConfig())
    before = {key: value for key, value in today.items() if key != "score_every"}
    assert other_run(before, today) == []
    assert other_run(before, {**today, "score_every": 5}) == ["score_every: 1.0 there, 5 here"]


FIRST_ADDED = {
    "pretrain": ("dataset", "progressive"),
    "detection": ("dataset", "exif"),
    "captioning": ("dataset", "images"),
}


@pytest.mark.parametrize("task", FIRST_ADDED)
def test_a_field_that_files_of_before_lack_is_what_they_did(task):
    """Neither a run that is resumed nor a result in a table is another one for it."""
    from transfer import task as tasks

    today = plain(tasks.load(tasks.by_name(task).config)())
    before, section, field = deepcopy(today), *FIRST_ADDED[task]
    for name, value in _ADDED[task].items():
        for key in value if isinstance(value, dict) else ():
            del before[name][key]
        if not before[name] or not isinstance(value, dict):
            del before[name]
    assert other_run(before, today) == []
    changed = {**today, section: {**today[section], field: 7}}
    assert len(other_run(before, changed)) == 1
    content = {**asdict(RESULT), "task": task, "config": before}
    assert Result.parse(content).config == today


def test_methods_beside_the_first_are_what_they_were_before():
    config = {"mixing": {"method": "cutmix", "others": [{"method": "mixup"}]}}
    read = Result.parse({**asdict(RESULT), "task": "pretrain", "config": config}).config["mixing"]
    assert read["others"] == [{"method": "mixup", "args": {}}]


def test_methods_of_a_list_are_compared_field_by_field():
    before, now = {"method": "mixup"}, {"method": "mixup", "args": {}}
    assert differences({"mixing": {"others": [before]}}, {"mixing": {"others": [now]}}) == []
    other = {"method": "fmix", "args": {}}
    found = differences({"mixing": {"others": [before]}}, {"mixing": {"others": [other]}})
    assert found == ["mixing.others.0.method: 'mixup' there, 'fmix' here"]
    assert differences({"others": [before]}, {"others": []})
