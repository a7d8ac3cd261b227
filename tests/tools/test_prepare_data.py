"""tools/prepare_data.py for detection: checks, splits drawn, layouts converted."""

import json
import re
import shutil
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

from pretrain.errors import UsageError
from tests.tools.test_tools import demo, fails
from tools import finetune_det, prepare_data
from transfer.detection.coco import read_coco
from transfer.detection.splits import draw_split
from transfer.detection.voc import read_voc


def run(*words, capsys) -> str:
    prepare_data.main([str(word) for word in words])
    return capsys.readouterr().out


def check(kind: str, root: Path, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        prepare_data.main([kind, "--check", str(root)])
    return int(ended.value.code or 0), capsys.readouterr().out


def lines(path: Path) -> list[str]:
    return path.read_text().split()


@pytest.fixture
def single(worlds, tmp_path) -> Path:
    """A Pascal VOC tree of one class, without ImageSets."""
    root = tmp_path / "one_class"
    shutil.copytree(worlds["detection"], root, ignore=shutil.ignore_patterns("ImageSets"))
    for path in (root / "Annotations").iterdir():
        text = re.sub("<name>[^<]*</name>", "<name>shape</name>", path.read_text())
        path.write_text(text)
    return root


def write_instances(root: Path, count: int = 10, file: str = "result.json") -> dict:
    """One file for `count` images of two objects each."""
    content: dict = {"info": {"year": 2026}, "images": [], "annotations": []}
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (root / "images").mkdir(parents=True)
    for number in range(count):
        name = f"{number}.png"
        Image.new("RGB", (30, 20)).save(root / "images" / name)
        size = {"width": 30, "height": 20}
        content["images"].append({"id": number, "file_name": name, **size})
        for category in (1, 2):
            entry = {"id": len(content["annotations"]), "image_id": number, "iscrowd": 0}
            entry |= {"category_id": category, "bbox": [1 + number, 2, 3, 4]}
            content["annotations"].append(entry)
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps(content))
    return content


# --------------------------------------------------------------------------------------- the draw


def test_a_draw_is_of_names_and_seed_alone():
    names = [f"image {number}" for number in range(50)]
    drawn = draw_split(names, 0.2, 0.1, 0)
    assert {split: len(listed) for split, listed in drawn.items()} == {
        "train": 35, "val": 10, "test": 5,
    }  # fmt: skip
    assert sorted(chain(*drawn.values())) == sorted(names)
    assert draw_split(names[::-1], 0.2, 0.1, 0) == drawn
    assert draw_split(names, 0.2, 0.1, 1) != drawn
    more = draw_split([*names, "a new one"], 0.2, 0.0, 0)["val"]
    assert len(set(more) & set(draw_split(names, 0.2, 0.0, 0)["val"])) >= 9
    assert draw_split(["a", "b"], 0.01, 0, 0)["val"]  # never none
    with pytest.raises(UsageError, match="2 images are too few for train, val, test"):
        draw_split(["a", "b"], 0.5, 0.5, 0)


# -------------------------------------------------------------------------------------- Pascal VOC


def test_from_unpacking_to_a_dry_run_in_two_commands(single, backbone_file, capsys):
    said = run("voc", "--data", single, "--val-fraction", "0.25", capsys=capsys)
    assert "train.txt written: 12 images" in said
    words = [
        *demo("detection"),
        "--backbone",
        backbone_file,
        "--data",
        single,
        "--dry-run",
        "--device",
        "cpu",
    ]
    finetune_det.main([str(word) for word in [*words, "--dataset.short_side", "64"]])
    assert "classes shape" in capsys.readouterr().out
    assert len(read_voc(single, "val")) == 4


def test_lists_are_not_replaced(single, capsys):
    run("voc", "--data", single, "--val-fraction", "0.25", "--seed", "3", capsys=capsys)
    held = lines(single / "ImageSets/Main/val.txt")
    again = run("voc", "--data", single, "--val-fraction", "0.25", "--seed", "3", capsys=capsys)
    assert "val.txt is there already: 4 images" in again
    words = ["voc", "--data", single, "--val-fraction", "0.25", "--seed", "4"]
    fails("prepare_data", *words, capsys=capsys, said="would be overwritten with other content")
    assert lines(single / "ImageSets/Main/val.txt") == held


def test_images_without_an_annotation(single, capsys):
    (single / "Annotations/train_000001.xml").unlink()
    (single / "JPEGImages/train_000002.jpg").unlink()
    said = run("voc", "--data", single, "--val-fraction", "0.25", capsys=capsys)
    assert "1 images have no XML file and are in no list: train_000001." in said
    assert "1 XML files have no image and are in no list: train_000002" in said
    listed = lines(single / "ImageSets/Main/train.txt") + lines(single / "ImageSets/Main/val.txt")
    assert len(listed) == 14
    assert not {"train_000001", "train_000002"} & set(listed)
    shutil.rmtree(single / "ImageSets")
    empty = ["--val-fraction", "0.25", "--no-annotation", "empty"]
    run("voc", "--data", single, *empty, capsys=capsys)
    listed = lines(single / "ImageSets/Main/train.txt") + lines(single / "ImageSets/Main/val.txt")
    assert len(listed) == 15
    assert check("voc", single, capsys)[0] == 1
    prepare = ["voc", "--check", str(single), "--no-annotation", "empty"]
    with pytest.raises(SystemExit) as ended:
        prepare_data.main(prepare)
    assert ended.value.code == 0
    assert "image without an annotation (no object, as asked)" in capsys.readouterr().out


def test_other_names_of_folders(single, capsys):
    """As Label Studio and supervision write them."""
    (single / "Annotations").rename(single / "annotations")
    (single / "JPEGImages").rename(single / "images")
    run("voc", "--data", single, "--val-fraction", "0.25", "--test-fraction", "0.25", capsys=capsys)
    assert [len(read_voc(single, split)) for split in ("train", "val", "test")] == [8, 4, 4]


def test_a_list_of_test_images_is_kept(single, capsys):
    (single / "ImageSets/Main").mkdir(parents=True)
    (single / "ImageSets/Main/test.txt").write_text("val_000000\nval_000001\n")
    said = run("voc", "--data", single, "--val-fraction", "0.5", capsys=capsys)
    assert "the 2 images of " in said
    drawn = [lines(single / f"ImageSets/Main/{split}.txt") for split in ("train", "val")]
    assert sorted(map(len, drawn)) == [7, 7]
    assert not {"val_000000", "val_000001"} & set(chain(*drawn))


# ----------------------------------------------------------------------------------------- MS-COCO


@pytest.mark.parametrize(
    "file", ["result.json", "annotations/instances_default.json", "annotations/train.json"]
)
def test_two_files_from_one(file, tmp_path, capsys):
    content = write_instances(tmp_path, file=file)
    said = run("instances", "--data", tmp_path, "--val-fraction", "0.3", capsys=capsys)
    assert "instances_val.json written: 3 images" in said
    parts = {split: read_coco(tmp_path, split) for split in ("train", "val")}
    assert [len(part) for part in parts.values()] == [7, 3]
    both = [record for part in parts.values() for record in part.images]
    assert sorted(record.image_id for record in both) == list(range(10))
    for record in both:
        assert record.boxes[:, 0].tolist() == [1 + record.image_id] * 2
        assert record.path.stem == str(record.image_id)
    written = json.loads((tmp_path / "annotations/instances_val.json").read_text())
    assert written["info"] == content["info"]
    assert written["categories"] == content["categories"]
    code, said = check("instances", tmp_path, capsys)
    assert code == 0, said
    assert "val (annotations/instances_val.json): 3 images, 6 objects, 0 of them crowds" in said


def test_images_beside_the_file_that_is_divided(tmp_path, capsys):
    """Roboflow's layout: those of val stay in the folder train."""
    write_instances(tmp_path, file="train/_annotations.coco.json")
    for path in (tmp_path / "images").iterdir():
        path.rename(tmp_path / "train" / path.name)
    run("instances", "--data", tmp_path, "--val-fraction", "0.3", capsys=capsys)
    assert [len(read_coco(tmp_path, split)) for split in ("train", "val")] == [7, 3]


def test_what_cannot_be_drawn(tmp_path, capsys):
    words = ["instances", "--data", tmp_path, "--val-fraction", "0.3"]
    fails("prepare_data", *words, capsys=capsys, said="has the splits none; one instance file")
    write_instances(tmp_path, file="annotations/instances_train.json")
    fails("prepare_data", *words, capsys=capsys, said="the name instances_all.json")
    (tmp_path / "annotations/instances_train.json").rename(
        tmp_path / "annotations/instances_all.json"
    )
    run(*words, capsys=capsys)
    run(*words, capsys=capsys)  # the same again
    fails("prepare_data", *words, "--seed", "5", capsys=capsys, said="would be overwritten")


def test_a_check_shows_all_notes(tmp_path, capsys):
    content = write_instances(tmp_path)
    content["images"][3]["width"] = 31
    content["annotations"][0]["bbox"] = [28, 2, 9, 4]
    content["annotations"][1]["ignore"] = 1
    content["categories"].append({"id": 0, "name": "animal", "supercategory": "none"})
    content["categories"][0]["supercategory"] = "animal"
    (tmp_path / "result.json").write_text(json.dumps(content))
    code, said = check("instances", tmp_path, capsys)
    assert code == 0, said
    for words in ("0 of them crowds and 1 difficult, of 2 categories: cat, dog",
                  "note  result: 1 x size of another image", "1 x box over the edge",
                  "1 x category without objects", "ok    10 images of result decoded",
                  "splits result: say which"):  # fmt: skip
        assert words in said, words
    (tmp_path / "images/4.png").write_bytes(b"")
    code, said = check("instances", tmp_path, capsys)
    assert code == 1
    assert "image 4: unreadable image: " in said
    assert "(2 objects with it)" in said


def test_no_instance_file(tmp_path, capsys):
    code, said = check("instances", tmp_path, capsys)
    assert code == 1
    assert "looked for annotations/instances_SPLIT.json" in said


# -------------------------------------------------------------------------------------------- YOLO


def test_yolo_to_a_dry_run(tmp_path, backbone_file, capsys):
    root = tmp_path / "yolo"
    for number in range(6):
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(root / f"images/{number}.png")
        (root / f"labels/{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("train: images\nnc: 1\nnames: [cat]\n")
    code, said = check("yolo", root, capsys)
    assert code == 0
    assert "all: 6 images, 6 objects of 1 classes" in said
    assert not (root / "annotations").exists()
    for kind in ("voc", "instances"):  # names what it is
        with pytest.raises(UsageError, match=f"prepare_data.py yolo --data {root}"):
            check(kind, root, capsys)
    (root / "labels/0.txt").write_text("7 0.5 0.5 0.5 0.5\n")
    code, said = check("yolo", root, capsys)
    assert code == 1
    assert "0.txt:1: class '7' is none of the 1 names" in said
    (root / "labels/0.txt").write_text("")
    out = tmp_path / "coco"
    run("yolo", "--data", root, "--out", out, capsys=capsys)
    run("instances", "--data", out, "--val-fraction", "0.5", capsys=capsys)
    words = [
        *demo("detection"),
        "--backbone",
        backbone_file,
        "--data",
        out,
        "--dry-run",
        "--device",
        "cpu",
    ]
    words += ["--dataset.short_side", "64", "--batch_size", "2"]
    finetune_det.main([str(word) for word in words])
    assert "3 training and 3 scored images, classes cat" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["voc"], "--check DIR looks at a data set, --data DIR writes"),
        (["voc", "--check", ".", "--data", "."], "give one of them"),
        (["voc", "--data", "."], "what is to be drawn? --val-fraction 0.2"),
        (["voc", "--data", ".", "--val-fraction", "2"], "--val-fraction is 2.0; it must lie in"),
        (
            ["voc", "--data", ".", "--val-fraction", "0.2"],
            "no Annotations (put the XML files there), no JPEGImages",
        ),
        (["voc", "--data", "nowhere", "--val-fraction", "0.2"], "there is no folder nowhere"),
        (["imagenet", "--data", "."], "nothing that --data could do to imagenet"),
        (["instances", "--data", ".", "--out", "x"], "nothing that --out could do to instances"),
        (["coco", "--check", ".", "--val-fraction", "0.1"], "nothing that --val-fraction could do"),
        (["yolo", "--data", "."], "is no data set in YOLO's layout"),
    ],
)
def test_mistakes(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fails("prepare_data", *words, capsys=capsys, said=said)
    assert list(tmp_path.iterdir()) == []
