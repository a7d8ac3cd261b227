"""Seeds, batches, schedules and checkpoints."""

import math
import os
import pickle
import signal
from contextlib import nullcontext
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from pretrain.config import OptimizerConfig, PretrainConfig, steps_of
from pretrain.errors import UsageError
from pretrain.training import (
    BatchSampler,
    InMemoryLoader,
    Loader,
    derive,
    from_rank_zero,
    generator,
    make_lr_scheduler,
    make_optimizer,
    seed_ambient,
)
from pretrain.training.checkpoint import load_checkpoint, save_checkpoint
from pretrain.training.optimizer import lay_out_state
from pretrain.training.seeds import derive_each

CPU = torch.device("cpu")


class Noise:
    """Samples that draw from every ambient generator."""

    def __init__(self, count: int = 10, broken: int | None = None) -> None:
        self.count, self.corrupt = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        import random

        if index == self.corrupt:
            raise UsageError("image 7.jpg is broken")
        return torch.tensor([index, torch.rand(()), np.random.rand(), random.random()])


def load(workers: int, seed: int = 0, epoch: int = 0, first: int = 0) -> torch.Tensor:
    loader = Loader(Noise(), batch_size=4, seed=seed, workers=workers, shuffle=True)
    return torch.cat(list(loader.epoch(epoch, first)))


def test_any_number_of_workers_gives_the_same_bits():
    wanted = load(0)
    assert torch.equal(load(1), wanted)
    assert torch.equal(load(3), wanted)


def test_what_process_0_cannot_use_ends_every_process():
    class Fabric:
        """Of two processes, one after the other."""

        is_global_zero = True
        sent = None

        def rank_zero_first(self):
            return nullcontext()

        def broadcast(self, value):
            self.sent = pickle.dumps(value) if self.is_global_zero else self.sent
            return pickle.loads(self.sent)

    def compute():
        raise UsageError("another process is working in runs/a")

    fabric = Fabric()
    for is_zero in (True, False):
        fabric.is_global_zero = is_zero
        with pytest.raises(UsageError, match="another process is working in runs/a"):
            from_rank_zero(fabric, compute)
    for is_zero in (True, False):
        fabric.is_global_zero = is_zero
        assert from_rank_zero(fabric, lambda: 3) == 3


def test_seeds_and_epochs_differ():
    assert not torch.equal(load(0), load(0, seed=1))
    assert not torch.equal(load(0), load(0, epoch=1))
    assert load(0)[:, 0].tolist() != load(0, epoch=1)[:, 0].tolist()  # their order
    # also the augmentation of one and the same sample, not only its place
    row = {int(r[0]): r[1:] for r in load(0)}
    later = {int(r[0]): r[1:] for r in load(0, epoch=1)}
    assert all(not torch.equal(row[index], later[index]) for index in row)


def test_an_epoch_can_begin_in_its_middle():
    assert torch.equal(load(0)[4:], load(0, first=1))
    assert torch.equal(load(2)[8:], load(2, first=2))


def test_workers_persist_over_epochs():
    loader = Loader(Noise(), batch_size=4, seed=0, workers=2, shuffle=True)
    epochs = [torch.cat(list(loader.epoch(epoch))) for epoch in (0, 1, 0)]
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], load(0, epoch=1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_user_s_mistake_keeps_its_words(workers):
    loader = Loader(Noise(broken=7), batch_size=4, seed=0, workers=workers, shuffle=False)
    with pytest.raises(
        UsageError, match=r"^image 7\.jpg is broken\. --dataset\.max_corrupt N leaves"
    ):
        list(loader.epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_sample_leaves_a_batch_its_size_in_training_and_not_in_scoring(workers):
    settings = {"batch_size": 4, "seed": 0, "workers": workers, "max_corrupt": 1}
    train = Loader(Noise(broken=7), shuffle=True, **settings)
    assert [len(batch) for batch in train.epoch(0)] == [4, 4, 2]
    assert train.corrupt == {7: "image 7.jpg is broken"}
    seen = [int(row[0]) for batch in train.epoch(0) for row in batch]
    assert len(seen) == 10
    assert 7 not in seen
    val = Loader(Noise(broken=7), shuffle=False, **settings)
    assert [int(row[0]) for batch in val.epoch(0) for row in batch] == [0, 1, 2, 3, 4, 5, 6, 8, 9]


@pytest.mark.parametrize(("room", "readings"), [(2**28, 1), (8 * 4 * 4, 2)])
def test_batches_of_scoring_are_read_once_where_there_is_room(room, readings, monkeypatch):
    monkeypatch.setattr("pretrain.training.loader._MOST_KEPT", room)
    read = []

    class Counted(Noise):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    loader = Loader(Counted(broken=7), batch_size=4, workers=0, keep=True, max_corrupt=1)
    first, second = list(loader.epoch(0)), list(loader.epoch(0))
    assert read == [*range(10)] * readings
    assert [len(batch) for batch in first] == [4, 3, 2]
    assert torch.equal(torch.cat(first), torch.cat(second))
    assert [*loader.corrupt] == [7]


def test_kept_batches_need_no_process_any_more():
    loader = Loader(Noise(), batch_size=4, workers=1, keep=True)
    batches = torch.cat(list(loader.epoch(0)))
    assert not loader._loader._iterator._workers[0].is_alive()
    kept = list(loader.epoch(0))
    assert torch.equal(torch.cat(kept), batches)
    assert not any(batch.is_shared() for batch in kept)  # each would hold two open files


def test_a_batch_of_broken_samples_stops_a_training():
    class Broken(Noise):
        def __getitem__(self, index):
            raise UsageError(f"image {index}.jpg is broken")

    loader = Loader(Broken(), batch_size=2, seed=0, workers=0, shuffle=True, max_corrupt=100)
    with pytest.raises(UsageError, match=r"a whole batch cannot be read. Its first: image \d\.jpg"):
        list(loader.epoch(0))


def test_a_bug_inside_a_loader_process_stays_a_bug():
    class Wrong(Noise):
        def __getitem__(self, index):
            raise RuntimeError("a real bug")

    loader = Loader(Wrong(), batch_size=2, seed=0, workers=1, shuffle=True)
    with pytest.raises(RuntimeError, match="a real bug") as caught:
        list(loader.epoch(0))
    assert not isinstance(caught.value, UsageError)


def test_signals_to_the_whole_group_leave_the_loader_processes_alone():
    loader = Loader(Noise(40), batch_size=2, seed=0, workers=2, shuffle=True)
    batches = loader.epoch(0)
    next(batches), next(batches)  # from each of the two
    for process in torch.multiprocessing.active_children():
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
    assert len(list(batches)) == 18


def test_a_loader_process_that_dies_is_said():
    class Dying(Noise):
        def __getitem__(self, index):
            os.kill(os.getpid(), signal.SIGKILL)

    loader = Loader(Dying(), batch_size=2, seed=0, workers=1, shuffle=True)
    with pytest.raises(UsageError, match=r"a loader process died .*fewer workers"):
        list(loader.epoch(0))


def test_resident_images_come_in_the_same_order():
    pixels, labels = torch.arange(10)[:, None], torch.arange(10) % 3
    settings = {"batch_size": 4, "seed": 3, "shuffle": True}
    resident = InMemoryLoader(pixels, labels, BatchSampler(10, **settings))
    read = Loader(Noise(), workers=0, **settings)
    for epoch, first in ((0, 0), (2, 1)):
        ours = torch.cat([images[:, 0] for images, _ in resident.epoch(epoch, first)])
        theirs = torch.cat([batch[:, 0] for batch in read.epoch(epoch, first)])
        assert ours.tolist() == theirs.tolist()


def test_more_images_in_a_batch_than_there_are():
    with pytest.raises(UsageError, match="only 10"):
        Loader(Noise(), batch_size=11, seed=0, workers=0, shuffle=True, drop_last=True)


def test_derived_seeds_use_more_than_32_bits():
    """torch keeps the low 32 bits of a seed: packing epochs above them would change nothing."""
    same = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1 + (7 << 40))
    assert torch.equal(torch.rand(4, generator=same[0]), torch.rand(4, generator=same[1]))
    seeds = {derive(0, "sample", epoch, index) for epoch in range(50) for index in range(50)}
    assert len(seeds) == 2500
    assert derive(0, "order", 1) != derive(0, "step", 1)
    draws = [float(torch.rand((), generator=generator(0, "order", e))) for e in range(20)]
    assert len(set(draws)) == 20


def test_ambient_generators_follow_one_seed():
    def draw() -> tuple:
        import random

        return random.random(), np.random.rand(), float(torch.rand(()))

    seed_ambient(5)
    one = draw()
    seed_ambient(5)
    assert draw() == one
    seed_ambient(6)
    assert draw() != one


def rates(kind: str, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    settings = OptimizerConfig(lr=0.4, schedule=kind, **options)
    run = PretrainConfig(epochs=10, optimizer=settings)
    plan = make_lr_scheduler(optimizer, settings, run.steps(10), partial(run.steps, 10))
    found = []
    for step in range(100):
        plan.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_an_update_in_one_pass_is_the_same_but_for_rounding(name):
    """Also with weights whose memory is not in the order of their shape."""
    options = OptimizerConfig(name=name, lr=0.1, weight_decay=0.01)

    def weights(fused: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
        network.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(network, options, 4, fused=fused)
        assert bool(optimizer.param_groups[0]["fused"]) == fused
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.randn(4, 3, 8, 8)).square().mean().backward()
            optimizer.step()
        return list(network.parameters())

    for one, other in zip(weights(True), weights(False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_run_goes_on_in_another_memory_layout(name):
    options = OptimizerConfig(name=name, lr=0.1)
    layouts = torch.contiguous_format, torch.channels_last

    def weights(layouts: tuple[torch.memory_format, ...]) -> torch.Tensor:
        torch.manual_seed(0)
        network, kept = torch.nn.Conv2d(4, 4, 3), None
        for layout in layouts:
            network.to(memory_format=layout)
            optimizer = make_optimizer(network, options, 4, fused=True)
            if kept is not None:
                optimizer.load_state_dict(kept)
                lay_out_state(optimizer)
            for _ in range(2):
                optimizer.zero_grad()
                network(torch.randn(4, 4, 8, 8)).square().mean().backward()
                optimizer.step()
            kept = optimizer.state_dict()
        return network.weight

    torch.testing.assert_close(weights(layouts), weights(layouts[:1] * 2), rtol=1e-4, atol=1e-5)


def test_a_way_to_update_that_is_asked_for_is_taken():
    network, args = torch.nn.Linear(2, 2), {"foreach": True}
    optimizer = make_optimizer(network, OptimizerConfig(name="adamw", args=args), 4, fused=True)
    assert optimizer.param_groups[0]["foreach"] is True
    assert not optimizer.param_groups[0]["fused"]
    make_optimizer(network, OptimizerConfig(name="lamb"), 4, fused=True)  # has none


def test_cosine_schedule_by_its_formula():
    found = rates("cosine")
    wanted = [0.4 * (1 + np.cos(np.pi * step / 100)) / 2 for step in range(100)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("kind", ["cosine", "poly", "tanh"])
def test_curves_begin_at_the_peak_and_end_at_min_lr(kind):
    found = rates(kind, min_lr=0.01)
    assert found[0] == pytest.approx(0.4, rel=0.02)
    assert found[-1] == pytest.approx(0.01, abs=0.01)
    assert all(after <= before for before, after in pairwise(found))


def test_poly_schedule_by_its_formula_and_a_constant_rate():
    wanted = [0.01 + (0.4 - 0.01) * (1 - step / 100) for step in range(100)]
    np.testing.assert_allclose(rates("poly", min_lr=0.01), wanted, atol=1e-12)
    assert set(rates("constant", milestones=(2, 3))) == {0.4}


def test_step_schedule_and_warmup():
    found = rates("step", milestones=(5, 7.5), warmup=1)
    assert found[0] == pytest.approx(0.0004)
    assert found[5] == pytest.approx(0.0004 + (0.4 - 0.0004) * 0.5)
    assert found[49] == pytest.approx(0.4)
    assert found[50] == pytest.approx(0.04)
    assert found[75] == pytest.approx(0.004)


@pytest.mark.parametrize(
    ("duration", "steps"),
    [(2, 200), (0.25, 25), ("120000 steps", 120_000), ("1 step", 1), ("1.5 epochs", 150),
     ("960000 images", 15_000), ("3e2 Images", 5)],
)  # fmt: skip
def test_a_duration_becomes_steps(duration, steps):
    """Any unit at the boundary, steps inside; here 100 steps of 64 images an epoch."""
    assert steps_of(duration, steps_per_epoch=100, batch_size=64) == steps


@pytest.mark.parametrize("duration", ["120000", "2 weeks", "steps", "-3 steps", -1.0, math.nan])
def test_a_duration_without_a_known_unit_is_refused(duration):
    with pytest.raises(UsageError, match=r"optimizer\.warmup"):
        OptimizerConfig(warmup=duration)


def test_milestones_of_the_paper_s_detector_in_steps():
    """120K steps, a tenth of the rate from 100K on; the epochs follow from the data."""
    settings = OptimizerConfig(lr=0.4, schedule="step", milestones=("60 steps", "5120 images"))
    run = PretrainConfig(duration="90 steps", batch_size=64, optimizer=settings)
    assert run.epochs is None
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    plan = make_lr_scheduler(optimizer, settings, run.steps(7), partial(run.steps, 7))
    rates = []
    for step in range(run.steps(7)):
        plan.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.4] * 60 + [0.04] * 20 + [0.004] * 10)


def test_checkpoints_are_whole_or_absent(tmp_path):
    path = tmp_path / "checkpoints" / "last.pth"
    assert load_checkpoint(path, CPU) is None
    save_checkpoint(path, {"epoch": 3, "weights": torch.ones(2)}, CPU)
    assert load_checkpoint(path, CPU)["epoch"] == 3
    assert [p.name for p in path.parent.iterdir()] == ["last.pth"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match="cut short"):
        load_checkpoint(path, CPU)
    path.unlink()
    path.symlink_to("last.pth")
    with pytest.raises(UsageError, match=r"there is no file .*last\.pth"):
        load_checkpoint(path, CPU)


def test_another_thread_count_is_said(tmp_path):
    path = tmp_path / "last.pth"
    save_checkpoint(path, {"epoch": 1}, CPU)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with pytest.warns(UserWarning, match="threads"):
            load_checkpoint(path, CPU)
        with pytest.warns(UserWarning, match="device cpu, now mps"):
            load_checkpoint(path, torch.device("mps"))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**40 + 3])
def test_seeds_of_a_batch_are_those_of_its_samples(seed):
    """NumPy's hash written out for arrays, against NumPy's."""
    numbers = [0, 1, 5, 123_456, 2**24, 2**32 - 1]
    for epoch in (0, 1, 299):
        wanted = [derive(seed, "sample", epoch, number) for number in numbers]
        assert derive_each(seed, "sample", epoch, numbers) == wanted
