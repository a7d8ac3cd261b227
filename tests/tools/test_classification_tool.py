"""Classification transfer from the command line: a tree of one's own, its mistakes, resuming."""

import importlib
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.tools.test_tools import demo, fails, inside

CHOSEN = ["--epochs", "1", "--batch_size", "10", "--loader.workers", "0", "--device", "cpu"]
SMALL = [*demo("classification"), *CHOSEN]


def main(words: list[str]) -> None:
    importlib.import_module("tools.finetune_cls").main(words)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_folder_to_figures(here, worlds, backbone_file, capsys):
    """No splits, no recipe, three modes, stopped and resumed."""
    shutil.copytree(worlds["classification"] / "train", "mine")
    words = ["--backbone", backbone_file, "--data", "mine", *CHOSEN, "--dataset.image_size", "32"]
    code, error = inside("finetune_cls", *words, "--stop-after", "1", capsys=capsys)
    assert code == 0, error
    assert "linear probe: " in error
    assert "stopped after step 1 of 4" in error
    assert "--resume runs/classification-finetune_fitted" in error
    code, error = inside(
        "finetune_cls", *words, "--resume", "auto", "--stop-after", "2", capsys=capsys
    )
    assert "resuming runs/classification-finetune_fitted after epoch 0, step 1" in error
    assert "projected" not in error  # it was told when the run began
    main(["--resume", "runs/classification-finetune_fitted", "--device", "cpu"])
    out, error = capsys.readouterr()
    assert "note: recipe" not in error
    assert "linear probe: done before" in error
    assert "resuming" in error
    for said in ("linear probe  ", "k-NN  ", "fine-tuned  ", "most confused (linear)"):
        assert said in out
    result = json.loads(Path("runs/classification-finetune_fitted/result.json").read_text())
    assert result["task"] == "classification"
    assert result["metrics"]["scored"] == "held out"
    assert {"linear_top1", "knn_top1", "full_top1", "full_top1_best"} <= result["metrics"].keys()


def test_notes_on_the_data_come_first_in_a_dry_run_as_in_a_run(here, worlds, backbone_file, capsys):
    shutil.copytree(worlds["classification"], "tree")
    Path("tree/train/ring/IMG.heic").touch()
    words = ["--backbone", backbone_file, "--data", "tree", *SMALL, "--mode", "knn"]
    words = [str(word) for word in [*words, "--dataset.image_size", "32"]]
    note = "1 files are left out, no images by their names: 1 .heic (the first is ring/IMG.heic)"
    main([*words, "--dry-run"])
    assert f"# tree/train: {note}" in capsys.readouterr().out
    main([*words, "--out", "run"])
    error = capsys.readouterr().err
    assert error.index(note) < error.index("10 classes: ")
    assert json.loads(Path("run/result.json").read_text())["data"]["notes"] == [
        f"tree/train: {note}"
    ]


def test_dry_run_and_one_mode(here, worlds, backbone_file, capsys):
    words = ["--backbone", backbone_file, "--data", worlds["classification"], *SMALL]
    words = [str(word) for word in [*words, "--dataset.image_size", "32", "--mode", "knn"]]
    main([*words, "--dry-run"])
    out = capsys.readouterr().out
    assert "mode: knn" in out
    assert "10 classes, 60 training images, 20 scored (val)" in out
    assert os.listdir() == []
    main([*words, "--out", "run"])
    out = capsys.readouterr().out
    assert "k-NN" in out
    assert "linear probe" not in out
    assert "classifier.pth" not in out


def test_mistakes(here, worlds, backbone_file, capsys):
    world = worlds["classification"]
    shutil.copytree(world / "train", "one/train/all/arrow")
    shutil.copytree(world, "odd")
    Path("odd/val/blob").mkdir()
    shutil.copy(next((world / "val/ring").iterdir()), "odd/val/blob/1.jpg")
    shutil.copytree(world, "gap")
    shutil.rmtree("gap/train/ring")
    Path("gap/train/ring").mkdir()
    Path("empty").mkdir()
    given = ["--backbone", backbone_file, *SMALL]
    for words, said in (
        (["--data", world], "--backbone is missing"),
        ([*given, "--data", world, "--mode", "linear,svm"], "'svm' is none of linear, knn, full"),
        ([*given, "--data", "nowhere"], "there is no folder nowhere"),
        ([*given, "--data", "empty"], "no images in class folders"),
        ([*given, "--data", "one"], "has one class, all"),
        ([*given, "--data", "odd"], "only odd/val has blob"),
        ([*given, "--data", "gap"], ".avif) in class ring"),
        ([*given, "--data", world, "--batch_size", "99"], "only 60 training images"),
        ([*given, "--data", world, "--knn.ks", "[70]"], "Give a k of at most"),
        ([*given, "--data", world, "--linear.penalties", "[0]"], "all above 0"),
        ([*given, "--data", world, "--stop-after", "0"], "--stop-after is 0"),
    ):
        fails("finetune_cls", *words, capsys=capsys, said=said)
    assert sorted(os.listdir()) == ["empty", "gap", "odd", "one"]


def test_a_broken_picture(here, worlds, backbone_file, capsys):
    shutil.copytree(worlds["classification"], "tree")
    broken = sorted(Path("tree/train/ring").iterdir())[0]
    broken.write_bytes(b"no picture")
    words = ["--backbone", backbone_file, "--data", "tree", *SMALL, "--mode"]
    fails("finetune_cls", *words, "linear", capsys=capsys, said=f"{broken.name} cannot be decoded")
    assert os.listdir("runs") == ["features"]
    code, error = inside("finetune_cls", *words, "full", capsys=capsys)
    assert code == 2
    assert f"error: image {broken} cannot be decoded" in error
    assert "--dataset.max_corrupt N leaves out up to N" in error
