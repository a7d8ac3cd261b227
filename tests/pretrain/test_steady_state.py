"""A step asks its device for nothing, so that the host stays ahead of it: counted on a CPU.

See tests/device_reads.py. What a step on CUDA would run is run here: `by_slices` says what it says
there.
"""

import json
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from pretrain.config import (
    DatasetConfig,
    LoaderConfig,
    MethodConfig,
    MixingConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
    RotationConfig,
)
from pretrain.engine import evaluate, train_step
from pretrain.mixing import network_parts
from pretrain.mixing.schedule import METHODS
from pretrain.run import Run
from pretrain.setup import build, setup_training
from pretrain.training import (
    MicroBatch,
    TrainLoop,
    device_batches,
    make_fabric,
    make_train_state,
    optimizer_step,
)
from tests.device_reads import DeviceReads, counted

ROOT = Path(__file__).resolve().parents[2]
READS: dict[str, int] = {}
"""Of a step, by method; one that is not here reads nothing. See docs/mixing.md."""
ARGS = {"puzzlemix": {"block_num": 2}}


@pytest.fixture(scope="module")
def trainings(worlds):
    """Made once for an architecture: options, setup, state, loaders."""
    made = {}

    def make(arch: str, **changes):
        if arch not in made or changes:
            options = PretrainConfig(
                data=str(worlds["classification"]),
                batch_size=6,
                epochs=1,
                loader=LoaderConfig(workers=0),
                dataset=DatasetConfig(image_size=64, crop_pct=1.0),
                model=ModelConfig(arch=arch),
                optimizer=OptimizerConfig(lr=1e-3, clip_norm=1.0, ema=0.9),
            )
            options = replace(options, **changes)
            setup = build(options)
            made[arch] = (
                options,
                setup,
                *setup_training(setup, options, make_fabric("cpu")),
            )
        made[arch][2].model.train()
        return made[arch]

    return make


@pytest.fixture(autouse=True)
def as_on_cuda(monkeypatch):
    for module in [m for name, m in sys.modules.items() if name.startswith("pretrain.")]:
        if hasattr(module, "by_slices"):
            monkeypatch.setattr(module, "by_slices", lambda images: False)


def reads_of_step(training) -> DeviceReads:
    """What the third step of a run reads."""
    options, setup, state, loaders = training
    reads, step = DeviceReads(), 2 * len(loaders.train)  # no picture is drawn there
    images, labels = next(iter(loaders.train.epoch(0)))
    for counting in (nullcontext(), counted(reads, state.network, state.averaged)):
        with counting:
            batch = images.clone(), labels.clone()
            reads.put(batch)
            parts = iter([MicroBatch(0, batch, True)])
            train_step(state, loaders, setup, options, make_fabric("cpu"), step, parts)
    return reads


@pytest.mark.parametrize("method", METHODS)
def test_no_method_waits_for_the_device(method, trainings):
    training = trainings("test_vit" if method == "transmix" else "test_resnet")
    options, setup, state, loaders = training
    mixing = MixingConfig(method=method, args=ARGS.get(method, {}))
    parts = {**network_parts(mixing, setup.network), "std": setup.spec.std}
    setup = replace(setup, network_parts=parts)
    reads = reads_of_step((replace(options, mixing=mixing), setup, state, loaders))
    assert len(reads) == READS.get(method, 0), reads.places


def test_nor_do_colours_a_second_loss_several_methods_and_turned_images(trainings):
    mixing = MixingConfig(decoupled=0.1, others=[MethodConfig(method="mixup")])
    dataset = DatasetConfig(
        image_size=64, crop="padded", color_jitter=0.4, lighting=0.1, crop_pct=1.0
    )
    rotation = RotationConfig(weight=0.5, angles="one")
    training = trainings("test_resnet", mixing=mixing, dataset=dataset, rotation=rotation)
    reads = reads_of_step(training)
    assert not reads.places


def test_a_scaler_of_gradients_asks_once_whether_they_are_finite():
    """torch's own: it skips such a step."""
    scaler = torch.amp.GradScaler("cpu")
    fabric = Fabric(accelerator="cpu", plugins=MixedPrecision("16-mixed", "cpu", scaler))
    options = PretrainConfig(optimizer=OptimizerConfig(clip_norm=1.0, ema=0.9))
    state = make_train_state(nn.Linear(4, 3), options, fabric, steps_per_epoch=10)

    def loss_function(batch):
        loss = state.model(batch.data).square().mean()
        return loss, loss[None]

    batch = torch.ones(2, 4)
    with counted(DeviceReads(), state.network, state.averaged) as reads:
        reads.put(batch)
        optimizer_step(state, fabric, [MicroBatch(0, batch, True)], loss_function, 0)
    assert len(reads) == 1, reads.places


def test_the_loop_around_the_steps_reads_for_tensorboard_alone(trainings, tmp_path, monkeypatch):
    """Every fiftieth step, of which the first is one; metrics are added up on the device."""
    pytest.importorskip("tensorboard")
    options, setup, state, loaders = trainings("test_resnet", tensorboard=True)
    run, fabric, found = Run(tmp_path / "run"), make_fabric("cpu"), []
    run.start({}, None, {})
    with counted(DeviceReads(), state.network, state.averaged) as reads:
        loop = TrainLoop(run, fabric, state, loaders.train, options, num_metrics=2)
        with loop.running("test"):
            for step, parts in loop.steps(0):
                count = len(reads)
                moved = []
                for part in parts:
                    reads.put(part.data)
                    moved.append(part)
                metrics = train_step(state, loaders, setup, options, fabric, step, iter(moved))
                loop.finish_step(metrics)
                found.append(len(reads) - count)
                if step == 3:
                    break
    assert found == [1, 0, 0, 0], reads.places


def test_scoring_reads_at_its_end(trainings):
    _, setup, state, loaders = trainings("test_resnet")
    counts = []
    for size in (20, 5):
        loaders.val.batches.batch_size = size
        loaders.val._kept.clear()
        with counted(DeviceReads(), state.network, state.averaged) as reads:
            scores = evaluate(state, loaders, setup, make_fabric("cpu"))
        assert scores["val_loss"] > 0
        counts.append(len(reads))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    "read",
    [
        lambda there: there.sum().item(),
        lambda there: float(there[0]),
        lambda there: bool(there.any()),
        lambda there: there.tolist(),
        lambda there: (there * 2).cpu(),
        lambda there: there.to("cpu"),
        lambda there: there[0].numpy(),
        lambda there: np.asarray(there),
        lambda there: there[there > 0],
        lambda there: there.nonzero(),
        lambda there: torch.unique(there),
        lambda there: torch.zeros(3, device=there.device).tolist(),
        lambda there: torch.zeros(3).to(there.device, non_blocking=True).tolist(),
        lambda there: torch.zeros(3).add_(there.sum()).tolist(),
    ],
)
def test_what_is_counted(read):
    there, reads = torch.ones(4), DeviceReads()
    with counted(reads):
        reads.put(there)
        read(there)
    assert len(reads) == 1


def test_what_is_not():
    there, here, reads = torch.ones(4), torch.ones(4), DeviceReads()
    with counted(reads):
        reads.put(there)
        here.tolist()
        float(here[here > 0].sum())
        there[torch.tensor([0, 1])] = here[0].item()
        torch.where(there > 0, there, 0).clamp_(max=1)
    assert not reads.places


class Stream:
    """Of a GPU that is not there: which work it got is noted in order."""

    def __init__(self, name: str, work: list[str]) -> None:
        self.name, self.work = name, work

    def wait_stream(self, other: "Stream") -> None:
        """Called by a stream that is to wait."""
        self.work.append(f"{self.name} waits for {other.name}")


def test_on_cuda_batches_are_copied_beside_the_step(monkeypatch):
    """In one stream for all batches; the step's waits for it, and is noted on their memory."""
    work: list[str] = []
    step, made, now = Stream("step", work), [], ["step"]

    @contextmanager
    def entered(stream):
        now.append(stream.name)
        yield
        now.pop()

    def make(device):
        made.append(device)
        return Stream("side", work)

    class Gpu:
        device = torch.device("cuda", 0)

        def to_device(self, batch):
            work.append(f"copied in {now[-1]}")
            return batch

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: step)
    monkeypatch.setattr(torch.cuda, "Stream", make)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda _, stream: work.append(f"kept for {stream.name}")
    )
    device_batches._copying_stream.cache_clear()
    batch = torch.zeros(2), {"labels": torch.ones(3), "names": ["a"]}
    for _ in range(2):
        assert device_batches.to_device(batch, Gpu()) is batch
    device_batches._copying_stream.cache_clear()
    assert work == ["copied in side", "step waits for side", *["kept for step"] * 2] * 2
    assert made == [Gpu.device]
    assert now == ["step"]


def test_elsewhere_batches_are_moved_as_ever(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: pytest.fail("a stream"))
    batch = torch.zeros(2), [torch.ones(3)]
    moved = device_batches.to_device(batch, make_fabric("cpu"))
    assert moved[0] is batch[0]
    assert moved[1][0] is batch[1][0]


@pytest.mark.parametrize("source", ["folder", "shards"])
def test_memory_is_flat_over_10_000_steps(source, full, worlds, tmp_path):
    """Of the training process and its two loader processes, from step 1,000 on."""
    if not full:
        pytest.skip("10,000 steps are made with --full")
    data = worlds["classification"]
    if source == "shards":
        store = tmp_path / "store"
        command = [sys.executable, "tools/pack.py", "--data", str(data), "--out", str(store)]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
        data = store
    command = [sys.executable, "-m", "tests.steady_memory", str(data), "10000", "1000"]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    before, after = json.loads(done.stdout).values()
    assert len(before) == 3
    for early, late in zip(before, after, strict=True):
        assert late < 1.05 * early + 5
