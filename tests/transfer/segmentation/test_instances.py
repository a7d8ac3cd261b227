"""Masks drawn from MS-COCO's instances, beside torchvision's formula and pycocotools."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from pretrain.errors import UsageError
from tests.tools.test_tools import fails
from tools import prepare_data
from tools.support.instance_masks import write_masks
from transfer.segmentation.config import VOID, DatasetConfig
from transfer.segmentation.data import open_data

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
HEIGHT, WIDTH = 40, 60
# ids in another order than the names, and with gaps
CATEGORIES = [{"id": 7, "name": "zebra"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "apple"}]
VALUES = {3: 1, 7: 2, 90: 3}


def polygon(draw):
    x, y = draw.uniform(0, WIDTH - 20), draw.uniform(0, HEIGHT - 15)
    corners = [(x, y), (x + 18, y + 2), (x + 15, y + 14), (x + 1, y + 12)]
    return [round(float(number), 2) for corner in corners for number in corner]


def annotation(number, image, category, segmentation, **more):
    xs, ys = segmentation[::2], segmentation[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": 9,
            "iscrowd": 0, "segmentation": [segmentation], **more}  # fmt: skip


def crowd(number, image, category):
    """Runs down the columns: all of the columns 5 to 9."""
    counts = [5 * HEIGHT, 5 * HEIGHT, (WIDTH - 10) * HEIGHT]
    runs = {"size": [HEIGHT, WIDTH], "counts": counts}
    return {"id": number, "image_id": image, "category_id": category, "area": 9, "iscrowd": 1,
            "bbox": [5, 0, 5, HEIGHT], "segmentation": runs}  # fmt: skip


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two splits; the last image of each has no object, the first of train a crowd."""
    draw = np.random.default_rng(0)
    root, number = tmp_path / "coco", 0
    (root / "annotations").mkdir(parents=True)
    for split, images in (("train2017", 4), ("val2017", 3)):
        (root / split).mkdir()
        listed, objects = [], []
        for image in range(images):
            pixels = draw.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(root / split / f"{image}.jpg")
            listed.append(
                {"id": image, "file_name": f"{image}.jpg", "height": HEIGHT, "width": WIDTH}
            )
            for _ in range(6 if image < images - 1 else 0):
                category = CATEGORIES[draw.integers(3)]["id"]
                objects.append(annotation(number := number + 1, image, category, polygon(draw)))
        if split == "train2017":
            objects.append(crowd(1000, 0, 7))
        content = {"images": listed, "annotations": objects, "categories": CATEGORIES}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def expected(objects):
    """torchvision's `ConvertCocoPolysToMask`, with one mask of each category."""
    masks, values = [], []
    for category in VALUES:
        one = [o["segmentation"] for o in objects if o["category_id"] == category]
        runs = [run for polygons in one for run in coco.frPyObjects(polygons, HEIGHT, WIDTH)]
        if runs:
            masks.append(torch.from_numpy(coco.decode(coco.merge(runs))))
            values.append(VALUES[category])
    if not masks:
        return torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    stacked = torch.stack(masks)
    target = (stacked * torch.tensor(values, dtype=torch.uint8)[:, None, None]).max(0).values
    target[stacked.sum(0) > 1] = 255
    return target


def read(path):
    with Image.open(path) as image:
        assert image.mode == "P"
        return torch.from_numpy(np.array(image))


def test_masks_are_those_of_torchvision_by_category(tree):
    write_masks(tree)
    assert (tree / "classes.txt").read_text().split() == ["background", "cat", "zebra", "apple"]
    overlaps = 0
    for split in ("train2017", "val2017"):
        content = json.loads((tree / "annotations" / f"instances_{split}.json").read_text())
        for image in content["images"]:
            of_image = [o for o in content["annotations"] if o["image_id"] == image["id"]]
            wanted = expected([o for o in of_image if not o["iscrowd"]])
            overlaps += int((wanted == VOID).sum())
            if any(o["iscrowd"] for o in of_image):
                wanted[:, 5:10] = VOID
            mask = read(tree / "masks" / split / f"{image['id']}.png")
            assert torch.equal(mask, wanted), (split, image)
    assert overlaps > 50


@pytest.mark.parametrize("apart", [False, True])
def test_the_reader_takes_them(tree, tmp_path, apart):
    out = tmp_path / "masks" if apart else None
    Image.new("RGB", (9, 9)).save(tree / "val2017" / "other.jpg")
    results = write_masks(tree, out)
    texts = " ".join(result.text for result in results)
    assert "4 images, 19 outlines" in texts
    assert "1 images are background alone: 3.png" in texts
    assert ("1 other images of" in texts) is not apart
    if not apart:
        (tree / "val2017" / "other.jpg").unlink()
    data = open_data(out or tree, DatasetConfig())
    assert data.classes == ("background", "cat", "zebra", "apple")
    assert (len(data.train), len(data.val)) == (4, 3)
    for record in data.val:
        assert record.read_image().shape == (3, HEIGHT, WIDTH)
        assert torch.equal(
            record.read_mask(),
            read((out or tree) / "masks" / "val2017" / f"{record.image_id}.png"),
        )


def test_other_classes_are_background(tree):
    write_masks(tree, classes=["apple"])
    assert (tree / "classes.txt").read_text().split() == ["background", "apple"]
    content = json.loads((tree / "annotations" / "instances_val2017.json").read_text())
    objects = [o for o in content["annotations"] if o["category_id"] == 90 and o["image_id"] == 0]
    wanted = (expected(objects) == 3).to(torch.uint8)
    assert torch.equal(read(tree / "masks" / "val2017" / "0.png"), wanted)
    assert not (read(tree / "masks" / "train2017" / "0.png") == VOID).any()  # a crowd of zebras


def test_categories_joined_are_one_class_without_overlaps(tree):
    write_masks(tree, join="thing")
    assert (tree / "classes.txt").read_text().split() == ["background", "thing"]
    content = json.loads((tree / "annotations" / "instances_val2017.json").read_text())
    wanted = expected([o for o in content["annotations"] if o["image_id"] == 0]) > 0
    assert torch.equal(read(tree / "masks" / "val2017" / "0.png"), wanted.to(torch.uint8))


def test_an_object_without_an_outline_makes_its_box_void(tree):
    path = tree / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 3, "bbox": [10.5, 5, 20, 10], "area": 9}
    ]
    path.write_text(json.dumps(content))
    results = write_masks(tree)
    assert "1 objects have no outline; their boxes are void" in [r.text for r in results]
    mask = read(tree / "masks" / "val2017" / "0.png")
    assert (mask[5:15, 10:31] == VOID).all()
    assert (mask == VOID).sum() == 10 * 21


def test_it_is_continued_and_replaces_nothing(tree, capsys):
    write_masks(tree)
    kept = tree / "masks" / "train2017" / "1.png"
    content, time = kept.read_bytes(), kept.stat().st_mtime_ns
    (tree / "masks" / "train2017" / "0.png").unlink()
    results = write_masks(tree)
    assert "(3 masks were there already)" in results[1].text
    assert (kept.read_bytes(), kept.stat().st_mtime_ns) == (content, time)
    with pytest.raises(UsageError, match=r"classes\.txt is there with other classes"):
        write_masks(tree, classes=["cat"])
    shutil.copy(tree / "masks" / "train2017" / "3.png", kept)
    words = ["instance-masks", "--data", tree]
    fails("prepare_data", *words, capsys=capsys, said="1.png is there with another content")
    kept.write_bytes(b"no image")
    fails("prepare_data", *words, capsys=capsys, said="1.png is there with another content")


def test_from_the_command_line(tree, tmp_path, capsys):
    words = ["instance-masks", "--data", str(tree), "--out", str(tmp_path / "new")]
    prepare_data.main([*words, "--classes", "cat", "zebra"])
    assert "ok    2 classes and background" in capsys.readouterr().out
    fails("prepare_data", *words, "--classes", "dog", capsys=capsys, said="has no object of dog")
    fails("prepare_data", "instance-masks", "--check", tree, capsys=capsys, said="--check could do")
    fails("prepare_data", *words[:2], tmp_path, capsys=capsys, said="has no instance file")
    (tree / "val2017").rename(tree / "images")
    fails("prepare_data", *words, capsys=capsys, said="of their own, but for example at")


@pytest.mark.parametrize("name", ["#1", "a\nb", "background"])
def test_a_name_that_classes_txt_would_lose_is_refused(name, tree):
    for path in (tree / "annotations").iterdir():
        content = json.loads(path.read_text())
        content["categories"][0]["name"] = name
        path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"classes.txt cannot hold a class called"):
        write_masks(tree)
    assert not (tree / "classes.txt").exists()
    write_masks(tree, join="thing")


def test_nothing_is_written_before_all_is_known(tree):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tree / "val2017/0.png")
    path = tree / "annotations/instances_val2017.json"
    before = json.loads(path.read_text())
    more = [*before["images"], {**before["images"][0], "id": 50, "file_name": "0.png"}]
    path.write_text(json.dumps({**before, "images": more}))
    with pytest.raises(UsageError, match=r"0\.jpg and .*0\.png would have one mask"):
        write_masks(tree)
    with pytest.raises(UsageError, match="--classes has cat twice"):
        write_masks(tree, None, ["cat", "cat"])
    assert not (tree / "classes.txt").exists()
    path.write_text(json.dumps(before))
    (tree / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is there with other classes"):
        write_masks(tree)
    assert not (tree / "masks").exists()
