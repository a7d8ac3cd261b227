"""A pretraining run: the same bits for any workers, other bits for another seed, resumable."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pretrain.backbone import Backbone
from pretrain.config import (
    DatasetConfig,
    MixingConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
)
from pretrain.data.folders import open_folder
from pretrain.engine import pretrain, train_step
from pretrain.errors import Stopped, UserError
from pretrain.images import decode
from pretrain.mixing import CutMix
from pretrain.preparation import prepare
from pretrain.run import Result, Run
from pretrain.training import make_fabric

ROOT = Path(__file__).resolve().parents[2]


def config(world: Path, **changes) -> PretrainConfig:
    tiny = PretrainConfig(
        name="test",
        data=str(world),
        epochs=2,
        batch_size=20,
        workers=0,
        dataset=DatasetConfig(image_size=32, crop_pct=1.0, min_scale=0.5),
        model=ModelConfig(arch="resnet10t", args={"drop_rate": 0.2}),
        optimizer=OptimizerConfig(lr=0.05, schedule="cosine"),
    )
    return replace(tiny, **changes)


def train(folder: Path, **changes) -> Result:
    options = config(**changes)
    return pretrain(options, Run(folder), make_fabric("cpu"))


@pytest.fixture(scope="module")
def first(worlds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    return train(folder, world=worlds["classification"]), folder


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_the_bits(workers, first, worlds, tmp_path):
    result = train(tmp_path / "run", world=worlds["classification"], workers=workers)
    assert result.backbone["fingerprint"] == first[0].backbone["fingerprint"]
    assert result.metrics["train_loss"] == first[0].metrics["train_loss"]


def test_another_seed_gives_other_bits(first, worlds, tmp_path):
    result = train(tmp_path / "run", world=worlds["classification"], seed=1)
    assert result.backbone["fingerprint"] != first[0].backbone["fingerprint"]


def test_a_run_leaves_what_it_promises(first):
    result, folder = first
    for name in (
        "config.yaml",
        "log.jsonl",
        "backbone.pth",
        "result.json",
        "pictures/mixed_batch.png",
        "pictures/curves.png",
    ):
        assert (folder / name).stat().st_size > 0
    backbone = Backbone.load(folder / "backbone.pth")
    assert backbone.fingerprint() == result.backbone["fingerprint"]
    assert backbone.provenance.recipe == result.config
    assert backbone.arm == "cutmix"
    assert backbone.spec.num_classes == 10
    assert Result.read(folder / "result.json") == result
    assert [record["epoch"] for record in Run(folder).read_log()] == [1, 2]


@pytest.mark.parametrize("step", [1, 3, 4])
def test_stopped_and_resumed_equals_uninterrupted(step, first, worlds, tmp_path, monkeypatch):
    """A signal in the middle of an epoch (1, 4) and at its last step (3)."""
    count = 0

    def stopping(*arguments):
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments)

    monkeypatch.setattr("pretrain.engine.train_step", stopping)
    with pytest.raises(Stopped, match=f"step {step} of 6"):
        train(tmp_path / "run", world=worlds["classification"])
    assert not (tmp_path / "run" / "result.json").exists()
    result = train(tmp_path / "run", world=worlds["classification"], workers=1 if step == 4 else 0)
    assert result.backbone["fingerprint"] == first[0].backbone["fingerprint"]
    for key in ("train_loss", "top1", "val_loss"):
        assert result.metrics[key] == first[0].metrics[key]


def test_killed_and_resumed_equals_uninterrupted(worlds, tmp_path):
    """SIGKILL at an arbitrary moment of the tool itself, then --resume."""
    command = [
        sys.executable,
        str(ROOT / "tools" / "pretrain.py"),
        "--device",
        "cpu",
        "--data",
        str(worlds["classification"]),
        "--epochs",
        "6",
        "--batch_size",
        "10",
        "--dataset.image_size",
        "32",
        "--workers",
        "1",
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = subprocess.Popen([*command, "--out", str(cut)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (cut / "checkpoints" / "last.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (cut / "result.json").exists()
    again = [
        sys.executable,
        str(ROOT / "tools" / "pretrain.py"),
        "--resume",
        str(cut),
        "--device",
        "cpu",
    ]
    subprocess.run(again, check=True, capture_output=True)
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    prints = [Backbone.load(run / "backbone.pth").fingerprint() for run in (whole, cut)]
    assert prints[0] == prints[1]


@pytest.mark.parametrize("method", ["none", "mixup", "cutout"])
def test_every_method_trains(method, worlds, tmp_path):
    options = config(worlds["classification"], epochs=1, mixing=MixingConfig(method=method))
    result = pretrain(options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert result.metrics["train_loss"] > 0
    assert result.backbone["arm"] == method


def test_bfloat16_and_padded_crops_train(worlds, tmp_path):
    options = config(
        worlds["classification"],
        epochs=1,
        precision="bf16-mixed",
        dataset=DatasetConfig(image_size=32, crop="padded"),
    )
    result = pretrain(options, Run(tmp_path / "run"), make_fabric("cpu", "bf16-mixed"))
    backbone = Backbone.load(tmp_path / "run" / "backbone.pth")
    assert {t.dtype for t in backbone.weights.values() if t.is_floating_point()} == {torch.float32}
    assert result.metrics["train_loss"] > 0


def test_training_accuracy_is_against_the_mixed_label(worlds):
    """A prediction of the partner's class earns the partner's weight."""
    fabric = make_fabric("cpu")

    class Oracle(torch.nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.answer = torch.nn.Parameter(answer)

        def forward(self, images):
            return self.answer

    images, labels = torch.randn(4, 3, 20, 20), torch.arange(4)
    mixed = CutMix()(images, labels, 4, torch.Generator().manual_seed(3))
    assert 0 < float(mixed.lam[0]) < 1
    for wanted, answer in (
        (mixed.lam, torch.eye(4)[labels]),
        (1 - mixed.lam, torch.eye(4)[labels[mixed.partner]]),
    ):
        model = Oracle(answer)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        model, optimizer = fabric.setup(model, optimizer)
        _, accuracy = train_step(model, optimizer, fabric, mixed, config(worlds["classification"]))
        own = (mixed.partner == torch.arange(4)).float()
        expected = torch.where(own.bool(), torch.ones(4), wanted).mean()
        assert float(accuracy) == pytest.approx(float(expected), abs=1e-6)


def test_divergence_is_said(worlds, tmp_path):
    options = config(worlds["classification"], optimizer=OptimizerConfig(lr=1e12))
    with pytest.raises(UserError, match="diverged"):
        pretrain(options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    "trouble", ["no folder", "no split", "no classes", "empty class", "other classes"]
)
def test_folders_as_users_give_them(trouble, worlds, tmp_path):
    root = tmp_path / "data"
    words = {
        "no folder": "there is no folder",
        "no split": "holds pictures",
        "no classes": "no class folders",
        "empty class": "no images .* in class cat",
        "other classes": "different classes.*dog",
    }[trouble]
    if trouble != "no folder":
        root.mkdir()
    if trouble == "no split":
        (root / "pictures").mkdir()
    if trouble == "no classes":
        (root / "train").mkdir()
    if trouble in ("empty class", "other classes"):
        source = next((worlds["classification"] / "train").rglob("*.jpg"))
        for folder in ("train/cat", "train/star", "val/cat", "val/dog"):
            (root / folder).mkdir(parents=True)
            (root / folder / "1.jpg").write_bytes(source.read_bytes())
        if trouble == "empty class":
            (root / "train/cat/1.jpg").unlink()
    with pytest.raises(UserError, match=words):
        prepare(config(root))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(workers, worlds, tmp_path):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(worlds["classification"], root)
    victim = sorted((root / "train" / "star").iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(UserError, match=f"image .*{victim.name} cannot be decoded"):
        train(tmp_path / "run", world=root, workers=workers)
    assert not (tmp_path / "run" / "result.json").exists()


def test_decoding_equals_pil(tmp_path):
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    for mode, name in (
        ("RGB", "a.jpg"),
        ("L", "b.jpg"),
        ("CMYK", "c.jpg"),
        ("P", "d.png"),
        ("RGBA", "e.png"),
    ):
        path = tmp_path / name
        Image.fromarray(noise).convert(mode).save(path)
        wanted = np.asarray(Image.open(path).convert("RGB"))
        assert np.array_equal(decode(path).permute(1, 2, 0).numpy(), wanted), mode
    png = tmp_path / "png_by_content.JPEG"
    Image.fromarray(noise).save(png, format="PNG")
    assert np.array_equal(decode(png).permute(1, 2, 0).numpy(), noise)


def test_image_folder_equals_torchvision_s(worlds):
    from torchvision.datasets import ImageFolder

    ours = open_folder(worlds["classification"], "train")
    theirs = ImageFolder(worlds["classification"] / "train")
    assert list(ours.classes) == theirs.classes
    paths = [str(ours.path(index)) for index in range(len(ours))]
    assert list(zip(paths, ours.labels, strict=True)) == theirs.samples
