"""Annotation files with one thing wrong: no traceback, and nothing is dropped without a word.

Each tree is written from a list of objects, with one mutation of an object or of a file's text, so
the number of objects is known whatever the mutation made of them. Then

    objects that were read + objects that a message names = objects that were written

where a refusal, and a message about an image that is left out, name all objects of what they are
about. Objects that are read and were not mutated have the values they were written with.
"""

import copy
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pretrain.errors import UsageError
from tests.mutations import draws
from transfer.detection.coco import read_coco
from transfer.detection.config import DatasetConfig
from transfer.detection.records import Records
from transfer.detection.voc import read_voc

CASES = 600  # of each layout
WIDTH, HEIGHT = 60, 40
CLASSES = ("a.b", "bird", "cat", "dog")
# kinds of issues that keep one object out of the records
DROPPED = ("unknown class", "box without area", "box outside the image", "broken annotation")
# what can be left out is, so that it must be named
LENIENT = DatasetConfig(max_corrupt=100, other_classes="drop", similar_names="join", exif="ignore")
Written = dict[str, list[tuple]]  # image -> class, left, top, right, bottom
Mutation = Callable[[str, random.Random], str | bytes]

_pixels = io.BytesIO()
Image.new("RGB", (WIDTH, HEIGHT)).save(_pixels, "PNG")


def draw_objects(draw: random.Random) -> Written:
    images: Written = {}
    for number in range(3):
        boxes = set()
        for _ in range(draw.randint(1, 3)):
            left, top = draw.randint(2, 40), draw.randint(2, 25)
            right, bottom = left + draw.randint(4, 18), top + draw.randint(4, 14)
            boxes.add((draw.choice(CLASSES), left, top, right, bottom))
        images[f"image{number}"] = sorted(boxes)
    return images


def write_images(folder: Path, written: Written) -> None:
    folder.mkdir(parents=True)
    for image in written:
        (folder / f"{image}.png").write_bytes(_pixels.getvalue())


# --------------------------------------------------------------------------------------- Pascal VOC


def set_tag(name: str, value: str) -> Mutation:
    return lambda text, draw: re.sub(f"<{name}>[^<]*</{name}>", f"<{name}>{value}</{name}>", text)


def rename_tag(name: str, new: str) -> Mutation:
    return lambda text, draw: re.sub(f"<(/?){name}>", rf"<\1{new}>", text)


def change_element(name: str, new: str) -> Mutation:
    r"""Another text for the first element of that name, in which \1 is that element."""
    return lambda text, draw: re.sub(f"(<{name}>.*?</{name}>)", new, text, count=1, flags=re.S)


def encode(encoding: str, declared: bool = True) -> Mutation:
    head = f'<?xml version="1.0" encoding="{encoding}"?>\n' if declared else ""
    return lambda text, draw: f"{head}{text}".encode(encoding)


def cut(text: str, draw: random.Random) -> str:
    return text[: draw.randrange(len(text))]


def lose_line(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    del lines[draw.randrange(len(lines))]
    return "\n".join(lines)


CORNERS = ("xmin", "ymin", "xmax", "ymax")
NUMBERS = ("", "nan", "inf", "-7", "1e9", "0", "abc", "12,5", "0.4", "1 2", "0x10")
NAMES = ("", "  ", "Cat", "cat ", " dog", "zebra", "&amp;", "a -1", "cat\n", "None")
FLAGS = ("1", "True", "Unspecified", "0.0", "no", "maybe", "", "2")
IN_OBJECT: list[Mutation] = [
    *(set_tag(corner, value) for corner in CORNERS for value in NUMBERS),
    *(set_tag("name", value) for value in NAMES),
    *(set_tag("difficult", value) for value in FLAGS),
    *(change_element(name, "") for name in ("name", "difficult", "bndbox", *CORNERS)),
    *(change_element(name, r"\1\n\1") for name in ("name", "bndbox", "xmin", "difficult")),
    *(change_element("object", rf"<{new}>\1</{new}>") for new in ("objects", "item", "object")),
    *(change_element("bndbox", rf"<{new}>\1</{new}>") for new in ("part", "bndbox", "shape")),
    *(rename_tag(name, name.upper()) for name in ("object", "name", "bndbox", "xmin", "difficult")),
    *(rename_tag("bndbox", new) for new in ("robndbox", "polygon", "bbox", "box")),
    lambda text, draw: text.replace("<object>", '<object id="7" xmlns="http://b.example">'),
    lambda text, draw: text.replace("<object>", "<!-- one --><object>"),
    lambda text, draw: re.sub("<name>(.*?)</name>", r"<name><![CDATA[\1]]></name>", text),
    lambda text, draw: re.sub("<name>(.*?)</name>", r"<name><b>\1</b></name>", text),
]
IN_FILE: list[Mutation] = [
    *(cut for _ in range(8)),
    *(lose_line for _ in range(8)),
    lambda text, draw: "",
    lambda text, draw: text + text,
    lambda text, draw: text.replace("<annotation>", '<annotation xmlns="http://a.example/voc">'),
    *(rename_tag("annotation", new) for new in ("Annotation", "annotations", "doc", "object")),
    *(rename_tag("object", new) for new in ("objects", "Object", "item", "obj")),
    *(set_tag("width", value) for value in ("", "0", "-1", "600", "40", "abc", "60.0")),
    *(encode(name) for name in ("gb2312", "utf-16", "latin-1", "cp1251", "shift_jis", "utf-8")),
    *(encode(name, declared=False) for name in ("utf-16", "utf-8-sig", "utf-32")),
    lambda text, draw: text.replace("\n", "\r\n"),
    lambda text, draw: text.replace("\n", ""),
    lambda text, draw: text.replace("image", "photo", 1),
]


def voc_object(one: tuple) -> str:
    name, left, top, right, bottom = one
    corners = zip(CORNERS, (left + 1, top + 1, right, bottom), strict=True)
    box = "\n".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
    return (
        f"\n<object>\n<name>{name}</name>\n<difficult>0</difficult>\n<bndbox>\n{box}\n</bndbox>\n"
        "</object>"
    )


def write_voc(root: Path, written: Written, draw: random.Random) -> tuple[str, int | None]:
    """The tree with one mutation: its image, and the number of the object (None: the file)."""
    image = draw.choice(list(written))
    target = draw.randrange(len(written[image])) if draw.random() < 0.7 else None
    mutate = draw.choice(IN_FILE if target is None else IN_OBJECT)
    write_images(root / "JPEGImages", written)
    (root / "Annotations").mkdir()
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").write_text("\n".join(written) + "\n")
    for name, objects in written.items():
        texts = [voc_object(one) for one in objects]
        if name == image and target is not None:
            texts[target] = mutate(texts[target], draw)
        text: Any = (
            f"<annotation>\n<filename>{name}.png</filename>\n<size>\n<width>{WIDTH}</width>\n"
            f"<height>{HEIGHT}</height>\n</size>{''.join(texts)}\n</annotation>\n"
        )
        if name == image and target is None:
            text = mutate(text, draw)
        data = text if isinstance(text, bytes) else text.encode()
        (root / f"Annotations/{name}.xml").write_bytes(data)
    return image, target


# ------------------------------------------------------------------------------------------ MS-COCO


def set_key(key: str, value: Any) -> Callable[[dict, random.Random], None]:
    return lambda entry, draw: entry.update({key: value})


def lose_key(key: str) -> Callable[[dict, random.Random], None]:
    return lambda entry, draw: entry.pop(key)


def change_box(change: Callable[[list], Any]) -> Callable[[dict, random.Random], None]:
    return lambda entry, draw: entry.update(bbox=change(entry["bbox"]))


ODD = (None, "", "1", "abc", True, 1.5, -1, 0, 99, [], {}, [1], float("nan"))
IN_ANNOTATION = [
    *(set_key(key, v) for key in ("image_id", "category_id", "iscrowd", "ignore") for v in ODD),
    *(set_key(key, value) for key in ("id", "bbox", "area", "segmentation") for value in ODD),
    *(lose_key(key) for key in ("image_id", "category_id", "bbox", "iscrowd", "id", "area")),
    *(change_box(lambda box, n=n: box[:n]) for n in (1, 2, 3)),
    change_box(lambda box: [*box, 1]),
    change_box(lambda box: [str(value) for value in box]),
    change_box(lambda box: [-value for value in box]),
    change_box(lambda box: [value * 1000 for value in box]),
    change_box(lambda box: [box[0], box[1], 0, 0]),
    change_box(lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]),
    change_box(lambda box: [float("inf"), *box[1:]]),
    change_box(lambda box: dict(zip("xywh", box, strict=True))),
]
IN_IMAGE = [
    *(set_key(key, value) for key in ("id", "file_name", "width", "height") for value in ODD),
    *(lose_key(key) for key in ("id", "file_name", "width", "height")),
    set_key("file_name", "images/image0.png"),
    set_key("file_name", "../image0.png"),
    set_key("id", 2),
    set_key("width", 600),
]
IN_CATEGORY = [
    *(set_key(key, value) for key in ("id", "name", "supercategory") for value in ODD),
    *(lose_key(key) for key in ("id", "name")),
    *(set_key("name", value) for value in ("cat ", "Cat", "dog", "zebra")),
    set_key("id", 2),
]


def coco_content(written: Written) -> dict[str, list[dict]]:
    content: dict[str, list[dict]] = {"images": [], "annotations": [], "categories": []}
    for number, name in enumerate(CLASSES, 1):
        content["categories"].append({"id": number, "name": name, "supercategory": "thing"})
    for number, (image, objects) in enumerate(written.items(), 1):
        size = {"width": WIDTH, "height": HEIGHT}
        content["images"].append({"id": number, "file_name": f"{image}.png", **size})
        for name, left, top, right, bottom in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": CLASSES.index(name) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    return content


def write_coco(root: Path, written: Written, draw: random.Random) -> tuple[str, int | None]:
    """As write_voc; what is not about one annotation counts as about all."""
    content = coco_content(written)
    write_images(root / "train", written)
    (root / "annotations").mkdir()
    kind = draw.choices(["annotation", "image", "category", "list", "text"], [6, 2, 2, 1, 1])[0]
    image, target = "", None
    if kind == "annotation":
        entry = draw.choice(content["annotations"])
        image = list(written)[entry["image_id"] - 1]
        numbers = [e["id"] for e in content["annotations"] if e["image_id"] == entry["image_id"]]
        target = numbers.index(entry["id"])
        draw.choice(IN_ANNOTATION)(entry, draw)
    elif kind == "image":
        draw.choice(IN_IMAGE)(draw.choice(content["images"]), draw)
    elif kind == "category":
        draw.choice(IN_CATEGORY)(draw.choice(content["categories"]), draw)
    elif kind == "list":
        entries = content[draw.choice(["images", "categories", "annotations"])]
        entries.insert(0, copy.deepcopy(draw.choice([*entries, None, [], "x", 3])))
    text = json.dumps(content)
    text = cut(text, draw) if kind == "text" else text
    (root / "annotations/instances_train.json").write_text(text)
    return image, target


# ----------------------------------------------------------------------------------------- the law


def check(records: Records, written: Written, image: str, target: int | None) -> None:
    """Every object is read or named, and what was not mutated is as it was written.

    Args:
        records: what was read.
        written: what was written.
        image: where the mutation is; "" where it is about all.
        target: the object that it changed; None for all of the image.
    """
    by_image = {record.path.stem: record for record in records.images}
    issues = "\n".join(map(str, records.issues))
    left_out = [name for name in written if name not in by_image]
    assert all(re.search(rf"\b{name}\b", issues) for name in left_out) or image == "", issues
    assert issues or not left_out
    dropped = sum(issue.kind in DROPPED for issue in records.issues)
    # a broken annotation of Pascal VOC leaves its image out, which names all objects of it
    dropped -= sum(issue.kind == DROPPED[-1] and ".xml" in issue.where for issue in records.issues)
    named = dropped + sum(len(written[name]) for name in left_out)
    total = sum(map(len, written.values()))
    assert records.num_objects + named >= total, issues
    if image != "":
        assert records.num_objects + named == total, issues
        for name, record in by_image.items():
            names = [records.classes[label] for label in record.labels]
            found = {(n, *box) for n, box in zip(names, record.boxes.tolist(), strict=True)}
            changed = name == image
            keeps = [o for n, o in enumerate(written[name]) if not changed or n != target]
            assert (changed and target is None) or set(keeps) <= found, (name, issues)


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_no_object_is_lost_without_a_word(layout, tmp_path, full):
    write = {"voc": write_voc, "coco": write_coco}[layout]
    refused, failures = 0, []
    for case, draw in enumerate(draws(layout, CASES, full)):
        root = tmp_path / str(case)
        written = draw_objects(draw)
        image, target = write(root, written, draw)
        try:
            if layout == "voc":
                records = read_voc(root, "train", CLASSES, LENIENT, cached=False)
            else:
                records = read_coco(root, "train", CLASSES, LENIENT)
            check(records, written, image, target)
        except UsageError:
            refused += 1
        except Exception as error:
            failures.append(f"{root}: {error!r:.400}")
    assert not failures, "\n".join([f"{len(failures)} of {case + 1}", *failures[:60]])
    assert refused < case
    assert refused or layout == "voc"  # of which all that is wrong can be left out
