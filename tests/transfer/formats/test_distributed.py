"""Folders of torch.distributed.checkpoint: as torch itself loads them, or one message."""

import io
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from tests.transfer.formats.making import tame
from transfer.formats import Overrides, read
from transfer.formats.inspection import inspect

THIN = {"channels": [8, 8, 16, 16]}
GIVEN = Overrides(source="torchvision", model_args=THIN)
CONV = "layer4.1.conv2.weight"


@pytest.fixture(scope="module")
def net() -> Backbone:
    return tame("resnet18", model_args=THIN)


def same(found: Backbone, net: Backbone) -> bool:
    return list(found.weights) == list(net.weights) and all(
        torch.equal(found.weights[name], tensor) for name, tensor in net.weights.items()
    )


@pytest.mark.filterwarnings("ignore")
def test_what_torch_saves_in_one_process(net, tmp_path):
    momentum = {"state": {"conv1.weight": {"momentum": torch.ones(3)}}, "lr": 0.1}
    saved = {"app": {"model": dict(net.weights), "optim": momentum}, "step": 7, "seen": [1, 2]}
    dcp.save(saved, checkpoint_id=tmp_path / "step-7")
    for path in (
        tmp_path / "step-7",
        tmp_path / "step-7/.metadata",
        tmp_path / "step-7/__0_0.distcp",
    ):
        found = read(path, GIVEN)
        assert same(found, net)
        assert found.provenance.source == "step-7"
        assert "distributed checkpoint, 2 files" in inspect(path, GIVEN).text()


def shard(folder: Path, weights: dict, **changes) -> Metadata:
    """As two processes of FSDP save: halves along the first axis where there are two rows.

    `changes`: what is written of the second half of `CONV`, otherwise than it is.
    """
    folder.mkdir()
    files = [io.BytesIO(), io.BytesIO()]
    described, places = {}, {}
    for name, tensor in weights.items():
        rows = len(tensor) if tensor.ndim else 0
        cuts = [0, rows // 2] if rows > 1 else [0]
        chunks = []
        for rank, (begin, end) in enumerate(zip(cuts, [*cuts[1:], None], strict=True)):
            piece = tensor[begin:end].clone() if tensor.ndim else tensor
            offsets = torch.Size([begin, *[0] * (tensor.ndim - 1)] if tensor.ndim else [])
            own = changes if (name, rank) == (CONV, 1) else {}
            start = files[rank].tell()
            torch.save(own.get("piece", piece), files[rank])
            info = _StorageInfo(f"__{rank}_0.distcp", start, files[rank].tell() - start)
            vars(info).update({key: own[key] for key in vars(info) if key in own})
            chunks.append(ChunkStorageMetadata(offsets, piece.shape))
            if not own.get("dropped"):
                places[MetadataIndex(f"model.{name}", own.get("at", offsets), rank)] = info
        described[f"model.{name}"] = TensorStorageMetadata(
            TensorProperties(tensor.dtype), tensor.shape, chunks
        )
    for rank, file in enumerate(files):
        (folder / f"__{rank}_0.distcp").write_bytes(file.getvalue())
    keys = {name: ("model", name.removeprefix("model.")) for name in described}
    metadata = Metadata(described, keys, places, StorageMeta(folder, "id"), "1.0.0")
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return metadata


@pytest.mark.filterwarnings("ignore")
def test_pieces_of_two_processes_as_torch_joins_them(net, tmp_path):
    metadata = shard(tmp_path / "s", dict(net.weights))
    theirs = {"model": {name: torch.zeros_like(t) for name, t in net.weights.items()}}
    dcp.load(theirs, checkpoint_id=tmp_path / "s")
    assert all(torch.equal(theirs["model"][name], t) for name, t in net.weights.items())
    assert same(read(tmp_path / "s", GIVEN), net)
    # without the keys, as other planners save, all names share a prefix
    metadata.planner_data = None
    (tmp_path / "s/.metadata").write_bytes(pickle.dumps(metadata))
    assert same(read(tmp_path / "s", GIVEN), net)


class Trap:
    """Unpickled by code, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


HALF = (8, 16, 3, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dropped": True}, f"model.{CONV} do not make up a tensor"),
        ({"at": torch.Size([7, 0, 0, 0])}, "do not make up"),
        ({"at": torch.Size([9, 0, 0, 0])}, "do not make up"),
        ({"at": torch.Size([7, 0, 0, 0]), "piece": torch.zeros(9, 16, 3, 3)}, "do not make up"),
        ({"at": torch.Size([-8, 0, 0, 0])}, "do not make up"),
        ({"at": torch.Size([8])}, "cut short or no metadata"),
        ({"piece": torch.zeros(HALF, dtype=torch.float64)}, "do not make up"),
        ({"piece": torch.zeros(7, 16, 3, 3)}, "do not make up"),
        ({"piece": torch.zeros(1).expand(2**20, 2**10)}, "metadata .*larger than its file"),
        ({"piece": [1.0]}, "metadata .*no dense tensor"),
        ({"piece": Trap(Path("mark"))}, "can run code"),
        ({"relative_path": "../s/__1_0.distcp"}, "no file beside it"),
        ({"relative_path": "/etc/hostname"}, "no file beside it"),
        ({"relative_path": "__9_0.distcp"}, "lacks __9_0.distcp"),
        ({"relative_path": 3}, "cut short or no metadata"),
        ({"length": 2**40}, "more pieces than it holds"),
        ({"length": 100}, "cut short or no zip archive"),
        ({"length": -1}, "cut short or no whole part"),
        ({"offset": 2**40}, "cut short or no whole part"),
        ({"offset": -4}, "cut short or no metadata"),
        ({"transform_descriptors": ["stream.zstd/1"]}, "packed .stream.zstd/1."),
    ],
)
def test_folders_that_lie(changes, said, net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shard(tmp_path / "s", {name: net.weights[name] for name in ("conv1.weight", CONV)}, **changes)
    with pytest.raises(UsageError, match=said) as refusal:
        read(tmp_path / "s", GIVEN)
    assert ("cut short" in str(refusal.value)) == ("cut short" in said or "metadata" in said)
    assert not (tmp_path / "mark").exists()


def test_folders_that_are_not_whole(net, tmp_path):
    shard(tmp_path / "s", {CONV: net.weights[CONV]})
    path = tmp_path / "s/.metadata"
    whole = path.read_bytes()
    for content in (whole[:-30], b"", pickle.dumps({"a": 1}), pickle.dumps(None)):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="cut short"):
            read(tmp_path / "s", GIVEN)
    path.write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    with pytest.raises(UsageError, match="can run code"):
        read(tmp_path / "s", GIVEN)
    path.unlink()
    for place in (tmp_path / "s", tmp_path / "s/__0_0.distcp"):
        with pytest.raises(UsageError, match=r"without its \.metadata"):
            read(place, GIVEN)
    assert not (tmp_path / "mark").exists()
