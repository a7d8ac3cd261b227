"""Several processes under torchrun: the steps of one that accumulates, each image scored once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.training import BatchSampler, heartbeat
from tests.conftest import ROOT
from tests.forked import call, start_ranks, text_of


@pytest.fixture(scope="module")
def tree(worlds, tmp_path_factory) -> Path:
    """60 training images and 19 to score, which two processes cannot share evenly."""
    root = tmp_path_factory.mktemp("tree") / "shapes"
    shutil.copytree(worlds["classification"], root)
    sorted((root / "val").rglob("*.jpg"))[0].unlink()
    return root


def options(tree: Path, out: Path, *words: object) -> list[object]:
    """Without BatchNorm, whose statistics are of a micro-batch; with all that adds to the loss."""
    settings = ["--model.arch", "convnext_atto", "--dataset.image_size", "32",
                "--batch_size", "12", "--epochs", "2", "--loader.workers", "1",
                "--optimizer.lr", "0.01", "--optimizer.ema", "0.9",
                "--mixing.granularity", "sample", "--mixing.decoupled", "0.1",
                "--rotation.weight", "0.5", "--rotation.angles", "one",
                "--dataset.color_jitter", "0.3"]  # fmt: skip
    return ["--data", tree, "--device", "cpu", *settings, "--out", out, *words]


def run(tree: Path, out: Path, *words: object) -> None:
    done = call("pretrain", *options(tree, out, *words))
    assert done.returncode == 0, done.stderr


def run_two(tree: Path, out: Path, *words: object) -> tuple[list[int], str]:
    """Exit codes of two processes, and what both said."""
    with tempfile.TemporaryFile("w+") as said:
        words = options(tree, out, *words)
        ranks = start_ranks(2, "pretrain", *words, stdout=said, stderr=said)
        return [rank.wait(timeout=300) for rank in ranks], text_of(said)


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same(one: Path, two: Path) -> None:
    left, right = (Backbone.load(folder / "backbone.pth").weights for folder in (one, two))
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], atol=1e-5, rtol=1e-5, msg=name)
    for before, after in zip(log(one), log(two), strict=True):
        assert "train_rotation_accuracy" in before
        for key in before.keys() - {"images_per_second"}:
            assert before[key] == pytest.approx(after[key], abs=1e-5), key


@pytest.fixture(scope="module")
def alone(tree, tmp_path_factory) -> Path:
    """One process that accumulates two micro-batches of six."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(tree, folder, "--accumulate", "2")
    return folder


def test_two_processes_take_the_steps_of_one_that_accumulates(tree, alone, tmp_path):
    codes, said = run_two(tree, tmp_path / "two")
    assert codes == [0, 0], said
    assert_same(alone, tmp_path / "two")
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["environment"]["processes"] == 2
    top1 = result["metrics"]["top1"] / 100 * 19
    assert top1 == pytest.approx(round(top1), abs=1e-6)  # a whole number of the 19 images


def test_without_accumulation_the_steps_differ(tree, alone, tmp_path):
    """Else the test above would prove nothing: partners lie within a micro-batch."""
    run(tree, tmp_path / "whole")
    with pytest.raises(AssertionError):
        assert_same(alone, tmp_path / "whole")


def test_what_one_process_cannot_read_counts_for_all(tree, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    for split, places in (("train", (3, 20, 40)), ("val", (1, 2))):
        files = sorted((root / split).rglob("*.jpg"))
        for place in places:
            files[place].write_bytes(b"no picture")
    codes, said = run_two(root, tmp_path / "run", "--dataset.max_corrupt", "3")
    assert codes == [0, 0], said
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert metrics["images_left_out"] == 5
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pth", weights_only=True)
    assert len(state["corrupt"]) == 3
    codes, said = run_two(root, tmp_path / "strict", "--dataset.max_corrupt", "2")
    assert 0 not in codes
    assert "It is number 3; 2 may be left out" in said


def test_two_processes_stop_together_and_one_goes_on(tree, alone, tmp_path):
    """Under torchrun itself, which hands on the signal."""
    folder = tmp_path / "run"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = options(tree, folder, "--checkpoints.every_steps", "1")
    tool = [str(ROOT / "tools" / "pretrain.py"), *map(str, words)]
    process = subprocess.Popen(
        [sys.executable, *launcher, *tool],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "last.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert "stopped after step" in said or "stopped after epoch 1" in said, said
    assert not (folder / "result.json").exists()
    done = call("pretrain", "--resume", folder, "--device", "cpu", "--accumulate", "2")
    assert done.returncode == 0, done.stderr
    assert "2 process(es) x 1 accumulated x 6 images, now 1 process(es) x 2" in done.stderr
    assert "the same steps" in done.stderr
    assert_same(alone, folder)


@pytest.mark.parametrize("count", [1, 5, 19, 24])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_each_image_is_scored_once_on_any_number_of_processes(count, ranks):
    seen = []
    for rank in range(ranks):
        batches = BatchSampler(count, batch_size=4, seed=0, shuffle=False, rank=rank, ranks=ranks)
        own = [index for batch in batches for _, index in batch]
        assert len(list(batches)) == batches.steps
        seen += own
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize(("accumulate", "ranks"), [(1, 4), (4, 1), (2, 2)])
def test_a_step_is_the_same_images_however_it_is_cut(accumulate, ranks):
    def steps(accumulate: int, ranks: int) -> list[dict[int, list[int]]]:
        """For each step: number of the micro-batch -> its images."""
        found: list[dict[int, list[int]]] = [{}, {}]
        for rank in range(ranks):
            batches = BatchSampler(
                30, batch_size=12, seed=7, shuffle=True, drop_last=True,
                accumulate=accumulate, rank=rank, ranks=ranks,
            )  # fmt: skip
            batches.epoch = 3
            for place, batch in enumerate(batches):
                number = place % accumulate * ranks + rank
                found[place // accumulate][number] = [index for _, index in batch]
        return found

    wanted = steps(4, 1)
    assert steps(accumulate, ranks) == wanted
    assert all(sorted(step) == [0, 1, 2, 3] for step in wanted)


def test_a_batch_that_cannot_be_cut_names_those_that_can():
    with pytest.raises(UsageError, match=r"multiple of 8 .*The nearest are 96 and 104"):
        BatchSampler(
            500, batch_size=100, seed=0, shuffle=True, drop_last=True, accumulate=2, ranks=4
        )


@pytest.mark.parametrize("text", ["abc", "", "nan", "0", "-1", "inf"])
def test_a_heartbeat_that_is_no_number_of_seconds(text):
    with pytest.raises(UsageError, match=r"CUTMIX_HEARTBEAT_SECONDS is '.*'; it must lie in"):
        heartbeat._seconds(text)
