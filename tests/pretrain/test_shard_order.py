"""The order of an epoch of shards: a function of (seed, epoch) for any processes and workers."""

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.config import (
    DatasetConfig,
    LoaderConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
)
from pretrain.data import open_data
from pretrain.data.images import Transformed
from pretrain.engine import pretrain
from pretrain.errors import Stopped, UsageError
from pretrain.run import Run
from pretrain.shards import WindowOrder
from pretrain.training import Loader, make_fabric
from tests.forked import call, start_ranks, text_of
from tests.pretrain.test_shards import make_store

SHARDS = np.array([0, 7, 14, 21, 28, 35, 42, 49, 56, 60])
"""Of 60 samples, 7 a shard."""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("order") / "store")


def test_an_epoch_is_every_sample_once_and_its_own():
    order = WindowOrder(SHARDS, 3, seed=5)
    whole = [order(epoch)[:].tolist() for epoch in range(4)]
    assert all(sorted(one) == list(range(60)) for one in whole)
    assert len({*map(tuple, whole)}) == 4
    one = WindowOrder(np.array([0, 60]), 3, seed=5)  # of a single shard as well
    assert one(0)[:].tolist() != one(1)[:].tolist()
    assert WindowOrder(SHARDS, 3, seed=5)(2)[:].tolist() == whole[2]
    assert WindowOrder(SHARDS, 3, seed=6)(2)[:].tolist() != whole[2]
    assert WindowOrder(SHARDS, 4, seed=5)(2)[:].tolist() != whole[2]
    again = order(2)
    for first, end in ((0, 1), (20, 23), (59, 60), (5, 60), (0, 60), (30, 30), (58, 99)):
        assert again[first:end].tolist() == whole[2][first:end]


def test_each_window_says_what_is_needed_up_to_the_next_epoch():
    told = list[list[int]]()
    order = WindowOrder(SHARDS, 3, seed=5, expect=lambda shards: told.append(shards.tolist()))
    now, following = order(0), order(1).shards.tolist()
    for place in range(0, 60, 2):
        now[place : place + 2]
    shards = [*now.shards.tolist(), *following]
    assert told == [shards[0:6], shards[3:9], shards[6:12]]
    told.clear()
    order = replace(order, epochs=2)
    order(0)[59:60], order(1)[59:60]
    assert told == [shards[6:12], following[6:9]]  # no epoch comes behind the last


def test_windows_are_not_drawn_as_their_shards_are():
    shards = np.arange(11)  # of one sample each
    order = WindowOrder(shards, 10**6, seed=7)(0)
    within = np.argsort(order.shards)[order[:]]  # where in the order of the shards each came from
    assert within.tolist() != order.shards.tolist()


@pytest.mark.parametrize("window", [1, 2, 3, 9, 10**6])
def test_a_window_has_the_samples_of_its_shards(window):
    order = WindowOrder(SHARDS, window, seed=1)(0)
    shards = np.searchsorted(SHARDS, order[:], side="right") - 1
    firsts = list(dict.fromkeys(shards.tolist()))  # in the order of their first sample
    place = 0
    for start in range(0, 9, window):
        of_window = order.shards[start : start + window].tolist()
        count = int(np.diff(SHARDS)[of_window].sum())
        assert {*shards[place : place + count].tolist()} == {*of_window}
        assert order.shards_from(place).tolist() == order.shards[start:].tolist()
        place += count
    assert place == 60
    assert sorted(firsts) == list(range(9))
    if window >= 9:  # all are shuffled: no shard's samples stand together
        assert max(np.diff(np.flatnonzero(np.diff(shards)))) < 7


def test_the_shuffle_has_no_favourites():
    """Each sample comes equally often into each tenth of an epoch (chi-square)."""
    counts = np.zeros((60, 10))
    for seed in range(300):
        order = WindowOrder(SHARDS, 3, seed)(0)[:]
        counts[order, np.arange(60) // 6] += 1
    statistic = ((counts - 30) ** 2 / 30).sum()
    assert 420 < statistic < 660, statistic  # 60 rows and 10 columns: 531, deviation 33


def batches_of(data, workers: int, order: WindowOrder, **where) -> list[list[int]]:
    """Numbers of the samples in each batch, as their pictures say."""
    loader = Loader(
        Transformed(data, torch.clone),
        workers=workers,
        batch_size=12,
        shuffle=True,
        drop_last=True,
        order=order,
        **where,
    )
    return [images[:, 1, 0, 0].tolist() for images, _ in loader.epoch(1)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_reads_the_order(store, workers):
    data = open_data(store, DatasetConfig()).train
    order = WindowOrder(data.reader.index.starts, 3, seed=0)
    data.reader.read(0)  # a shard that is open when processes are forked
    wanted = order(1)[:].reshape(5, 12).tolist()
    assert batches_of(data, workers, order) == wanted


# ---- several processes


def ranks_read(
    count: int, store: Path, out: Path, workers: int = 0, first: int = 0, accumulate: int = 1,
    kill: bool = False,
) -> list[list[int]]:  # fmt: skip
    """The samples of each step, by real processes of a gloo group; `kill`: after two steps."""

    def lines_of(rank: int) -> int:
        path = out / f"{rank}.txt"
        return path.read_text().count("\n") if path.exists() else 0

    out.mkdir()
    words = [store, out, workers, accumulate, 1, first, *([2] if kill else [])]
    with open(out / "said", "w+") as said:
        options = {"stdout": said, "stderr": said}
        ranks = start_ranks(count, "../tests/pretrain/shard_rank", *words, **options)
        if kill:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and min(map(lines_of, range(count))) < 2:
                assert not any(rank.poll() for rank in ranks), text_of(said)
                time.sleep(0.02)
            for rank in ranks:
                rank.kill()
        codes = {rank.wait(timeout=120) for rank in ranks}
        assert codes == ({-signal.SIGKILL} if kill else {0}), text_of(said)
    lines = [
        [[*map(int, line.split())] for line in (out / f"{rank}.txt").read_text().splitlines()]
        for rank in range(count)
    ]
    parts = [part for step in zip(*lines, strict=not kill) for part in step]
    per_step = count * accumulate
    steps = [parts[start : start + per_step] for start in range(0, len(parts), per_step)]
    return [[number for part in step for number in part] for step in steps]


@pytest.mark.parametrize(("count", "workers"), [(2, 1), (3, 2), (4, 0)])
def test_ranks_read_each_sample_once_in_one_order(store, tmp_path, count, workers, full):
    if not full and count != 3:
        pytest.skip("processes are dear, three stand for all; runs with --full")
    wanted = WindowOrder(SHARDS, 3, seed=0)(1)[:].reshape(5, 12).tolist()
    steps = ranks_read(count, store, tmp_path / "ranks", workers)
    assert steps == wanted
    assert sorted(chain.from_iterable(steps)) == list(range(60))


def test_four_ranks_are_killed_and_two_go_on_where_they_stood(store, tmp_path):
    wanted = WindowOrder(SHARDS, 3, seed=0)(1)[:].reshape(5, 12).tolist()
    before = ranks_read(4, store, tmp_path / "four", 1, kill=True)
    assert len(before) == 2
    after = ranks_read(2, store, tmp_path / "two", 2, first=2, accumulate=2)
    assert before + after == wanted


# ---- a training


def config(store: Path, **changes) -> PretrainConfig:
    dataset = {"image_size": 32, "crop_pct": 1.0, "shard_window": 3}
    dataset |= {key: changes.pop(key) for key in ("shard_window",) if key in changes}
    return PretrainConfig(
        name="test",
        data=str(store),
        epochs=2,
        batch_size=12,
        loader=LoaderConfig(workers=changes.pop("workers", 0)),
        dataset=DatasetConfig(**dataset),
        model=ModelConfig(arch="test_byobnet"),
        optimizer=OptimizerConfig(lr=0.05),
        **changes,
    )


def train(folder: Path, store: Path, stop_after: int | None = None, **changes):
    run = Run(folder)
    result = pretrain(config(store, **changes), run, make_fabric("cpu"), stop_after=stop_after)
    return result.backbone["fingerprint"], result.metrics["train_loss"], result.data["digest"]


def test_a_run_goes_on_where_the_store_has_been_moved_to(tmp_path, no_pictures, full):
    if not full:
        pytest.skip("three trainings; runs with --full")
    first = make_store(tmp_path / "first")
    wanted = train(tmp_path / "whole", first)
    with pytest.raises(Stopped):
        train(tmp_path / "run", first, stop_after=7)
    second = tmp_path / "elsewhere" / "second"
    shutil.copytree(first, second)
    shutil.rmtree(first)
    with pytest.raises(UsageError, match=r"shard_window: 3 .* 4"):
        train(tmp_path / "run", second, shard_window=4)
    with pytest.raises(UsageError, match=r"another configuration \(data: '.*first' there"):
        train(tmp_path / "run", make_store(tmp_path / "other", train=59))
    assert train(tmp_path / "run", second, workers=1) == wanted
    assert train(tmp_path / "window", second, shard_window=4) != wanted


SAID = {
    "missing": r"there is no shard .*train-000004.tar, which train.index counts",
    "cut": r"the shard .*train-000004.tar has 1,000 bytes, in its index [\d,]+: it was cut",
    "changed": r"b/0028.png in the shard .*train-000004.tar is not what was packed: crc32 ",
}


def damage(store: Path, fault: str) -> None:
    path = store / "train-000004.tar"
    if fault == "missing":
        path.unlink()
    elif fault == "cut":
        os.truncate(path, 1000)
    else:
        content = bytearray(path.read_bytes())
        content[512 + 30] ^= 1  # of the first sample's image, number 28
        path.write_bytes(content)


@pytest.mark.parametrize("fault", SAID)
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_shard_that_is_damaged_under_a_run_ends_it(tmp_path, fault, workers):
    data = open_data(store := make_store(tmp_path / "store"), DatasetConfig()).train
    damage(store, fault)
    order = data.reader.order(3, seed=0)
    with pytest.raises(UsageError, match=SAID[fault]) as caught:
        batches_of(data, workers, order)
    assert "--dataset.max_corrupt N leaves out up to N such images" in str(caught.value)
    if fault == "changed":
        found = batches_of(data, workers, order, max_corrupt=1)
        assert {*chain.from_iterable(found)} == {*range(60)} - {28}
        assert [len(batch) for batch in found] == [12] * 5
    else:
        with pytest.raises(UsageError, match=r"It is number 7; 6 may be left out"):
            batches_of(data, workers, order, max_corrupt=6)


def test_a_store_that_is_not_whole_is_refused_before_a_training(tmp_path, full):
    if not full:
        pytest.skip("two runs of a tool; runs with --full")
    store = make_store(tmp_path / "store")
    options = ["--data", store, "--device", "cpu", "--model.arch", "test_byobnet",
               "--dataset.image_size", "32", "--batch_size", "12", "--epochs", "1",
               "--loader.workers", "1", "--out", tmp_path / "run"]  # fmt: skip
    damage(store, "changed")
    done = call("pretrain", *options)
    assert done.returncode == 2, done.stderr
    assert re.search(SAID["changed"], done.stderr)
    assert "Traceback" not in done.stderr
    done = call("pretrain", *options, "--dataset.max_corrupt", "1")  # kept in memory, as fitted
    assert done.returncode == 0, done.stderr
    assert "left out (1 of at most 1): the sample b/0028.png" in done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metrics"]["images_left_out"] == 1
    os.truncate(store / "train-000006.tar", 1000)
    damage(store, "missing")
    message = (
        r"2 of the 9 shards that .*train.index counts cannot be read: train-000004.tar is missing, "
        r"train-000006.tar has 1,000 bytes of 20,480. Fetch .* --dataset.max_corrupt 14 or more"
    )
    with pytest.raises(UsageError, match=message):
        open_data(store, DatasetConfig(max_corrupt=13))
    assert len(open_data(store, DatasetConfig(max_corrupt=14)).train) == 60
