"""Pascal VOC trees as records, whole and broken, against the files themselves."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pretrain.errors import UsageError
from transfer.detection import annotations, voc_layout
from transfer.detection.config import DatasetConfig
from transfer.detection.data import choose_splits, open_data
from transfer.detection.records import summarize_issues
from transfer.detection.voc import read_voc


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "cutmix-transfer" / "records"


@pytest.fixture
def tree(worlds, tmp_path) -> Path:
    return Path(shutil.copytree(worlds["detection"], tmp_path / "VOC2007"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def kinds(records) -> list[str]:
    return [issue.kind for issue in records.issues]


# --------------------------------------------------------------------------------------- Pascal VOC


def test_boxes_lose_one_pixel_at_left_and_top_only(worlds):
    tree = worlds["detection"]
    held = read_voc(tree, "val")
    for record in held.images:
        root = ElementTree.parse(tree / "Annotations" / f"{record.image_id}.xml").getroot()
        for thing, box, label in zip(root.iter("object"), record.boxes, record.labels, strict=True):
            written = [
                int(thing.find(f"bndbox/{t}").text) for t in ("xmin", "ymin", "xmax", "ymax")
            ]
            assert box.tolist() == [written[0] - 1, written[1] - 1, written[2], written[3]]
            assert held.classes[label] == thing.find("name").text
    assert (record.width, record.height) == (64, 64)


def test_real_blood_smears(unpacked):
    tree = unpacked("data/bccd.tar") / "BCCD"
    data = open_data(tree, DatasetConfig())
    assert (data.train_split, data.test_split) == ("trainval", "test")
    assert data.train.classes == ("Platelets", "RBC", "WBC")
    assert (len(data.train), len(data.test)) == (292, 72)
    assert data.train.num_objects + data.test.num_objects == 4155 + 372 + 361
    # two of them have xmin = xmax: one pixel wide in VOC's inclusive convention, not without area
    both = data.train.images + data.test.images
    assert sum((r.boxes[:, 2] - r.boxes[:, 0] == 1).sum() for r in both) == 2


def test_splits_are_chosen_without_leaks():
    three = ["train", "trainval", "val"]
    assert choose_splits(three, None, None) == ("train", "val")
    four = [*three, "test"]
    assert choose_splits(four, None, None) == ("trainval", "test")
    assert choose_splits(four, None, "val") == ("train", "val")
    assert choose_splits(four, "val", None) == ("val", "test")
    assert choose_splits(["train2017", "val2017"], None, None) == ("train2017", "val2017")
    with pytest.raises(UsageError, match=r"splits VOC2007/train, VOC2007/val.*--dataset\.train"):
        choose_splits(["VOC2007/train", "VOC2007/val"], None, None)


def test_trees_are_joined(tree):
    """Both years hold images of the same names here; they stay apart."""
    shutil.copytree(tree, tree.parent / "VOC2012")
    held = read_voc(tree.parent, "VOC2007/train+VOC2012/train+VOC2012/val")
    assert len(held) == 26
    assert len({record.image_id for record in held.images}) == 26
    assert held.images[10].image_id == "VOC2012/train_000000"
    assert read_voc(tree.parent, "VOC2007/train").images[0].image_id == "train_000000"
    assert voc_layout.list_splits(tree.parent) == [
        "VOC2007/train", "VOC2007/val", "VOC2012/train", "VOC2012/val"
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"no split 'VOC2012/vall'.*Did you mean VOC2012/val\?"):
        read_voc(tree.parent, "VOC2007/train+VOC2012/vall")


def test_the_same_split_joined_with_itself_counts_once(tree):
    held = read_voc(tree, "train+train")
    assert len(held) == 10
    assert kinds(held) == ["image listed twice"] * 10


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("no tree", "there is no folder"),
        ("no sets", r"no ImageSets/Main \(make train\.txt .*prepare_data\.py voc --data"),
        ("no split", "no split 'nacht'; it has train, val"),
        ("empty split", r"train\.txt is empty"),
        ("no annotation", r"train\.txt:2: no annotation: there is no .*train_000001\.xml"),
        ("broken xml", r"train_000001\.xml:\d+: broken annotation: it is no XML"),
        ("no box", r"train_000001\.xml:9: broken annotation: the box of a \w+ has no xmax"),
        ("no number", r"train_000001\.xml:9: broken annotation: xmin of a \w+ is 'left'"),
        ("no image", r"train\.txt:2: no image: there is no .*train_000001\.jpg"),
        ("bad image", r"train_000001\.jpg: unreadable image"),
        ("class", r"train_000000\.xml:9: unknown class: '\w+' is none of cat, dog"),
        ("typo", "did you mean"),
    ],
)
def test_trees_as_users_give_them(trouble, words, tree):
    split, classes = "train", None
    listed = tree / "ImageSets" / "Main" / "train.txt"
    xml = tree / "Annotations" / "train_000001.xml"
    match trouble:
        case "no tree":
            tree = tree / "nowhere"
        case "no sets":
            shutil.rmtree(tree / "ImageSets")
        case "no split":
            split = "nacht"
        case "empty split":
            listed.write_text("\n\n")
        case "no annotation":
            xml.unlink()
        case "broken xml":
            xml.write_text(xml.read_text()[:200])
        case "no box":
            xml.write_text(xml.read_text().replace("xmax", "xmux"))
        case "no number":
            xml.write_text(re.sub("<xmin>.*</xmin>", "<xmin>left</xmin>", xml.read_text()))
        case "no image":
            (tree / "JPEGImages" / "train_000001.jpg").unlink()
        case "bad image":
            (tree / "JPEGImages" / "train_000001.jpg").write_bytes(b"no picture")
        case "class":
            classes = ["cat", "dog"]
        case "typo":
            classes = list(read_voc(tree, "train").classes)
            written = classes[0]
            classes[0] += "s"
            words = f"'{written}' is none of .*did you mean '{written}s'"
    with pytest.raises(UsageError, match=words):
        read_voc(tree, split, classes)


def test_every_fault_is_listed_and_can_be_left_out(tree):
    for number in (1, 3):
        (tree / "Annotations" / f"train_00000{number}.xml").write_text("<annotation>")
    with pytest.raises(UsageError, match=r"000001\.xml:1.*\n.*000003\.xml:1.*\n.*max_corrupt 2"):
        read_voc(tree, "train", config=DatasetConfig(max_corrupt=1))
    held = read_voc(tree, "train", config=DatasetConfig(max_corrupt=2))
    assert len(held) == 8
    assert summarize_issues(held.issues) == [
        f"2 x broken annotation (left out, as asked): {tree}/Annotations/train_000001.xml:1, "
        f"{tree}/Annotations/train_000003.xml:1"
    ]


def test_the_remedy_counts_every_image(tree):
    """Missing images are reported at the split's file, each on its own line."""
    for number in (1, 3):
        (tree / "JPEGImages" / f"train_00000{number}.jpg").unlink()
    with pytest.raises(UsageError, match="max_corrupt 2"):
        read_voc(tree, "train")
    assert len(read_voc(tree, "train", config=DatasetConfig(max_corrupt=2))) == 8


def test_other_classes_are_dropped_if_asked(tree):
    whole = read_voc(tree, "train")
    first = whole.classes[0]
    held = read_voc(tree, "train", [first], DatasetConfig(other_classes="drop"))
    wanted = sum(int((record.labels == 0).sum()) for record in whole.images)
    assert held.num_objects == wanted < whole.num_objects
    assert len(held) == len(whole)
    assert len(held.for_training()) == sum(bool((r.labels == 0).any()) for r in whole.images)


@pytest.mark.parametrize(
    ("tag", "value", "kind", "kept"),
    [
        ("xmax", "0", "box without area", 0),
        ("xmax", "99", "box over the edge", 1),
        ("xmin", "70", "box without area", 0),
    ],
)
def test_bad_boxes_are_dealt_with_by_their_rule(tag, value, kind, kept, tree):
    xml = tree / "Annotations" / "train_000000.xml"
    whole = read_voc(tree, "train")
    edit(xml, f"<{tag}>{xml.read_text().split(f'<{tag}>')[1].split('<')[0]}<", f"<{tag}>{value}<")
    held = read_voc(tree, "train")
    assert kinds(held) == [kind]
    assert held.issues[0].where.endswith("train_000000.xml:9")
    assert len(held.images[0].labels) == len(whole.images[0].labels) - 1 + kept
    assert (held.images[0].boxes[:, 2:] <= 64).all()


def test_a_box_beside_the_image_and_an_object_written_twice(tree):
    xml = tree / "Annotations" / "train_000000.xml"
    text = xml.read_text()
    thing = text[text.index("<object>") : text.index("</object>") + len("</object>")]
    moved = thing
    for tag, value in (("xmin", 80), ("xmax", 90)):
        old = thing.split(f"<{tag}>")[1].split("<")[0]
        moved = moved.replace(f"<{tag}>{old}<", f"<{tag}>{value}<")
    xml.write_text(text.replace("</annotation>", thing + moved + "</annotation>"))
    held, whole = read_voc(tree, "train"), len(ElementTree.fromstring(text).findall("object"))
    assert kinds(held) == ["object twice", "box outside the image"]
    assert len(held.images[0].labels) == whole + 1


def test_the_image_itself_says_its_size(tree):
    Image.new("RGB", (64, 48)).save(tree / "JPEGImages" / "train_000000.jpg")
    held = read_voc(tree, "train")
    assert kinds(held)[0] == "size of another image"
    assert (held.images[0].width, held.images[0].height) == (64, 48)


def test_names_with_spaces_and_class_wise_lists(tree):
    for folder, suffix in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
        path = tree / folder / f"train_000000{suffix}"
        path.rename(path.with_name(f"my image{suffix}"))
    listed = tree / "ImageSets" / "Main"
    (listed / "odd.txt").write_text("my image\r\ntrain_000001\r\n\r\n")
    assert [r.image_id for r in read_voc(tree, "odd").images] == ["my image", "train_000001"]
    (listed / "cat_train.txt").write_text("train_000001  1\ntrain_000002 -1\ntrain_000003  0\n")
    held = read_voc(tree, "cat_train")
    assert [r.image_id for r in held.images] == ["train_000001", "train_000003"]
    assert voc_layout.list_splits(tree) == ["odd", "train", "val"]


def test_what_is_cached_is_what_is_on_disk(tree, cache, monkeypatch):
    first = read_voc(tree, "train")
    assert len(list(cache.iterdir())) == 1
    calls = []
    parse = annotations.parse_annotation
    monkeypatch.setattr(
        annotations, "parse_annotation", lambda data: calls.append(1) or parse(data)
    )
    again = read_voc(tree, "train")
    assert calls == []
    for one, other in zip(first.images, again.images, strict=True):
        for field, value in vars(one).items():
            assert np.array_equal(value, getattr(other, field)), field
            assert type(value) is type(getattr(other, field)), field
    assert again.issues == first.issues
    edit(tree / "Annotations" / "train_000000.xml", "<difficult>0", "<difficult>1")
    assert read_voc(tree, "train").images[0].difficult.any()
    assert len(calls) == 10
    next(iter(cache.iterdir())).write_text('{"rows": [')  # torn
    assert len(read_voc(tree, "val")) == 6


def test_notes_for_the_reader(tree):
    (tree / "ImageSets/Main/val.txt").write_text("train_000000\nval_000000\n")
    notes = open_data(tree, DatasetConfig()).notes
    assert "classes (found in train)" in notes[0]
    assert any("1 images are both trained on and scored" in note for note in notes)
    named = replace(DatasetConfig(), classes=("nothing",), other_classes="drop")
    with pytest.raises(UsageError, match="no image has an object to learn"):
        open_data(tree, named)
