"""Which images are found, and what is held out."""

from pathlib import Path

import numpy as np
import pytest

from pretrain.errors import UsageError
from transfer.classification.config import DatasetConfig
from transfer.classification.folders import hold_out, open_image_folders


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def names(data, numbers) -> list[str]:
    return [data.names[number] for number in numbers]


def usual(root: Path, *splits: str, images: int = 10) -> Path:
    return tree(root, *(f"{s}/{c}/{n}.jpg" for s in splits for c in "ab" for n in range(images)))


def test_with_a_test_split_val_chooses_and_test_is_scored(tmp_path):
    data = open_image_folders(usual(tmp_path, "train", "valid", "test"), DatasetConfig())
    assert names(data, data.fit) == names(data, data.train)
    assert all(name.startswith("valid/") for name in names(data, data.choose))
    assert all(name.startswith("test/") for name in names(data, data.scored))
    assert (data.scored_name, data.chosen_on) == ("test", "val")
    assert data.classes == ("a", "b")
    assert data.labels[data.scored].tolist() == [0] * 10 + [1] * 10


@pytest.mark.parametrize("other", ["val", "validation", "test"])
def test_without_one_a_part_of_train_chooses_and_val_is_scored_once(tmp_path, other):
    data = open_image_folders(usual(tmp_path, "train", other), DatasetConfig())
    assert all(name.startswith(f"{other}/") for name in names(data, data.scored))
    assert sorted([*data.fit, *data.choose]) == data.train.tolist()
    assert len(data.choose)
    assert data.val is data.scored
    assert data.chosen_on == "held out of train"


def test_without_splits_a_part_is_held_out_and_the_splits_are_apart(tmp_path):
    root = tree(tmp_path, *(f"{c}/{n}.png" for c in ("cat", "dog") for n in range(40)))
    data = open_image_folders(root, DatasetConfig(val_fraction=0.3))
    assert data.scored_name == "held out"
    parts = [set(part.tolist()) for part in (data.fit, data.choose, data.scored)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 80
    assert 10 < len(data.scored) < 40
    assert data.name == tmp_path.name


def test_what_is_held_out_is_a_function_of_class_and_name(tmp_path):
    """The numbers are pinned: another division would be another data set."""
    some = [f"{c}/{n}.jpg" for c in ("cat", "dog") for n in range(12)]
    labels = [0] * 12 + [1] * 12
    stay, out = hold_out(some, labels, np.arange(24), 0.25, "val")
    assert out.tolist() == PINNED
    assert sorted([*stay, *out]) == list(range(24))
    # in another order, and beside other images: the same
    moved = [*reversed(some), *["cat/new.jpg"] * 3]
    where = hold_out(moved, labels[::-1] + [0] * 3, np.arange(24), 0.25, "val")[1]
    assert sorted(moved[n] for n in where) == sorted(some[n] for n in out)
    assert hold_out(some, labels, np.arange(24), 0.25, "choose")[1].tolist() != out.tolist()
    more = hold_out(some, labels, np.arange(24), 0.5, "val")[1]
    assert set(out) < set(more)


PINNED = [10, 13, 14, 15, 16, 19]


def test_every_class_of_two_is_on_both_sides():
    for share in (1e-9, 0.5, 1 - 1e-9):
        labels = [0, 0, 1, 2, 2, 2, 2, 0]
        stay, out = hold_out([f"c/{n}.jpg" for n in range(8)], labels, np.arange(8), share, "val")
        for side in (stay, out):
            assert {0, 2} <= {labels[n] for n in side}
        assert 2 in stay  # alone in its class


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no images in class folders; it holds nothing"),
        (["a.jpg", "b.jpg"], "no images in class folders; it holds a.jpg, b.jpg"),
        (["a/x.txt", "b/y.txt"], "no images in class folders"),
        (["a/1.jpg", "a/2.jpg"], "has one class, a; there is nothing to tell apart"),
        (["a/1.jpg", "b/1.jpg"], "no class has two images"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"], "only .*train has b"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "val/c/1.jpg"],
         "only .*val has c"),
        (["train/a/1.jpg", "train/b/1.txt"], "no images .* in class b"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"],
         "holds val and valid: name one"),
        (["val/a/1.jpg", "val/b/1.jpg"], "holds val, but no folder train"),
        (["training_set/a/1.jpg", "test_set/a/1.jpg"],
         "Give --dataset.train training_set --dataset.test test_set"),
        (["a/1.heic", "b/1.jpg"], "in class a.*other files: 1 .heic"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path, files, message):
    with pytest.raises(UsageError, match=message):
        open_image_folders(tree(tmp_path, *files), DatasetConfig())


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        open_image_folders(tmp_path / "none", DatasetConfig())
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="is a file"):
        open_image_folders(file, DatasetConfig())
    usual(tmp_path / "tree", "train", "val", "mine")
    with pytest.raises(UsageError, match=r"dataset\.val is other.*holds mine, train, val"):
        open_image_folders(tmp_path / "tree", DatasetConfig(val="other"))
    data = open_image_folders(tmp_path / "tree", DatasetConfig(val="mine"))
    assert names(data, data.scored)[0] == "mine/a/0.jpg"


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path):
    usual(tmp_path, "train", "val")
    tree(tmp_path, "train/a/IMG.heic", "train/a/._1.jpg", "train/.cache/1.jpg", "val/b/x/1.bmp")
    data = open_image_folders(tmp_path, DatasetConfig())
    left_out, deep = data.notes
    assert "1 files are left out, no images by their names: 1 .heic (the first is a/IMG" in left_out
    assert "1 images in folders of a class folder are read as of that class" in deep
    assert (len(data.train), len(data.val)) == (20, 21)
    assert data.labels[data.names.index("val/b/x/1.bmp")] == 1


def test_folders_in_a_class_are_held_out_wherever_the_data_lies(tmp_path):
    """By all of CLASS/FOLDER/NAME: equal names in other folders are other images."""
    some = [f"{c}/{day}/{n}.jpg" for c in "ab" for day in ("mon", "tue") for n in range(40)]
    bare = open_image_folders(tree(tmp_path / "bare", *some), DatasetConfig())
    split = [f"train/{name}" for name in some] + ["test/a/1.jpg", "test/b/1.jpg"]
    other = open_image_folders(tree(tmp_path / "split", *split), DatasetConfig(test="test"))
    assert bare.classes == other.classes == ("a", "b")
    out = names(bare, bare.scored)
    assert {name.split("/")[1] for name in out} == {"mon", "tue"}
    numbers = [{name.split("/")[2] for name in out if day in name} for day in ("mon", "tue")]
    assert numbers[0] != numbers[1]
    keys = [name.removeprefix("train/") for name in other.names[:160]]
    assert sorted(keys) == sorted(bare.names)
    again = hold_out(keys, other.labels, np.arange(160), 0.2, "val")[1]
    assert sorted(keys[n] for n in again) == sorted(out)


def test_names_below_the_folder_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(usual(tmp_path, "train", "val", images=2))
    data = open_image_folders(Path(), DatasetConfig())
    assert names(data, data.scored) == ["val/a/0.jpg", "val/a/1.jpg", "val/b/0.jpg", "val/b/1.jpg"]
