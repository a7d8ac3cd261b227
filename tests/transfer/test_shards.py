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
from pretrain.errors import UsageError
from pretrain.run import Run
from pretrain.shards import Member, ShardedImage, find_store
from pretrain.shards.index import Shard, write_index
from pretrain.training import make_fabric
from transfer.classification import engine as classification
from transfer.classification.config import (
    ClassificationConfig,
    DatasetConfig,
    KnnConfig,
    LinearConfig,
)
from transfer.classification.folders import open_image_folders
from transfer.feature_cache import FeatureCache

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
