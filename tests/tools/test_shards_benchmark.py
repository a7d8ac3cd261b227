"""The benchmark of shards: that its sides read all, and not how fast."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from pretrain.errors import UsageError
from tests.conftest import ROOT
from tests.forked import call
from tests.tools.test_tools import fails
from tools.support.benchmarks import _shards_parts, shards


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Sides run in this process, which has what they import, and new processes are forks."""

    @contextmanager
    def side(name, python, options):
        del python
        given = SimpleNamespace(**json.loads(json.dumps(options, default=str)))
        try:
            one_round = _shards_parts.SIDES[name](given)
        except ImportError as error:
            yield str(error)
            return
        yield lambda: (1.0, one_round())

    def in_a_fork(_, code, *words):
        script = tmp_path / "part.py"
        script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}")
        done = call(str(script.with_suffix("")), *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    monkeypatch.setattr(shards, "_side", side)
    monkeypatch.setattr(shards, "in_new_process", in_a_fork)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_benchmark_runs(here, worlds, capsys, full):
    """A rate of a round of a second is its number of samples."""
    if not full:
        pytest.skip("every side is a process; runs with --full")
    shards.main(["--parts", "reading", "loader", "index", "order", "--rounds", "1",
                 "--images", str(worlds["classification"] / "train"), "--size", "32",
                 "--samples", "300", "--per_shard", "50", "--rows", "1000"])  # fmt: skip
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:]] for line in said.splitlines()]
    found = {row[0]: row[1] for row in rows if len(row) > 1}
    for side in ("ours", "ours, a shard after another", "plain files"):
        assert found[side] == "300", side
    for side in ("litdata", "mosaicml-streaming", "DALI, our shards, pre-resized"):
        assert side in found or f"left out: {side} (No module named" in said, side
    images = int(found["ours, folder"])
    assert images
    assert int(found["ours, shards, pre-resized"]) == images
    assert int(found["timm, folder"]) == images
    assert float(found["ours, windows of 32 shards"]) == 1
    assert float(found["rows of 32 random shards, in each of 4"]) > 0


def test_sides_are_processes(tmp_path, capsys):
    files, order = tmp_path / "files", tmp_path / "order.json"
    files.mkdir()
    for number in range(3):
        (files / f"{number}.jpg").write_bytes(b"image")
    order.write_text("[2, 0, 1]")
    options = {"files": files, "order": order}
    sides = {"files": ("plain files", None, options), "absent": ("litdata", None, options)}
    assert shards.rates(sides, 1, 3).keys() == {"files"}
    assert "left out: absent (No module named 'litdata')" in capsys.readouterr().out
    with pytest.raises(UsageError, match="files gave 3 samples of 4"):
        shards.rates(sides, 1, 4)
    (files / "1.jpg").unlink()
    with pytest.raises(UsageError, match=r"(?s)plain files failed.*IndexError"):
        shards.rates(sides, 1, 3)


def test_mistakes(capsys):
    fails("bench", "shards", "--images", "nowhere", capsys=capsys, said="no folder nowhere")
    fails("bench", "shards", "--rounds", "0", capsys=capsys, said="--rounds is 0")
