"""Synthetic shapes are the same everywhere, and other libraries' readers read them."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CocoCaptions, ImageFolder, VOCDetection

from pretrain import synthetic
from pretrain.synthetic.scene import COLOURS, _mask, draw_scene, make_scene
from pretrain.synthetic.sentences import describe_scene


def digest(tree: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(p for p in tree.rglob("*") if p.is_file()):
        found.update(str(path.relative_to(tree)).encode())
        found.update(path.read_bytes())
    return found.hexdigest()


MAKERS = {
    "classification": lambda root, seed: synthetic.classification(
        root, train=20, val=10, size=32, seed=seed
    ),
    "detection": lambda root, seed: synthetic.detection(root, train=4, val=2, size=48, seed=seed),
    "captions": lambda root, seed: synthetic.captions(root, train=4, val=2, size=48, seed=seed),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_function_of_the_seed(kind, tmp_path):
    make = MAKERS[kind]
    one, two, other = make(tmp_path / "a", 0), make(tmp_path / "b", 0), make(tmp_path / "c", 1)
    assert digest(one) == digest(two)
    assert digest(one) != digest(other)
    assert digest(make(tmp_path / "a", 0)) == digest(two)  # used again as it is


@pytest.mark.parametrize("kind", MAKERS)
def test_a_tree_is_drawn_once(kind, tmp_path, monkeypatch):
    """The second run of a tool without data finds the first one's tree."""
    tree = MAKERS[kind](tmp_path, 0)
    held = digest(tree)
    monkeypatch.setattr(synthetic.trees, "draw_scene", lambda *_: pytest.fail("drawn again"))
    assert MAKERS[kind](tmp_path, 0) == tree
    assert digest(tree) == held
    assert [path.name for path in tmp_path.iterdir()] == [tree.name]


def test_a_tree_that_is_there_is_kept_and_a_torn_one_never_appears(tmp_path, monkeypatch):
    tree = MAKERS["classification"](tmp_path, 0)
    stamps = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    assert MAKERS["classification"](tmp_path, 0) == tree
    assert stamps == {path: path.stat().st_mtime_ns for path in tree.rglob("*")}

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrain.synthetic.trees._save", fail)
    with pytest.raises(KeyboardInterrupt):
        MAKERS["classification"](tmp_path / "torn", 0)
    assert not (tmp_path / "torn").exists()


def test_image_folder_reads_it(worlds):
    train = ImageFolder(worlds["classification"] / "train")
    assert train.classes == sorted(synthetic.SHAPES)
    assert np.bincount(train.targets).tolist() == [6] * 10
    assert train[0][0].size == (32, 32)


def test_voc_detection_reads_it(worlds, monkeypatch, tmp_path):
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit" / "VOC2012").symlink_to(worlds["detection"])
    image, target = VOCDetection(tmp_path, year="2012", image_set="train")[0]
    things = target["annotation"]["object"]
    assert image.size == (64, 64)
    assert {thing["name"] for thing in things} <= set(synthetic.SHAPES)


def test_coco_captions_reads_it(worlds):
    pytest.importorskip("pycocotools")
    tree = worlds["captions"]
    data = CocoCaptions(tree / "train2017", tree / "annotations" / "captions_train2017.json")
    image, captions = data[0]
    assert image.size == (48, 48)
    assert len(captions) == len(set(captions)) == 5


def test_boxes_are_tight_around_what_was_drawn():
    for number in range(30):
        rng = np.random.default_rng(number)
        scene = make_scene(rng, shapes=["star", "ring", "arrow"], smallest=0.1, largest=0.2)
        image, boxes = draw_scene(scene, 64)
        assert image.shape == (64, 64, 3)
        for item, (left, top, right, bottom) in zip(scene.objects, boxes, strict=True):
            mask = _mask(item, 64) > 127
            assert mask[top:bottom, left:right].sum() == mask.sum()
            for edge in (mask[top], mask[bottom - 1], mask[:, left], mask[:, right - 1]):
                assert edge.any()


def test_objects_do_not_cover_each_other():
    for number in range(50):
        scene = make_scene(
            np.random.default_rng(number), shapes=["circle"] * 5, smallest=0.06, largest=0.26
        )
        covered = sum((_mask(item, 128) > 127).astype(int) for item in scene.objects)
        assert covered.max() == 1


def test_sentences_are_true():
    """Every shape and colour that is named is in the picture, and every sentence names a shape."""
    for number in range(200):
        rng = np.random.default_rng(number)
        shapes = rng.choice(sorted(synthetic.SHAPES), 2, replace=False).tolist()
        scene = make_scene(rng, shapes=shapes, smallest=0.11, largest=0.3)
        captions = describe_scene(scene, rng)
        assert len(set(captions)) == 5
        there = {(item.colour, item.shape) for item in scene.objects}
        for sentence in captions:
            words = sentence.lower().strip(".").split()
            named = [
                (colour, shape)
                for colour, shape in itertools.pairwise(words)
                if colour in COLOURS and shape in synthetic.SHAPES
            ]
            assert named
            assert set(named) <= there


def test_left_and_above_mean_what_they_say():
    for number in range(200):
        rng = np.random.default_rng(number)
        scene = make_scene(rng, shapes=["star", "heart"], smallest=0.11, largest=0.25)
        if len(scene.objects) < 2:
            continue
        star, heart = scene.objects
        for sentence in describe_scene(scene, rng):
            if " to the left of " in sentence:
                assert star.centre[0] < heart.centre[0]
            if " above " in sentence:
                assert star.centre[1] < heart.centre[1]


def test_pictures_are_ordinary_jpegs(worlds):
    path = next((worlds["detection"] / "JPEGImages").glob("*.jpg"))
    assert Image.open(path).format == "JPEG"


def test_sizes_are_an_argument_and_part_of_the_name(tmp_path):
    """Smaller objects cover fewer pixels; another range is another tree."""
    made = {"train": 10, "val": 1, "size": 32}
    usual = synthetic.classification(tmp_path, **made)
    small = synthetic.classification(tmp_path, **made, smallest=0.05, largest=0.06)
    assert usual.name == "classification1-32px-10+1-seed0"
    assert small.name == "classification1-32px-10+1-radius0.05to0.06-seed0"
    first = [np.asarray(Image.open(tree / "train/arrow/000000.jpg")) for tree in (usual, small)]
    assert not np.array_equal(*first)
