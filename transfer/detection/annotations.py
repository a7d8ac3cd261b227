"""Annotation files of Pascal VOC: read in parallel, and not read twice while they are the same.

The cache's key is a hash of the content of all files, so an edited one is read again.
"""

import contextlib
import json
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from hashlib import blake2b
from itertools import starmap
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from PIL import Image

from pretrain.run import write_text
from transfer.cache import cache_folder

_VERSION = 2  # of the cache's files
_PARALLEL = 400  # images a process should at least look up; files alone are read faster than sent


class ObjectAnnotation(NamedTuple):
    """An object as it is written: 1-based, inclusive corners."""

    name: str
    difficult: bool
    xmin: float
    ymin: float
    xmax: float
    ymax: float

    def __str__(self) -> str:
        return f"{self.name} {self.xmin:g}, {self.ymin:g}, {self.xmax:g}, {self.ymax:g}"


class Annotation(NamedTuple):
    """The content of one file, and the size of its image."""

    size: tuple[int, int]
    """Width and height as written; 0 where nothing is."""
    objects: tuple[ObjectAnnotation, ...] = ()
    error: str | None = None
    """Why it cannot be read, after a line number and a colon."""
    image_size: tuple[int, int] | None = None
    """Width and height of the image itself; None where it was not looked at or cannot be read."""


def read_annotations(
    files: Sequence[str], images: Sequence[Path | None], cached: bool = True
) -> list[Annotation | None]:
    """Every annotation, in order; None for a missing file.

    Args:
        files: the XML files.
        images: the image of each, to look up its size; None to leave it.
        cached: use the cache, and write to it.
    """
    cache = _cache_file(files, images) if cached else None
    if cache is not None and (annotations := _from_cache(cache)) is not None:
        return annotations
    processes = min(os.cpu_count() or 1, sum(map(bool, images)) // _PARALLEL)
    if processes > 1:
        fork = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(processes, mp_context=fork) as pool:
            chunk = -(-len(files) // (4 * processes))
            annotations = list(pool.map(_read_one, files, images, chunksize=chunk))
    else:
        annotations = list(map(_read_one, files, images))
    if cache is not None:
        with contextlib.suppress(OSError):  # without a writable home it is read again next time
            write_text(cache, json.dumps(annotations))
    return annotations


def _read_one(file: str, image: Path | None) -> Annotation | None:
    try:
        with open(file, "rb") as handle:
            annotation = parse_annotation(handle.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return annotation if image is None else annotation._replace(image_size=image_size(image))


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height from an image's header; None where it has none."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, Image.DecompressionBombError, ValueError):
        return None


def parse_annotation(data: bytes) -> Annotation:
    """The content of one file. What cannot be read becomes `error`, not an exception."""
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        text = f"{error.position[0]}: it is no XML ({str(error).split(':')[0]})"
        return Annotation((0, 0), error=text)
    objects = []
    for number, element in enumerate(root.findall("object")):
        try:
            objects.append(_parse_object(element))
        except ValueError as error:
            return Annotation((0, 0), error=f"{object_lines(data)[number]}: {error}")
    size = _parse_side(root.findtext("size/width")), _parse_side(root.findtext("size/height"))
    return Annotation(size, tuple(objects))


def _parse_side(text: str | None) -> int:
    """A side as written; 0 for what is no size (some programs write none, or 0)."""
    try:
        return max(0, int(float(text or 0)))
    except (ValueError, OverflowError):
        return 0


def _parse_object(element: ElementTree.Element) -> ObjectAnnotation:
    name = (element.findtext("name") or "").strip()
    box = element.find("bndbox")
    if not name:
        raise ValueError("an object has no name")
    if box is None:
        raise ValueError(f"a {name} has no bndbox")
    corners = []
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        text = box.findtext(tag)
        if text is None:
            raise ValueError(f"the box of a {name} has no {tag}")
        try:
            corners.append(float(text))
        except ValueError:
            raise ValueError(f"{tag} of a {name} is {text!r}, no number") from None
        if not math.isfinite(corners[-1]):
            raise ValueError(f"{tag} of a {name} is {text!r}")
    difficult = (element.findtext("difficult") or "").strip() not in ("", "0")
    return ObjectAnnotation(name, difficult, *corners)


def object_lines(data: bytes) -> list[int]:
    """The line where each object begins. Slow, so asked only where something is wrong."""
    lines: list[int] = []
    parents: list[str] = []
    parser = expat.ParserCreate()

    def start(tag: str, _: dict[str, str]) -> None:
        if tag == "object" and len(parents) == 1:
            lines.append(parser.CurrentLineNumber)
        parents.append(tag)

    parser.StartElementHandler, parser.EndElementHandler = start, lambda _: parents.pop()
    parser.Parse(data, True)
    return lines


def _cache_file(files: Sequence[str], images: Sequence[Path | None]) -> Path | None:
    """Named by a hash of every file's content and every image's name, size and time.

    None where a file is missing: that is not kept.
    """
    digest = blake2b(f"{_VERSION}".encode(), digest_size=16)
    try:
        for file, image in zip(files, images, strict=True):
            with open(file, "rb") as handle:
                data = handle.read()
            digest.update(b"%d:" % len(data) + data)
            if image is not None:
                status = os.stat(image)
                digest.update(f"{image.name}:{status.st_size}:{status.st_mtime_ns}".encode())
    except OSError:
        return None
    return cache_folder() / "records" / f"{digest.hexdigest()}.json"


def _from_cache(path: Path) -> list[Annotation | None] | None:
    """What was kept; None where there is nothing, or a damaged file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [
            Annotation(
                tuple(size), tuple(starmap(ObjectAnnotation, objects)), error, own and tuple(own)
            )
            for size, objects, error, own in rows
        ]
    except (OSError, ValueError, TypeError):
        return None
