"""Synthetic shapes on disk: image folders, with masks or without, Pascal VOC and MS-COCO trees.

A tree is drawn beside its final name and renamed, so it is complete or absent; a tree that exists
is used as it is. The name says what it holds.
"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from pretrain.errors import check_ranges
from pretrain.files import draft_folder, publish, write_text
from pretrain.palette import colour_map
from pretrain.progress import bar
from pretrain.synthetic.scene import SHAPES, Scene, draw_scene, make_scene
from pretrain.synthetic.sentences import describe_scene

_VERSION = 1  # part of every name: another drawing is another data set
_NAMES = sorted(SHAPES)

Samples = Iterator[tuple[str, int, np.random.Generator]]
"""The images to draw: split, number, source of chance."""


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How hard the images of a tree are, of every split alike.

    The hidden side of an object differs from image to image, so that no single part of it will do.
    The background shows there: where all of each object is hidden, nothing of the answer is left in
    the image, and a score is what chance gives.
    """

    smallest: float
    """Least radius of an object, share of the image side; at least a pixel."""
    largest: float
    """Greatest radius."""
    noise: float = 6.0
    """Standard deviation of the grey noise, in steps of 0 to 255."""
    occlusion: float = 0.0
    """Share of its pixels that each object lacks, on one random side; 1: nothing of it is left."""
    truncation: float = 0.0
    """Share of its radius by which an object may reach out of the image."""


def classification(
    root: Path, *, train: int, val: int, size: int, seed: int = 0, **knobs: float
) -> Path:
    """An image folder TREE/{train,val}/SHAPE/*.jpg, one object an image, as many of each shape.

    Args:
        root: the tree's parent.
        train: number of images.
        val: number of images.
        size: side of an image in pixels.
        seed: another one is other images.
        knobs: fields of `Difficulty`; the radius is 0.18 to 0.42.

    Raises:
        UsageError: a knob is out of its range.
    """
    usual = Difficulty(smallest=0.18, largest=0.42)
    difficulty, suffix = _with_knobs(usual, knobs, size)

    def fill(tree: Path, samples: Samples) -> None:
        for split, number, rng in samples:
            shape = _NAMES[number % len(_NAMES)]
            _, image, *_ = _draw(rng, [shape], size, difficulty)
            _save(image, tree / split / shape / f"{number:06d}.jpg")

    name = f"classification{_VERSION}-{size}px-{train}+{val}{suffix}-seed{seed}"
    return draw_tree(root / name, {"train": train, "val": val}, [seed, 0], fill)


def detection(
    root: Path,
    *,
    train: int,
    val: int,
    size: int,
    seed: int = 0,
    most_objects: int = 5,
    **knobs: float,
) -> Path:
    """A Pascal VOC tree with one object an image, or up to five; tiny ones are marked difficult.

    A box is that of the visible part of an object, as VOC's; of all of it where none is visible.

    Args:
        root: the tree's parent.
        train: number of images.
        val: number of images.
        size: side of an image in pixels.
        seed: another one is other images.
        most_objects: of an image; 1 for localisation by a classifier.
        knobs: fields of `Difficulty`; the radius is 0.06 to 0.26.

    Raises:
        UsageError: a knob is out of its range.
    """
    usual = Difficulty(smallest=0.06, largest=0.26)
    difficulty, suffix = _with_knobs(usual, knobs, size)
    suffix += "" if most_objects == 5 else f"-objects{most_objects}"
    splits = {"train": train, "val": val}

    def fill(tree: Path, samples: Samples) -> None:
        (tree / "Annotations").mkdir()
        for split, count in splits.items():
            ids = "".join(f"{split}_{number:06d}\n" for number in range(count))
            write_text(tree / f"ImageSets/Main/{split}.txt", ids)
        for split, number, rng in samples:
            shapes = rng.choice(_NAMES, int(rng.integers(1, most_objects + 1))).tolist()
            scene, image, boxes, _ = _draw(rng, shapes, size, difficulty)
            image_id = f"{split}_{number:06d}"
            _save(image, tree / "JPEGImages" / f"{image_id}.jpg")
            annotation = _voc_annotation(image_id, size, scene, boxes, difficulty.occlusion)
            annotation.write(tree / "Annotations" / f"{image_id}.xml", encoding="utf-8")

    name = f"voc{_VERSION}-{size}px-{train}+{val}{suffix}-seed{seed}"
    return draw_tree(root / name, splits, [seed, 1], fill)


def captions(root: Path, *, train: int, val: int, size: int, seed: int = 0, **knobs: float) -> Path:
    """An MS-COCO captions tree, one or two objects and five sentences an image.

    Args:
        root: the tree's parent.
        train: number of images.
        val: number of images.
        size: side of an image in pixels.
        seed: another one is other images.
        knobs: fields of `Difficulty`; the radius is 0.11 to 0.32.

    Raises:
        UsageError: a knob is out of its range.
    """
    usual = Difficulty(smallest=0.11, largest=0.32)
    difficulty, suffix = _with_knobs(usual, knobs, size)
    splits = {"train": train, "val": val}
    name = f"coco{_VERSION}-{size}px-{train}+{val}{suffix}-seed{seed}"

    def fill(tree: Path, samples: Samples) -> None:
        images: dict[str, list[Any]] = {split: [] for split in splits}
        annotations: dict[str, list[Any]] = {split: [] for split in splits}
        for split, number, rng in samples:
            shapes = rng.choice(_NAMES, int(rng.integers(1, 3)), replace=False).tolist()
            scene, picture, *_ = _draw(rng, shapes, size, difficulty)
            image_id = number + 1 + 1_000_000 * (split == "val")
            file_name = f"{image_id:012d}.jpg"
            _save(picture, tree / f"{split}2017" / file_name)
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

    return draw_tree(root / name, splits, [seed, 2], fill)


def segmentation(
    root: Path, *, train: int, val: int, size: int, seed: int = 0, **knobs: float
) -> Path:
    """Images and masks, TREE/{images,masks}/{train,val}, one to four objects an image.

    A mask is a PNG with Pascal VOC's colours; 0 is the background, and the class of a pixel that
    of the object whose visible part covers more than half of it. classes.txt names the classes.

    Args:
        root: the tree's parent.
        train: number of images.
        val: number of images.
        size: side of an image in pixels.
        seed: another one is other images.
        knobs: fields of `Difficulty`; the radius is 0.14 to 0.32.

    Raises:
        UsageError: a knob is out of its range.
    """
    usual = Difficulty(smallest=0.14, largest=0.32)
    difficulty, suffix = _with_knobs(usual, knobs, size)

    def fill(tree: Path, samples: Samples) -> None:
        write_text(tree / "classes.txt", "".join(f"{name}\n" for name in ("background", *_NAMES)))
        for split, number, rng in samples:
            shapes = rng.choice(_NAMES, int(rng.integers(1, 5))).tolist()
            scene, image, _, owners = _draw(rng, shapes, size, difficulty)
            classes = [0, *(1 + _NAMES.index(item.shape) for item in scene.objects)]
            _save(image, tree / f"images/{split}/{number:06d}.jpg")
            _save_mask(np.array(classes)[owners + 1], tree / f"masks/{split}/{number:06d}.png")

    name = f"masks{_VERSION}-{size}px-{train}+{val}{suffix}-seed{seed}"
    return draw_tree(root / name, {"train": train, "val": val}, [seed, 3], fill)


def _with_knobs(usual: Difficulty, knobs: dict[str, float], size: int) -> tuple[Difficulty, str]:
    """The difficulty with these fields changed, and what the tree's name says of the change."""
    difficulty = replace(usual, **knobs)
    check_ranges("", difficulty, noise="[0, 255]", occlusion="[0, 1]", truncation="[0, 1]")
    check_ranges("", difficulty, smallest=f"[{1 / size:.3g}, 0.43]")
    check_ranges("", difficulty, largest=f"[{difficulty.smallest:g}, 0.43]")
    before, now = _in_words(usual), _in_words(difficulty)
    return difficulty, "".join(f"-{name}{now[name]}" for name in now if now[name] != before[name])


def _in_words(difficulty: Difficulty) -> dict[str, str]:
    values = {name: f"{value:.15g}" for name, value in vars(difficulty).items()}
    return {"radius": f"{values.pop('smallest')}to{values.pop('largest')}", **values}


def _draw(
    rng: np.random.Generator, shapes: list[str], size: int, difficulty: Difficulty
) -> tuple[Scene, np.ndarray, np.ndarray, np.ndarray]:
    """A scene of these shapes, and what `draw_scene` draws of it."""
    scene = make_scene(
        rng,
        shapes=shapes,
        smallest=difficulty.smallest,
        largest=difficulty.largest,
        truncation=difficulty.truncation,
    )
    drawn = draw_scene(scene, size, noise=difficulty.noise, occlusion=difficulty.occlusion)
    return scene, *drawn


def draw_tree(
    path: Path, splits: dict[str, int], seed: list[int], fill: Callable[[Path, Samples], None]
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

    def samples(advance: Callable[[int], None]) -> Samples:
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
    _write(Image.fromarray(image), path, format="jpeg", quality=92)


def _save_mask(mask: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette(colour_map().tobytes())
    _write(picture, path, format="png")


def _write(picture: Image.Image, path: Path, **options: Any) -> None:
    content = io.BytesIO()  # Pillow takes a short write into a file on a full disk for a whole one
    picture.save(content, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())


def _voc_annotation(
    image_id: str, size: int, scene: Scene, boxes: np.ndarray, occlusion: float
) -> ElementTree.ElementTree:
    """VOC's XML: boxes are 1-based and inclusive, so only left and top move by one."""
    objects = []
    for item, (left, top, right, bottom) in zip(scene.objects, boxes.tolist(), strict=True):
        difficult = int(min(right - left, bottom - top) < size / 9)
        # VOC's word for a box that misses more than 15 % of an object; a disc's, at an edge so near
        near = min(*item.centre, *(1 - at for at in item.centre)) < 0.58 * item.radius
        truncated = int(occlusion > 0.15 or near)
        box = _element("bndbox", xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
        pose = {"name": item.shape, "pose": "Unspecified"}
        facts = {**pose, "truncated": truncated, "difficult": difficult}
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
