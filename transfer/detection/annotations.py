"""Annotation files of Pascal VOC, and not read twice while they are the same.

The cache's key is a hash of the content of all files, so an edited one is read again.

What is written is read or named: an object, or a file, in another form (a rotated box, another
root, two boxes of one object) is an error with its line, never an object less.
"""

import math
import re
from collections.abc import Sequence
from hashlib import blake2b
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from pretrain.cache import cache_folder, cached_json
from pretrain.errors import UsageError
from pretrain.reading import read_bytes
from transfer.detection.records import read_flag

_VERSION = 3  # of the cache's files
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# of an annotation and of an object, beside what other programs add
_OF_FILE = frozenset(("folder", "filename", "path", "source", "owner", "size", "segmented"))
_OF_OBJECT = frozenset(("name", "pose", "truncated", "occluded", "difficult", "bndbox"))
_READ_ONCE = ("name", "difficult", "bndbox")
# the sign of an object somewhere else, or in another form
_SIGNS = {"object", "bndbox", "robndbox", "bbox", "box", "polygon", "points", "xmin", "xtl", "pt"}
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["']""")


class ObjectAnnotation(NamedTuple):
    """An object as it is written; whether from 0 or from 1, the file does not say."""

    name: str
    difficult: bool
    xmin: float
    ymin: float
    xmax: float
    ymax: float

    def __str__(self) -> str:
        return f"{self.name} {self.xmin:g}, {self.ymin:g}, {self.xmax:g}, {self.ymax:g}"


class Annotation(NamedTuple):
    """The content of one file."""

    size: tuple[int, int] = (0, 0)
    """Width and height as written; 0, 0 where one of them is not."""
    objects: tuple[ObjectAnnotation, ...] = ()
    error: str | None = None
    """Why it cannot be read, after a line number and a colon."""
    image: str = ""
    """FOLDER/FILENAME of its image, as written; often not that of the file on disk."""


def read_annotations(files: Sequence[str], cached: bool = True) -> list[Annotation | None]:
    """Every annotation, in order; None for a missing file.

    Args:
        files: the XML files.
        cached: use the cache, and write to it.
    """
    contents = list(map(_read_file, files))
    cache = _cache_file(contents) if cached else None
    return cached_json(
        cache, _from_rows, lambda: [d if d is None else parse_annotation(d) for d in contents]
    )


def _read_file(file: str) -> bytes | None:
    try:
        return read_bytes(Path(file))
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise


def parse_annotation(data: bytes) -> Annotation:
    """The content of one file. What cannot be read becomes `error`, not an exception."""
    try:
        root = _parse(data)
    except ElementTree.ParseError as error:
        text = f"{error.position[0]}: it is no XML ({str(error).split(':')[0]})"
        return Annotation(error=text)
    except (ValueError, LookupError) as error:
        return Annotation(error=f"1: its encoding cannot be read ({error})")
    objects, place = [], 0
    try:
        for place, element in enumerate(root):  # noqa: B007 (of the one that cannot be read)
            if element.tag == "object":
                objects.append(_parse_object(element))
            elif element.tag not in _OF_FILE and _holds_object(element):
                text = f"<{element.tag}> is not read; an object is <object> in <annotation>"
                raise ValueError(text)
    except ValueError as error:
        return Annotation(error=_locate(data, place, *error.args))
    if not objects and root.tag.lower() != "annotation":
        return Annotation(error=f"1: it is a file of <{root.tag}>, not of <annotation>")
    fields, nothing = {child.tag: child for child in root}, ElementTree.Element("")
    size = fields.get("size", nothing)
    width, height = _parse_side(size.findtext("width")), _parse_side(size.findtext("height"))
    folder, name = ((fields.get(tag, nothing).text or "").strip() for tag in ("folder", "filename"))
    image = f"{folder}/{name}" if folder and name else name
    return Annotation((width, height) if width and height else (0, 0), tuple(objects), None, image)


def _holds_object(element: ElementTree.Element) -> bool:
    return any(part.tag.lower() in _SIGNS for part in element.iter())


def _parse(data: bytes) -> ElementTree.Element:
    """The root, without namespaces; by Python's codecs where the parser has not the encoding."""
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        if (text := _decode(data)) is None:
            raise
        root = ElementTree.fromstring(text)
    if "}" in root.tag or any("}" in element.tag for element in root):
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
    return root


def _decode(data: bytes) -> str | None:
    """By the encoding that is declared; None where there is none that can be right."""
    declared = _DECLARED.match(data[3:] if data.startswith(b"\xef\xbb\xbf") else data)
    try:
        return data.decode(declared[1].decode()) if declared else None
    except (LookupError, ValueError):
        return None


def _parse_side(text: str | None) -> int:
    """A side as written; 0 for what is no size (some programs write none, or 0)."""
    try:
        return max(0, int(float(text or 0)))
    except (ValueError, OverflowError):
        return 0


def _parse_object(element: ElementTree.Element) -> ObjectAnnotation:
    """An object; ValueError with a text, and a tag whose lines belong to it."""
    tags = [child.tag for child in element]
    for tag in tags:
        if tag in _READ_ONCE and tags.count(tag) > 1:
            raise ValueError(f"an object has {tags.count(tag)} <{tag}>", tag)
        if tag == "object":
            raise ValueError("an object stands in an object", tag)
        if tag not in _OF_OBJECT and tag.lower() in _OF_OBJECT:
            raise ValueError(f"an object has <{tag}>, which must be <{tag.lower()}>", tag)
    name, box = element.findtext("name") or "", element.find("bndbox")
    if not name.strip():
        raise ValueError("an object has no name")
    name = name.strip() if "\n" in name else name
    if box is None:
        others = [f"<{tag}>" for tag in dict.fromkeys(tags) if tag not in _OF_OBJECT]
        hint = f" but {', '.join(others)}; boxes alone are read" if others else ""
        raise ValueError(f"a {name} has no bndbox{hint}")
    corners = [_parse_corner(name, box, tag) for tag in _CORNERS]
    try:
        return ObjectAnnotation(name, read_flag(element.findtext("difficult")), *corners)
    except ValueError as error:
        raise ValueError(f"difficult of a {name}: {error}") from None


def _parse_corner(name: str, box: ElementTree.Element, tag: str) -> float:
    """One of the four numbers of a box; ValueError as that of `_parse_object`."""
    texts = [corner.text or "" for corner in box if corner.tag == tag]
    if not texts:
        others = [corner.tag for corner in box if corner.tag not in _CORNERS]
        hint = f" but {', '.join(others)}" if others else ""
        raise ValueError(f"the box of a {name} has no {tag}{hint}")
    if len(texts) > 1:
        raise ValueError(f"the box of a {name} has {len(texts)} <{tag}>", tag)
    try:
        number = float(texts[0])
    except ValueError:
        raise ValueError(f"{tag} of a {name} is {texts[0]!r}, no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{tag} of a {name} is {texts[0]!r}")
    return number


def _locate(data: bytes, place: int, text: str, tag: str = "") -> str:
    """An error with its line: of a child of the root, and of all of one tag in that child."""
    lines = element_lines(data)
    starts = [number for number, (_, depth, _) in enumerate(lines) if depth == 1]
    inside = lines[slice(*[*starts, len(lines)][place : place + 2])]
    of_tag = [str(line) for name, depth, line in inside if name == tag and depth > 1]
    more = f" (line {', '.join(of_tag)})" if of_tag else ""
    return f"{inside[0][2]}: {text}{more}"


def object_lines(data: bytes) -> list[int]:
    """The line where each object begins. Slow, so asked only where something is wrong."""
    return [line for tag, depth, line in element_lines(data) if (tag, depth) == ("object", 1)]


def element_lines(data: bytes) -> list[tuple[str, int, int]]:
    """Tag without namespace, depth and line of each element. Slow."""
    lines: list[tuple[str, int, int]] = []
    depth = 0

    def start(tag: str, _: dict[str, str]) -> None:
        nonlocal depth
        lines.append((tag.rpartition(":")[2], depth, parser.CurrentLineNumber))
        depth += 1

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    for source in (data, _decode(data)):
        parser, depth = expat.ParserCreate(), 0
        lines.clear()
        parser.StartElementHandler, parser.EndElementHandler = start, end
        try:
            parser.Parse(source, True)  # type: ignore[arg-type]
        except (expat.ExpatError, ValueError, LookupError):
            continue
        break
    return lines


def _cache_file(contents: Sequence[bytes | None]) -> Path | None:
    """Named by a hash of every file's content; None where a file is missing: that is not kept."""
    digest = blake2b(f"{_VERSION}".encode(), digest_size=16)
    for data in contents:
        if data is None:
            return None
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return cache_folder() / "records" / f"{digest.hexdigest()}.json"


def _from_rows(rows: Any) -> list[Annotation | None]:
    return [
        Annotation(tuple(size), tuple(starmap(ObjectAnnotation, objects)), error, image)
        for size, objects, error, image in rows
    ]
