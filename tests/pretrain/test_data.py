"""Data sets as they lie on disk: ImageNet's two layouts, CIFAR's pickles, what is missing."""

import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.config import DatasetConfig
from pretrain.data import open_data
from pretrain.data.check import check_cifar, check_imagenet, repair_cifar, repair_imagenet
from pretrain.data.validation_labels import read_labels
from pretrain.errors import UsageError

SYNSETS = ("n01440764", "n01443537", "n02102040")
# whose image is whose: not in the order of the synsets
VAL = [SYNSETS[place] for place in (2, 0, 1, 0, 2, 1)]
NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 7)]


def picture(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (colour, 80, 255 - colour)).save(path, format="JPEG")


@pytest.fixture
def imagenet(tmp_path) -> Path:
    """Three synsets, two training images each, six validation images without folders."""
    root = tmp_path / "imagenet"
    for synset in SYNSETS:
        for number in range(2):
            picture(root / "train" / synset / f"{synset}_{number}.JPEG", 40 * number)
    for number, name in enumerate(NAMES):
        picture(root / "val" / name, 30 * number)
    return root


def write_labels(root: Path, kind: str) -> None:
    match kind:
        case "synsets":
            name = "imagenet_2012_validation_synset_labels.txt"
            (root / name).write_text("".join(f"{synset}\n" for synset in VAL))
        case "kaggle":
            rows = zip(NAMES, VAL, strict=True)
            lines = [f"{name.removesuffix('.JPEG')},{synset} 1 2 30 20 " for name, synset in rows]
            lines.reverse()  # Kaggle's file is in no order
            (root / "LOC_val_solution.csv").write_text(
                "\n".join(["ImageId,PredictionString", *lines])
            )
        case "caffe":
            rows = zip(NAMES, VAL, strict=True)
            (root / "val.txt").write_text(
                "".join(f"{name} {SYNSETS.index(synset)}\n" for name, synset in rows)
            )
        case "devkit":
            scipy = pytest.importorskip("scipy.io")
            kit = root / "ILSVRC2012_devkit_t12" / "data"
            kit.mkdir(parents=True)
            ids = {SYNSETS[0]: 449, SYNSETS[1]: 450, SYNSETS[2]: 7}
            text = "".join(f"{ids[synset]}\n" for synset in VAL)
            (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(text)
            kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
            table = np.array(
                [(number, name, "a word") for name, number in ids.items()], dtype=kinds
            )
            scipy.savemat(kit / "meta.mat", {"synsets": table.reshape(-1, 1)})


KINDS = ["synsets", "kaggle", "caffe", "devkit"]


@pytest.mark.parametrize("kind", KINDS)
def test_flat_validation_images_have_the_labels_of_the_file(kind, imagenet):
    write_labels(imagenet, kind)
    data = open_data(imagenet, DatasetConfig())
    assert data.train.classes == data.val.classes == SYNSETS
    assert [SYNSETS[label] for label in data.val.labels] == VAL
    assert [data.val.path(n).name for n in range(6)] == NAMES
    assert len(data.train) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_put_into_folders_they_are_the_same_data_set(kind, imagenet):
    write_labels(imagenet, kind)
    flat = open_data(imagenet, DatasetConfig())
    wanted = {flat.val.path(n).name: flat.val.labels[n] for n in range(6)}
    before = check_imagenet(imagenet, 10)
    assert any("--repair puts them into class folders" in line.text for line in before)
    (done,) = repair_imagenet(imagenet)
    assert "6 images" in done.text
    folders = open_data(imagenet, DatasetConfig())
    assert {folders.val.path(n).name: folders.val.labels[n] for n in range(6)} == wanted
    assert repair_imagenet(imagenet)[0].text == "nothing to repair"


def test_a_repair_broken_off_is_taken_up_again(imagenet):
    write_labels(imagenet, "synsets")
    for name in NAMES[:2]:  # as a kill after two images leaves it
        (imagenet / "val" / VAL[NAMES.index(name)]).mkdir(exist_ok=True)
        (imagenet / "val" / name).rename(imagenet / "val" / VAL[NAMES.index(name)] / name)
    repair_imagenet(imagenet)
    data = open_data(imagenet, DatasetConfig())
    found = {data.val.path(n).name: SYNSETS[data.val.labels[n]] for n in range(6)}
    assert found == dict(zip(NAMES, VAL, strict=True))


def test_class_archives_are_unpacked_and_cannot_escape(imagenet):
    train = imagenet / "train"
    for synset in SYNSETS:
        with tarfile.open(train / f"{synset}.tar", "w") as archive:
            for path in sorted((train / synset).iterdir()):
                archive.add(path, path.name)
        shutil.rmtree(train / synset)
    assert any("archives of classes" in line.text for line in check_imagenet(imagenet, 0))
    write_labels(imagenet, "synsets")
    repair_imagenet(imagenet)
    assert open_data(imagenet, DatasetConfig()).train.classes == SYNSETS
    assert not list(train.glob("*.tar"))
    with tarfile.open(train / "n99999999.tar", "w") as archive:
        archive.add(imagenet / "val" / VAL[0], "../../escaped")
    with pytest.raises(UsageError, match=r"n99999999\.tar cannot be unpacked.*outside"):
        repair_imagenet(imagenet)
    assert not (imagenet.parent / "escaped").exists()
    assert not list(train.glob(".n*"))
    (train / "n99999999.tar").unlink()
    # a kill between the folder's appearance and the archive's removal
    with tarfile.open(train / f"{SYNSETS[0]}.tar", "w") as archive:
        for path in sorted((train / SYNSETS[0]).iterdir()):
            archive.add(path, path.name)
    (train / f".{SYNSETS[1]}.7.tmp").mkdir()
    repair_imagenet(imagenet)
    assert open_data(imagenet, DatasetConfig()).train.classes == SYNSETS
    assert sorted(path.name for path in train.iterdir()) == list(SYNSETS)


def test_what_a_look_at_imagenet_finds(imagenet):
    write_labels(imagenet, "synsets")
    victim = imagenet / "train" / SYNSETS[0] / f"{SYNSETS[0]}_0.JPEG"
    victim.write_bytes(victim.read_bytes()[:200])
    texts = {line.text: line.state for line in check_imagenet(imagenet, 100)}
    assert texts["3 classes in train, 1,000 expected"] == "wrong"
    assert texts["6 images in train, 1,281,167 expected"] == "wrong"
    broken = next(text for text in texts if "broken" in text)
    assert broken.startswith("1 of 6 images of train")
    assert victim.name in broken
    assert texts["6 images of val decoded"] == "ok"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n01440764\n" * 5, "5 labels for 6 images"),
        ("n09999999\n" * 6, "classes that .* does not train on: n09999999"),
        ("1\n" * 6, "ILSVRC2012 ID.*meta.mat"),
        ("cat dog\n" * 6, "known form.*'cat dog'"),
        ("", "mine.txt is empty"),
        ("".join(f"{name} 7\n" for name in NAMES), "class number 7, but there are 3"),
        ("".join(f"{name} 0\n" for name in NAMES[1:]), f"no label for 1 of 6 images, .*{NAMES[0]}"),
    ],
)
def test_label_files_that_do_not_fit(text, words, imagenet):
    path = imagenet / "mine.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        open_data(imagenet, DatasetConfig(val_labels=str(path)))


def test_flat_images_without_labels_say_what_is_needed(imagenet):
    with pytest.raises(UsageError, match=r"none of the label files.*--dataset\.val_labels"):
        open_data(imagenet, DatasetConfig())
    with pytest.raises(UsageError, match="no label file"):
        open_data(imagenet, DatasetConfig(val_labels="nowhere.txt"))


def test_binary_files_are_no_labels(imagenet):
    (imagenet / "x.bin").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UsageError, match="no text file"):
        read_labels(imagenet / "x.bin", NAMES, SYNSETS)


def test_what_is_left_out_is_said_by_the_check_and_before_training(imagenet):
    write_labels(imagenet, "synsets")
    for name in ("train/n01440764/IMG_7.heic", "train/n01440764/._a.JPEG", "val/list.csv"):
        (imagenet / name).touch()
    picture(imagenet / "train/n01443537/more/1.bmp", 5)
    data = open_data(imagenet, DatasetConfig())
    assert len(data.train) == 7
    heic, deep, csv = data.notes
    assert "1 files are left out, no images by their names: 1 .heic (the first is n01440" in heic
    assert "1 images in folders of a class folder are read as of that class" in deep
    assert "1 .csv (the first is list.csv)" in csv
    texts = [line.text for line in check_imagenet(imagenet, 0) if line.state == "note"]
    assert texts == [heic, deep, csv]
    (imagenet / "val" / ".cache").mkdir()  # hidden: no class folder
    assert len(open_data(imagenet, DatasetConfig()).val) == 6


def test_what_is_held_out_of_a_folder_without_splits_is_scored_later(imagenet):
    """Linear probe and fine-tuning score images that pretraining has not seen."""
    from transfer.classification.config import DatasetConfig as FolderConfig
    from transfer.classification.folders import open_image_folders

    root = imagenet / "train"
    for number in range(20):
        picture(root / SYNSETS[0] / f"{number}.JPEG", 10 * number)
    data = open_data(root, DatasetConfig())
    folders = open_image_folders(root, FolderConfig())
    assert data.train.classes == data.val.classes == SYNSETS
    assert [*data.val.paths] == [str(folders.paths[n]) for n in folders.scored]
    assert [*data.train.paths] == [str(folders.paths[n]) for n in folders.train]
    assert data.val.labels.tolist() == folders.labels[folders.scored].tolist()
    count = len(data.val)
    assert data.notes == (f"{root} has no splits: {count} of 26 images are held out as val",)
    assert 3 <= count < 10
    with pytest.raises(UsageError, match=r"no folder .*/photos"):
        open_data(root, DatasetConfig(train="photos"))
    (root / SYNSETS[0]).rename(root / "Training")
    (root / SYNSETS[1]).rename(root / "Testing")
    with pytest.raises(UsageError, match=r"--dataset\.val Testing --dataset\.train Training"):
        open_data(root, DatasetConfig())


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_other_names_of_val(name, imagenet):
    write_labels(imagenet, "synsets")
    repair_imagenet(imagenet)
    (imagenet / "val").rename(imagenet / name)
    assert len(open_data(imagenet, DatasetConfig()).val) == 6


# ---- CIFAR


def cifar(root: Path, kind: int) -> Path:
    """Files as CIFAR's authors wrote them, but for the number of images: four a file."""
    draw = np.random.default_rng(0)
    folder = root / ("cifar-10-batches-py" if kind == 10 else "cifar-100-python")
    folder.mkdir(parents=True)
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for name in names if kind == 10 else ["train", "test"]:
        content = {
            "data": draw.integers(0, 256, (4, 3072), dtype=np.uint8),
            "labels" if kind == 10 else "fine_labels": draw.integers(0, kind, 4).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(content, 2))
    key = "label_names" if kind == 10 else "fine_label_names"
    meta = "batches.meta" if kind == 10 else "meta"
    (folder / meta).write_bytes(pickle.dumps({key: [f"class{n}" for n in range(kind)]}, 2))
    return folder


@pytest.mark.parametrize("kind", [10, 100])
@pytest.mark.parametrize("deep", [True, False])
def test_cifar_pickles_equal_torchvision_s_reading(kind, deep, tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10, CIFAR100

    folder = cifar(tmp_path, kind)
    data = open_data(tmp_path if deep else folder, DatasetConfig())
    assert data.name == folder.name
    assert len(data.train.classes) == kind
    theirs = CIFAR10 if kind == 10 else CIFAR100
    monkeypatch.setattr(theirs, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    for split, training in ((data.train, True), (data.val, False)):
        wanted = theirs(tmp_path, train=training)
        assert len(split) == len(wanted)
        for number in range(len(split)):
            image, label = wanted[number]
            assert np.array_equal(split.read(number).permute(1, 2, 0).numpy(), np.asarray(image))
            assert int(split.labels[number]) == label


def test_a_cifar_pickle_with_code_is_refused(tmp_path):
    folder = cifar(tmp_path, 10)

    class Trap:
        def __reduce__(self):
            return (print, ("code was run",))

    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": Trap()}))
    with pytest.raises(UsageError, match=r"data_batch_3 holds the global .*print.*can run code"):
        open_data(tmp_path, DatasetConfig())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"data": np.zeros((4, 3072), np.uint8)}, "no CIFAR batch.*it holds .*data"),
        ({"data": np.zeros((4, 3072)), "labels": [0] * 4}, "float64"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [0] * 3}, "4 numbers below 10"),
        ({"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 10]}, "4 numbers below 10"),
        ([1, 2], "it holds list"),
    ],
)
def test_cifar_batches_that_do_not_fit(content, words, tmp_path):
    folder = cifar(tmp_path, 10)
    (folder / "test_batch").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(UsageError, match=words):
        open_data(tmp_path, DatasetConfig())
    assert [line.state for line in check_cifar(tmp_path)] == ["wrong"]


def test_the_archive_of_cifar_is_unpacked(tmp_path):
    folder = cifar(tmp_path, 10)
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    shutil.rmtree(folder)
    (line,) = check_cifar(tmp_path)
    assert "--repair" in line.text
    repair_cifar(tmp_path)
    states = [line.state for line in check_cifar(tmp_path)]
    assert states == ["ok", "wrong", "wrong"]  # 10 classes, but not 60,000 images
    assert repair_cifar(tmp_path)[0].text == "nothing to repair"
    (folder / "data_batch_4").unlink()
    assert "lacks data_batch_4" in check_cifar(tmp_path)[0].text


def test_a_million_names_are_one_array(imagenet):
    """Loader processes share its pages: no Python object a file."""
    write_labels(imagenet, "synsets")
    data = open_data(imagenet, DatasetConfig())
    assert isinstance(data.train.names, np.ndarray)
    assert data.train.names.dtype.kind == "S"
    assert data.train.read(0).dtype == torch.uint8


def test_few_images_of_each_class_are_a_part_of_the_more(tmp_path):
    for name, count in (("a", 9), ("b", 5), ("c", 2)):
        for split in ("train", "val"):
            for number in range(count):
                picture(tmp_path / split / name / f"{number}.jpg", 9 * number)

    def names(per_class):
        options = DatasetConfig(per_class=per_class)
        return {*open_data(tmp_path, options).train.paths}

    assert names(None) > names(4) > names(3) > names(1)
    assert [len(names(n)) for n in (1, 3, 4)] == [3, 8, 10]
    (tmp_path / "train/a/new.jpg").write_bytes((tmp_path / "train/a/0.jpg").read_bytes())
    assert len(names(3) - {str(tmp_path / "train/a/new.jpg")}) >= 7  # the others stay
    assert len(open_data(tmp_path, DatasetConfig(per_class=1)).val) == 16
