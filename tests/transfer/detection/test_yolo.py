"""YOLO's layout, converted: boxes to 1e-6, and what labels and data.yaml may hold."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import ExifTags, Image

from pretrain.errors import UsageError
from transfer.detection.coco import read_coco
from transfer.detection.coco_layout import is_yolo
from transfer.detection.config import DatasetConfig
from transfer.detection.data import open_data
from transfer.detection.voc import read_voc
from transfer.detection.yolo import convert_yolo


def texts(results) -> str:
    return "\n".join(f"{one.state} {one.text}" for one in results)


def tree(root: Path, labels: dict[str, str | None], **description) -> Path:
    """Images 40 x 20, each with a label file of that text, or none; data.yaml."""
    for name, text in labels.items():
        image = root / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(image)
        label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
        if text is not None:
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(text)
    content = {"train": "images/train", "val": "images/val", "names": ["cat", "dog"]} | description
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root


def small(root: Path, text: str | None, **description) -> Path:
    other = {"images/val/b": "0 0.5 0.5 0.1 0.1\n"}
    return tree(root, {"images/train/a": text, **other}, **description)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_round_trip(elsewhere, worlds, tmp_path):
    """Boxes of drawn shapes, written as YOLO's and read as MS-COCO's."""
    root, truth = tmp_path / "yolo", {}
    for split in ("train", "val"):
        truth[split] = read_voc(worlds["detection"], split)
        classes = read_voc(worlds["detection"], "train").classes
        for record in truth[split].images:
            image = root / split / "images" / record.path.name
            image.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(record.path, image)
            lines = []
            for box, label in zip(record.boxes, record.labels, strict=True):
                left, top, right, bottom = box / np.array([record.width, record.height] * 2)
                name = classes.index(truth[split].classes[label])
                middle = f"{(left + right) / 2!r} {(top + bottom) / 2!r}"
                lines.append(f"{name} {middle} {right - left!r} {bottom - top!r}")
            label_file = root / split / "labels" / f"{record.path.stem}.txt"
            label_file.parent.mkdir(exist_ok=True)
            label_file.write_text("\n".join(lines).replace("np.float64(", "").replace(")", ""))
    # as Roboflow writes it: folders of this one, called those of its parent
    content = {"train": "../train/images", "val": "../val/images", "names": list(classes)}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "coco" if elsewhere else root
    convert_yolo(root, out if elsewhere else None)
    for split, wanted in truth.items():
        held = {Path(r.path).stem: r for r in read_coco(out, split).images}
        assert len(held) == len(wanted)
        for record in wanted.images:
            mine = held[record.image_id]
            np.testing.assert_allclose(mine.boxes, record.boxes, atol=1e-6)
            names = [wanted.classes[label] for label in record.labels]
            assert [classes[label] for label in mine.labels] == names
    copies = [path for path in tmp_path.rglob("*.jpg") if not path.is_symlink()]
    assert len(copies) == 16
    again = convert_yolo(root, out if elsewhere else None)
    assert "is there already: 10 images" in texts(again)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("0 0.5 0.5 0.5 0.5\n", [[10, 5, 30, 15]]),
        ("1 0.25 0.5 0.5 1\n\n0 0.5 0.5 1 1", [[0, 0, 20, 20], [0, 0, 40, 20]]),
        ("0 0.1 0.2 0.5 0.2 0.3 0.8\n", [[4, 4, 20, 16]]),  # a polygon
        ("1 0.1 0.1 0.4 0.1 0.4 0.3 0.1 0.3\n", [[4, 2, 16, 6]]),  # four corners
        ("", []),
        (None, []),
    ],
)
def test_labels(text, boxes, tmp_path):
    root = small(tmp_path, text)
    said = texts(convert_yolo(root, None))
    (record,) = read_coco(root, "train").images
    np.testing.assert_allclose(record.boxes, np.reshape(boxes, (-1, 4)), atol=1e-6)
    assert ("1 empty label files: no objects" in said) == (text == "")
    assert ("1 images without a label file: no objects" in said) == (text is None)
    assert ("1 polygons: their boxes are taken" in said) == (text is not None and len(boxes) == 1
                                                             and len(text.split()) > 5)  # fmt: skip


def test_key_points(tmp_path):
    root = small(tmp_path, "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.9 0.9 2\n", kpt_shape=[2, 3])
    convert_yolo(root, None)
    assert read_coco(root, "train").images[0].boxes.tolist() == [[10, 5, 30, 15]]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 0.5 0.5 0.5 0.5", r"a\.txt:2: class '2' is none of the 2 names, 0 to 1"),
        ("cat 0.5 0.5 0.5 0.5", "class 'cat' is none"),
        ("0 20 10 20 10", r"20 lies outside of 0 and 1"),
        ("0 nan 0.5 0.5 0.5", "nan lies outside"),
        ("0 0.5 x 0.5 0.5", "is no class and numbers"),
        ("0 0.5 0.5 0.5", "4 columns; there must be 5"),
        ("0 0.5 0.5 0.5 0.5 0.9", "6 columns"),
    ],
)
def test_labels_that_are_none(line, said, tmp_path):
    root = small(tmp_path, f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(UsageError, match=said):
        convert_yolo(root, None)
    assert not (root / "annotations").exists()


def test_names_as_a_map_and_other_numbers(tmp_path):
    root = small(tmp_path, "7 0.5 0.5 0.5 0.5", names={0: "cat", 7: "dog"}, nc=9)
    assert "2 names, and nc 9: names count" in texts(convert_yolo(root, None))
    held = read_coco(root, "train")
    assert (held.classes, held.category_ids) == (("cat", "dog"), (1, 8))
    assert held.images[0].labels.tolist() == [1]
    with pytest.raises(UsageError, match="names is 'cat'; it must be a list"):
        convert_yolo(small(tmp_path / "text", None, names="cat"), None)


@pytest.mark.parametrize(
    "description",
    [
        {"path": "/home/me/data", "train": "images/train", "val": "images/val"},
        {"path": "../datasets/x", "train": ["images/train"], "val": "../x/images/val"},
        {"train": "train.txt", "val": "/somewhere/images/val/"},
        {"train": None, "val": None},
    ],
)
def test_paths_of_another_machine(description, tmp_path):
    root = small(tmp_path, "0 0.5 0.5 0.5 0.5", **description)
    (root / "train.txt").write_text("./images/train/a.jpg\n")
    assert is_yolo(root)
    convert_yolo(root, None)
    assert len(read_coco(root, "train")) == len(read_coco(root, "val")) == 1


def test_missing_parts(tmp_path):
    root = small(tmp_path, "0 0.5 0.5 0.5 0.5", train="a/b", test="c", val="images/val")
    with pytest.raises(UsageError, match=r"does not have: train: a/b, test: c\. Mend the path"):
        convert_yolo(root, None)
    root = small(tmp_path, "0 0.5 0.5 0.5 0.5", test="c")
    assert "note data.yaml names what" in texts(convert_yolo(root, None))
    with pytest.raises(UsageError, match=r"no data set in YOLO's layout: it has no data\.yaml"):
        convert_yolo(tmp_path / "images", None)
    root = tree(tmp_path / "x", {"images/train/a": None}, val="images/train")
    with pytest.raises(
        UsageError, match=r"none of the label files is there, such as .*labels/train"
    ):
        convert_yolo(root, None)


def test_one_split_alone(tmp_path):
    """As Label Studio writes it: classes.txt, images, labels."""
    root = tree(tmp_path, {"images/a": "0 0.5 0.5 0.5 0.5", "images/b": ""})
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "labels/c.txt").write_text("0 0.5 0.5 0.5 0.5")
    for name in ("a.yaml", "a.json"):
        os.mkfifo(root / name)  # reading it would block
    assert is_yolo(root)
    said = texts(convert_yolo(root, None))
    assert "1 label files without an image: " in said
    draw = f"python tools/prepare_data.py instances --data {root} --val-fraction 0.2"
    assert f"one split alone; once converted, this draws others: {draw}" in said
    assert json.loads((root / "annotations/instances_all.json").read_text())["images"]


def test_turned_photos(tmp_path):
    """Fractions are of the displayed picture."""
    root = small(tmp_path, "0 0.25 0.5 0.5 1\n")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 20)).save(root / "images/train/a.jpg", exif=exif)
    assert "1 photos with an EXIF orientation" in texts(convert_yolo(root, None))
    (record,) = read_coco(root, "train").images
    assert (record.width, record.height, record.apply_exif) == (20, 40, True)
    assert record.boxes.tolist() == [[0, 0, 10, 40]]


def test_a_reader_names_the_command(tmp_path):
    root = small(tmp_path, "0 0.5 0.5 0.5 0.5")
    with pytest.raises(UsageError, match=rf"prepare_data\.py yolo --data {root}$"):
        open_data(root, DatasetConfig())
    convert_yolo(root, None)
    assert len(open_data(root, DatasetConfig()).train) == 1


def test_nothing_is_replaced(tmp_path):
    root = small(tmp_path / "yolo", "0 0.5 0.5 0.5 0.5")
    path = root / "annotations/instances_train.json"
    path.parent.mkdir()
    path.write_text("{}")
    with pytest.raises(UsageError, match=r"instances_train\.json would be overwritten"):
        convert_yolo(root, None)
    assert not (path.parent / "instances_val.json").exists()
    (tmp_path / "new/images").mkdir(parents=True)
    with pytest.raises(UsageError, match="would become a link"):
        convert_yolo(root, tmp_path / "new")
    assert not (tmp_path / "new/annotations").exists()
