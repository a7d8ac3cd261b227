"""Synthetic shapes are the same everywhere, and other libraries' readers read them."""

import hashlib
import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CocoCaptions, ImageFolder, VOCDetection

from pretrain import synthetic
from pretrain.errors import UsageError
from pretrain.synthetic.scene import COLOURS, Scene, SceneObject, _mask, draw_scene, make_scene
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
    "segmentation": lambda root, seed: synthetic.segmentation(
        root, train=4, val=2, size=48, seed=seed
    ),
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


def covered(item: SceneObject, size: int) -> np.ndarray:
    """How much an object covers of each pixel: (size, size)."""
    mask, (left, top) = _mask(item, size)
    whole = np.zeros((size, size), np.uint8)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return whole


def test_boxes_are_tight_around_what_was_drawn():
    for number in range(30):
        rng = np.random.default_rng(number)
        scene = make_scene(rng, shapes=["star", "ring", "arrow"], smallest=0.1, largest=0.2)
        image, boxes, _ = draw_scene(scene, 64)
        assert image.shape == (64, 64, 3)
        for item, (left, top, right, bottom) in zip(scene.objects, boxes, strict=True):
            mask = covered(item, 64) > 127
            assert mask[top:bottom, left:right].sum() == mask.sum()
            for edge in (mask[top], mask[bottom - 1], mask[:, left], mask[:, right - 1]):
                assert edge.any()


def test_masks_are_of_what_is_visible(tmp_path):
    """Of whole objects the pixels that they cover by more than half; of hidden ones a part."""
    made = {"train": 6, "val": 1, "size": 64}
    whole = synthetic.segmentation(tmp_path, **made)
    part = synthetic.segmentation(tmp_path, **made, occlusion=0.5)
    none = synthetic.segmentation(tmp_path, **made, occlusion=1)
    names = (whole / "classes.txt").read_text().split()
    assert names == ["background", *sorted(synthetic.SHAPES)]
    shares = []
    for number in range(6):
        paths = [tree / f"masks/train/{number:06d}.png" for tree in (whole, part, none)]
        pictures = [Image.open(path) for path in paths]
        assert pictures[0].getpalette()[3 * 15 : 3 * 16] == [192, 128, 128]  # VOC's person
        masks = [np.asarray(picture) for picture in pictures]
        rng = np.random.default_rng(np.random.SeedSequence([0, 3, 0, number]))
        shapes = rng.choice(names[1:], int(rng.integers(1, 5))).tolist()
        expected = np.zeros((64, 64), np.uint8)
        for item in make_scene(rng, shapes=shapes, smallest=0.14, largest=0.32).objects:
            expected[covered(item, 64) > 127] = names.index(item.shape)
        assert np.array_equal(masks[0], expected)
        assert np.array_equal(masks[1][masks[1] > 0], masks[0][masks[1] > 0])
        shares.append((masks[1] > 0).sum() / (masks[0] > 0).sum())
        assert not masks[2].any()
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)


def test_voc_palette(tmp_path):
    """Against the loop of VOClabelcolormap.m, bit by bit."""
    tree = synthetic.segmentation(tmp_path, train=1, val=1, size=32)
    palette = Image.open(tree / "masks/val/000000.png").getpalette()
    for number in range(256):
        colour, left = [0, 0, 0], number
        for shift in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= (left >> channel & 1) << shift
            left >>= 3
        assert palette[3 * number : 3 * number + 3] == colour


def test_objects_do_not_cover_each_other():
    for number in range(50):
        scene = make_scene(
            np.random.default_rng(number), shapes=["circle"] * 5, smallest=0.06, largest=0.26
        )
        times = sum((covered(item, 128) > 127).astype(int) for item in scene.objects)
        assert times.max() == 1


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


# -------------------------------------------------------------------------------------- difficulty

DRAWN = {  # of the pixels before JPEG and PNG, whose encoders differ, and of every other file
    "classification": "14fef0610219ac8335865de5990b86740069cbada31e8784b2d493854b27b096",
    "detection": "ca8a070b9b36a18dcdd100aa8d6bd5fe402f34d89dbde9a3f26087ff6d1aafb7",
    "captions": "df94d477fb39aac0b9b0f34bb6ed766c005ae5689244e29dc47467855e0751d2",
    "segmentation": "99fea92ecb4267eea0e888bfa58c03e4e7423ae29ec31c9478c51a1b8b806a94",
}


@pytest.mark.parametrize("kind", MAKERS)
def test_default_trees_stay_what_they_were(kind, tmp_path, monkeypatch):
    def write(picture: Image.Image, path: Path, **_) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.tobytes())

    monkeypatch.setattr(synthetic.trees, "_write", write)
    assert digest(MAKERS[kind](tmp_path, 0)) == DRAWN[kind]


def one(number: int, **knobs) -> Scene:
    """A scene of one object."""
    shape = sorted(synthetic.SHAPES)[number % 10]
    sizes = {"smallest": 0.2, "largest": 0.4, **knobs}
    return make_scene(np.random.default_rng(number), shapes=[shape], **sizes)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_occlusion_hides_its_share_of_each_object_on_any_side(share):
    """Seen in the pixels: what is hidden is the background, and nothing else changes."""
    sides, found = [], []
    for number in range(30):
        whole, part, none = (
            draw_scene(one(number), 64, noise=0, occlusion=hidden)[0] for hidden in (0, share, 1)
        )
        thing, visible = (whole != none).any(2), (part != none).any(2)
        assert np.array_equal(part[visible], whole[visible])
        hidden = thing & ~visible
        found.append(hidden.sum() / thing.sum())
        centres = [np.argwhere(pixels).mean(0) for pixels in (hidden, thing)]
        sides.append(tuple(centres[0] > centres[1]))
    assert np.abs(np.array(found) - share).max() < 0.06
    assert np.mean(found) == pytest.approx(share, abs=0.01)
    assert min(sides.count(side) for side in itertools.product((False, True), repeat=2)) >= 3


def test_an_object_that_is_hidden_whole_leaves_nothing_in_the_picture():
    """Shape, colour, texture, size and place may be any: the bytes are the same."""
    scene = make_scene(np.random.default_rng(0), shapes=["star", "ring"], smallest=0.1, largest=0.2)
    first, second = scene.objects
    changed = replace(first, shape="heart", colour="blue", texture="dotted", radius=0.4)
    other = replace(scene, objects=(changed, replace(second, centre=(0.2, 0.3))))
    hidden, hidden_other = (draw_scene(s, 64, occlusion=1)[0] for s in (scene, other))
    assert np.array_equal(hidden, hidden_other)
    assert not np.array_equal(draw_scene(scene, 64)[0], draw_scene(other, 64)[0])


def test_noise_has_its_standard_deviation():
    clean = draw_scene(one(3), 64, noise=0)[0].astype(float)
    middle = (clean > 80) & (clean < 175)  # so that nothing is cut off at 0 or 255
    for noise in (2, 6, 20):
        rest = (draw_scene(one(3), 64, noise=noise)[0] - clean)[middle]
        assert rest.std() == pytest.approx(noise, rel=0.1)


def test_truncation_lets_objects_reach_out_of_the_picture():
    def outside(truncation: float) -> float:
        """How far the disc of an object reaches out, in radii: the most of many."""
        scenes = [one(number, truncation=truncation) for number in range(100)]
        objects = [item for scene in scenes for item in scene.objects]
        return max(1 - min(*o.centre, *(1 - at for at in o.centre)) / o.radius for o in objects)

    assert outside(0) < 0
    assert 0.3 < outside(0.6) <= 0.6 < outside(1) <= 1


@pytest.mark.parametrize("occlusion", [0, 0.5, 0.99, 1])
def test_a_box_is_that_of_what_is_visible(occlusion):
    """Against the pixels that differ from the background; those that are touched only lie out."""
    off = []
    for number in range(20):
        scene = one(number, truncation=1)
        image, (box,), _ = draw_scene(scene, 48, noise=0, occlusion=occlusion)
        if occlusion == 1:  # nothing is: that of all of it
            image = draw_scene(scene, 48, noise=0)[0]
        rows, columns = np.nonzero((image != draw_scene(scene, 48, noise=0, occlusion=1)[0]).any(2))
        seen = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        off.append(np.abs(np.subtract(box, seen)).max())
    assert np.median(off) <= 1
    assert max(off) <= 5  # of a star, a tip


def test_no_box_is_empty():
    for number in range(40):
        scene = one(number, smallest=1 / 32, largest=0.1, truncation=1)
        for occlusion in (0, 0.9, 0.999):
            ((left, top, right, bottom),) = draw_scene(scene, 32, occlusion=occlusion)[1]
            assert 0 <= left < right <= 32
            assert 0 <= top < bottom <= 32


def test_voc_says_what_a_box_misses(tmp_path):
    made = {"train": 8, "val": 1, "size": 32}
    cut = {}
    for name, knobs in {"usual": {}, "cut": {"truncation": 1}, "half": {"occlusion": 0.5}}.items():
        tree = synthetic.detection(tmp_path, **made, **knobs)
        texts = [path.read_text() for path in tree.glob("Annotations/*.xml")]
        flags = re.findall(r"<truncated>(\d)", "".join(texts))
        cut[name] = np.mean([flag == "1" for flag in flags])
    assert cut["usual"] == 0
    assert 0 < cut["cut"] < 1
    assert cut["half"] == 1


def test_knobs_are_part_of_the_name(tmp_path):
    """Another difficulty is another tree; the usual values, given, are none."""
    made = {"train": 1, "val": 1, "size": 32}
    usual = synthetic.detection(tmp_path, **made, noise=6, occlusion=0.0, largest=0.26)
    assert usual.name == "voc1-32px-1+1-seed0"
    hard = synthetic.captions(tmp_path, **made, noise=20, occlusion=0.35, truncation=1, largest=0.2)
    assert hard.name == "coco1-32px-1+1-radius0.11to0.2-noise20-occlusion0.35-truncation1-seed0"


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"noise": -1}, r"noise is -1; it must lie in \[0, 255\]"),
        ({"occlusion": 1.01}, r"occlusion is 1.01; it must lie in \[0, 1\]"),
        ({"truncation": float("nan")}, r"truncation is nan; it must lie in \[0, 1\]"),
        ({"smallest": 0.03}, r"smallest is 0.03; it must lie in \[0.0312, 0.43\]"),
        ({"smallest": 0.2, "largest": 0.1}, r"largest is 0.1; it must lie in \[0.2, 0.43\]"),
        ({"largest": 0.5}, r"largest is 0.5; it must lie in \[0\.\d+, 0.43\]"),
    ],
)
def test_knobs_out_of_range_are_refused(kind, knobs, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        getattr(synthetic, kind)(tmp_path, train=1, val=1, size=32, **knobs)
    assert not list(tmp_path.iterdir())
