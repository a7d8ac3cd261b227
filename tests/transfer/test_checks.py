"""A look at Pascal VOC and MS-COCO trees, as tools/prepare_data.py prints it."""

import json
import shutil
from pathlib import Path

import pytest

from pretrain.errors import UsageError
from transfer.captioning.check import check_coco
from transfer.detection.check import check_voc
from transfer.detection.config import DatasetConfig


def texts(found) -> str:
    return "\n".join(f"{line.state} {line.text}" for line in found)


def test_whole_trees(worlds):
    voc = texts(check_voc(worlds["detection"], 5))
    assert "wrong" not in voc
    assert "train: 10 images" in voc
    assert "5 images of" in voc
    coco = texts(check_coco(worlds["captions"], 5))
    assert "wrong train2017: 12 images, 60 captions; 118,287 images expected" in coco
    assert "ok 5 images of val2017 decoded" in coco


def test_a_voc_devkit_and_what_it_lacks(worlds, tmp_path):
    tree = tmp_path / "VOCdevkit" / "VOC2007"
    shutil.copytree(worlds["detection"], tree)
    (tree / "JPEGImages" / "train_000003.jpg").unlink()
    (tree / "Annotations" / "val_000001.xml").write_text("<annotation>")
    found = texts(check_voc(tmp_path / "VOCdevkit", 0))
    assert "wrong VOC2007 train: " in found
    assert "train.txt:4: no image: there is no" in found
    assert "val_000001.xml:1: broken annotation: it is no XML" in found


def test_counts_of_the_releases(worlds, tmp_path):
    tree = tmp_path / "VOC2007"
    shutil.copytree(worlds["detection"], tree)
    assert "10 images, " in texts(check_voc(tree, 0))
    assert "2,501 images expected" in texts(check_voc(tree, 0))
    assert "118,287 images expected" in texts(check_coco(worlds["captions"], 0))


def test_a_broken_coco_tree(worlds, tmp_path):
    tree = tmp_path / "coco"
    shutil.copytree(worlds["captions"], tree)
    path = tree / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["image_id"] = 99
    path.write_text(json.dumps(content))
    next(iter((tree / "train2017").iterdir())).write_bytes(b"no picture")
    found = texts(check_coco(tree, 20))
    assert "wrong val2017" in found
    assert "left out 1 annotations of images that are not listed" in found
    assert "1 of 12 images of train2017 are broken" in found


def test_names_that_differ_between_splits_alone(worlds, tmp_path):
    tree = tmp_path / "voc"
    shutil.copytree(worlds["detection"], tree)
    for path in (tree / "Annotations").glob("val_*.xml"):
        path.write_text(path.read_text().replace("</name>", " </name>"))
    wrong = [line.text for line in check_voc(tree, 0) if line.state == "wrong"]
    assert wrong
    assert all(text.startswith("similar class names in two splits: ") for text in wrong)
    assert check_voc(tree, 0, DatasetConfig(similar_names="join"))[-1].state != "wrong"


def test_one_file_of_captions_is_whole(worlds, tmp_path):
    images = sorted((worlds["captions"] / "train2017").iterdir())
    shutil.copytree(images[0].parent, tmp_path / "images")
    rows = [f"{path.name},a dog runs\n" for path in images]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(rows))
    found = texts(check_coco(tmp_path, 0))
    assert f"note {tmp_path.name} has no splits of its own" in found
    assert "wrong" not in found


@pytest.mark.parametrize("check", [check_voc, check_coco])
def test_no_tree_at_all(check, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        check(tmp_path / "nowhere", 1)
    (line,) = check(tmp_path, 1)
    assert line.state == "wrong"


def test_real_trees(shared, unpacked):
    found = texts(check_voc(Path(unpacked("data/bccd.tar")) / "BCCD", 20))
    assert "trainval: 292 images, 3,943 objects" in found
    assert "wrong" not in found
    coco = texts(check_coco(Path(unpacked("data/coco-mini.tar")) / "coco-mini", 20))
    assert "train2017: 80 images, 400 captions" in coco
