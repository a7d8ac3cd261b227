"""What every trainer has: averages, curves, step-wise checkpoints, lengths in steps, compile."""

import shutil
from dataclasses import replace

import pytest
import torch

from pretrain.config import CheckpointsConfig, LoaderConfig, PretrainConfig
from pretrain.data_digest import read_digest
from pretrain.errors import Stopped
from pretrain.run import Run
from pretrain.training import TrainLoop, make_fabric
from tests.conftest import ROOT
from tests.transfer.detection.test_engine import SMALL as SMALL_DETECTOR
from tools.support.command import load_config
from transfer import task as tasks
from transfer.segmentation.config import MixingConfig, SegmenterConfig

pytestmark = pytest.mark.usefixtures("no_pictures")
SMALL = {
    "classification": {"mode": "full", "batch_size": 20},
    "detection": {"batch_size": 4, "engine": "torchvision"},
    "segmentation": {"batch_size": 4, "segmenter": SegmenterConfig(output_stride=32)},
    "captioning": {"batch_size": 20, "meteor": "off"},
}
KEPT = {
    "classification": "classifier.pth",
    "detection": "detector.pth",
    "segmentation": "segmenter.pth",
    "captioning": "captioner.pth",
}


@pytest.fixture
def train(worlds, backbone, tmp_path, monkeypatch):
    """Train one of the tasks for five steps of three (detection: two) an epoch."""
    compiled = []

    def compile_eagerly(module, **options):
        compiled.append(module)
        return torch_compile(module, **{**options, "backend": "eager"})

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_eagerly)

    def run(name: str, folder: str, *, stop_after=None, **changes):
        task = tasks.by_name(name)
        kind = tasks.load(task.config)
        recipe = load_config(kind, ROOT / "configs" / name / "grid.yaml")
        data = worlds["captions" if name == "captioning" else name]
        options = replace(
            recipe,
            data=str(data),
            duration="5 steps",
            loader=LoaderConfig(workers=0),
            checkpoints=CheckpointsConfig(every_steps=1, every_epochs=1),
            optimizer=replace(recipe.optimizer, warmup=0.0, ema=0.5),
            **SMALL[name],
            **changes,
        )
        if hasattr(options, "cache"):
            options = replace(options, cache=str(tmp_path / "cache"))
        if name == "detection":
            dataset, detector = replace(options.dataset, short_side=64), SMALL_DETECTOR
            options = replace(options, dataset=dataset, detector=detector)
        if name == "segmentation":
            dataset = replace(options.dataset, crop_size=32)
            options = replace(options, dataset=dataset, mixing=MixingConfig(cutmix=0.5))
        path = Run(tmp_path / folder)
        finetune = tasks.load(task.finetune)
        result = finetune(backbone, options, path, make_fabric("cpu"), stop_after=stop_after)
        return result, path

    run.compiled = compiled
    return run


@pytest.mark.parametrize("name", ["classification", "detection", "segmentation", "captioning"])
def test_every_trainer_averages_draws_curves_and_ends_at_its_step(name, train, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result, run = train(name, "whole", tensorboard=True, compile=True)
    log = run.read_log()
    steps_per_epoch = log[0]["step"]
    epochs = -(-5 // steps_per_epoch)
    assert [record["step"] for record in log] == [
        min(5, steps_per_epoch * epoch) for epoch in range(1, epochs + 1)
    ]
    assert result.metrics["epochs"] == epochs
    assert result.data["digest"] == read_digest(run.folder / "data.json")["digest"]
    assert train.compiled

    # what is kept is the average, not the last weights; and one file an epoch
    state = torch.load(run.checkpoint, weights_only=True)
    kept = torch.load(run.folder / "checkpoints" / f"epoch-{epochs:04d}.pth", weights_only=True)
    prefix = "decoder." if name == "captioning" else ""
    weights, average = kept["state_dict"], state["ema"]
    trained = [key for key, tensor in state["model"].items() if tensor.is_floating_point()]
    assert not any("_orig_mod" in key for key in state["model"])
    assert all(torch.equal(weights[key], average[prefix + key]) for key in trained)
    assert any(not torch.equal(weights[key], state["model"][key]) for key in trained)

    curves = events.EventAccumulator(str(run.folder / "tensorboard"))
    curves.Reload()
    assert [event.step for event in curves.Scalars("epoch/loss")] == [r["step"] for r in log]
    assert [event.value for event in curves.Scalars("epoch/loss")] == pytest.approx(
        [record["loss"] for record in log], abs=1e-6
    )

    # stopped in the shorter last epoch and resumed: the same bits
    with pytest.raises(Stopped, match="step 4 of 5"):
        train(name, "parts", stop_after=4)
    _, resumed = train(name, "parts")
    again = torch.load(resumed.folder / KEPT[name], weights_only=True)["state_dict"]
    final = torch.load(run.folder / KEPT[name], weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, again[key]) for key, tensor in final.items())


def test_the_state_is_saved_after_so_many_steps(train, monkeypatch):
    saved = []
    save = TrainLoop._save
    monkeypatch.setattr(
        TrainLoop, "_save", lambda loop: (saved.append((loop.epoch, loop.done)), save(loop))
    )
    train("detection", "run")
    assert saved == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (3, 0)]


def test_the_detector_is_scored_by_the_steps_that_are_asked_for(train):
    """Of ten images in steps of four an epoch has two steps: multiples of four fall in every second
    epoch, and the end is always scored.
    """
    _, run = train("detection", "run", score_every="4 steps")
    assert ["AP50" in record for record in run.read_log()] == [False, True, True]
    shutil.rmtree(run.folder)
    _, run = train("detection", "run", score_every=1)
    assert ["AP50" in record for record in run.read_log()] == [True, True, True]


def test_a_run_is_as_long_as_its_duration():
    config = PretrainConfig(batch_size=32, duration="3200 images")
    assert config.steps(steps_per_epoch=7) == 100
    assert PretrainConfig(epochs=2).steps(7) == 14
