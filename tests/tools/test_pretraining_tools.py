"""The tools around pretraining, as a user calls them."""

import csv
import importlib
import json
import os
import shutil
from pathlib import Path

import pytest
import timm
import torch

from pretrain.backbone import Backbone
from pretrain.config import PretrainConfig
from tests.conftest import ROOT
from tests.forked import call
from tests.tools.test_tools import demo, fails
from tools.support import prove_resume
from tools.support.benchmarks.trees import update_recipe
from tools.support.training import _run_folder


def run(tool: str, *words: object) -> None:
    importlib.import_module(f"tools.{tool}").main([str(word) for word in words])


DEMO = demo("pretrain")
SMALL = [*DEMO, "--model.arch", "test_resnet", "--dataset.image_size", "32", "--batch_size", "20",
         "--loader.workers", "0", "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(worlds, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    run("pretrain", "--data", worlds["classification"], *SMALL, "--epochs", 2, "--out", out)
    return out


# ---- pretrain


def test_a_dry_run_measures_and_projects(capsys, tmp_path, monkeypatch, worlds):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(worlds["classification"], tmp_path / "data")
    (tmp_path / "data/val/ring/IMG.heic").touch()
    run("pretrain", "--data", "data", *SMALL, "--epochs", 30, "--dry-run",
        "--mixing.probability", "1.0")  # fmt: skip
    said = capsys.readouterr()
    for words in ("test_resnet: 0.37 M parameters", "60 training and 20 validation images",
                  "3 steps an epoch, 90 in all", "measured over 2 steps", "images/s",
                  "projected: ", "MiB of memory"):  # fmt: skip
        assert words in said.out, words
    assert "pays late in small networks" in said.err
    assert "note: data/val: 1 files are left out, no images by their names: 1 .heic" in said.err
    assert os.listdir() == ["data"]


@pytest.mark.parametrize("words", [["--batch_size", 1], ["--accumulate", 20]], ids=str)
def test_a_batch_of_which_batchnorm_sees_one_value(words, worlds, tmp_path, capsys):
    small = [*SMALL, "--model.arch", "resnet18", "--data", worlds["classification"], *words]
    words = [*small, "--epochs", 1, "--out", tmp_path / "run"]
    fails("pretrain", *words, capsys=capsys, said="BatchNorm needs more than one value a channel")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_trained_on_by_init(trained, worlds, capsys):
    words = ["--data", worlds["classification"], *SMALL, "--epochs", 3, "--out", trained]
    said = f"--init {trained}/backbone.pth and another --out"
    fails("pretrain", *words, capsys=capsys, said=said)


def test_a_run_in_slots_of_time(tmp_path, worlds):
    words = ["--data", worlds["classification"], *SMALL, "--epochs", 2, "--out", "run"]
    first = call("pretrain", *words, "--stop-after", 4, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "stopped after step 4 of 6. To continue: python" in first.stderr
    assert "--resume run" in first.stderr
    second = call("pretrain", "--resume", "run", "--device", "cpu", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stop-after", "0"], "--stop-after is 0; it must be at least 1"),
        (["--prove-resume", "0"], "--prove-resume is 0; it must be at least 1"),
        (["--precision", "16-mixed"], "16-mixed, which needs a CUDA device. Use bf16-mixed"),
        (["--init", "nowhere.pth"], "there is no file nowhere.pth"),
        (["--optimizer.name", "adamm"], "optimizer.name is 'adamm'; timm has"),
        (["--batch_size", "20", "--accumulate", "3"], "multiple of 3"),
        (["--mixing.alpha", "0"], "mixing.alpha is 0"),
        (["--mixing.probability", "1.5"], "mixing.probability is 1.5"),
        (["--mixing.weight", "0"], "mixing.weight is 0 for every method"),
        (["--sync_batch_norm", "true"], "torch has it for CUDA only"),
        (["--mixing.granularity", "element"], "element"),
        (["--mixing.others", '[{"methud": "mixup"}]'], "methud"),
        (["--dataset.cache", "true"], "it needs dataset.crop: padded"),
        (["--optimizer.ema", "1.5"], "optimizer.ema is 1.5; it must lie in (0, 1)"),
    ],
)
def test_mistakes_with_pretraining(words, said, capsys, tmp_path, monkeypatch, worlds):
    monkeypatch.chdir(tmp_path)
    words = [*DEMO, "--device", "cpu", "--loader.workers", 0, *words]
    words += ["--data", worlds["classification"]]
    fails("pretrain", *words, capsys=capsys, said=said)
    assert list(tmp_path.iterdir()) == []


def test_another_data_set_is_another_run(tmp_path, monkeypatch, worlds, capsys):
    """--resume auto takes up the run of this data, and begins a new one for other data."""
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(worlds["classification"], other)
    words = [*SMALL, "--epochs", 2, "--resume", "auto"]
    call("pretrain", "--data", worlds["classification"], *words, "--stop-after", 2, cwd=tmp_path)
    call("pretrain", "--data", other, *words, "--stop-after", 3, cwd=tmp_path)
    assert sorted(os.listdir("runs")) == ["pretrain-demo", "pretrain-demo-2"]
    done = call("pretrain", "--data", worlds["classification"], *words, cwd=tmp_path)
    assert "resuming runs/pretrain-demo after" in done.stderr
    assert (tmp_path / "runs/pretrain-demo/result.json").exists()


@pytest.mark.parametrize("content", [b"a: [", b"- a", b"[" * 900, b"\xff\xfe\x00", b"a: *b"])
def test_a_neighbour_that_cannot_be_read_is_left_out(content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("runs/pretrain-a").mkdir(parents=True)
    Path("runs/pretrain-a/config.yaml").write_bytes(content)
    run = _run_folder("pretrain", PretrainConfig(name="a"), None, "auto")
    assert run.folder == Path("runs/pretrain-a-2")
    assert "left out: runs/pretrain-a/config.yaml: " in capsys.readouterr().err


def test_prove_resume_is_offered_by_the_tool(capsys, monkeypatch, worlds):
    asked = {}
    monkeypatch.setattr(prove_resume, "prove", lambda *a, **options: asked.update(options))
    run("pretrain", "--data", worlds["classification"], *SMALL, "--prove-resume", 4)
    assert asked == {"kills": 4, "stop_after": None}


# ---- evaluate


def test_scores_of_a_backbone(trained, worlds, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--backbone", trained, "--data", worlds["classification"], "--device", "cpu"]
    run("evaluate", *words, "--preprocess", "tensor", "--out", "scores", "--workers", 0)
    said = capsys.readouterr().out
    result = json.loads(Path("scores/result.json").read_text())
    metrics = result["metrics"]
    assert result["data"]["notes"] == []
    pretrained = json.loads((trained / "result.json").read_text())["metrics"]
    assert metrics["top1"] == pretrained["top1"]
    assert metrics["top5"] == pretrained["top5"]
    assert metrics["val_loss"] == pytest.approx(pretrained["val_loss"], abs=1e-6)
    assert f"top-1      {metrics['top1']:.3f} %" in said
    with open("scores/per_class.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 10
    assert sum(int(row["images"]) for row in rows) == 20
    hits = sum(int(row["images"]) * float(row["top1"]) / 100 for row in rows)
    assert 100 * hits / 20 == pytest.approx(metrics["top1"], abs=1e-3)
    fails("evaluate", *words, "--out", "scores", capsys=capsys, said="finished run")


def test_scores_of_a_foreign_file(trained, worlds, tmp_path, capsys, monkeypatch):
    """With what the file does not say of itself, as the refusal offers it."""
    monkeypatch.chdir(tmp_path)
    backbone = Backbone.load(trained / "backbone.pth")
    torch.save(dict(backbone.weights), "f.pth")
    words = ["--data", worlds["classification"], "--device", "cpu", "--workers", 0]
    given = ["--arch", "test_resnet", "--mean", ",".join(map(str, backbone.spec.mean)),
             "--std", ",".join(map(str, backbone.spec.std))]  # fmt: skip
    fails("evaluate", "--backbone", "f.pth", *words, "--arch", "test_resnet", capsys=capsys,
          said="--mean and --std")  # fmt: skip
    run("evaluate", "--backbone", "f.pth", *words, *given, "--class-order", "alphabetical",
        "--out", "scores")  # fmt: skip
    said = capsys.readouterr().err
    assert "note: f.pth: assumed: " in said
    result = json.loads(Path("scores/result.json").read_text())
    assert result["metrics"]["images_left_out"] == 0
    told = [line for line in said.splitlines() if line.startswith("note: f.pth: ")]
    assert [f"note: f.pth: {note}" for note in result["backbone"]["notes"]] == told


def test_mistakes_with_scoring(trained, worlds, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (["--backbone", "none.pth", "--data", worlds["classification"]], "there is no file"),
        (["--backbone", trained, "--data", "nowhere"], "there is no folder nowhere"),
        (["--backbone", trained, "--data", worlds["detection"]], "no images"),
        (["--backbone", trained, "--data", worlds["classification"], "--split", "x"], "no folder"),
        (["--backbone", trained, "--data", ".", "--batch-size", "0"], "--batch-size is 0"),
    ):
        fails("evaluate", *words, "--device", "cpu", capsys=capsys, said=said)
    assert list(tmp_path.iterdir()) == []


# ---- prepare_data


def test_looking_at_data_sets(worlds, tmp_path):
    whole = call("prepare_data", "voc", "--check", worlds["detection"], cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.rstrip().endswith("is complete")
    cut = call("prepare_data", "imagenet", "--check", worlds["classification"], cwd=tmp_path)
    assert cut.returncode == 1
    assert "10 classes in train, 1,000 expected" in cut.stdout
    assert "is incomplete: " in cut.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["imagenet", "--check", "nowhere"], "there is no folder nowhere"),
        (["cifar", "--check", "nowhere"], "there is no folder nowhere"),
        (["voc", "--check", "nowhere"], "there is no folder nowhere"),
        (["coco", "--check", "nowhere"], "there is no folder nowhere"),
        (["voc", "--check", ".", "--repair"], "nothing that --repair could do"),
        (["voc", "--check", ".", "--sample", "-1"], "--sample is -1"),
    ],
)
def test_mistakes_with_data_sets(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails("prepare_data", *words, capsys=capsys, said=said)


# ---- bench


def test_the_benchmark_of_pretraining_runs(worlds, tmp_path, monkeypatch, capsys):
    """Every part once, at a size that says nothing about speed; nor, in forks, about memory."""

    def in_a_fork(_, code, *words):
        script = tmp_path / "part.py"
        script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}")
        done = call(str(script.with_suffix("")), *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    monkeypatch.setattr("tools.support.benchmarks._timing.in_new_process", in_a_fork)
    words = ["--images", worlds["classification"] / "train", "--size", "32", "--batch", "8",
             "--arch", "test_resnet", "--rounds", "1", "--steps", "1", "--threads", "1",
             "--parts", "loader", "step", "pipeline", "memory"]  # fmt: skip
    run("bench", "pretrain", *words)
    said = capsys.readouterr().out
    for words in ("images a second and core", "Training step", "Whole pipeline", "| ours |"):
        assert words in said, words


def test_the_benchmark_of_mixing_runs():
    words = ["--size", "32", "--batch", "4", "--network-batch", "4", "--rounds", "1", "--draws",
             "1", "--threads", "1", "--arch", "test_resnet", "--memory", "returned",
             "--methods", "cutmix", "mixup", "cutout", "manifold_mixup", "transmix"]  # fmt: skip
    done = call("bench", "mixing", *words)
    assert done.returncode == 0, done.stderr
    for row in ("base", "mixup, sample", "cutout", "timm CutMix in collate, half", "transmix",
                "torchvision MixUp, batch", "manifold_mixup"):  # fmt: skip
        assert f"| {row} |" in done.stdout, row


def test_recipes_of_another_checkout_are_brought_up_to_date():
    before = {
        "name": "demo_tiny",
        "images": {"short_side": 96},
        "detector": {"anchor_sides": [15, 30], "rois": 64},
        "solver": {"optimizer": "adamw", "lr": 1e-3, "clip": 10, "warmup_epochs": 0.3},
        "workers": 1,
    }
    today = {
        "name": "demo_tiny",
        "dataset": {"short_side": 96},
        "detector": {"anchor_sizes": [15, 30], "rois": 64},
        "optimizer": {"name": "adamw", "lr": 1e-3, "clip_norm": 10, "warmup": 0.3},
        "loader": {"workers": 1},
    }
    assert update_recipe(before) == today
    assert update_recipe(today) == today


def test_benchmarks_are_listed(capsys):
    assert "pretrain" in call("bench").stdout
    fails("bench", "speed", capsys=capsys, said="there is no benchmark 'speed'; there are")
    fails("bench", "pretrain", "--images", "nowhere", capsys=capsys, said="no folder nowhere")
    fails("bench", "trees", "--other", "nowhere", capsys=capsys, said="nowhere is no checkout")


def test_the_demo_s_backbone_opens_in_plain_torch(trained):
    """What a user without this project can do with the file; timm reads tensors alone."""
    path = trained / "backbone.pth"
    torch.load(path, weights_only=True)
    network = timm.create_model("test_resnet", checkpoint_path=str(path), num_classes=10)
    with torch.inference_mode():
        wanted = Backbone.load(path).build().eval()(torch.ones(1, 3, 32, 32))
        torch.testing.assert_close(network.eval()(torch.ones(1, 3, 32, 32)), wanted)
