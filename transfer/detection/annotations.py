"""Annotation files of Pascal VOC: read in parallel, and not read twice while they are the same.

What is kept in the cache is found by the bytes of all files, so an edited one is read again.
"""

import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from PIL import Image, UnidentifiedImageError

from pretrain.run import write_text
from transfer.download import cache_folder

_VERSION = 1  # of what is kept
_PARALLEL = 400  # images a process should at least look up; files alone are read faster than sent


@dataclass(frozen=True)
class ObjectAnnotation:
    """An object as it is written: 1-based, inclusive corners."""

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    difficult: bool
    truncated: bool

    def __str__(self) -> str:
        return f"{self.name} {self.xmin:g}, {self.ymin:g}, {self.xmax:g}, {self.ymax:g}"


@dataclass(frozen=True)
class Annotation:
    """What one file says, and the size of its image."""

    width: int
    height: int
    """As written; 0 where nothing is."""
    things: tuple[ObjectAnnotation, ...]
    trouble: str | None = None
    """Why it could not be read, a line number and a colon in front where there is one."""
    image: tuple[int, int] | None = None
    """Width and height of the image itself; None where it was not looked at or cannot be read."""


def read_all(
    files: Sequence[str], images: Sequence[Path | None], cached: bool = True
) -> list[Annotation | None]:
    """Every annotation, in order; None for a file that is not there.

    Args:
        files: the XML files.
        images: the image of each, to look up its size; None to leave it.
        cached: keep what was read, and use what was kept.
    """
    key, missing = _key(files, images) if cached else ("", True)
    kept = cache_folder() / "records" / f"{key}.json"
    if cached and (found := _from_cache(kept, len(files))) is not None:
        return found
    pictures = [None if path is None else str(path) for path in images]
    jobs = list(zip(files, pictures, strict=True))
    looked_up = sum(picture is not None for picture in pictures)
    processes = min(os.cpu_count() or 1, looked_up // _PARALLEL)
    if processes > 1:
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            read = list(pool.map(_read_one, jobs, chunksize=-(-len(jobs) // (4 * processes))))
    else:
        read = [_read_one(job) for job in jobs]
    if cached and not missing:
        _to_cache(kept, read)
    return read


def _read_one(job: tuple[str, str | None]) -> Annotation | None:
    file, image = job
    try:
        with open(file, "rb") as handle:
            data = handle.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = parse(data)
    return found if image is None else replace(found, image=size_of(image))


def size_of(path: str | Path) -> tuple[int, int] | None:
    """Width and height from an image's head; None where it has none."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
        return None


def parse(data: bytes) -> Annotation:
    """One file's content. What cannot be read becomes `trouble`, not an exception."""
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        line = error.position[0]
        return Annotation(0, 0, (), f"{line}: it is no XML ({str(error).split(':')[0]})")
    things = []
    for number, element in enumerate(root.findall("object")):
        try:
            things.append(_thing(element))
        except ValueError as error:
            return Annotation(0, 0, (), f"{_line_of_object(data, number)}: {error}")
    width, height = (_whole(root.findtext(f"size/{side}")) for side in ("width", "height"))
    return Annotation(width, height, tuple(things))


def _whole(text: str | None) -> int:
    """A side as written; 0 for what is no size (some programs write none, or 0)."""
    try:
        return max(0, int(float(text or 0)))
    except (ValueError, OverflowError):
        return 0


def _thing(element: ElementTree.Element) -> ObjectAnnotation:
    inner = {child.tag: child for child in element}
    name = (inner["name"].text or "").strip() if "name" in inner else ""
    if not name:
        raise ValueError("an object has no name")
    if "bndbox" not in inner:
        raise ValueError(f"a {name} has no bndbox")
    written = {child.tag: child.text for child in inner["bndbox"]}
    corners = []
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        if tag not in written:
            raise ValueError(f"the box of a {name} has no {tag}")
        try:
            value = float(written[tag] or "")
        except ValueError:
            raise ValueError(f"{tag} of a {name} is {written[tag]!r}, no number") from None
        if not np.isfinite(value):
            raise ValueError(f"{tag} of a {name} is {written[tag]!r}")
        corners.append(value)
    left, top, right, bottom = corners
    difficult, truncated = (_flag(inner.get(tag)) for tag in ("difficult", "truncated"))
    return ObjectAnnotation(name, left, top, right, bottom, difficult, truncated)


def _flag(element: ElementTree.Element | None) -> bool:
    text = "" if element is None else (element.text or "").strip()
    return text not in ("", "0")


def _line_of_object(data: bytes, number: int) -> int:
    """The line where the file's object `number` (from 0) begins."""
    return [*lines_of_objects(data), 1][number]


def lines_of_objects(data: bytes) -> list[int]:
    """Where each object begins. Slower than reading it, so asked only where something is wrong."""
    lines: list[int] = []
    depth = 0
    parser = expat.ParserCreate()

    def start(tag: str, _: dict[str, str]) -> None:
        nonlocal depth
        if tag == "object" and depth == 1:
            lines.append(parser.CurrentLineNumber)
        depth += 1

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(data, True)
    return lines


# ---- the cache


def _key(files: Sequence[str], images: Sequence[Path | None]) -> tuple[str, bool]:
    """A digest of every file's bytes and every image's name, size and time; whether one lacks."""
    digest = blake2b(f"{_VERSION}".encode(), digest_size=16)
    missing = False
    for file, image in zip(files, images, strict=True):
        try:
            with open(file, "rb") as handle:
                data = handle.read()
            digest.update(b"%d:" % len(data) + data)
            if image is not None:
                facts = os.stat(image)
                digest.update(f"{image.name}:{facts.st_size}:{facts.st_mtime_ns}".encode())
        except OSError:
            missing = True
            digest.update(b"-")
    return digest.hexdigest(), missing


def _to_cache(path: Path, read: Sequence[Annotation | None]) -> None:
    names = sorted({thing.name for one in read if one for thing in one.things})
    number = {name: place for place, name in enumerate(names)}
    rows = [
        [
            one.width,
            one.height,
            one.trouble,
            one.image,
            [[number[t.name], *list(asdict(t).values())[1:]] for t in one.things],
        ]
        for one in read
        if one is not None
    ]
    try:
        write_text(path, json.dumps({"version": _VERSION, "names": names, "rows": rows}))
    except OSError:
        return  # a home that cannot be written to costs time, nothing else


def _from_cache(path: Path, count: int) -> list[Annotation | None] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = content["names"]
        found: list[Annotation | None] = [
            Annotation(
                width,
                height,
                tuple(ObjectAnnotation(names[number], *rest) for number, *rest in things),
                trouble,
                None if image is None else tuple(image),
            )
            for width, height, trouble, image, things in content["rows"]
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return found if len(found) == count else None
