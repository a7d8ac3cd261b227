"""Data that changes under a run or a grid: the same files are the same data, others are noticed."""

import builtins
import functools
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain import cache, data_digest
from pretrain.cache import hash_files, hash_sample
from pretrain.config import DatasetConfig, ModelConfig, PretrainConfig
from pretrain.data import open_data as pretrain_data
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError
from pretrain.images import list_images
from pretrain.run import Result, Run, plain
from pretrain.training import admit, make_fabric
from transfer import task
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.config import DatasetConfig as CaptionsConfig
from transfer.captioning.config import ModelConfig as DecoderConfig
from transfer.captioning.dataset import open_captions
from transfer.classification.config import ClassificationConfig
from transfer.detection.config import DatasetConfig as VocConfig
from transfer.detection.config import DetectionConfig, DetectorConfig
from transfer.detection.data import open_data as detection_data
from transfer.grid import Job, job_status
from transfer.segmentation.config import SegmentationConfig

DATA = {"pretrain": "classification", "classification": "classification",
        "detection": "detection", "segmentation": "segmentation",
        "captioning": "captions"}  # fmt: skip


@pytest.fixture(autouse=True)
def memory(tmp_path_factory, monkeypatch) -> Path:
    """Files just written are remembered as well."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(cache, "_SETTLED", -(10**12))
    return cache.cache_folder() / "digests"


def configuration(name: str, root: Path):
    match name:
        case "pretrain":
            model, dataset = ModelConfig(arch="resnet10t"), DatasetConfig(image_size=32)
            return PretrainConfig(data=str(root), model=model, dataset=dataset, batch_size=8)
        case "classification":
            return ClassificationConfig(data=str(root), mode="linear")
        case "detection":
            small = DetectorConfig(fpn_channels=8, head_channels=8)
            return DetectionConfig(
                data=str(root), engine="torchvision", detector=small, batch_size=2
            )
        case "segmentation":
            return SegmentationConfig(data=str(root), batch_size=2)
        case "captioning":
            small = DecoderConfig(embed_size=8, hidden_size=8, attention_size=8)
            return CaptioningConfig(data=str(root), model=small)


def set_up(name: str, root: Path, backbone):
    """What the task's own `build` reads."""
    build, config = task.load(task.by_name(name).build), configuration(name, root)
    return build(config) if name == "pretrain" else build(backbone, config)


def copy(tree: Path, target: Path) -> Path:
    """With the times of now."""
    return shutil.copytree(tree, target, copy_function=shutil.copyfile)


def pictures(root: Path) -> list[Path]:
    return sorted(root.rglob("*.jpg"))


# ------------------------------------------------------------------------- what can happen to data


def replace_captions(root: Path) -> None:
    for path in (root / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        for entry in content["annotations"]:
            entry["caption"] = "a thing on a plain ground"
        path.write_text(json.dumps(content))


def replace_images(root: Path) -> None:
    first, *others = pictures(root)
    for path in others:
        shutil.copyfile(first, path)


def replace_bytes(root: Path) -> None:
    """One image by another one of its size."""
    path = pictures(root)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_labels(root: Path) -> None:
    path = sorted((root / "Annotations").iterdir())[0]
    text = path.read_text()
    first, other = sorted(set(re.findall("<name>(.*)</name>", "".join(
        p.read_text() for p in (root / "Annotations").iterdir()))))[:2]  # fmt: skip
    found = re.search("<name>(.*)</name>", text)[1]
    path.write_text(text.replace(found, other if found == first else first))


def change_mask(root: Path) -> None:
    """One pixel, of the size and the colours that it was of."""
    path = sorted((root / "masks/train").iterdir())[0]
    mask = Image.open(path)
    mask.putpixel((0, 0), 10 - mask.getpixel((0, 0)))
    mask.save(path)


def move_image(root: Path) -> None:
    one, other = sorted((root / "train").iterdir())[:2]
    shutil.move(sorted(one.iterdir())[0], other)


def remove_image(root: Path) -> None:
    """Of those for validation, and of its list."""
    if (root / "ImageSets").is_dir():
        path = root / "ImageSets/Main/val.txt"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    elif (root / "annotations").is_dir():
        path = root / "annotations/captions_val2017.json"
        content = json.loads(path.read_text())
        gone = content["images"].pop()["id"]
        rows = [row for row in content["annotations"] if row["image_id"] != gone]
        path.write_text(json.dumps({**content, "annotations": rows}))
    elif (root / "masks").is_dir():
        for kind in ("images", "masks"):
            sorted((root / kind / "val").iterdir())[0].unlink()
    else:
        pictures(root / "val")[0].unlink()


CHANGES = {
    "pretrain": (replace_images, replace_bytes, move_image, remove_image),
    "classification": (replace_images, replace_bytes, move_image, remove_image),
    "detection": (replace_images, replace_bytes, change_labels, remove_image),
    "segmentation": (replace_images, replace_bytes, change_mask, remove_image),
    "captioning": (replace_captions, replace_images, replace_bytes, remove_image),
}
CASES = [(name, change) for name, changes in CHANGES.items() for change in changes]


@pytest.fixture(scope="module")
def begun(worlds, backbone, tmp_path_factory):
    """A function from a task to its setup on its data, and a run of it with its configuration."""

    @functools.cache
    def begin(name: str):
        setup = set_up(name, worlds[DATA[name]], backbone)
        run = Run(tmp_path_factory.mktemp("begun") / "run")
        config = plain(configuration(name, worlds[DATA[name]]))
        run.start(config, None, setup.files.digest)
        return setup, run, config

    return begin


def in_grid(
    name: str, there: dict, config: dict, out: Path, before: dict, now: dict
) -> tuple[str, str | None]:
    """What a grid says of a result on the data of before, when it is to be on that of now."""
    facts = {"name": "n", "arch": "a", "method": "m", "fingerprint": "f" * 16, "recipe": None,
             "dataset": None, "epochs": None, "seed": 0}  # fmt: skip
    job = Job(task=name, name="n", seed=0, backbone=facts, config=config, data=now)
    run = Run(out / job.folder)
    run.start(there, facts["fingerprint"])
    kind = {"task": name, "metric": "m", "metrics": {}, "backbone": facts, "data": before}
    run.finish(Result(**kind, seed=0, config=there, seconds=1.0, environment={}))
    status = job_status(job, out)
    return status.state, status.why


@pytest.mark.parametrize("name", DATA)
def test_a_copy_is_the_same_data(name, begun, worlds, backbone, tmp_path):
    """Of another path and another name; where one side has no digest, the path counts."""
    setup, run, there = begun(name)
    root = copy(worlds[DATA[name]], tmp_path / "copied")
    copied, summary, here = set_up(name, root, backbone), setup.data_summary, {**there}
    here["data"] = str(root)
    now = copied.data_summary
    assert now["digest"] == summary["digest"]
    run.refuse(here)  # before the digest is known
    run.refuse(here, None, copied.files.digest)
    with pytest.raises(UsageError, match=r"another configuration \(data: "):
        run.refuse(here, None, {})
    assert in_grid(name, there, here, tmp_path / "grid", summary, now) == ("done", None)
    older = {key: value for key, value in summary.items() if key != "digest"}
    state, why = in_grid(name, there, here, tmp_path / "older", older, now)
    assert state == "failed"
    assert "another configuration is in this folder (data: " in why
    again = {**now, "name": summary["name"]}
    assert in_grid(name, here, here, tmp_path / "same", older, again) == ("done", None)


@pytest.mark.parametrize(("name", "change"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_a_change_is_noticed_by_resume_and_grid(name, change, begun, worlds, backbone, tmp_path):
    setup, run, config = begun(name)
    root = copy(worlds[DATA[name]], tmp_path / worlds[DATA[name]].name)
    change(root)
    changed, summary = set_up(name, root, backbone), setup.data_summary
    assert changed.data_summary["digest"] != summary["digest"]
    with pytest.raises(UsageError, match=r"^the data has changed since .*run was started \("):
        run.refuse(config, None, changed.files.digest)
    state, why = in_grid(name, config, config, tmp_path / "grid", summary, changed.data_summary)
    assert state == "failed"
    assert "data, digest: " in why


# ----------------------------------------------------------------- which files are read, and how


def big(path: Path, middle: int = 0, size: int = 40_000) -> Path:
    """A file larger than its samples, which `middle` lies between."""
    content = bytearray(np.random.default_rng(0).bytes(size))
    content[size // 4] = middle
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_what_has_not_changed_is_not_read(tmp_path, memory, monkeypatch):
    paths = [big(tmp_path / f"{number}.bmp", size=1000 + number) for number in range(3)]
    text = tmp_path / "list.txt"
    text.write_text("0\n1\n2\n")

    def digest():
        return DataFiles((tmp_path,), paths, [text]).digest

    first, read = digest(), []
    real = open

    def noted(path, *rest, **more):
        read.append(Path(path).name)
        return real(path, *rest, **more)

    monkeypatch.setattr(cache, "open", noted, raising=False)
    assert digest() == first
    assert read == []
    os.utime(paths[1])  # the same bytes
    assert digest() == first
    assert read == ["1.bmp"]
    paths[1].write_bytes(paths[1].read_bytes()[::-1])  # of the same size, and older
    os.utime(paths[1], (1, 1))
    assert digest()["images"].content != first["images"].content
    assert read == ["1.bmp"] * 2
    for damaged in memory.iterdir():
        damaged.write_text("nonsense")
    paths[1].write_bytes(paths[1].read_bytes()[::-1])
    assert digest() == first


def test_a_sample_is_of_beginning_middle_and_end(tmp_path):
    path, content = tmp_path / "a.jpg", bytes(100_000)

    def sample(content):
        path.write_bytes(content)
        with open(path, "rb", buffering=0) as file:
            return hash_sample(file)

    def changed(place):
        return sample(content[:place] + b"x" + content[place + 1 :]) != sample(content)

    places = (0, 4095, 4096, 48_000, 52_000, 95_903, 95_904, 99_999)
    assert list(map(changed, places)) == [True, True, False, True, True, False, True, True]
    assert sample(content + b"\0") != sample(content)  # the size counts


def test_all_bytes_of_images_are_compared_on_request(tmp_path):
    """A sample does not hold a byte between its places; what only one side has counts as equal."""
    path, run = big(tmp_path / "a.bmp"), Run(tmp_path / "run")

    def digest(by):
        return DataFiles((tmp_path,), [path], by=by).digest

    sample, whole = digest("sample"), digest("bytes")
    assert whole == {**sample, "digest_bytes": whole["digest_bytes"]}
    run.start({}, None, sample)
    run.start({}, None, whole)
    run.start({}, None, sample)  # does not forget
    big(path, middle=1)
    assert digest("sample") == sample
    run.refuse({}, None, digest("sample"))
    with pytest.raises(UsageError, match=r"digest_bytes: \w{16} then, \w{16} now"):
        run.refuse({}, None, digest("bytes"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "1.jpg").unlink(), "images: 3 files then, 2 now"),
        (lambda root: (root / "1.jpg").rename(root / "4.jpg"), "another name or in another folder"),
        (lambda root: (root / "1.jpg").write_text("none"), "images: files of the same names"),
        (lambda root: (root / "a.json").write_text("[]"), "annotations: files of the same names"),
    ],
)  # fmt: skip
def test_a_message_says_what_has_changed_and_what_to_do(change, words, tmp_path):
    root = tmp_path / "data"
    for number in range(3):
        big(root / f"{number}.jpg", size=100 + number)
    (root / "a.json").write_text("{}")

    def digest():
        return DataFiles((root,), sorted(root.glob("*.jpg")), [root / "a.json"]).digest

    run = Run(tmp_path / "run")
    run.start({"epochs": 1}, None, digest())
    change(root)
    with pytest.raises(UsageError, match=f"{words}.*Give the data of then; or, to start anew"):
        run.start({"epochs": 1}, None, digest())


def test_runs_of_before_go_on_and_a_damaged_note_is_an_error(tmp_path):
    digest = DataFiles((tmp_path,), [big(tmp_path / "a.jpg")]).digest
    run = Run(tmp_path / "run")
    run.start({})
    run.start({}, None, digest)
    run.refuse({}, None, {"digest": digest["digest"], "train": 1, "name": "as a grid knows it"})
    with pytest.raises(UsageError, match=r"\(digest: \w{16} then, 0+ now\)"):
        run.refuse({}, None, {"digest": "0" * 16})
    (run.folder / "data.json").write_text('{"images": 3}')
    with pytest.raises(UsageError, match=r"data\.json: .*images.*Give another --out, or remove"):
        run.refuse({}, None, digest)


def test_names_are_those_below_the_data(tmp_path, monkeypatch):
    """The same from any working folder, with images elsewhere, and where a name is no text."""
    root, other = tmp_path / "data", tmp_path / "images"
    odd = os.fsdecode(b"\xff.jpg")
    big(root / "a" / odd)
    big(other / "b.jpg")
    (root / "a.json").write_text("{}")

    def digest(root, other):
        images = [root / "a" / odd, other / "b.jpg"]
        return DataFiles((root, other), images, [root / "a.json"]).digest

    expected = digest(root, other)
    monkeypatch.chdir(root)
    assert digest(Path(), Path("../images")) == expected
    assert digest(Path(), other) == expected
    monkeypatch.chdir(tmp_path)
    assert digest(Path("data"), Path("images")) == expected
    moved = copy(other, tmp_path / "moved")
    assert digest(root, moved) == expected


@pytest.mark.parametrize("root", ["data", "."])
def test_images_outside_the_roots_are_told_apart(root, tmp_path, monkeypatch):
    """By their names below the folder that they have in common, wherever that lies."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data" if root == "." else tmp_path)

    def digest(place, splits=("train", "val")):
        images = [big(tmp_path / place / f"{split}/1.jpg", middle=9) for split in splits]
        big(images[1], size=50)
        return DataFiles((Path(root),), [*images, images[0]]).digest

    first = digest("here")
    assert first["images"].files == 2
    assert digest("there/below") == first
    assert digest("there", ("train", "test")) != first


def test_two_roots_may_hold_files_of_one_name(tmp_path):
    images = [big(tmp_path / root / "1.jpg", size=40 + len(root)) for root in ("a", "bc")]
    digest = DataFiles((tmp_path / "a", tmp_path / "bc"), images).digest
    assert digest["images"].files == 2


def test_data_is_not_read_where_something_else_is_in_the_way(tmp_path):
    Run(tmp_path / "run").start({"epochs": 1})
    unread = object()
    with pytest.raises(UsageError, match="another configuration"):
        admit(make_fabric("cpu"), Run(tmp_path / "run"), {"epochs": 2}, None, unread)


def test_what_cannot_be_read_is_no_end_of_it(tmp_path):
    """A pipe would block, a folder cannot be read, a missing file is missing."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    names = ["pipe.jpg", "folder.jpg", "none.jpg", "a\0b"]
    found = hash_files({name: tmp_path / name for name in names}, tmp_path / "memory.json")
    assert found == dict.fromkeys(names)


def test_a_file_that_changes_within_its_time_stamp_is_read_again(tmp_path, monkeypatch):
    path, memory = tmp_path / "a.jpg", tmp_path / "files.json"
    monkeypatch.setattr(cache, "_SETTLED", 2 * 10**9)
    path.write_bytes(b"one")
    one = hash_files({"a": path}, memory)
    assert not memory.exists()  # too young to be remembered
    path.write_bytes(b"two")
    assert hash_files({"a": path}, memory) != one


def test_another_file_of_the_same_age_is_read_again(tmp_path):
    path, memory = tmp_path / "a.jpg", tmp_path / "files.json"
    path.write_bytes(b"one")
    one = hash_files({"a": path}, memory)
    other = tmp_path / "b.jpg"
    other.write_bytes(b"two")
    stamp = path.stat().st_mtime_ns
    os.utime(other, ns=(stamp, stamp))
    other.replace(path)
    assert hash_files({"a": path}, memory) != one


def test_a_few_folders_are_remembered(tmp_path, memory, monkeypatch):
    """A cluster's jobs unpack the same data into a new folder each."""
    monkeypatch.setattr(data_digest, "_REMEMBERED", 3)

    def remembered() -> set[str]:
        return {path.name for path in memory.iterdir()}

    for number in range(5):
        path = big(tmp_path / f"{number}/a.jpg")
        assert DataFiles((tmp_path / f"{number}",), [path]).digest
        if number == 0:
            first = remembered()
        assert first <= remembered()  # it is used again and again
        assert DataFiles((tmp_path / "0",), [tmp_path / "0/a.jpg"]).digest
        for path in memory.iterdir():  # an hour passes
            os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    assert len(remembered()) == 3
    unwritable = tmp_path / "file"
    unwritable.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(unwritable))
    assert DataFiles((tmp_path,), [tmp_path / "0/a.jpg"]).digest["images"].files == 1


def write(path: Path, content: object = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def below(root: Path, files) -> list[str]:
    return sorted(Path(file).relative_to(root).as_posix() for file in files)


def test_label_files_and_pickles_count_as_annotations(tmp_path):
    root, labels = tmp_path / "imagenet", "imagenet_2012_validation_synset_labels.txt"
    images = ["train/n01/a.JPEG", "train/n02/a.JPEG", "val/a.JPEG"]
    for name in images:
        big(root / name)
    write(root / labels, "n01\n")
    data = pretrain_data(root, DatasetConfig())
    assert below(root, data.val.annotations) == [labels]
    assert below(root, (*data.train.paths, *data.val.paths)) == images

    root = tmp_path / "cifar"
    names = {"fine_label_names": ["a", "b"]}
    batch = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0, 1]}
    for name, content in {"meta": names, "train": batch, "test": batch}.items():
        write(root / "cifar-100-python" / name)
        (root / "cifar-100-python" / name).write_bytes(pickle.dumps(content, protocol=2))
    digest = set_up("pretrain", root, None).files.digest
    assert (digest["images"].files, digest["annotations"].files) == (0, 3)


def test_the_lists_of_joined_splits_count_as_annotations(tmp_path, worlds):
    for year in ("VOC2007", "VOC2012"):
        copy(worlds["detection"], tmp_path / year)
    splits = {"train": "VOC2007/train+VOC2012/train", "test": "VOC2012/val"}
    sources = detection_data(tmp_path, VocConfig(**splits)).train.sources
    lists = [f"{year}/ImageSets/Main/train.txt" for year in ("VOC2007", "VOC2012")]
    assert [name for name in below(tmp_path, sources) if name.endswith(".txt")] == lists
    assert len(sources) == 2 * 10 + 2


@pytest.mark.parametrize(
    "files",
    [
        {"dataset_x.json": {"images": [
            {"filename": f"{split}.jpg", "split": split, "sentences": [{"raw": "a"}]}
            for split in ("train", "val")
        ]}},
        {"x.token": "train.jpg#0\ta\nval.jpg#0\ta\n", "x.trainImages.txt": "train.jpg",
         "x.devImages.txt": "val.jpg"},
        {"captions.json": {f"{number}.jpg": ["a"] for number in range(20)}},
        {f"x_{split}.json": {f"{split}.jpg": ["a"]} for split in ("train", "val")},
    ],
    ids=["karpathy", "flickr", "one", "splits"],
)  # fmt: skip
def test_every_file_of_captions_and_splits_counts(tmp_path, files):
    for name in ("train", "val", *range(20)):
        write(tmp_path / f"{name}.jpg")
    for name, content in files.items():
        write(tmp_path / name, content)
    assert below(
        tmp_path, open_captions(tmp_path, CaptionsConfig(val_fraction=0.5)).files
    ) == sorted(files)


def test_a_digest_of_what_has_not_changed_looks_at_each_file_once(tmp_path, full, monkeypatch):
    """It opens none of them; counted, as seconds are another processor's."""
    count = 100_000 if full else 1_000
    for number in range(count):
        if number % 1000 == 0:
            folder = tmp_path / f"train/class{number // 1000:03d}"
            folder.mkdir(parents=True)
        (folder / f"{number:06d}.jpg").write_bytes(b"%d" % number)

    def digest() -> str:
        return DataFiles((tmp_path,), list_images(tmp_path)[0]).digest["digest"]

    first = digest()
    looked, opened, stat, plain = [], [], os.stat, builtins.open
    monkeypatch.setattr(
        os, "stat", lambda *given, **more: looked.append(given) or stat(*given, **more)
    )
    monkeypatch.setattr(
        builtins, "open", lambda *given, **more: opened.append(given[0]) or plain(*given, **more)
    )
    assert digest() == first
    assert sum(str(given[0]).endswith(".jpg") for given in looked) == count
    assert not [path for path in opened if str(path).endswith(".jpg")]
