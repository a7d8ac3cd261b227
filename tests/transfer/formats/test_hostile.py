"""Files that lie, are torn or hold code: one message, no code run, no memory beyond their size."""

import io
import json
import os
import pickle
import random
import resource
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from tests.transfer.formats.making import cutmix_release, tame
from transfer.formats import Overrides, read
from transfer.formats.inspection import inspect

TINY = {"depth": 8, "alpha": 6, "bottleneck": False}
Variant = tuple[str, str, bytes]


@pytest.fixture(scope="module")
def net() -> Backbone:
    return tame("pyramidnet", model_args=TINY, input_size=(3, 32, 32))


def torch_bytes(content: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def repack(whole: bytes, change, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip whose members went through `change(name, bytes)`, which gives a list of new members."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as source,
        zipfile.ZipFile(out, "w", compression) as new,
    ):
        for name in source.namelist():
            for renamed, content in change(name, source.read(name)):
                new.writestr(renamed, content)
    return out.getvalue()


class Trap:
    """Unpickled by code, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def torn(name: str, whole: bytes, count: int) -> Iterator[Variant]:
    for number in range(count):
        cut = number * (len(whole) - 1) // count
        yield f"{name} cut at {cut}", ".pth", whole[:cut]


def flipped(name: str, whole: bytes, count: int, below: int | None = None) -> Iterator[Variant]:
    draw = random.Random(5)
    for number in range(count):
        content = bytearray(whole)
        for _ in range(1 + number % 3):
            place = draw.randrange(below or len(content))
            content[place] ^= 1 << draw.randrange(8)
        yield f"{name} flipped {number}", ".pth", bytes(content)


def zips(whole: bytes) -> Iterator[Variant]:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        names = archive.namelist()
    for name in names[:12]:
        for new in (name + "x", "../" + name, name.split("/")[-1]):
            yield (
                f"{name} renamed {new}",
                ".pth",
                repack(whole, lambda n, c, name=name, new=new: [(new if n == name else n, c)]),
            )
        yield (
            f"{name} dropped",
            ".pth",
            repack(whole, lambda n, c, name=name: [] if n == name else [(n, c)]),
        )
        yield (
            f"{name} emptied",
            ".pth",
            repack(whole, lambda n, c, name=name: [(n, b"" if n == name else c)]),
        )
    yield "packed", ".pth", repack(whole, lambda n, c: [(n, c)], zipfile.ZIP_DEFLATED)
    bomb = bytes(2**24)
    yield (
        "bomb",
        ".pth",
        repack(
            whole, lambda n, c: [(n, bomb if n.endswith("data/0") else c)], zipfile.ZIP_DEFLATED
        ),
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        array = io.BytesIO()
        np.save(array, np.zeros(2**22))
        archive.writestr("a.npy", array.getvalue())
    yield "npz bomb", ".npz", out.getvalue()
    yield (
        "zip of text",
        ".zip",
        repack(whole, lambda n, c: [("readme.txt", b"hello")][: n == names[0]]),
    )


def lies(whole: bytes) -> Iterator[Variant]:
    """Sizes, strides and offsets in the pickle that the storages do not have."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        stream = archive.read(name)
    big = b"J\x00\x00\x00\x40"  # 2**30
    for number, (old, new) in enumerate(
        [
            (b"K\x10K\x03K\x03K\x03t", b"K\x10K\x03K\x03" + big + b"t"),
            (b"K\x10K\x03K\x03K\x03t", b"K\x10K\x03" + big + b"K\x03t"),
            (b"K\x10K\x03K\x03K\x03t", b"J\xff\xff\xff\xffK\x03K\x03K\x03t"),
            (b"K\x10K\x03K\x03K\x03t", big + b"K\x03K\x03K\x03t"),
            (b"K\x10\x85", big + b"\x85"),
            (b"K\x10\x85", b"J\xff\xff\xff\xff\x85"),
            (b"K\x01\x85", b"K\x00\x85"),
            (b"K\x01\x85", b"J\xff\xff\xff\xff\x85"),
            (b"K\x00(K\x10", big + b"(K\x10"),
            (b"K\x00(K\x10", b"J\xff\xff\xff\xff(K\x10"),
            (b"M\xb0\x01t", big + b"t"),
            (b"K\x10t", big + b"t"),
            (b"FloatStorage", b"DoubleStorage"),
            (b"FloatStorage", b"QInt8Storage"),
            (b"FloatStorage", b"NoneStorage"),
            (b"_rebuild_tensor_v2", b"_rebuild_qtensor"),
            (b"_rebuild_tensor_v2", b"_rebuild_sparse_tensor"),
            (b"OrderedDict", b"Counter"),
        ]
    ):
        if old in stream:
            changed = stream.replace(old, new)
            yield (
                f"lie {number}",
                ".pth",
                repack(whole, lambda n, c, changed=changed: [(n, changed if n == name else c)]),
            )


def contents(net: Backbone, mark: Path) -> Iterator[Variant]:
    """Whole files whose content is no backbone."""
    weights = dict(net.weights)
    first = "layer1.0.conv1.weight"
    size = weights[first].shape
    for title, value in {
        "nan": torch.full(size, float("nan")),
        "infinite": torch.full(size, float("inf")),
        "one nan": torch.where(torch.arange(weights[first].numel()).reshape(size) == 3,
                               float("nan"), weights[first]),
        "integers": torch.zeros(size, dtype=torch.int64),
        "bool": torch.zeros(size, dtype=torch.bool),
        "complex": torch.zeros(size, dtype=torch.complex64),
        "scalar": torch.tensor(1.0),
        "flat": weights[first].flatten(),
        "expanded": torch.zeros(1).expand(size),
        "huge": torch.zeros(1).expand(2**20, 2**10),
        "sparse": weights[first].to_sparse(),
        "text": "weights",
        "none": None,
        "list": [1.0, 2.0],
        "nested": {"weight": weights[first]},
        "trap": Trap(mark),
    }.items():  # fmt: skip
        for legacy in (False, True):
            changed = {**weights, first: value}
            wrapped = {**cutmix_release(net, "pyramidnet"), "state_dict": changed}
            yield f"{title} legacy={legacy}", ".pth", torch_bytes(wrapped, legacy)
            yield f"{title} plain legacy={legacy}", ".pth", torch_bytes(changed, legacy)
    for title, content in {
        "empty": {},
        "list": [1, 2],
        "tensor": torch.zeros(3),
        "number": 3,
        "text": "x",
        "module": torch.nn.Linear(1, 1),
        "code": Trap(mark),
        "nested code": {"state_dict": {"a": torch.zeros(1)}, "x": Trap(mark)},
        "args": {"state_dict": weights, "args": Trap(mark)},
        "keys": {1: torch.zeros(1), (2, 3): torch.zeros(1)},
        "own, empty": {"format": "backbone/1"},
        "own, other": {"format": "backbone/9", "spec": {}},
        "own, deep": {"format": "backbone/1", "provenance": {}, "state_dict": {},
                      "spec": {"arch": "vit_tiny_patch16_224", "model_args": {"depth": 10**9}}},
        "meta": {"meta": 3, "state_dict": weights},
        "author": {"__author__": weights, "model": weights},
        "release": {"arch": 3, "state_dict": weights, "best_err1": "x"},
        "timm": {"arch": "../x", "state_dict": weights, "version": 2, "args": {"crop_pct": "x"}},
        "torchvision": {"model": weights, "args": {"val_crop_size": "x"}, "lr_scheduler": {}},
        "passport": {**weights, "cutmix_transfer": {"format": "passport/1", "spec": {}}},
    }.items():  # fmt: skip
        yield f"content {title}", ".pth", torch_bytes(content)
        if title not in ("tensor", "module", "keys") and not isinstance(content, torch.Tensor):
            yield f"pickled {title}", ".pkl", pickle.dumps(content, 2)
            yield f"pickled {title}, 4", ".pkl", pickle.dumps(content, 4)


def tensors(net: Backbone, whole: bytes) -> Iterator[Variant]:
    """safetensors whose header lies."""
    (length,) = struct.unpack("<Q", whole[:8])
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    first = next(name for name in header if name != "__metadata__")

    def headed(content: object, announced: int | None = None) -> bytes:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        return struct.pack("<Q", len(text) if announced is None else announced) + text + data

    for announced in (0, 1, length - 1, length + 1, len(whole), 2**31, 2**40, 2**62, 2**64 - 1):
        yield f"length {announced}", ".safetensors", headed(header, announced)
    for change in (
        {"data_offsets": [0, 2**60]},
        {"data_offsets": [-4, 0]},
        {"data_offsets": [8, 4]},
        {"data_offsets": [0]},
        {"data_offsets": [0, 4]},
        {"shape": [2**40, 2**40]},
        {"shape": [-1]},
        {"shape": []},
        {"shape": "x"},
        {"dtype": "F64"},
        {"dtype": "F128"},
        {"dtype": 3},
        {"dtype": "BOOL"},
    ):
        yield (
            f"entry {change}",
            ".safetensors",
            headed({**header, first: {**header[first], **change}}),
        )
    for title, content in {
        "not JSON": b"{" + b"x" * 100,
        "a list": b"{]",
        "deep": b'{"a":' * 50_000,
        "many": b"{%s}" % b",".join(
            b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(110_000)),
        "twice": b'{"a":1,"a":2}',
        "empty": b"{}",
        "binary": b"{\xff\xfe}",
    }.items():  # fmt: skip
        yield f"header {title}", ".safetensors", headed(content)
    for spec in ({}, {"arch": "vit_tiny_patch16_224", "model_args": {"depth": 10**9}}, 3, None):
        passport = json.dumps({"format": "passport/1", "spec": spec, "provenance": {}})
        yield (
            f"passport {spec}",
            ".safetensors",
            headed({**header, "__metadata__": {"cutmix_transfer": passport}}),
        )
    for cut in range(0, len(whole) - 1, max(1, len(whole) // 15)):
        yield f"safetensors cut at {cut}", ".safetensors", whole[:cut]


FOREIGN = (
    b"",
    b"\0",
    b"{}",
    b"PK",
    b"PK\x05\x06" + bytes(18),
    b"PK\x05\x06" + b"\0" * 4 + b"\xff" * 14,
    b"PK\x03\x04" + b"\xff" * 40,
    b"\x89HDF\r\n\x1a\n",
    b"<!DOCTYPE html>",
    b"\x1f\x8b\x08" + bytes(20),
    b"version https://git-lfs.github.com/spec/v1\n",
    b"\x80\x04.",
    b"\x80\x63.",
    b"\xff" * 100,
    b"\x08\x07\x12\x07pytorch",
)


def foreign() -> Iterator[Variant]:
    for content in FOREIGN:
        for suffix in (".pth", ".pkl"):
            yield f"foreign {content[:12]!r} {len(content)} {suffix}", suffix, content


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.filterwarnings("ignore:.*sparse")  # some variants hold a sparse tensor
def test_every_variant_ends_in_one_message(net, tmp_path, capsys):
    """Either a message, or (a flipped bit inside a weight) a backbone whose numbers are numbers."""
    mark = tmp_path / "code was run"
    whole = torch_bytes(cutmix_release(net, "pyramidnet"))
    legacy = torch_bytes(cutmix_release(net, "pyramidnet"), legacy=True)
    held = safetensors.torch.save(dict(net.weights))
    bare = pickle.dumps({n: t.numpy() for n, t in net.weights.items()}, 4)
    variants: list[Variant] = [
        *torn("zip", whole, 20),
        *torn("legacy", legacy, 20),
        *flipped("legacy", legacy, 40, below=4000),
        *flipped("zip", whole, 30),
        *flipped("pickle", bare, 30, below=2000),
        *zips(whole),
        *lies(whole),
        *contents(net, mark),
        *tensors(net, held),
        *foreign(),
    ]
    assert len(variants) >= 200
    assert len({name for name, _, _ in variants}) == len(variants)
    before, said = peak_kib(), {}
    for number, (name, suffix, content) in enumerate(variants):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(content)
        try:
            found = read(path, Overrides(source="cutmix-cifar") if number % 2 else Overrides())
            assert all(bool(t.isfinite().all()) for t in found.weights.values()), name
        except UsageError as error:
            said[name] = str(error).replace(str(path), "PATH")
        except Exception as error:  # the very thing that must not be
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        try:
            if number % 6 == 0:
                inspect(path, Overrides()).text()
        except UsageError:
            pass
        except Exception as error:
            raise AssertionError(f"inspecting {name}: {type(error).__name__}: {error}") from error
        path.unlink()
        assert not mark.exists(), name
    assert len(said) > 0.7 * len(variants)
    assert not [words for words in said.values() if "PATH" not in words or "Traceback" in words]
    assert peak_kib() - before < 300_000, "a file of 100 KB took more than 300 MB"


def test_code_is_refused_in_words(net, tmp_path):
    for name, content in {
        "a.pth": torch_bytes({"state_dict": Trap(tmp_path / "x")}),
        "b.pth": torch_bytes({"state_dict": Trap(tmp_path / "x")}, legacy=True),
        "c.pkl": pickle.dumps(Trap(tmp_path / "x")),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match="can run code"):
            read(tmp_path / name)
    assert not (tmp_path / "x").exists()


def test_files_that_grow_are_refused_before_they_do(net, tmp_path):
    """A packed member of 16 MiB, and a classifier of a million classes from one number."""
    bomb = {n: c for n, _, c in zips(torch_bytes(cutmix_release(net, "pyramidnet")))}
    wide = {**net.weights, "fc.weight": torch.zeros(1).expand(2**22, 88),
            "fc.bias": torch.zeros(1).expand(2**22)}  # fmt: skip
    files = {
        "bomb.pth": (bomb["bomb"], "more than it can hold"),
        "bomb.npz": (bomb["npz bomb"], "more than it can hold"),
        "wide.pth": (torch_bytes(wide), "more tensors than it holds"),
    }
    before = peak_kib()
    for name, (content, said) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=said):
            read(tmp_path / name, Overrides(source="cutmix-cifar"))
    assert peak_kib() - before < 100_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08\x00", "Unpack"),
        (b"", "cut short"),
    ],
)
def test_what_people_try_is_answered(content, said, tmp_path):
    (tmp_path / "f.pth").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read(tmp_path / "f.pth")
