"""Checkpoints that a thread writes: what is in them, when they are there, and a full disk."""

import errno
import os
import threading

import pytest
import torch
from torch import nn

from pretrain.errors import UsageError
from pretrain.training.checkpoint import CheckpointWriter, load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def slow_disk(monkeypatch):
    """No sync of a file ends before it is allowed to."""
    allowed, real = threading.Event(), os.fsync

    def fsync(descriptor: int) -> None:
        assert allowed.wait(timeout=60)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    yield allowed
    allowed.set()


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).to(
        memory_format=torch.channels_last  # type: ignore[call-overload]
    )


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    return {"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = network()
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()


def test_what_is_written_is_the_state_of_then(tmp_path, slow_disk):
    """Bytes as torch.save has them at once, though the network goes on while they are written."""
    model, optimizer = make()
    step(model, optimizer)
    wanted, path = tmp_path / "at_once.pth", tmp_path / "last.pth"
    slow_disk.set()
    save_checkpoint(wanted, state(model, optimizer), CPU)
    slow_disk.clear()
    writer = CheckpointWriter(path, CPU)
    writer.save(state(model, optimizer))
    step(model, optimizer)
    assert not path.exists()
    slow_disk.set()
    writer.wait()
    assert path.read_bytes() == wanted.read_bytes()


def test_one_is_under_way_and_memory_is_used_again(tmp_path, slow_disk):
    model, optimizer = make()
    step(model, optimizer)
    writer, path = CheckpointWriter(tmp_path / "last.pth", CPU), tmp_path / "last.pth"
    writer.save(state(model, optimizer))
    buffers = {place: buffer.data_ptr() for place, buffer in writer._buffers.items()}
    assert len(buffers) == len(model.state_dict()) + 3 * len(list(model.parameters()))
    second = threading.Thread(target=writer.save, args=(state(model, optimizer) | {"epoch": 4},))
    second.start()
    second.join(timeout=0.2)
    assert second.is_alive()
    assert not path.exists()
    slow_disk.set()
    second.join()
    writer.wait()
    assert load_checkpoint(path, CPU)["epoch"] == 4
    assert buffers == {place: buffer.data_ptr() for place, buffer in writer._buffers.items()}


def test_who_ends_the_process_waits_beside_the_training(tmp_path, slow_disk):
    """As the heartbeat does, while the next `save` waits for the one before."""
    writer, path = CheckpointWriter(tmp_path / "last.pth", CPU), tmp_path / "last.pth"
    writer.save({"epoch": 1})
    waiting = [threading.Thread(target=writer.wait) for _ in range(2)]
    for thread in waiting:
        thread.start()
        thread.join(timeout=0.1)
    assert all(thread.is_alive() for thread in waiting)
    slow_disk.set()
    for thread in waiting:
        thread.join()
    assert path.exists()


def test_a_full_disk_is_raised_by_the_next_call(tmp_path, monkeypatch):
    writer, path = CheckpointWriter(tmp_path / "last.pth", CPU), tmp_path / "last.pth"
    writer.save({"epoch": 1, "weights": torch.ones(2)})
    writer.wait()

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    for call in (lambda: writer.save({"epoch": 3}), writer.wait):
        writer.save({"epoch": 2, "weights": torch.ones(2)})
        with pytest.raises(UsageError, match=r"last\.pth cannot be written: No space left"):
            call()
    writer.wait()  # said once
    assert load_checkpoint(path, CPU)["epoch"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pth"]
