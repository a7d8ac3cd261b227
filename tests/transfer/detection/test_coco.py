"""MS-COCO's files as records: where they lie, what is written in them, whose pixels boxes are."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from pretrain.errors import UsageError
from pretrain.images import decode
from transfer import image_headers as headers
from transfer.detection.coco import read_coco
from transfer.detection.coco_average_precision import evaluate_coco
from transfer.detection.coco_layout import list_splits
from transfer.detection.config import DatasetConfig
from transfer.detection.data import open_data
from transfer.detection.records import Records, summarize_issues

WIDTH, HEIGHT = 50, 40


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "cutmix-transfer" / "headers"


def draw(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> None:
    """A black photo with that EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", size).save(path, exif=exif)


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def image(number: int, name: str, width: Any = WIDTH, height: Any = HEIGHT) -> dict:
    return {"id": number, "file_name": name, "width": width, "height": height}


def annotation(number: int, box: Any, image: int = 7, category: int = 3, **more: Any) -> dict:
    entry = {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
    return entry | more


def instances(**lists: list[dict]) -> dict[str, list[dict]]:
    """One image, two categories, one object; lists replace them."""
    return {
        "images": [image(7, "7.jpg")],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [annotation(1, [1, 2, 10, 20])],
    } | lists


def tree(root: Path, content: dict | None = None, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A tree with split train; its images are drawn, but for those that exist."""
    content = content or instances()
    write(root / "annotations/instances_train.json", content)
    for entry in content["images"]:
        if isinstance(entry.get("file_name"), str) and not (root / "train").exists():
            draw(root / "train" / entry["file_name"], size)
    return root


def kinds(records: Records) -> list[str]:
    return [issue.kind for issue in records.issues]


# -------------------------------------------------------------------------------- what is written


def test_boxes_labels_and_crowds(tmp_path):
    boxes = [annotation(1, [1.5, 2, 10, 20], category=18), annotation(2, [0, 0, 50, 40], iscrowd=1)]
    root = tree(tmp_path, instances(annotations=boxes))
    held = read_coco(root, "train")
    assert (held.classes, held.category_ids) == (("car", "dog"), (3, 18))
    (record,) = held.images
    assert record.boxes.tolist() == [[1.5, 2, 11.5, 22], [0, 0, 50, 40]]
    assert (record.labels.tolist(), record.crowd.tolist()) == ([1, 0], [False, True])
    assert held.for_training().images[0].labels.tolist() == [1]


def test_real_coco_images(unpacked):
    root = unpacked("data/coco-mini.tar") / "coco-mini"
    held = read_coco(root, "train2017")
    assert (len(held), len(held.classes), held.issues) == (80, 80, ())
    data = open_data(root, DatasetConfig())
    assert (data.train_split, data.test_split) == ("train2017", "val2017")
    file = root / "annotations/instances_train2017.json"
    pycoco = pytest.importorskip("pycocotools.coco").COCO(file)
    for record in held.images:
        theirs = pycoco.loadAnns(pycoco.getAnnIds(record.image_id))
        assert len(theirs) == len(record.labels)
        boxes = np.array([one["bbox"] for one in theirs]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(record.boxes, boxes, atol=0.02)
        ids = [held.category_ids[label] for label in record.labels]
        assert ids == [one["category_id"] for one in theirs]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda c: c["annotations"][0].update(image_id=9), "annotation 1: broken .*no image 9"),
        (lambda c: c["annotations"][0].update(category_id=9), "annotation 1: unknown class"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, None, 4]), "annotation 1: broken .*bbox"),
        (lambda c: c["annotations"][0].update(iscrowd="maybe"), "annotation 1: broken .*'maybe'"),
        (lambda c: c["annotations"][0].update(iscrowd=2), "annotation 1: .*2 is no flag"),
        (lambda c: c["annotations"].append(None), "number 1 of annotations is None"),
        (lambda c: c["images"][0].update(file_name="x.jpg"), r"image 7: no image: .*x\.jpg in"),
        (lambda c: c["images"][0].update(file_name=None), "0 of images .* file_name None"),
        (
            lambda c: c["images"][0].update(width="wide"),
            r"7\.jpg\) has the width 'wide', no number",
        ),
        (lambda c: c["images"][0].update(id=None), "number 0 of images has the id None"),
        (
            lambda c: c["images"].append(image(7, "8.jpg")),
            r"lists image 7 twice: 7\.jpg \(number 0 of images\) and 8\.jpg \(number 1\)",
        ),
        (lambda c: c["categories"][0].update(id="a"), "number 0 of categories .'dog'. has the id"),
        (lambda c: c["categories"][0].update(name=None), "number 0 of categories .*name None"),
        (lambda c: c.pop("categories"), "no 'categories'"),
    ],
)
def test_files_as_users_give_them(break_it, words, tmp_path):
    root, content = tree(tmp_path), instances()
    break_it(content)
    tree(root, content)
    with pytest.raises(UsageError, match=words):
        read_coco(root, "train")


def test_boxes_by_their_rules(tmp_path):
    boxes = [[1, 2, 10, 20], [5, 5, 0, 4], [60, 5, 3, 4], [45, 5, 9, 9], [1, 2, 10, 20]]
    listed = [annotation(number, box) for number, box in enumerate(boxes)]
    held = read_coco(tree(tmp_path, instances(annotations=listed)), "train")
    rules = ["box without area", "box outside the image", "box over the edge", "object twice"]
    assert kinds(held) == rules
    assert held.images[0].boxes[1].tolist() == [45, 5, 50, 14]


def test_one_annotation_written_twice(tmp_path):
    """pylabel does; two of other ids, or of none, are two objects."""
    one, box = annotation(1, [1, 2, 10, 20]), {"image_id": 7, "category_id": 3}
    box["bbox"] = [30, 2, 9, 20]
    root = tree(tmp_path, instances(annotations=[one, one, one | {"id": 2}, box, box]))
    held = read_coco(root, "train")
    assert held.images[0].boxes[:, 0].tolist() == [1, 1, 30, 30]
    assert kinds(held) == ["annotation twice", "object twice", "object twice"]


@pytest.mark.parametrize("value", ["0", "false", "No", 0.0, None, False, ""])
def test_a_flag_that_is_not_set(value, tmp_path):
    one = annotation(1, [1, 2, 10, 20], iscrowd=value, ignore=value, difficult=value)
    (record,) = read_coco(tree(tmp_path, instances(annotations=[one])), "train").images
    assert not record.crowd.any()
    assert not record.difficult.any()


@pytest.mark.parametrize("value", ["1", "True", "yes", 1.0, True, 1])
def test_a_flag_that_is_set(value, tmp_path):
    listed = [
        annotation(1, [1, 2, 10, 20], iscrowd=value),
        annotation(2, [1, 2, 10, 21], ignore=value),
        annotation(3, [1, 2, 10, 22], difficult=value),
        annotation(4, [1, 2, 10, 23]),
    ]
    (record,) = read_coco(tree(tmp_path, instances(annotations=listed)), "train").images
    assert record.crowd.tolist() == [True, False, False, False]
    assert record.difficult.tolist() == [False, True, True, False]


def test_ids_of_annotations_do_not_matter(tmp_path):
    """pycocotools never matches an annotation whose id is 0."""
    pytest.importorskip("pycocotools")
    listed = [annotation(0, [1, 2, 10, 20]), annotation(0, [20, 2, 10, 20])]
    held = read_coco(tree(tmp_path, instances(annotations=listed)), "train")
    rows = [{"image_id": 7, "category": "car", "bbox": one["bbox"], "score": 0.9} for one in listed]
    assert evaluate_coco(held, rows)["AP"] == pytest.approx(100)


# ------------------------------------------------------------------------------------- categories


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({3: "car", 18: "car"}, "category 18: similar .*'car' beside 'car' of category 3"),
        ({3: "car", 18: "car "}, "category 18: similar .*'car ' beside 'car' of category 3"),
        ({3: "Traffic Light", 18: "traffic light"}, "'traffic light' beside 'Traffic Light'"),
    ],
)
def test_categories_of_one_name(names, said, tmp_path):
    """Refused with both places, and joined if asked."""
    categories = [{"id": number, "name": name} for number, name in names.items()]
    listed = [annotation(1, [1, 2, 10, 20]), annotation(2, [1, 2, 11, 20], category=18)]
    root = tree(tmp_path, instances(categories=categories, annotations=listed))
    with pytest.raises(UsageError, match=rf"(?s){said}.*--dataset\.similar_names join"):
        read_coco(root, "train")
    held = read_coco(root, "train", config=DatasetConfig(similar_names="join"))
    assert held.classes == (names[3],)
    assert held.images[0].labels.tolist() == [0, 0]
    assert kinds(held) == ["class names joined"]


def test_classes_of_another_spelling(tmp_path):
    root = tree(tmp_path)
    with pytest.raises(UsageError, match=r"(?s)'car' beside 'Car', a class.*similar_names join"):
        read_coco(root, "train", ["Car", "dog"])
    held = read_coco(root, "train", ["Car", "dog"], DatasetConfig(similar_names="join"))
    assert held.images[0].labels.tolist() == [0]


def test_two_categories_of_one_id(tmp_path):
    categories = [{"id": 3, "name": "car"}, {"id": 3, "name": "dog"}]
    root = tree(tmp_path, instances(categories=categories))
    with pytest.raises(UsageError, match=r"number 1 of categories: .*'dog' has id 3, as 'car', nu"):
        read_coco(root, "train")


def test_a_category_that_is_but_the_parent_of_others(tmp_path):
    """Roboflow's first category; others without objects stay."""
    categories = [
        {"id": 0, "name": "car", "supercategory": "none"},
        {"id": 3, "name": "car", "supercategory": "car"},
        {"id": 18, "name": "dog", "supercategory": "car"},
        {"id": 19, "name": "person", "supercategory": "person"},
    ]
    root = tree(tmp_path, instances(categories=categories))
    held = read_coco(root, "train")
    assert (held.classes, held.category_ids) == (("car", "dog", "person"), (3, 18, 19))
    assert "1 x category without objects (left out): " in summarize_issues(held.issues)[0]
    used = annotation(2, [1, 2, 11, 20], category=0)
    both = instances(categories=categories[::2], annotations=[annotation(1, [1, 2, 3, 4], 7, 18)])
    both["annotations"].append(used)
    assert read_coco(tree(root, both), "train").classes == ("car", "dog")


# ----------------------------------------------------------------------------------------- images


def test_one_image_under_two_ids(tmp_path):
    for name in ("7.jpg", "../train/7.jpg", "./7.jpg", "link.jpg"):
        root = tree(tmp_path / name.replace("/", "_"))
        os.symlink(root / "train/7.jpg", root / "train/link.jpg")
        content = instances(images=[image(7, "7.jpg"), image(8, name)])
        tree(root, content)
        with pytest.raises(UsageError, match=r"image 8: one image, two ids: .*is image 7 too"):
            read_coco(root, "train")


@pytest.mark.parametrize(
    "size", [(40, 50), (None, None), (0, 0), (50, None), ("50", "40"), (50.0, 40.0)]
)
def test_written_sizes(size, tmp_path):
    """Numbers may be text; nothing written is no issue; another size is one."""
    root = tree(tmp_path, instances(images=[image(7, "7.jpg", *size), image(8, "8.jpg")]))
    draw(root / "train/8.jpg")
    held = read_coco(root, "train")
    assert (held.images[0].width, held.images[0].height) == (WIDTH, HEIGHT)
    assert kinds(held) == (["size of another image"] if size == (40, 50) else [])


def test_images_that_were_resized_after_labelling(tmp_path):
    """A few of another size are a note; most of them are refused."""
    listed = [image(number, f"{number}.jpg") for number in (7, 8, 9, 10)]
    root = tree(tmp_path, instances(images=listed))
    for number, size in ((7, (50, 40)), (8, (50, 40)), (9, (25, 20)), (10, (25, 20))):
        draw(root / f"train/{number}.jpg", size)
    assert kinds(read_coco(root, "train")) == ["size of another image"] * 2
    draw(root / "train/8.jpg", (25, 20))
    with pytest.raises(UsageError, match=r"image 8: resized after labelling: 50 x 40 is written"):
        read_coco(root, "train")


@pytest.mark.parametrize(
    ("written", "box", "turned"),
    [
        ((40, 50), [5, 10, 20, 35], True),
        ((50, 40), [5, 10, 20, 25], False),
        ((50, 40), [5, 10, 20, 35], "which the boxes do not fit"),  # Label Studio's export
        ((100, 80), [5, 10, 20, 25], "written as 100 x 80"),
        ((None, None), [5, 10, 20, 25], "written as 0 x 0"),
    ],
)
def test_photos_with_an_orientation(written, box, turned, tmp_path):
    """A white object on a photo stored on its side, 50 x 40, displayed 40 x 50."""
    content = instances(images=[image(7, "7.jpg", *written)], annotations=[annotation(1, box)])
    draw(tmp_path / "train/7.jpg", orientation=6)
    root = tree(tmp_path, content)
    if isinstance(turned, str):
        with pytest.raises(UsageError, match=rf"(?s)image 7: EXIF .*{turned}.*--dataset\.exif app"):
            read_coco(root, "train")
        turned = True
        held = read_coco(root, "train", config=DatasetConfig(exif="apply"))
    else:
        held = read_coco(root, "train")
    (record,) = held.images
    assert record.apply_exif == turned
    assert (record.width, record.height) == ((40, 50) if turned else (50, 40))
    assert tuple(decode(record.path, record.apply_exif).shape[1:]) == (record.height, record.width)
    kind = "photo turned" if turned else "photo as stored"
    assert kinds(held) == [kind, *(["size of another image"] if written == (100, 80) else [])]
    assert record.boxes.tolist() == [[box[0], box[1], box[0] + box[2], box[1] + box[3]]]


def test_an_image_that_is_none(tmp_path):
    root = tree(tmp_path, instances(images=[image(7, "7.jpg"), image(8, "8.jpg")]))
    (root / "train/8.jpg").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"(?s)image 8: unreadable .*8\.jpg.*max_corrupt 1"):
        read_coco(root, "train")
    assert len(read_coco(root, "train", config=DatasetConfig(max_corrupt=1))) == 1
    assert len(read_coco(root, "train", images=False)) == 2


def test_heads_by_processes_and_from_the_cache(tmp_path, cache, monkeypatch):
    for number in range(6):
        draw(tmp_path / f"{number}.jpg", (20 + number, 30), 1 + number)
    paths = [str(tmp_path / f"{number}.jpg") for number in range(6)]
    (tmp_path / "4.jpg").write_bytes(b"no picture")
    one = headers.read_headers(paths)
    assert [head and head.orientation for head in one] == [1, 2, 3, 4, None, 6]
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(headers, "_LEAST", 2)
    assert headers.read_headers(paths) == one
    monkeypatch.setattr(headers, "read_header", None)  # nothing is read again
    assert headers.read_headers(paths) == one
    (kept,) = cache.iterdir()
    kept.write_text("[[")
    monkeypatch.undo()
    assert headers.read_headers(paths) == one
    monkeypatch.setattr(headers, "_LEAST", 2)
    assert headers.read_headers(paths) == one
    draw(tmp_path / "3.jpg", (7, 7))
    assert headers.read_headers(paths)[3] == ((7, 7), 1)


# ------------------------------------------------------------------------------- the form of boxes

CORNERS = [[5, 5, 15, 20], [20, 10, 45, 35], [30, 20, 48, 38], [8, 25, 28, 39]]


def boxes_of(boxes: list) -> dict:
    return instances(annotations=[annotation(n, box) for n, box in enumerate(boxes)])


def test_corners_are_refused(tmp_path):
    root = tree(tmp_path, boxes_of(CORNERS))
    said = "bbox is x1, y1, x2, y2, it seems, .*: 3 of 4 boxes .*annotation 1: 20, 10, 45, 35 of 50"
    with pytest.raises(UsageError, match=said):
        read_coco(root, "train")
    mended = [[x, y, right - x, low - y] for x, y, right, low in CORNERS]
    assert read_coco(tree(root, boxes_of(mended)), "train").issues == ()


def test_fractions_are_refused(tmp_path):
    fractions = [[x / 50, y / 40, (r - x) / 50, (low - y) / 40] for x, y, r, low in CORNERS]
    root = tree(tmp_path, boxes_of(fractions))
    said = "fractions of the image, .* all 4 boxes .*annotation 0: 0.1, 0.125, 0.2, 0.375. Multiply"
    with pytest.raises(UsageError, match=said):
        read_coco(root, "train")


def test_real_boxes_as_corners(unpacked):
    """Of 80 photographs: the sign is there, and not there in the boxes as they are."""
    root = unpacked("data/coco-mini.tar") / "coco-mini"
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        one["bbox"] = [x, y, x + width, y + height]
    write(path, content)
    with pytest.raises(UsageError, match=r"bbox is x1, y1, x2, y2"):
        read_coco(root, "train2017")


# ----------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("file", "name", "split"),
    [
        ("annotations/instances_default.json", "images/default/7.jpg", "default"),  # CVAT
        ("train/_annotations.coco.json", "train/7.jpg", "train"),  # Roboflow
        ("annotations/train.json", "train/7.jpg", "train"),
        ("annotations/train.json", "images/train/7.jpg", "train"),
        ("Annotations/train.json", "Images/7.jpg", "train"),
        ("train/annotations.json", "train/images/7.jpg", "train"),
        ("train/labels.json", "train/data/7.jpg", "train"),
        ("labels.json", "data/7.jpg", "labels"),  # FiftyOne
        ("result.json", "images/7.jpg", "result"),  # Label Studio
        ("instances_train.json", "7.jpg", "instances_train"),
    ],
)
def test_layouts(file, name, split, tmp_path):
    write(tmp_path / file, instances())
    draw(tmp_path / name)
    assert list_splits(tmp_path) == [split]
    (record,) = read_coco(tmp_path, split).images
    assert record.path.samefile(tmp_path / name)


def test_what_is_no_instance_file(tmp_path):
    write(tmp_path / "annotations/captions_train2017.json", {"images": [], "annotations": []})
    write(tmp_path / "detections.json", [{"image_id": 7}])
    assert list_splits(tmp_path) == []
    write(tmp_path / "train.json", instances())
    assert list_splits(tmp_path) == ["train"]
    (tmp_path / "JPEGImages").mkdir()  # a converted copy beside a Pascal VOC tree
    assert list_splits(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["../images/7.jpg", "images/7.jpg", "images\\7.jpg", "./7.jpg", "a/../7.jpg"]
)
def test_names_relative_to_several_folders(name, tmp_path):
    write(tmp_path / "annotations/train.json", instances(images=[image(7, name)]))
    draw(tmp_path / "images/7.jpg")
    (record,) = read_coco(tmp_path, "train").images
    assert record.path.samefile(tmp_path / "images/7.jpg")


@pytest.mark.parametrize("name", ["/home/me/7.jpg", "../../../7.jpg", "C:\\me\\7.jpg"])
def test_names_of_another_machine(name, tmp_path):
    """Never outside the tree: by the last part, with a note."""
    root = tmp_path / "a/tree"
    write(root / "annotations/train.json", instances(images=[image(7, name)]))
    draw(root / "images/7.jpg")
    draw(tmp_path / "7.jpg")
    held = read_coco(root, "train")
    assert held.images[0].path.samefile(root / "images/7.jpg")
    assert kinds(held) == ["image by its last name"]


def test_missing_images_name_all_places(tmp_path):
    two = instances(images=[image(7, "7.jpg"), image(8, "8.jpg")])
    write(tmp_path / "annotations/train.json", two)
    (tmp_path / "images").mkdir()
    said = r"none of its 2 images .* 7\.jpg\. Looked in annotations, images, the tree itself of"
    with pytest.raises(UsageError, match=said):
        read_coco(tmp_path, "train")


def test_one_file_without_a_split_names_the_command(tmp_path):
    write(tmp_path / "result.json", instances())
    said = r"splits result: .*draw them: python tools/prepare_data\.py instances --data .* --val-fr"
    with pytest.raises(UsageError, match=said):
        open_data(tmp_path, DatasetConfig())


def test_an_unknown_split(tmp_path):
    with pytest.raises(UsageError, match=r"no split 'trian'; it has train\. Did you mean train\?"):
        read_coco(tree(tmp_path), "trian")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(encoding, tmp_path):
    root = tree(tmp_path)
    (root / "annotations/instances_train.json").write_text(json.dumps(instances()), encoding)
    assert len(read_coco(root, "train")) == 1
