"""Progressive resizing: FFCV's rule, and a run that is resumed between two sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pretrain.config import (
    DatasetConfig,
    LoaderConfig,
    MixingConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
    ProgressiveConfig,
)
from pretrain.engine import pretrain, train_step
from pretrain.errors import Stopped, UsageError
from pretrain.projection import project
from pretrain.run import Run
from pretrain.setup import build, setup_training
from pretrain.training import make_fabric
from tools.support.rehearsal import rehearse

pytestmark = pytest.mark.usefixtures("no_pictures")
RISING = ProgressiveConfig(smallest=16, start=0, end=2, multiple=8)


def dataset(**changes) -> DatasetConfig:
    usual = {"image_size": 32, "crop_pct": 1.0, "min_scale": 0.5, "progressive": RISING}
    return DatasetConfig(**{**usual, **changes})


def config(world, **changes) -> PretrainConfig:
    tiny = PretrainConfig(
        name="test",
        data=str(world),
        epochs=3,
        batch_size=30,
        loader=LoaderConfig(workers=0),
        dataset=dataset(),
        model=ModelConfig(arch="test_resnet"),
        optimizer=OptimizerConfig(lr=0.05, schedule="cosine"),
        mixing=MixingConfig(probability=0.7),
    )
    return replace(tiny, **changes)


def ffcv(epoch, min_res, max_res, end_ramp, start_ramp):
    """The rule of libffcv/ffcv-imagenet, train_imagenet.py."""
    if epoch <= start_ramp:
        return min_res
    if epoch >= end_ramp:
        return max_res
    interp = np.interp([epoch], [start_ramp, end_ramp], [min_res, max_res])
    return int(np.round(interp[0] / 32)) * 32


@pytest.mark.parametrize("ramp", [(160, 192, 76, 65), (128, 224, 80, 10), (96, 288, 13, 11)])
def test_sizes_are_ffcv_s(ramp):
    smallest, largest, end, start = ramp
    progressive = ProgressiveConfig(smallest=smallest, start=start, end=end)
    options = dataset(image_size=largest, progressive=progressive)
    sizes = [options.size_at(epoch) for epoch in range(88)]
    assert sizes == [ffcv(epoch, *ramp) for epoch in range(88)]
    assert sizes == sorted(sizes)


def test_without_it_every_epoch_has_image_size():
    assert {DatasetConfig().size_at(epoch) for epoch in range(300)} == {224}


def test_sizes_of_no_multiple_stay_within_both_ends():
    options = dataset(progressive=ProgressiveConfig(smallest=17, start=0, end=9, multiple=16))
    assert {options.size_at(epoch) for epoch in range(12)} == {17, 32}


@pytest.fixture(scope="module")
def sizes_and_result(worlds, tmp_path_factory):
    """What goes through the network in a run of three epochs of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        seen = watch(patch)
        patch.setattr("pretrain.engine.draw_mixed_batch", lambda *_: None)
        patch.setattr("pretrain.engine.draw_curves", lambda *_: None)
        options = config(worlds["classification"])
        folder = tmp_path_factory.mktemp("progressive") / "run"
        return seen, pretrain(options, Run(folder), make_fabric("cpu"))


def watch(patch) -> list[int]:
    """Sizes of training batches from now on."""
    seen: list[int] = []

    def step(state, loaders, setup, config, fabric, number, parts, run):
        parts = list(parts)
        seen.extend(part.data[0].shape[-1] for part in parts)
        return train_step(state, loaders, setup, config, fabric, number, iter(parts), run)

    patch.setattr("pretrain.engine.train_step", step)
    return seen


def test_each_epoch_has_its_size_and_scores_have_image_size(sizes_and_result, worlds):
    seen, result = sizes_and_result
    assert seen == [16, 16, 24, 24, 32, 32]
    assert result.config["dataset"]["progressive"]["smallest"] == 16
    options = config(worlds["classification"])
    _, loaders = setup_training(build(options), options, make_fabric("cpu"))
    assert {images.shape[-1] for images, _ in loaders.val.epoch(0)} == {32}


def test_stopped_within_a_size_and_resumed_equals_uninterrupted(
    sizes_and_result, worlds, tmp_path, monkeypatch
):
    """In the second epoch; the rest is read by a worker process."""
    seen, options = watch(monkeypatch), config(worlds["classification"])
    with pytest.raises(Stopped):
        pretrain(options, Run(tmp_path / "run"), make_fabric("cpu"), stop_after=3)
    options = replace(options, loader=LoaderConfig(workers=1))
    result = pretrain(options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert seen == sizes_and_result[0]
    assert result.backbone["fingerprint"] == sizes_and_result[1].backbone["fingerprint"]


def test_a_dry_run_says_sizes_and_counts_their_cost(worlds):
    options = config(worlds["classification"])
    setup = build(options)
    said = "16 pixels from epoch 1, 24 pixels from epoch 2, 32 pixels from epoch 3; scored at 32"
    assert any(said in note for note in setup.notes)
    rehearsal = rehearse("pretrain", setup, options, make_fabric("cpu"))
    assert {images.shape[-1] for images, _ in rehearsal.loader.epoch(0)} == {32}
    assert rehearsal.cost == pytest.approx((0.25 + 0.5625 + 1) / 3)
    cost = project(rehearsal, make_fabric("cpu"))
    images = rehearsal.trained * rehearsal.cost + rehearsal.scored / 3
    assert cost.hours == pytest.approx(images / cost.samples_per_second / 3600)
    assert cost.epochs == 3


def test_a_gpu_s_memory_is_said_for_the_size_of_the_epoch(worlds, monkeypatch):
    options = config(worlds["classification"])
    setup, fabric = build(options), make_fabric("cpu")
    state, loaders = setup_training(setup, options, fabric)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("pretrain.engine.optimizer_step", full)
    for step, size in ((0, 16), (3, 24), (4, 32)):
        with pytest.raises(UsageError, match=f"30 images of {size} pixels at once"):
            train_step(state, loaders, setup, options, fabric, step, iter(()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop": "padded"}, "dataset.crop padded.*--dataset.progressive.smallest null"),
        ({"crop": "whole", "cache": True}, "dataset.cache true.*--dataset.cache false"),
        (
            {"progressive": replace(RISING, smallest=33)},
            r"smallest is 33; it must lie in \[8, 32\]",
        ),
        ({"progressive": replace(RISING, end=None)}, "end None.*--dataset.progressive.end N"),
        ({"progressive": replace(RISING, start=3)}, "start 3 and end 2"),
        ({"progressive": replace(RISING, end=float("nan"))}, "end is nan"),
        ({"progressive": replace(RISING, multiple=0)}, "multiple is 0"),
    ],
)
def test_contradictions_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        dataset(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {
                "model": ModelConfig(
                    arch="test_vit", args={"dynamic_img_size": False, "img_size": 32}
                )
            },
            "test_vit takes no images",
        ),
        ({"epochs": 2}, r"end is 2, but the run has 2 epoch\(s\).*end 1 or less"),
        ({"epochs": None, "duration": "3 steps"}, r"the run has 2 epoch\(s\)"),
    ],
)
def test_runs_that_cannot_be_so_are_refused(changes, words, worlds):
    with pytest.raises(UsageError, match=words):
        build(config(worlds["classification"], **changes))
