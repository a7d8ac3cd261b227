"""Processes that are lost, restarts on another number of them, machines that differ, BatchNorm."""

import json
import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from pretrain.backbone import Backbone
from pretrain.config import PretrainConfig
from pretrain.errors import UsageError
from pretrain.setup import _loaders, build, setup_training
from pretrain.training import make_fabric
from tests.conftest import ROOT
from tests.forked import call, start, start_ranks, text_of
from tools.support.command import load_config

RECIPE = ROOT / "configs" / "pretrain" / "demo.yaml"
STATES = "../tests/pretrain/rank_states"  # as a tool


def options(data: Path, arch: str, *words: object) -> list[str]:
    """No mixing: then any division of the batch makes the same steps."""
    settings = ["--config", RECIPE, "--data", data, "--device", "cpu", "--model.arch", arch,
                "--dataset.image_size", "32", "--dataset.crop", "resized", "--dataset.flip",
                "0", "--mixing.method", "none", "--batch_size", "12", "--loader.workers", "0",
                "--optimizer.name", "momentum", "--optimizer.lr", "0.05", "--optimizer.schedule",
                "step", "--optimizer.warmup", "0", "--optimizer.ema", "0.5",
                "--optimizer.weight_decay", "0", "--label_smoothing", "0", *words]  # fmt: skip
    return [*map(str, settings)]


def wait_all(ranks: list) -> list[int]:
    return [rank.wait(timeout=100) for rank in ranks]


def step_of(folder: Path) -> int:
    """Of the last checkpoint."""
    path = folder / "checkpoints" / "last.pth"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    return state["epoch"] * state["data"]["steps an epoch"] + state["done"]


# ---- one that is lost, and restarts


def test_a_killed_run_goes_on_with_other_numbers_of_processes(worlds, tmp_path):
    """4 processes, of which one is killed; 2, which accumulate; 3, to the end: as one from end to
    end. With equal losses, each sample was there once.
    """
    words = options(
        worlds["classification"], "test_convnext", "--epochs", "4", "--score_every", "4"
    )
    kept = ["--checkpoints.every_steps", "1"]
    run = tmp_path / "run"
    with tempfile.TemporaryFile("w+") as said:
        streams = {"stdout": said, "stderr": said}
        ranks = start_ranks(4, "pretrain", *words, *kept, "--out", run, **streams)
        while step_of(run) < 2 and ranks[2].poll() is None:
            time.sleep(0.01)
        started = time.monotonic()
        ranks[2].kill()
        assert wait_all(ranks) == [1, 1, -signal.SIGKILL, 1]
        assert time.monotonic() - started < 60
        text = text_of(said)
        assert "Traceback" not in text
        (error,) = [line for line in text.splitlines() if "error" in line]
        assert "error: process 2 of 4" in error
        assert "was killed. It stood at step " in error
        assert error.endswith(f"To continue: the same torchrun command with --resume {run}")

        # as torchrun starts it again by itself: with the same options
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
            two = [*words, *kept, "--out", run, "--accumulate", "2"]
            two += ["--stop-after", step_of(run) + 3]
            assert wait_all(start_ranks(2, "pretrain", *two, **streams)) == [0, 0], text_of(said)
        three = ["--resume", run, "--device", "cpu", "--accumulate", "1"]
        assert wait_all(start_ranks(3, "pretrain", *three, **streams)) == [0, 0, 0], text_of(said)
        assert "the batch was 4 process(es) x 1 accumulated x 3 images, now 2" in text_of(said)

    assert call("pretrain", *words, "--out", tmp_path / "whole").returncode == 0
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (run, tmp_path / "whole")
    ]
    for one, other in zip(*logs, strict=True):
        for key in one.keys() - {"images_per_second"}:
            assert one[key] == pytest.approx(other[key], abs=1e-5), key
    weights = [
        Backbone.load(folder / "backbone.pth").weights for folder in (run, tmp_path / "whole")
    ]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-5, rtol=1e-5, msg=name)


def start_machines(folders: list[Path], words: list[list[str]], said, **environment: str) -> list:
    """One process on each of several machines, of which each has its own working folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    count = str(len(folders))
    common = {**os.environ, "WORLD_SIZE": count, "GROUP_WORLD_SIZE": count, "LOCAL_RANK": "0",
              "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "TORCHELASTIC_RUN_ID": "none", "STATES": ".", **environment}  # fmt: skip
    return [
        start(STATES, *own, cwd=folder, stdout=said, stderr=said,
              env={**common, "RANK": str(rank), "GROUP_RANK": str(rank)})
        for rank, (folder, own) in enumerate(zip(folders, words, strict=True))
    ]  # fmt: skip


def test_a_machine_that_hangs_or_sees_another_folder_ends_all(worlds, tmp_path, full):
    if not full:
        pytest.skip("waits for silence; runs with --full")
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    words = options(worlds["classification"], "test_convnext", "--epochs", "200", "--out")
    with tempfile.TemporaryFile("w+") as said:
        apart = start_machines(folders, [[*words, "run"]] * 2, said)
        shared = [*words, str(tmp_path / "run")]
        hanging = start_machines(folders, [shared] * 2, said, CUTMIX_HEARTBEAT_SECONDS="3")
        while step_of(tmp_path / "run") < 1 and hanging[1].poll() is None:
            time.sleep(0.01)
        os.kill(hanging[1].pid, signal.SIGSTOP)
        assert hanging[0].wait(timeout=60) == 1
        hanging[1].kill()
        assert wait_all(apart) == [2, 2]
        text = text_of(said)
    assert "Traceback" not in text
    assert "error: process 1 of 2" in text
    assert "does not answer: it was killed, hangs or is cut off. It stood at step " in text
    name = socket.gethostname()
    assert f"error: run on {name} is another folder than that of process 0. Give --out" in text


def test_machines_with_as_many_processes_each(monkeypatch):
    for name, number in (("WORLD_SIZE", "3"), ("LOCAL_WORLD_SIZE", "2"), ("GROUP_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, str(number))
    with pytest.raises(UsageError, match=r"3 processes on 2 machines, 2 of them .*nproc_per_node"):
        make_fabric("cpu")


# ---- BatchNorm and the average


def by_hand(config: PretrainConfig, ranks: int, steps: int) -> tuple[dict, dict, float]:
    """What so many processes come to, in one: network, average and its top-1 in percent."""
    fabrics = [
        SimpleNamespace(device=torch.device("cpu"), global_rank=rank, world_size=ranks)
        for rank in range(ranks)
    ]
    setup = build(config)
    loaders = [_loaders(setup, config, fabric) for fabric in fabrics]
    pixels = setup_training(build(config), config, make_fabric("cpu"))[1].pixels
    network = setup.network.train()
    average = {name: value.clone() for name, value in network.state_dict().items()}
    options = config.optimizer
    optimizer = torch.optim.SGD(network.parameters(), options.lr, options.momentum)
    batches = [iter(train.epoch(0)) for train, _ in loaders]
    for step in range(steps):
        optimizer.zero_grad()
        kept = dict[str, torch.Tensor]()
        for rank in range(ranks):
            images, labels = next(batches[rank])
            logits = network(pixels.normalised(images))
            (functional.cross_entropy(logits, labels) / ranks).backward()
            if rank == 0:  # whose statistics count
                kept = {name: value.clone() for name, value in network.named_buffers()}
            for name, value in network.named_buffers():
                value.copy_(kept[name])
        optimizer.step()
        decay = min(options.ema, 1 - (1 + max(0, step - 1)) ** (-2 / 3))
        for name, value in network.state_dict().items():
            is_float = value.is_floating_point()
            average[name] = decay * average[name] + (1 - decay) * value if is_float else value
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(average)
    network.eval()
    hits = [
        (network(pixels.normalised(images)).argmax(1) == labels)
        for _, val in loaders
        for images, labels in val.epoch(0)
    ]
    return weights, average, 100 * float(torch.cat(hits).float().mean())


def test_statistics_and_average_of_three_processes(worlds, tmp_path, full):
    if not full:
        pytest.skip("a start of three processes; runs with --full")
    words = options(worlds["classification"], "test_byobnet", "--epochs", "1")
    config = load_config(PretrainConfig, RECIPE, words[2:4] + words[6:])
    assert any(isinstance(module, nn.BatchNorm2d) for module in build(config).network.modules())
    run = tmp_path / "run"
    with tempfile.TemporaryFile("w+") as said, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATES", str(tmp_path))
        ranks = start_ranks(3, STATES, *words, "--out", run, stdout=said, stderr=said)
        wanted, average, top1 = by_hand(config, ranks=3, steps=5)
        assert wait_all(ranks) == [0, 0, 0], text_of(said)

    state = torch.load(run / "checkpoints" / "last.pth", weights_only=True)
    kept = Backbone.load(run / "backbone.pth").weights
    for name, value in average.items():
        torch.testing.assert_close(state["model"][name], wanted[name], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(state["ema"][name], value, atol=1e-4, rtol=1e-4)
        if name in kept:
            torch.testing.assert_close(kept[name], state["ema"][name], atol=0, rtol=0)
    scored = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(3)]
    for states, scores in scored:
        assert scores == scored[0][1]
        assert scores[""] == pytest.approx(top1)
        for name, value in states[""].items():
            assert torch.equal(value, state["ema"][name]), name
        for name, value in states["_raw"].items():
            assert torch.equal(value, state["model"][name]), name
