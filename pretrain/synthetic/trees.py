"""The shape world on disk: an image folder, a Pascal VOC tree, an MS-COCO captions tree.

A tree is drawn beside its final name and renamed, so it is whole or absent; a tree that is there
is used as it is. The name says what it holds.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from pretrain.progress import bar
from pretrain.synthetic.scene import SHAPES, draw, make_scene
from pretrain.synthetic.sentences import sentences

_VERSION = 1  # part of every name: another drawing is another data set
_NAMES = sorted(SHAPES)
_SMALLEST, _LARGEST = 0.18, 0.42  # radius of what is to be classified


@dataclass(frozen=True)
class _Split:
    name: str
    count: int
    number: int  # its place in the seeds


_Numbers = Iterator[tuple[_Split, int]]
"""The images to draw."""


def classification(
    root: Path,
    *,
    train: int,
    val: int,
    size: int,
    seed: int = 0,
    smallest: float = _SMALLEST,
    largest: float = _LARGEST,
) -> Path:
    """An image folder TREE/{train,val}/SHAPE/*.jpg, one thing an image, as many of each shape.

    A thing's radius lies between `smallest` and `largest`, shares of the side.
    """
    splits = (_Split("train", train, 0), _Split("val", val, 1))

    def fill(tree: Path, numbers: _Numbers) -> None:
        for split, number in numbers:
            shape = _NAMES[number % len(_NAMES)]
            rng = _rng(seed, split, number, task=0)
            scene = make_scene(rng, shapes=[shape], smallest=smallest, largest=largest)
            folder = tree / split.name / shape
            folder.mkdir(parents=True, exist_ok=True)
            _save(draw(scene, size)[0], folder / f"{number:06d}.jpg")

    usual = (smallest, largest) == (_SMALLEST, _LARGEST)
    sizes = "" if usual else f"-radius{smallest}to{largest}"
    name = f"classification{_VERSION}-{size}px-{train}+{val}{sizes}-seed{seed}"
    return _drawn(root / name, splits, fill)


def detection(root: Path, *, train: int, val: int, size: int, seed: int = 0) -> Path:
    """A Pascal VOC tree with one to five things an image; tiny ones are marked difficult."""
    splits = (_Split("train", train, 0), _Split("val", val, 1))

    def fill(tree: Path, numbers: _Numbers) -> None:
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (tree / folder).mkdir(parents=True)
        for split in splits:
            ids = "".join(f"{split.name}_{number:06d}\n" for number in range(split.count))
            (tree / f"ImageSets/Main/{split.name}.txt").write_text(ids, encoding="utf-8")
        for split, number in numbers:
            rng = _rng(seed, split, number, task=1)
            shapes = rng.choice(_NAMES, int(rng.integers(1, 6))).tolist()
            scene = make_scene(rng, shapes=shapes, smallest=0.06, largest=0.26)
            image, boxes = draw(scene, size)
            image_id = f"{split.name}_{number:06d}"
            _save(image, tree / "JPEGImages" / f"{image_id}.jpg")
            found = [(thing.shape, box) for thing, box in zip(scene.things, boxes, strict=True)]
            annotation = _voc_annotation(image_id, size, found)
            annotation.write(tree / "Annotations" / f"{image_id}.xml", encoding="utf-8")

    return _drawn(root / f"voc{_VERSION}-{size}px-{train}+{val}-seed{seed}", splits, fill)


def captions(root: Path, *, train: int, val: int, size: int, seed: int = 0) -> Path:
    """An MS-COCO captions tree, one or two things and five sentences an image."""
    splits = (_Split("train", train, 0), _Split("val", val, 1))
    name = f"coco{_VERSION}-{size}px-{train}+{val}-seed{seed}"

    def fill(tree: Path, numbers: _Numbers) -> None:
        (tree / "annotations").mkdir(parents=True)
        content: dict[str, dict[str, list]] = {
            split.name: {"images": [], "annotations": []} for split in splits
        }
        for split, number in numbers:
            rng = _rng(seed, split, number, task=2)
            shapes = rng.choice(_NAMES, int(rng.integers(1, 3)), replace=False).tolist()
            scene = make_scene(rng, shapes=shapes, smallest=0.11, largest=0.32)
            image_id = number + 1 + 1_000_000 * split.number
            file_name = f"{image_id:012d}.jpg"
            (tree / f"{split.name}2017").mkdir(exist_ok=True)
            _save(draw(scene, size)[0], tree / f"{split.name}2017" / file_name)
            held = content[split.name]
            held["images"].append(
                {"id": image_id, "file_name": file_name, "width": size, "height": size}
            )
            held["annotations"] += [
                {"id": 10 * image_id + place, "image_id": image_id, "caption": sentence}
                for place, sentence in enumerate(sentences(scene, rng))
            ]
        for split in splits:
            info = {"info": {"description": name}, "licenses": []}
            path = tree / "annotations" / f"captions_{split.name}2017.json"
            path.write_text(json.dumps(info | content[split.name]), encoding="utf-8")

    return _drawn(root / name, splits, fill)


def _rng(seed: int, split: _Split, number: int, task: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, task, split.number, number]))


def _drawn(path: Path, splits: tuple[_Split, ...], fill: Callable[[Path, _Numbers], None]) -> Path:
    """`path`, filled unless it stands already."""
    if path.exists():
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with bar(f"drawing {path.name}", sum(s.count for s in splits), "images") as advance:
            fill(temporary, _numbers(splits, advance))
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.exists():  # otherwise another process was faster, with the same tree
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _numbers(splits: tuple[_Split, ...], advance: Callable[[int], None]) -> _Numbers:
    for split in splits:
        for number in range(split.count):
            yield split, number
            advance(1)


def _save(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image).save(path, quality=92)


def _voc_annotation(
    image_id: str, size: int, found: list[tuple[str, np.ndarray]]
) -> ElementTree.ElementTree:
    """VOC's XML: boxes are 1-based and inclusive, so only left and top move by one."""
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, tag: str, text: object) -> None:
        ElementTree.SubElement(parent, tag).text = str(text)

    add(root, "folder", "JPEGImages")
    add(root, "filename", f"{image_id}.jpg")
    extent = ElementTree.SubElement(root, "size")
    for tag, value in (("width", size), ("height", size), ("depth", 3)):
        add(extent, tag, value)
    for name, (left, top, right, bottom) in found:
        thing = ElementTree.SubElement(root, "object")
        add(thing, "name", name)
        add(thing, "pose", "Unspecified")
        add(thing, "truncated", 0)
        add(thing, "difficult", int(min(right - left, bottom - top) < size / 9))
        box = ElementTree.SubElement(thing, "bndbox")
        corners = (("xmin", left + 1), ("ymin", top + 1), ("xmax", right), ("ymax", bottom))
        for tag, value in corners:
            add(box, tag, value)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)
