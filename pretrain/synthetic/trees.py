"""Synthetic shapes on disk: an image folder, a Pascal VOC tree, an MS-COCO captions tree.

A tree is drawn beside its final name and renamed, so it is complete or absent; a tree that exists
is used as it is. The name says what it holds.
"""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from pretrain.files import draft_folder, publish, write_text
from pretrain.progress import bar
from pretrain.synthetic.scene import SHAPES, draw_scene, make_scene
from pretrain.synthetic.sentences import describe_scene

_VERSION = 1  # part of every name: another drawing is another data set
_NAMES = sorted(SHAPES)
_SMALLEST, _LARGEST = 0.18, 0.42  # radius of what is to be classified

_Samples = Iterator[tuple[str, int, np.random.Generator]]
"""The images to draw: split, number, source of chance."""


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
    """An image folder TREE/{train,val}/SHAPE/*.jpg, one object an image, as many of each shape.

    An object's radius lies between `smallest` and `largest`, shares of the side.
    """

    def fill(tree: Path, samples: _Samples) -> None:
        for split, number, rng in samples:
            shape = _NAMES[number % len(_NAMES)]
            scene = make_scene(rng, shapes=[shape], smallest=smallest, largest=largest)
            _save(draw_scene(scene, size)[0], tree / split / shape / f"{number:06d}.jpg")

    usual = (smallest, largest) == (_SMALLEST, _LARGEST)
    sizes = "" if usual else f"-radius{smallest}to{largest}"
    name = f"classification{_VERSION}-{size}px-{train}+{val}{sizes}-seed{seed}"
    return _draw_tree(root / name, {"train": train, "val": val}, [seed, 0], fill)


def detection(root: Path, *, train: int, val: int, size: int, seed: int = 0) -> Path:
    """A Pascal VOC tree with one to five objects an image; tiny ones are marked difficult."""
    splits = {"train": train, "val": val}

    def fill(tree: Path, samples: _Samples) -> None:
        (tree / "Annotations").mkdir()
        for split, count in splits.items():
            ids = "".join(f"{split}_{number:06d}\n" for number in range(count))
            write_text(tree / f"ImageSets/Main/{split}.txt", ids)
        for split, number, rng in samples:
            shapes = rng.choice(_NAMES, int(rng.integers(1, 6))).tolist()
            scene = make_scene(rng, shapes=shapes, smallest=0.06, largest=0.26)
            image, boxes = draw_scene(scene, size)
            image_id = f"{split}_{number:06d}"
            _save(image, tree / "JPEGImages" / f"{image_id}.jpg")
            annotation = _voc_annotation(image_id, size, [o.shape for o in scene.objects], boxes)
            annotation.write(tree / "Annotations" / f"{image_id}.xml", encoding="utf-8")

    name = f"voc{_VERSION}-{size}px-{train}+{val}-seed{seed}"
    return _draw_tree(root / name, splits, [seed, 1], fill)


def captions(root: Path, *, train: int, val: int, size: int, seed: int = 0) -> Path:
    """An MS-COCO captions tree, one or two objects and five sentences an image."""
    splits = {"train": train, "val": val}
    name = f"coco{_VERSION}-{size}px-{train}+{val}-seed{seed}"

    def fill(tree: Path, samples: _Samples) -> None:
        images: dict[str, list[Any]] = {split: [] for split in splits}
        annotations: dict[str, list[Any]] = {split: [] for split in splits}
        for split, number, rng in samples:
            shapes = rng.choice(_NAMES, int(rng.integers(1, 3)), replace=False).tolist()
            scene = make_scene(rng, shapes=shapes, smallest=0.11, largest=0.32)
            image_id = number + 1 + 1_000_000 * (split == "val")
            file_name = f"{image_id:012d}.jpg"
            _save(draw_scene(scene, size)[0], tree / f"{split}2017" / file_name)
            image = {"id": image_id, "file_name": file_name, "width": size, "height": size}
            images[split].append(image)
            annotations[split] += [
                {"id": 10 * image_id + index, "image_id": image_id, "caption": sentence}
                for index, sentence in enumerate(describe_scene(scene, rng))
            ]
        for split in splits:
            path = tree / "annotations" / f"captions_{split}2017.json"
            content = {"info": {"description": name}, "licenses": [], "images": images[split]}
            write_text(path, json.dumps({**content, "annotations": annotations[split]}))

    return _draw_tree(root / name, splits, [seed, 2], fill)


def _draw_tree(
    path: Path, splits: dict[str, int], seed: list[int], fill: Callable[[Path, _Samples], None]
) -> Path:
    """`path`, filled unless it exists.

    Args:
        path: the tree.
        splits: name -> number of images.
        seed: of the data set and of its kind.
        fill: writes the samples into a folder.
    """
    if path.exists():
        return path

    def samples(advance: Callable[[int], None]) -> _Samples:
        for index, (split, count) in enumerate(splits.items()):
            for number in range(count):
                sequence = np.random.SeedSequence([*seed, index, number])
                yield split, number, np.random.default_rng(sequence)
                advance(1)

    total = sum(splits.values())
    with draft_folder(path) as tree, bar(f"drawing {path.name}", total, "images") as advance:
        fill(tree, samples(advance))
        try:
            publish(tree, path)
        except OSError:
            if not path.exists():  # otherwise another process was faster, with the same tree
                raise
    return path


def _save(image: np.ndarray, path: Path) -> None:
    content = io.BytesIO()  # Pillow takes a short write into a file on a full disk for a whole one
    Image.fromarray(image).save(content, "jpeg", quality=92)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())


def _voc_annotation(
    image_id: str, size: int, names: list[str], boxes: np.ndarray
) -> ElementTree.ElementTree:
    """VOC's XML: boxes are 1-based and inclusive, so only left and top move by one."""
    objects = []
    for name, (left, top, right, bottom) in zip(names, boxes.tolist(), strict=True):
        difficult = int(min(right - left, bottom - top) < size / 9)
        box = _element("bndbox", xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
        facts = {"name": name, "pose": "Unspecified", "truncated": 0, "difficult": difficult}
        objects.append(_element("object", box, **facts))
    shape = _element("size", width=size, height=size, depth=3)
    file_name = f"{image_id}.jpg"
    root = _element("annotation", shape, *objects, folder="JPEGImages", filename=file_name)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _element(tag: str, *children: ElementTree.Element, **texts: object) -> ElementTree.Element:
    element = ElementTree.Element(tag)
    for name, text in texts.items():
        ElementTree.SubElement(element, name).text = str(text)
    element.extend(children)
    return element
