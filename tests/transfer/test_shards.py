"""A store of shards gives the transfers what the folder gave that was packed, to the bit."""

import functools
import json
import shutil
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from pretrain.backbone import Backbone
from pretrain.backbone_evaluation import evaluate_backbone
from pretrain.cache import hash_files, new_hash
from pretrain.config import DatasetConfig as PretrainData
from pretrain.config import LoaderConfig
from pretrain.errors import UsageError
from pretrain.run import Run
from pretrain.shards import ShardedImage, ShardReader, find_store
from pretrain.shards.pack import PackOptions, pack
from pretrain.training import make_fabric
from tests.serving import Quiet, serving
from tools.support.grid_plan import plan
from tools.support.pack_sources import SourceOptions, open_sources
from tools.support.recipe_choice import summarize
from transfer.captioning import engine as captioning
from transfer.captioning.captioner import Captioner
from transfer.captioning.config import CaptioningConfig, EncoderConfig, ModelConfig
from transfer.captioning.config import DatasetConfig as CaptionsConfig
from transfer.captioning.dataset import open_captions
from transfer.captioning.shards import _parse as parse
from transfer.classification import engine as classification
from transfer.classification.config import (
    ClassificationConfig,
    DatasetConfig,
    KnnConfig,
    LinearConfig,
)
from transfer.classification.folders import open_image_folders
from transfer.classification.setup import build
from transfer.detection.config import DatasetConfig as DetectionData
from transfer.detection.data import open_data as open_detection
from transfer.evaluation import calibration, foreign_images, ood, suites
from transfer.evaluation.config import OodConfig
from transfer.evaluation.images import Labels, open_labelled
from transfer.feature_cache import FeatureCache
from transfer.image_hashes import hash_images
from transfer.segmentation.config import DatasetConfig as SegmentationData
from transfer.segmentation.data import open_data as open_segmentation
from transfer.stores import refuse_store

CPU = make_fabric("cpu")


def packed(folder: Path, out: Path) -> Path:
    splits = open_sources(str(folder), SourceOptions(), out / ".pack")
    pack(splits, out, PackOptions(samples_per_shard=7))
    return out


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path_factory):
    """Neither a user's remembered hashes nor a user's fetched shards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def small(tiny_backbone, folder) -> Backbone:
    """With a classifier of the folder's classes."""
    spec = replace(tiny_backbone.spec, input_size=(3, 32, 32), crop_pct=1.0)
    names = sorted(path.name for path in (folder / "train").iterdir())
    provenance = replace(tiny_backbone.provenance, classes=names)
    return Backbone(spec=spec, provenance=provenance, weights=tiny_backbone.weights)


@pytest.fixture(scope="module")
def folder(worlds) -> Path:
    return worlds["classification"]


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory) -> Path:
    return packed(folder, tmp_path_factory.mktemp("stores") / "shapes")


@pytest.fixture(scope="module")
def captions(worlds, tmp_path_factory) -> Path:
    return packed(worlds["captions"], tmp_path_factory.mktemp("stores") / "captions")


def sources(store: Path, split: str = "train") -> list[ShardedImage]:
    found = find_store(store)
    assert found is not None
    reader = found.splits[split]
    return [ShardedImage(reader, number) for number in range(len(reader.index))]


def paths_of(folder: Path, images: list[ShardedImage], split: str = "train") -> list[Path]:
    return [folder / split / image.path for image in images]


# ---------------------------------------------------------------------------------- classification


def config(data: Path | str, cache: Path, **changes) -> ClassificationConfig:
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


@pytest.fixture(scope="module")
def of_folder(folder, small, tmp_path_factory):
    root = tmp_path_factory.mktemp("of_folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "draw_confusion", lambda *_: None)
        run = Run(root / "run")
        return classification.finetune(small, config(folder, root / "cache"), run, CPU), root


@pytest.mark.usefixtures("no_pictures")
def test_classification_of_a_store_is_that_of_its_folder(of_folder, folder, store, small, tmp_path):
    asked = config(store, tmp_path / "cache")
    results = [of_folder[0], classification.finetune(small, asked, Run(tmp_path / "run"), CPU)]
    one, two = of_folder[1] / "run", tmp_path / "run"
    assert (one / "predictions.json").read_bytes() == (two / "predictions.json").read_bytes()
    left, right = (
        torch.load(run / "classifier.pth", weights_only=True)["state_dict"] for run in (one, two)
    )
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())
    metrics = [
        {key: value for key, value in result.metrics.items() if "second" not in key}
        for result in results
    ]
    assert metrics[0] == metrics[1]
    assert [result.data["name"] for result in results] == [folder.name, "shapes"]
    assert results[0].data["digest"] != results[1].data["digest"]


@pytest.mark.parametrize("splits", [("train", "val"), ("train", "val", "test"), ("train", "test")])
def test_splits_of_a_store_are_those_of_its_folder(splits, tmp_path):
    names = ["ring/a b.png", "ring/b.PNG", "a ring/c.d.png", *(f"a ring/{n}.png" for n in range(8))]
    for place, name in enumerate(f"{split}/{name}" for split in splits for name in names):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (place, 0, 0)).save(path, "PNG")
    one = open_image_folders(tmp_path / "folder", DatasetConfig())
    two = open_image_folders(packed(tmp_path / "folder", tmp_path / "store"), DatasetConfig())
    assert (one.names, one.classes) == (two.names, two.classes)
    for name in ("labels", "train", "fit", "choose", "val", "scored"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    assert (one.scored_name, one.chosen_on) == (two.scored_name, two.chosen_on)
    assert [image.read_bytes() for image in one.paths] == [i.read_bytes() for i in two.paths]


def test_a_store_that_lacks_what_is_asked_for(store, captions):
    with pytest.raises(UsageError, match=r"no shards of dev \(it has train, val\)"):
        open_image_folders(store, DatasetConfig(val="dev"))
    with pytest.raises(UsageError, match="have no classes"):
        open_image_folders(captions, DatasetConfig())
    with pytest.raises(UsageError, match="have no captions"):
        open_captions(store, CaptionsConfig())
    with pytest.raises(UsageError, match=r"--dataset\.layout auto"):
        open_captions(captions, CaptionsConfig(layout="coco"))
    data = open_image_folders(store, DatasetConfig(val="train", train="val"))
    assert (len(data.train), len(data.scored)) == (20, 60)


@pytest.mark.usefixtures("no_pictures")
def test_a_store_at_an_address(of_folder, store, small, tmp_path):
    with serving(functools.partial(Quiet, directory=str(store.parent))) as url:
        loader = LoaderConfig(workers=0, shard_cache=1e-4)  # three shards
        asked = config(f"{url}/shapes", tmp_path / "cache", mode="linear", loader=loader)
        result = classification.finetune(small, asked, Run(tmp_path / "run"), CPU)
        with pytest.raises(UsageError, match=r"--loader\.shard_cache 0\.01"):
            build(small, replace(asked, mode="full"))
    one, two = (
        json.loads((run / "predictions.json").read_text())
        for run in (of_folder[1] / "run", tmp_path / "run")
    )
    assert {name: row["linear"] for name, row in one.items()} == {
        name: row["linear"] for name, row in two.items()
    }
    assert result.data["name"] == "shapes"


# --------------------------------------------------------------------------------------- the cache


def test_features_of_a_folder_are_those_of_its_store(folder, store, small, tmp_path, monkeypatch):
    images = sources(store)
    paths = paths_of(folder, images)
    hashes, _ = hash_images(images, tmp_path)
    of_files = hash_files({str(path): path for path in paths}, tmp_path / "other.json")
    assert [digest and digest.hex() for digest in hashes] == [of_files[str(path)] for path in paths]

    one, two = (FeatureCache(tmp_path / name, small, "pooled") for name in ("one", "two"))
    wanted = one.features(paths, CPU, workers=0)
    found = two.features(images[::-1], CPU, workers=0)
    assert (found.rows[found.row_of[::-1]] == wanted.rows[wanted.row_of]).all()
    monkeypatch.setattr(FeatureCache, "_encode", lambda *_: pytest.fail("encoded again"))
    one.features(images, CPU, workers=0)
    two.features(paths, CPU, workers=0)
    monkeypatch.setattr(ShardReader, "read_many", lambda *_: pytest.fail("read again"))
    moved = shutil.copytree(store, tmp_path / "moved")
    again = one.features(sources(moved), CPU, workers=0)
    assert (again.rows[again.row_of] == wanted.rows[wanted.row_of]).all()


def test_a_path_through_a_link_is_of_the_file_that_it_opens(tmp_path):
    """A folder above what a link points to is not the one above the link."""
    for name in ("far/inner", "near"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("far", "near"):
        (tmp_path / name / "a.jpg").write_bytes(name.encode())
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "inner")
    found, _ = hash_images([tmp_path / "near" / "link" / ".." / "a.jpg"], tmp_path / "cache")
    assert found == [new_hash(b"far").digest()]


def test_what_is_damaged_in_a_store_is_named_and_left_out(store, small, tmp_path):
    damaged = shutil.copytree(store, tmp_path / "damaged")
    images = sources(damaged)
    (damaged / "train-000001.tar").unlink()
    with open(damaged / "train-000003.tar", "r+b") as file:
        file.seek(512)
        byte = file.read(1)[0]
        file.seek(512)
        file.write(bytes([byte ^ 1]))
    features = FeatureCache(tmp_path / "cache", small, "pooled").features(images, CPU, workers=0)
    starts = images[0].reader.index.starts.tolist()
    assert sorted(features.corrupt) == [*range(starts[1], starts[2]), starts[3]]
    assert "train-000001.tar" in features.corrupt[starts[1]]
    assert images[starts[3]].path in features.corrupt[starts[3]]
    with pytest.raises(UsageError, match=r"8 of 60 images .* --dataset\.max_corrupt 8"):
        features.check_corrupt(7, verbose=False)
    features.check_corrupt(8, verbose=False)


# -------------------------------------------------------------------------------------- captioning


def captioning_config(data: Path, cache: Path, kind: str, from_epoch) -> CaptioningConfig:
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


@pytest.mark.parametrize(
    ("kind", "start"), [("nic", None), ("attention", 1), ("transformer", None)]
)
def test_captioning_of_a_store_is_that_of_its_folder(
    worlds, captions, kind, start, tiny_backbone, tmp_path, full
):
    if kind != "attention" and not full:
        pytest.skip("reads its data as attention does; runs with --full")
    runs = [tmp_path / "one", tmp_path / "two"]
    for run, data in zip(runs, (worlds["captions"], captions), strict=True):
        options = captioning_config(data, tmp_path / f"{run.name}-cache", kind, start)
        captioning.finetune(tiny_backbone, options, Run(run), CPU)
    names = ["captions.json", "captions.html", *(f"pictures/example_{n}.webp" for n in range(6))]
    assert all((runs[0] / name).read_bytes() == (runs[1] / name).read_bytes() for name in names)
    left, right = map(Captioner.load, runs)
    assert left.vocabulary == right.vocabulary
    assert left.backbone.fingerprint() == right.backbone.fingerprint()
    assert all(torch.equal(tensor, right.weights[name]) for name, tensor in left.weights.items())


def jpeg(colour: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), (colour, colour, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def img2dataset(path: Path, samples: dict[str, tuple[bytes, str]]) -> None:
    """Its layout: KEY.jpg, KEY.json with what is known of the download, KEY.txt."""
    with tarfile.open(path, "w") as archive:
        for key, (image, caption) in samples.items():
            about = json.dumps({"key": key, "caption": caption, "status": "success"})
            for ending, content in (
                ("jpg", image), ("json", about.encode()), ("txt", caption.encode())
            ):  # fmt: skip
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                archive.addfile(member, BytesIO(content))


def test_somebody_s_images_with_texts(tmp_path):
    for split, first in (("train", 0), ("val", 2)):
        (tmp_path / split).mkdir()
        for shard in range(2):
            samples = {
                f"{shard:05d}{number:04d}": (jpeg(first + shard), f" a caption, {split} {number}\n")
                for number in range(first, first + 3)
            }
            samples[f"{shard:05d}9999"] = (jpeg(99), " ")
            img2dataset(tmp_path / split / f"{shard:05d}.tar", samples)
    said: list[str] = []
    data = open_captions(tmp_path, CaptionsConfig(), log=said.append)
    ids = [f"{shard:05d}{number:04d}" for shard in range(2) for number in range(3)]
    assert [image.image_id for image in data.train] == ids
    assert data.train[4].captions == ("a caption, train 1",)
    assert data.train[4].path.read_bytes() == jpeg(1)
    assert any("2 images without captions" in line for line in said)
    (line,) = (note for note in data.notes if "share an id" in note)
    assert "2 of 6 images" in line  # 000000002 and 000010002, other pictures in train
    again = open_captions(packed(tmp_path, tmp_path / "packed"), CaptionsConfig())
    assert [(image.image_id, image.captions) for image in again.train] == [
        (image.image_id, image.captions) for image in data.train
    ]


def test_pictures_that_are_trained_on_and_scored_are_found_in_shards(tmp_path):
    for split, keys in (("train", ("a", "b")), ("val", ("b", "c"))):
        (tmp_path / split).mkdir()
        images = {key: (jpeg(ord(key)), f"a picture of {key}") for key in keys}
        img2dataset(tmp_path / split / "00000.tar", images)
    (note,) = (
        one for one in open_captions(tmp_path, CaptionsConfig()).notes if "trained on" in one
    )
    assert "1 of 2 images are trained on" in note


# -------------------------------------------------------------------------------------- evaluation


def test_a_classifier_s_own_scores(folder, store, small):
    one, two = (evaluate_backbone(small, data, CPU, workers=0) for data in (folder, store))
    assert (one.scores.top1, one.scores.loss) == (two.scores.top1, two.scores.loss)
    assert torch.equal(one.scores.per_class, two.scores.per_class)
    assert evaluate_backbone(small, store, CPU, split="train", workers=0).scores.images == 60
    with pytest.raises(UsageError, match="no shards of test"):
        evaluate_backbone(small, store, CPU, split="test")


def test_suites_of_labelled_images(folder, store, small):
    one, two = (open_labelled(small, data, Labels()) for data in (folder, str(store)))
    assert (one.name, two.name) == (folder.name, "shapes")
    parts = [calibration.split(each.images, 0.5) for each in (one, two)]
    assert all((left == right).all() for left, right in zip(*parts, strict=True))
    known = foreign_images.files_by_size(foreign_images.content_files(two.images))
    of_folder = foreign_images.content_files(one.images)
    assert foreign_images.count_shared(of_folder, known) == len(one.images)
    with pytest.raises(UsageError, match="file for file"):
        ood.open_data(small, store, OodConfig(foreign=(str(folder / "val"),)), Labels())
    assert [suite.name for suite in suites.SUITES if suite.takes_shards] == [
        "robustness", "ood", "calibration"
    ]  # fmt: skip


# ----------------------------------------------------------------------------- grids, and refusals


def test_a_grid_over_a_store(store, small, tmp_path):
    small.save(tmp_path / "backbone.pth")
    data = {"classification": str(store)}
    (job,) = plan([str(tmp_path / "backbone.pth")], [*data], {}, data, [0])
    assert (job.data["name"], job.config["data"]) == ("shapes", str(store))
    assert (job.digest["annotations"].files, job.digest["images"].files) == (2, 0)


def test_the_recipe_for_a_store(store, captions):
    assert summarize("classification", str(store), DatasetConfig()).num_images == 60
    assert summarize("captioning", str(captions), CaptionsConfig()).num_images == 12
    assert summarize("pretrain", str(store), PretrainData()).short_side == 32


@pytest.mark.parametrize("at", ["here", "s3://bucket/store"])
def test_boxes_and_masks_are_in_no_shard(store, at):
    data = str(store) if at == "here" else at
    for read, options in (
        (open_detection, DetectionData()),
        (open_segmentation, SegmentationData()),
    ):
        with pytest.raises(UsageError, match=r"store of shards.*Give the folder"):
            read(data, options)
    for task in ("detection", "segmentation"):
        with pytest.raises(UsageError, match="store of shards"):
            summarize(task, data, DetectionData())


def test_half_a_surrogate_pair_is_no_caption():
    with pytest.raises(UsageError, match=r"here: its captions cannot be read .*surrogates"):
        parse(b'{"captions": ["\\ud800 x"]}', True, "here")


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(UsageError, match=r"//\.\.\.@host/x' cannot be fetched"):
        refuse_store("https://me:secret@host/x", "boxes")
