"""A pretraining run: the same bits for any workers, other bits for another seed, resumable."""

import contextlib
import copy
import errno
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from pretrain.backbone import Backbone
from pretrain.config import (
    CheckpointsConfig,
    DatasetConfig,
    LoaderConfig,
    MethodConfig,
    MixingConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
)
from pretrain.data.folders import open_folder
from pretrain.engine import mixed_accuracy, pretrain, train_step
from pretrain.errors import Stopped, UsageError
from pretrain.images import decode
from pretrain.mixing import CutMix
from pretrain.mixing.schedule import Unmixed
from pretrain.run import Result, Run
from pretrain.setup import build, setup_training
from pretrain.training import make_fabric, micro_batches
from tests.forked import Forked
from tools.support import prove_resume
from tools.support.prove_resume import prove

pytestmark = pytest.mark.usefixtures("no_pictures")
ROOT = Path(__file__).resolve().parents[2]


def config(world: Path, **changes) -> PretrainConfig:
    tiny = PretrainConfig(
        name="test",
        data=str(world),
        epochs=2,
        batch_size=20,
        loader=LoaderConfig(workers=0),
        dataset=DatasetConfig(image_size=32, crop_pct=1.0, min_scale=0.5),
        model=ModelConfig(arch="test_resnet", args={"drop_rate": 0.2}),
        optimizer=OptimizerConfig(lr=0.05, schedule="cosine", ema=0.9),
        mixing=MixingConfig(probability=0.7, others=[MethodConfig(method="mixup")]),
        accumulate=2,
    )
    if "workers" in changes:
        changes["loader"] = LoaderConfig(workers=changes.pop("workers"))
    return replace(tiny, **changes)


def train(folder: Path, *, stop_after: int | None = None, **changes) -> Result:
    options = config(**changes)
    return pretrain(options, Run(folder), make_fabric("cpu"), stop_after=stop_after)


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
        "checkpoints/best.pth",
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
    assert backbone.method == "cutmix+mixup"
    assert backbone.provenance.classes == sorted(backbone.provenance.classes)
    assert backbone.spec.num_classes == 10
    assert Result.read(folder / "result.json") == result
    assert [record["epoch"] for record in Run(folder).read_log()] == [1, 2]


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (3, 3), (4, 1)])
def test_stopped_and_resumed_equals_uninterrupted(
    step, workers, first, worlds, tmp_path, monkeypatch
):
    """A signal in the middle of an epoch (1, 4) and at its last step (3); average, accumulation and
    a switch between methods are on.
    """
    count = 0

    def stopping(*arguments):
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments)

    monkeypatch.setattr("pretrain.engine.train_step", stopping)
    with pytest.raises(Stopped, match=f"step {step} of 6"):
        train(tmp_path / "run", world=worlds["classification"], workers=workers)
    assert not (tmp_path / "run" / "result.json").exists()
    result = train(tmp_path / "run", world=worlds["classification"], workers=workers)
    assert_equal_runs(result, first[0])


def assert_equal_runs(one: Result, two: Result) -> None:
    assert one.backbone["fingerprint"] == two.backbone["fingerprint"]
    for key in ("train_loss", "train_accuracy", "top1", "val_loss", "val_loss_raw", "best_epoch"):
        assert one.metrics.get(key) == two.metrics.get(key), key


@pytest.mark.parametrize("step", [2, 3, 6])
def test_a_planned_stop_is_resumed_to_the_same_bits(step, first, worlds, tmp_path):
    world = worlds["classification"]
    with pytest.raises(Stopped, match=f"step {step} of 6") as stopped:
        train(tmp_path / "run", world=world, stop_after=step)
    assert stopped.value.signal_number == 0
    with pytest.raises(Stopped, match=f"step {step} of 6"):  # it does not go on by itself
        train(tmp_path / "run", world=world, stop_after=step)
    assert_equal_runs(train(tmp_path / "run", world=world), first[0])


def test_a_stop_whose_checkpoint_is_not_written_is_an_error(worlds, tmp_path, monkeypatch):
    real = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "last.pth":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match=r"last\.pth cannot be written: No space left"):
        train(tmp_path / "run", world=worlds["classification"], stop_after=1)


def test_the_checkpoint_holds_all_that_a_run_is(first, worlds, tmp_path):
    """Each part of the state, were it not restored, would change the bits."""
    world, run = worlds["classification"], tmp_path / "run"
    with pytest.raises(Stopped):
        train(run, world=world, stop_after=4)
    path = run / "checkpoints" / "last.pth"
    whole = torch.load(path, weights_only=True)
    for part in ("model", "optimizer", "ema", "sums", "done"):
        state = torch.load(path, weights_only=True)
        if part == "model":
            state["model"]["fc.bias"] += 1e-3
        elif part == "optimizer":
            state["optimizer"]["state"][0]["momentum_buffer"] *= 1.01
        elif part == "ema":
            state["ema"]["fc.bias"] += 1e-3
        elif part == "sums":
            state["sums"] += 1e-3
        else:
            state["done"] = 0
        torch.save(state, path)
        copy = tmp_path / part
        shutil.copytree(run, copy)
        torch.save(whole, path)
        with pytest.raises(AssertionError):
            assert_equal_runs(train(copy, world=world), first[0])
    assert_equal_runs(train(run, world=world), first[0])


def test_what_may_change_on_resuming(first, worlds, tmp_path, capsys):
    world = worlds["classification"]
    with pytest.raises(Stopped):
        train(tmp_path / "run", world=world, stop_after=2)
    for refused in ({"batch_size": 10}, {"seed": 1}, {"epochs": 3}):
        with pytest.raises(UsageError, match=f"{next(iter(refused))}: .*only loader, accumulate"):
            train(tmp_path / "run", world=world, **refused)
    capsys.readouterr()
    train(tmp_path / "run", world=world, accumulate=1, workers=1)
    said = capsys.readouterr().err
    assert "was 1 process(es) x 2 accumulated x 10 images, now 1 process(es) x 1" in said
    assert "not to the same bits" in said
    first_epoch = [Run(folder).read_log()[0] for folder in (tmp_path / "run", first[1])]
    # a mean over the epoch, of which a step was counted twice as often before
    assert first_epoch[0]["train_loss"] == pytest.approx(first_epoch[1]["train_loss"], rel=0.15)


def test_other_data_is_another_run(worlds, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(worlds["classification"], root)
    with pytest.raises(Stopped):
        train(tmp_path / "run", world=root, stop_after=2)
    one = next((root / "train" / "star").iterdir())
    shutil.copy(one, one.with_name("more.jpg"))
    with pytest.raises(UsageError, match=r"has changed since .*images: 80 files then, 81 now"):
        train(tmp_path / "run", world=root)
    (tmp_path / "run/data.json").unlink()  # a run of before
    with pytest.raises(UsageError, match=r"other data: .*'samples': 60.*'samples': 61"):
        train(tmp_path / "run", world=root)


def test_gradients_that_are_not_finite_do_not_stop_a_training(worlds, tmp_path):
    """With a gradient scaler an overflow is normal: the step is left out and the scale halved."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    plan = OptimizerConfig(lr=0.05, clip_norm=1.0, schedule="cosine")
    options = config(worlds["classification"], optimizer=plan)
    result = pretrain(options, Run(tmp_path / "whole"), half(scaler))
    assert 0 < result.metrics["train_loss"] < 5
    assert scaler.get_scale() < 2.0**40
    again = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    with pytest.raises(Stopped):
        pretrain(options, Run(tmp_path / "cut"), half(again), stop_after=4)
    resumed = pretrain(options, Run(tmp_path / "cut"), half(torch.amp.GradScaler("cpu")))
    assert_equal_runs(resumed, result)


def half(scaler: torch.amp.GradScaler) -> Fabric:
    return Fabric(accelerator="cpu", plugins=MixedPrecision("16-mixed", "cpu", scaler))


def test_backbones_of_single_epochs_and_of_the_best(worlds, tmp_path):
    every = CheckpointsConfig(every_epochs=1)
    result = train(tmp_path / "run", world=worlds["classification"], checkpoints=every)
    folder = tmp_path / "run" / "checkpoints"
    kept = {path.stem: Backbone.load(path) for path in folder.glob("*.pth") if path.stem != "last"}
    assert set(kept) == {"best", "epoch-0001", "epoch-0002"}
    best = result.metrics["best_epoch"]
    assert kept["best"].fingerprint() == kept[f"epoch-{best:04d}"].fingerprint()
    assert kept["epoch-0002"].fingerprint() == result.backbone["fingerprint"]
    log = Run(tmp_path / "run").read_log()
    assert [kept[f"epoch-000{n}"].provenance.top1 for n in (1, 2)] == [r["top1"] for r in log]
    assert kept["epoch-0001"].provenance.epochs == 1
    assert kept["epoch-0001"].provenance.recipe["epochs"] == 2  # the schedule it was part of
    none = CheckpointsConfig(best=False)
    train(tmp_path / "bare", world=worlds["classification"], checkpoints=none)
    assert [p.name for p in (tmp_path / "bare" / "checkpoints").iterdir()] == ["last.pth"]


def test_the_average_of_the_weights_is_timm_s(worlds, tmp_path):
    """What is kept is ModelEmaV3's average over the steps, not the last weights."""
    options = config(worlds["classification"])
    setup = build(options)
    fabric = make_fabric("cpu")
    state, loaders = setup_training(setup, options, fabric)
    average = copy.deepcopy(state.network)
    state.model.train()
    batches = loaders.train.epoch(0)
    for step in range(3):
        parts = micro_batches(
            step, [next(batches), next(batches)], loaders.train, fabric, options.seed
        )
        train_step(state, loaders, setup, options, fabric, step, parts)
        decay = state.ema.get_decay(step)
        for mean, value in zip(average.parameters(), state.network.parameters(), strict=True):
            mean.data.lerp_(value.data, 1 - decay)
    for mean, kept in zip(average.parameters(), state.averaged.parameters(), strict=True):
        torch.testing.assert_close(mean, kept)
    assert not torch.equal(state.averaged.fc.weight, state.network.fc.weight)


@pytest.mark.parametrize(
    ("method", "mixes_from", "drawn"),
    [("cutmix", 0, [0]), ("cutmix", 1, [1]), ("cutmix", 9, [2]), ("none", 9, [0])],
)
def test_the_first_batch_that_mixes_is_drawn(
    method, mixes_from, drawn, worlds, tmp_path, monkeypatch
):
    """With a probability below 1 the first may not; where none of the epoch does, it is the last.

    Step 2 is the last of the first epoch, and a picture that is there stays, as on resuming.
    """
    options = config(worlds["classification"], mixing=MixingConfig(method=method), accumulate=1)
    setup, fabric = build(options), make_fabric("cpu")
    state, loaders = setup_training(setup, options, fabric)
    assert len(loaders.train) == 3
    step, seen = 0, []

    def mix_at(*_):
        return CutMix() if step >= mixes_from else Unmixed()

    def draw(mixed, classes, mean, std, path):
        seen.append(step)
        path.parent.mkdir(parents=True)
        path.touch()

    monkeypatch.setattr("pretrain.engine.mix_at", mix_at)
    monkeypatch.setattr("pretrain.engine.draw_mixed_batch", draw)
    batches = [*loaders.train.epoch(0), *loaders.train.epoch(1)]
    for step in range(5):
        parts = micro_batches(step, [batches[step]], loaders.train, fabric, 0)
        train_step(state, loaders, setup, options, fabric, step, parts, Run(tmp_path / "run"))
    assert seen == drawn


def test_training_goes_on_from_another_backbone(first, worlds, tmp_path):
    path = first[1] / "backbone.pth"
    start = Backbone.load(path)
    options = config(worlds["classification"], init=str(path), epochs=1)
    still = replace(options, optimizer=replace(options.optimizer, lr=1e-30, ema=None))
    result = pretrain(still, Run(tmp_path / "run"), make_fabric("cpu"), init=start)
    kept = Backbone.load(tmp_path / "run" / "backbone.pth")
    assert torch.equal(
        kept.weights["layer1.0.conv1.weight"], start.weights["layer1.0.conv1.weight"]
    )
    assert torch.equal(kept.weights["fc.weight"], start.weights["fc.weight"])
    assert result.config["init"] == str(path)
    other = replace(still, model=ModelConfig(arch="resnet18"))
    with pytest.raises(
        UsageError, match=r"--init is a test_resnet .* trains a resnet18.*--model\.arch"
    ):
        pretrain(other, Run(tmp_path / "other"), make_fabric("cpu"), init=start)


def test_other_classes_get_a_new_classifier(first, worlds, tmp_path):
    root = tmp_path / "two"
    for split in ("train", "val"):
        for name in sorted(os.listdir(worlds["classification"] / split))[:2]:
            shutil.copytree(worlds["classification"] / split / name, root / split / name)
    start = Backbone.load(first[1] / "backbone.pth")
    setup = build(config(root, init="x"), start)
    assert setup.network.fc.weight.shape[0] == 2
    assert torch.equal(setup.network.layer1[0].conv1.weight, start.weights["layer1.0.conv1.weight"])


def test_a_classifier_without_names_is_replaced_and_said(first, worlds):
    start = Backbone.load(first[1] / "backbone.pth")
    unnamed = replace(start, provenance=replace(start.provenance, classes=None))
    setup = build(config(worlds["classification"], init="x"), unnamed)
    assert not torch.equal(setup.network.fc.weight, start.weights["fc.weight"])
    (note,) = setup.notes
    assert note.endswith("replaced by a new one: its file does not name its classes")
    assert build(config(worlds["classification"], init="x"), start).notes == ()


def test_too_little_gpu_memory_names_the_way_out(worlds, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("pretrain.engine.optimizer_step", full)
    with pytest.raises(UsageError, match=r"10 images of 32 pixels.*batch_size 20.*--accumulate 4"):
        train(tmp_path / "run", world=worlds["classification"])


def test_any_of_timm_s_optimisers_and_curves(worlds, tmp_path):
    plan = OptimizerConfig(
        name="adamw",
        lr=1e-3,
        args={"betas": [0.8, 0.9]},
        no_decay="norms_and_biases",
        schedule="poly",
        min_lr=1e-5,
        clip_norm=1.0,
    )
    options = config(worlds["classification"], optimizer=plan, label_smoothing=0.1)
    state, _ = setup_training(build(options), options, make_fabric("cpu"))
    groups = state.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.0, 1e-4}
    assert all(tuple(group["betas"]) == (0.8, 0.9) for group in groups)
    pretrain(options, Run(tmp_path / "run"), make_fabric("cpu"))
    log = Run(tmp_path / "run").read_log()
    assert log[-1]["lr"] < log[0]["lr"] < 1e-3
    for wrong, words in (({"name": "adamm"}, "timm has .*adamw"), ({"args": {"nope": 1}}, "nope")):
        broken = replace(options, optimizer=replace(plan, **wrong))
        with pytest.raises(UsageError, match=words):
            setup_training(build(broken), broken, make_fabric("cpu"))


def test_norms_and_biases_decay_as_in_the_official_code(worlds):
    options = config(worlds["classification"], optimizer=OptimizerConfig())
    state, _ = setup_training(build(options), options, make_fabric("cpu"))
    assert {group["weight_decay"] for group in state.optimizer.param_groups} == {1e-4}
    assert all(group["nesterov"] for group in state.optimizer.param_groups)


def test_compiled_equals_plain(first, worlds, tmp_path, monkeypatch):
    """torch.compile around our network, with its backend that generates no code."""
    compiled = []

    def eager(module, **options):
        compiled.append(module)
        return torch_compile(module, **{**options, "backend": "eager"})

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", eager)
    result = train(tmp_path / "run", world=worlds["classification"], compile=True)
    assert compiled
    assert_equal_runs(result, first[0])
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pth", weights_only=True)
    assert not any("_orig_mod" in name for name in state["model"])


def test_curves_for_tensorboard_are_cut_where_a_run_is_resumed(worlds, tmp_path):
    """A kill loses the checkpoints after step 2, but not what was written for TensorBoard."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, checkpoint = tmp_path / "run", tmp_path / "run" / "checkpoints" / "last.pth"
    for stop in (2, 4, None):
        with contextlib.suppress(Stopped):
            train(run, world=worlds["classification"], tensorboard=True, stop_after=stop)
        if stop == 2:
            shutil.copy(checkpoint, tmp_path / "kept.pth")
        if stop == 4:
            shutil.copy(tmp_path / "kept.pth", checkpoint)
    held = events.EventAccumulator(str(run / "tensorboard"))
    held.Reload()
    assert [event.step for event in held.Scalars("epoch/top1")] == [3, 6]
    log = Run(run).read_log()
    found = [event.value for event in held.Scalars("epoch/train_loss")]
    assert found == pytest.approx([record["train_loss"] for record in log], abs=1e-6)


def test_each_micro_batch_is_mixed_by_its_own_draws(worlds, monkeypatch):
    options = config(worlds["classification"])
    state, loaders = setup_training(build(options), options, make_fabric("cpu"))
    drawn = []

    class Recorded(Unmixed):
        def __call__(self, images, labels, num_classes, generator):
            drawn.append(float(torch.rand((), generator=generator)))
            return super().__call__(images, labels, num_classes, generator)

    monkeypatch.setattr("pretrain.engine.mix_at", lambda *_: Recorded())
    setup, fabric, batches = build(options), make_fabric("cpu"), loaders.train.epoch(0)
    for step in (0, 1):
        parts = micro_batches(
            step, [next(batches), next(batches)], loaders.train, fabric, options.seed
        )
        train_step(state, loaders, setup, options, fabric, step, parts)
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_left_out_up_to_a_limit(workers, worlds, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(worlds["classification"], root)
    for split, place in (("train", 3), ("train", 40), ("val", 5)):
        victim = sorted((root / split).rglob("*.jpg"))[place]
        victim.write_bytes(victim.read_bytes()[:300])
    allowed = replace(config(root).dataset, max_corrupt=2)
    result = train(tmp_path / "run", world=root, dataset=allowed, workers=workers)
    said = capsys.readouterr().err
    assert said.count("left out (1 of at most 2)") == 2  # once in training, once in validation
    assert said.count("left out (2 of at most 2)") == 1
    assert result.metrics["images_left_out"] == 3
    one = replace(allowed, max_corrupt=1)
    with pytest.raises(
        UsageError,
        match=r"cannot be decoded.*It is number 2; 1 may be left out\. --dataset\.max_corrupt N",
    ):
        train(tmp_path / "strict", world=root, dataset=one, workers=workers)


def test_a_cached_run_equals_one_that_reads(worlds, tmp_path):
    """Images in memory or from files: the same padded crops, the same bits."""
    size = {"image_size": 32, "crop": "padded", "crop_pct": 1.0}
    read = train(tmp_path / "read", world=worlds["classification"], dataset=DatasetConfig(**size))
    cached = DatasetConfig(**size, cache=True)
    kept = train(tmp_path / "kept", world=worlds["classification"], dataset=cached, workers=1)
    assert_equal_runs(read, kept)
    with pytest.raises(UsageError, match="padded"):
        DatasetConfig(cache=True)


@pytest.fixture
def forks(monkeypatch):
    if sys.platform == "linux":
        monkeypatch.setattr(prove_resume, "Popen", Forked)


def test_killed_and_resumed_equals_uninterrupted(worlds, capsys, forks):
    """SIGKILL at two moments of the tool itself, while it is at work, then --resume."""
    options = config(worlds["classification"], epochs=5, workers=1)
    prove(options, "cpu", kills=2, stop_after=1000, seed=1)
    said = capsys.readouterr()
    assert "2 of 2 killed and resumed runs equal the uninterrupted one bit for bit" in said.out
    assert said.err.count("SIGKILL") == 2


def test_a_run_that_resumes_otherwise_is_found_out(worlds, tmp_path, monkeypatch, forks):
    """The proof can fail: here the resumed run begins from a momentum that was touched."""
    options = config(worlds["classification"], epochs=1)
    watched = prove_resume._watched

    def otherwise(command, folder, moment):
        if moment is not None:  # instead of a kill: a stop one step earlier
            watched([*command, "--stop-after", "1"], folder, None)
            return -1.0
        if "--resume" in command:
            path = folder / "checkpoints" / "last.pth"
            state = torch.load(path, weights_only=True)
            state["optimizer"]["state"][0]["momentum_buffer"] *= 1.001
            torch.save(state, path)
        return watched(command, folder, None)

    monkeypatch.setattr(prove_resume, "_watched", otherwise)
    with pytest.raises(UsageError, match=r"kill 1 of 1.* values differ: .*checkpoint\.model"):
        prove(options, "cpu", kills=1, stop_after=2)


@pytest.mark.parametrize("method", ["none", "mixup", "cutout"])
def test_every_method_trains(method, worlds, tmp_path):
    options = config(worlds["classification"], epochs=1, mixing=MixingConfig(method=method))
    result = pretrain(options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert result.metrics["train_loss"] > 0
    assert result.backbone["method"] == method


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


def test_training_accuracy_is_against_the_mixed_label():
    """A prediction of the partner's class earns the partner's weight."""
    images, labels = torch.randn(4, 3, 20, 20), torch.arange(4)
    mixed = CutMix(partner="other")(images, labels, 4, torch.Generator().manual_seed(3))
    assert 0 < float(mixed.lam[0]) < 1
    own, partner = torch.eye(4)[labels], torch.eye(4)[labels[mixed.partner]]
    assert float(mixed_accuracy(own, mixed.targets)) == pytest.approx(float(mixed.lam.mean()))
    found = float(mixed_accuracy(partner, mixed.targets))
    assert found == pytest.approx(float(1 - mixed.lam.mean()))


def test_divergence_is_said(worlds, tmp_path):
    options = config(worlds["classification"], optimizer=OptimizerConfig(lr=4e9))
    with pytest.raises(UsageError, match="diverged"):
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
        "no classes": "no images in class folders",
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
    with pytest.raises(UsageError, match=words):
        build(config(root))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(workers, worlds, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(worlds["classification"], root)
    victim = sorted((root / "train" / "star").iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(UsageError, match=f"image .*{victim.name} cannot be decoded"):
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
