"""A store of shards gives the transfers what the folder gave that was packed, to the bit."""

import io
import json
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.backbone import Backbone
from pretrain.config import LoaderConfig
from pretrain.run import Run
from pretrain.shards import Member
from pretrain.shards.index import Shard, write_index
from pretrain.training import make_fabric
from transfer.captioning import engine as captioning
from transfer.captioning.captioner import Captioner
from transfer.captioning.config import CaptioningConfig, EncoderConfig, ModelConfig
from transfer.captioning.config import DatasetConfig as CaptionsConfig
from transfer.captioning.dataset import open_captions
from transfer.classification import engine as classification
from transfer.classification.config import (
    ClassificationConfig,
    DatasetConfig,
    KnnConfig,
    LinearConfig,
)
from transfer.classification.folders import open_image_folders

CPU = make_fabric("cpu")


def write_split(
    out: Path,
    split: str,
    samples: Iterable[tuple[str, bytes, bytes]],
    ending: str,
    per_shard: int = 7,
    **columns,
) -> None:
    """Shards of (name, image, other member), and their index."""
    samples, shards, members, texts = [*samples], [], [], []
    for number, start in enumerate(range(0, len(samples), per_shard)):
        path = out / f"{split}-{number:06d}.tar"
        part = samples[start : start + per_shard]
        with tarfile.open(path, "w") as archive:
            for name, *contents in part:
                for content, suffix, place in zip(
                    contents, (Path(name).suffix, ending), (members, texts), strict=True
                ):
                    info = tarfile.TarInfo(str(Path(name).with_suffix(suffix)))
                    info.size = len(content)
                    place.append(
                        Member(number, archive.offset + 512, len(content), zlib.crc32(content))
                    )
                    archive.addfile(info, io.BytesIO(content))
        shards.append(Shard(path.name, len(part), path.stat().st_size))
    if ending != ".cls":
        columns["texts"] = texts
    write_index(out / f"{split}.index", shards, [s[0] for s in samples], members, **columns)


def pack_classes(folder: Path, out: Path) -> Path:
    """DIR/SPLIT/CLASS/*.jpg as a store, train in a random order."""
    out.mkdir(parents=True)
    for split in sorted(path.name for path in folder.iterdir()):
        paths = sorted((folder / split).glob("*/*"))
        if split == "train":
            paths = [paths[n] for n in np.random.default_rng(1).permutation(len(paths))]
        classes = sorted({path.parent.name for path in paths})
        labels = [classes.index(path.parent.name) for path in paths]
        samples = (
            (str(path.relative_to(folder / split)), path.read_bytes(), b"%d" % label)
            for path, label in zip(paths, labels, strict=True)
        )
        write_split(out, split, samples, ".cls", classes=classes, labels=labels)
    return out


def pack_captions(folder: Path, out: Path) -> Path:
    """Images with captions as a store, train in a random order."""
    out.mkdir(parents=True)
    data = open_captions(folder, CaptionsConfig())
    for split in ("train", "val", "test"):
        images = [*enumerate(getattr(data, split))]
        if split == "train":
            images = [images[n] for n in np.random.default_rng(1).permutation(len(images))]
        rows = [
            {"image_id": one.image_id, "file_name": one.path.name, "captions": one.captions}
            for _, one in images
        ]
        samples = [
            (one.path.name, one.path.read_bytes(), json.dumps(row | {"number": number}).encode())
            for row, (number, one) in zip(rows, images, strict=True)
        ]
        if samples:
            write_split(out, split, samples, ".json")
    return out


@pytest.fixture(scope="module")
def small(backbone) -> Backbone:
    spec = replace(backbone.spec, input_size=(3, 32, 32), crop_pct=1.0)
    return Backbone(spec=spec, provenance=backbone.provenance, weights=backbone.weights)


@pytest.fixture(scope="module")
def folder(worlds) -> Path:
    return worlds["classification"]


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory) -> Path:
    return pack_classes(folder, tmp_path_factory.mktemp("stores") / "shapes")


# ---------------------------------------------------------------------------------- classification


def config(data: Path, cache: Path, **changes) -> ClassificationConfig:
    tiny = ClassificationConfig(
        name="test",
        data=str(data),
        epochs=1,
        batch_size=20,
        loader=LoaderConfig(workers=0),
        cache=str(cache),
        linear=LinearConfig(penalties=(1e-1,)),
        knn=KnnConfig(ks=(3,)),
    )
    return replace(tiny, **changes)


@pytest.mark.usefixtures("no_pictures")
def test_classification_of_a_store_is_that_of_its_folder(folder, store, small, tmp_path):
    results = {}
    for data in (folder, store):
        run = Run(tmp_path / data.name)
        results[data] = classification.finetune(
            small, config(data, tmp_path / f"{data.name}-cache"), run, CPU
        )
    one, two = (tmp_path / data.name for data in (folder, store))
    assert (one / "predictions.json").read_bytes() == (two / "predictions.json").read_bytes()
    weights = [torch.load(run / "classifier.pth", weights_only=True) for run in (one, two)]
    left, right = (content["state_dict"] for content in weights)
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())
    metrics = [
        {key: value for key, value in result.metrics.items() if "second" not in key}
        for result in results.values()
    ]
    assert metrics[0] == metrics[1]
    assert [result.data["name"] for result in results.values()] == [folder.name, "shapes"]
    assert results[folder].data["digest"] != results[store].data["digest"]


@pytest.mark.parametrize("splits", [("train", "val"), ("train", "val", "test"), ("train",)])
def test_splits_of_a_store_are_those_of_its_folder(folder, splits, tmp_path):
    for number, split in enumerate(splits):
        for name in (
            "ring/a b.jpg",
            "ring/b.JPEG",
            "a ring/c.png",
            *(f"a ring/{n}.jpg" for n in range(8)),
        ):
            path = tmp_path / "folder" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{number}{name}".encode())
    one = open_image_folders(tmp_path / "folder", DatasetConfig())
    two = open_image_folders(
        str(pack_classes(tmp_path / "folder", tmp_path / "s")), DatasetConfig()
    )
    assert one.names == two.names
    assert one.classes == two.classes
    for name in ("labels", "train", "fit", "choose", "val", "scored"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    assert (one.scored_name, one.chosen_on) == (two.scored_name, two.chosen_on)
    assert [p.read_bytes() for p in one.paths] == [p.read_bytes() for p in two.paths]


# -------------------------------------------------------------------------------------- captioning


def captioning_config(data: Path, cache: Path, kind: str, from_epoch=None) -> CaptioningConfig:
    return CaptioningConfig(
        name="test",
        data=str(data),
        epochs=2,
        batch_size=10,
        loader=LoaderConfig(workers=0),
        meteor="off",
        cache=str(cache),
        dataset=CaptionsConfig(min_count=1, image_size=32),
        encoder=EncoderConfig(from_epoch=from_epoch, lr=1e-3),
        model=ModelConfig(
            kind=kind, embed_size=16, hidden_size=24, attention_size=8, num_layers=1,
            encoder_layers=1, ffn_size=32,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "start"), [("nic", 1), ("attention", None), ("transformer", 1)])
def test_captioning_of_a_store_is_that_of_its_folder(worlds, kind, start, tiny_backbone, tmp_path):
    folder, runs = worlds["captions"], []
    store = pack_captions(folder, tmp_path / "store")
    for data in (folder, store):
        runs.append(tmp_path / f"{data.name}-run")
        options = captioning_config(data, tmp_path / f"{data.name}-cache", kind, start)
        captioning.finetune(tiny_backbone, options, Run(runs[-1]), CPU)
    names = ["captions.json", "captions.html", *(f"pictures/example_{n}.webp" for n in range(6))]
    assert all((runs[0] / name).read_bytes() == (runs[1] / name).read_bytes() for name in names)
    left, right = (Captioner.load(run) for run in runs)
    assert left.vocabulary == right.vocabulary
    assert left.backbone.fingerprint() == right.backbone.fingerprint()
    assert all(torch.equal(tensor, right.weights[name]) for name, tensor in left.weights.items())
