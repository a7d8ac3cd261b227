"""MS-COCO's instance files: what is written, checked entry by entry.

Whole numbers may be written as 7.0, sizes and categories' ids also as text; a size of 0, null or
nothing is not written.

Whether boxes are x, y, width, height in pixels, a file does not say: corners (x1, y1, x2, y2) taken
for these reach beyond the image, while as corners they fit; fractions of the image are all between
0 and 1.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pretrain.errors import UsageError
from pretrain.reading import read_bytes
from transfer.detection.records import DataIssue

_MOST = 0.25  # of the boxes may reach beyond their image, where all would fit as corners
_MOST_OF_DETECTIONS = 0.5  # of those of a detector that does not cut at the edge
_LARGEST = 2**34  # bytes; MS-COCO's instances are 2**29
_NUMBERS = frozenset((int, float))
_LISTS = ("images", "categories", "annotations")


class CocoImage(NamedTuple):
    """An image as it is written."""

    file_name: str
    size: tuple[int, int]
    """Width and height; 0 where nothing is written."""


class InstanceFile(NamedTuple):
    """The content of a file whose images and categories can be used."""

    path: Path
    images: dict[int | str, CocoImage]
    """By id, in their order."""
    categories: dict[int, str]
    """{id: name}, by id."""
    annotations: list[Mapping[str, Any]]
    """As they are written."""
    issues: list[DataIssue]
    """Of categories."""


def read_instance_file(path: Path) -> InstanceFile:
    """Read a file.

    A category that no object has, and that is but the supercategory of others, is left out.

    Raises:
        UsageError: it is no instance file, or an image or a category without what it needs.
    """
    content, issues = read_content(path), list[DataIssue]()
    images = _read_images(path, content["images"])
    categories = _read_categories(path, content, issues)
    return InstanceFile(path, images, categories, list(content["annotations"]), issues)


def read_json(path: Path) -> Any:
    """The content of a file; UsageError with file and line where it is none."""
    if not path.exists():
        raise UsageError(f"there is no file {path}.")
    content = read_bytes(path, largest=_LARGEST)
    try:
        return json.loads(content)  # UTF-8, or 16 with its mark
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise UsageError(f"{path}:{line}: it is no JSON ({error}).") from error


def read_content(path: Path) -> Mapping[str, list[Mapping[str, Any]]]:
    """The lists of an instance file, with entries that are objects."""
    content = read_json(path)
    for key in _LISTS:
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UsageError(f"{path} is no instance file of MS-COCO's format: it has no {key!r}.")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise UsageError(f"{path}: number {number} of {key} is {entry!r:.40}, no object.")
    return dict(content)


def _read_images(path: Path, entries: Sequence[Mapping[str, Any]]) -> dict[int | str, CocoImage]:
    """{image's id: what is written of it}; UsageError for an entry that cannot be used."""
    images: dict[int | str, CocoImage] = {}
    place_of: dict[int | str, int] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: number {number} of images"
        image, name = read_id(entry.get("id")), entry.get("file_name")
        if image is None:
            raise UsageError(f"{where} has the id {entry.get('id')!r}, no number or name.")
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"{where} (id {image}) has the file_name {name!r}, no name.")
        if image in images:
            count = len(entries) - len({read_id(one.get("id")) for one in entries})
            raise UsageError(
                f"{path} lists image {image} twice: {images[image].file_name} (number "
                f"{place_of[image]} of images) and {name} (number {number}); {count:,} ids in all "
                "are not the first of their kind. Give each image an id of its own, in images and "
                "in annotations."
            )
        sides = []
        for key in ("width", "height"):
            try:
                sides.append(_side(entry.get(key)))
            except (ValueError, TypeError, OverflowError):
                text = f"{where} ({name}) has the {key} {entry.get(key)!r}, no number of pixels."
                raise UsageError(f"{text} Write the number, or null if it is not known.") from None
        images[image] = CocoImage(name, (sides[0], sides[1]))
        place_of[image] = number
    return images


def _side(value: Any) -> int:
    """Pixels; 0 where nothing is written. ValueError or TypeError where it is no number."""
    if value is None or value == "":
        return 0
    if isinstance(value, bool):
        raise TypeError
    return max(0, int(float(value)))


def read_id(value: Any) -> int | str | None:
    """An id as a number or a text; None where it can be none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) in (int, str) and value != "" else None


def read_category_id(value: Any) -> int | None:
    """A category's id as a number, which may be written as text; None where it is none."""
    number = read_id(value)
    if isinstance(number, str):
        return int(number) if re.fullmatch("[0-9]{1,18}", number) else None
    return number


def read_box(value: Any) -> tuple[float, float, float, float] | None:
    """The numbers of a box; None where they are not four."""
    if not isinstance(value, list) or len(value) != 4 or not _NUMBERS.issuperset(map(type, value)):
        return None
    try:
        x, y, width, height = map(float, value)
    except OverflowError:
        return None
    return (x, y, width, height) if math.isfinite(x + y + width + height) else None


def _read_categories(
    path: Path, content: Mapping[str, list[Mapping[str, Any]]], issues: list[DataIssue]
) -> dict[int, str]:
    """{id: name} by id; what is wrong is added to `issues`."""
    used = {read_category_id(entry.get("category_id")) for entry in content["annotations"]}
    names: dict[int, str] = {}
    place_of: dict[int, int] = {}
    children: dict[Any, set[int]] = {}
    for number, entry in enumerate(content["categories"]):
        where = f"{path}: number {number} of categories"
        category, name = read_category_id(entry.get("id")), entry.get("name")
        if category is None:
            raise UsageError(f"{where} ({name!r}) has the id {entry.get('id')!r}, no number.")
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise UsageError(f"{where} (id {category}) has the name {name!r}, no text.")
        if category in names:
            text = (
                f"{name!r} has id {category}, as {names[category]!r}, number {place_of[category]}"
            )
            issues.append(DataIssue("category twice", where, text))
            continue
        names[category], place_of[category] = str(name), number
        if isinstance(parent := entry.get("supercategory"), str):
            children.setdefault(parent, set()).add(category)
    for category, name in list(names.items()):
        if category not in used and children.get(name, set()) - {category}:
            text = f"{name!r} is but the supercategory of others"
            where = f"{path}: category {category}"
            issues.append(DataIssue("category without objects", where, text))
            del names[category]
    return dict(sorted(names.items()))


def check_box_form(
    boxes: np.ndarray,
    sizes: np.ndarray,
    source: str,
    name: Callable[[int], str],
    *,
    detections: bool = False,
) -> None:
    """Raise where boxes are no x, y, width, height in pixels of their images.

    Args:
        boxes: (N, 4), as they are written.
        sizes: (N, 2) width and height of the image of each; 0 where unknown.
        source: the file, for the message.
        name: the place of a box by its number.
        detections: of a detector, which may have seen the image in another size.

    Raises:
        UsageError: with how many boxes show it, the first of them, and what to do.
    """
    if not len(boxes):
        return
    x, y, width, height = boxes.T
    edge = sizes * 1.01 + 1  # as far as boxes reach by rounding
    if (
        boxes.min() >= 0
        and boxes.max() <= 1 + 1e-9
        and sizes.max() != 1
        and (width * height > 0).any()
    ):
        raise UsageError(
            f"{source}: bbox is in fractions of the image, it seems: all {len(boxes):,} boxes lie "
            f"between 0 and 1, such as {name(0)}: {_text(boxes[0])}. Multiply x and width by the "
            "image's width, y and height by its height."
        )
    known = (sizes > 0).all(1)
    over = known & ((x + width > edge[:, 0]) | (y + height > edge[:, 1]))
    if not over.any():
        return
    fit = (width > x) & (height > y) & (width <= edge[:, 0]) & (height <= edge[:, 1])
    first = int(over.argmax())
    example = f"{name(first)}: {_text(boxes[first])} of {sizes[first, 0]:g} x {sizes[first, 1]:g}"
    count = f"{over.sum():,} of {known.sum():,} boxes reach beyond their image, such as {example}"
    if fit[known].mean() >= 0.99 and over[known].mean() > _MOST:
        raise UsageError(
            f"{source}: bbox is x1, y1, x2, y2, it seems, not x, y, width, height: {count}; as "
            "corners all of them fit. Write x2 - x1 and y2 - y1 for width and height."
        )
    if detections and over[known].mean() > _MOST_OF_DETECTIONS:
        raise UsageError(
            f"{source}: {count}. Are they in pixels of a resized image? Give them in pixels of the "
            "image on disk."
        )


def _text(box: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in box)
