"""Files beside images and masks that say the classes.

    labelmap.txt       CVAT, datumaro: NAME:R,G,B:PARTS:ACTIONS, in the order of the values
    class_names.txt    labelme: a name in a line, the first is _background_
    classes.txt        the same
    _classes.csv       Roboflow: Pixel Value, Class

A class called void, ignored or ignore has no number: its pixels count nowhere. `_background_` is
background.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UsageError
from transfer.segmentation.config import VOID
from transfer.segmentation.masks import Coding, Color

_VOID = ("void", "ignored", "ignore", "__ignore__", "_void_")
_NAMES = ("labelmap.txt", "class_names.txt", "classes.txt", "_classes.csv")


class ClassFile(NamedTuple):
    """Classes, and what stands for them in masks."""

    path: Path
    classes: tuple[str, ...]
    coding: Coding


def read_class_file(folders: Sequence[Path], void: int | None) -> ClassFile | None:
    """The first such file in some folders.

    Args:
        folders: in the order they are looked into.
        void: the value of pixels without a class, where the file names none.

    Raises:
        UsageError: a file that cannot be read as one.
    """
    paths = [folder / name for folder in folders for name in _NAMES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        rows = _rows(path.name, lines)
    except ValueError as error:
        raise UsageError(f"{path} does not name classes: {error}.") from None
    classes, values, colors = list[str](), list[int](), list[tuple[Color, int]]()
    for name, value, color in rows:
        is_void = name.lower() in _VOID
        if color is not None:
            colors.append((color, VOID if is_void else len(classes)))
        if not is_void:
            classes.append("background" if name == "_background_" else name)
            values.append(value)
    if len({*classes}) < len(classes) or not classes or len(classes) > VOID:
        raise UsageError(f"{path} names {len(classes)} classes; give 1 to {VOID}, each once.")
    if len({color for color, _ in colors}) < len(colors):
        raise UsageError(f"{path} gives one colour to two classes.")
    void = None if void in values else void
    return ClassFile(path, tuple(classes), Coding(tuple(values), void, tuple(colors)))


def _rows(name: str, lines: Sequence[str]) -> list[tuple[str, int, Color | None]]:
    """Name, value and colour of each class."""
    if name == "_classes.csv":
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines[1:])]
        return [(row[1], int(row[0]), None) for row in rows]
    if name != "labelmap.txt":
        return [(line, number, None) for number, line in enumerate(lines)]
    found, number = list[tuple[str, int, Color | None]](), 0
    for line in lines:
        label, _, rest = line.partition(":")
        color = [int(part) for part in rest.partition(":")[0].split(",") if part.strip()]
        if len(color) not in (0, 3) or not all(0 <= part < 256 for part in color):
            raise ValueError(f"{line!r:.60} is not NAME:R,G,B::")
        found.append((label, number, (color[0], color[1], color[2]) if color else None))
        number += label.lower() not in _VOID
    return found
