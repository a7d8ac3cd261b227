"""Files beside images and masks that say the classes.

    labelmap.txt         CVAT, datumaro: NAME:R,G,B:PARTS:ACTIONS, in the order of the values
    class_names.txt      labelme: a name in a line, in the order of the values
    classes.txt          the same
    _classes.csv         Roboflow: Pixel Value, Class
    objectInfo150.txt    ADE20K: Idx, Ratio, Train, Val, Stuff, Name; 0 is void. A class is called
                         by the first of its names

What is called void, ignored or ignore is no class: its pixels count nowhere. `_background_` is
background.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UsageError
from transfer.segmentation.config import VOID
from transfer.segmentation.masks import Coding, Color

_VOID = ("void", "_void_", "ignored", "ignore", "__ignore__")
_NAMES = ("labelmap.txt", "class_names.txt", "classes.txt", "_classes.csv", "objectInfo150.txt")

_Row = tuple[str, int, Color | None]
"""Name, value and colour of a class, or of void."""


class ClassFile(NamedTuple):
    """Classes, and what stands for them in masks."""

    path: Path
    classes: tuple[str, ...]
    coding: Coding


def read_class_file(folders: Sequence[Path], void: int | None) -> ClassFile | None:
    """The first such file in some folders, None where there is none.

    Args:
        folders: in the order they are looked into.
        void: a value of pixels without a class, beside what the file says.

    Raises:
        UsageError: a file that cannot be read as one.
    """
    paths = [folder / name for folder in folders for name in _NAMES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line.strip() for line in text.splitlines()]
        rows = _rows(path.name, [line for line in lines if line and line[0] != "#"])
    except (ValueError, IndexError) as error:
        raise UsageError(f"{path} does not name classes ({error}); mend or remove it.") from None
    named = [row for row in rows if row[0].lower() not in _VOID]
    classes = [name.replace("_background_", "background") for name, _, _ in named]
    values = [value for _, value, _ in named]
    if not 0 < len(classes) <= VOID or len({*classes}) < len(classes):
        raise UsageError(f"{path} names {len(classes)} classes; give 1 to {VOID}, each once.")
    if twice := [value for _, value, _ in rows if [row[1] for row in rows].count(value) > 1]:
        raise UsageError(f"{path} gives the value {twice[0]} to two classes; mend it.")
    if outside := [value for value in values if not 0 <= value < 2**16]:
        raise UsageError(f"{path} has the value {outside[0]}; all must lie in [0, 65535].")
    numbers = {name: number for number, (name, _, _) in enumerate(named)}
    colors = [(color, numbers.get(name, VOID)) for name, _, color in rows if color is not None]
    if len({color for color, _ in colors}) < len(colors):
        raise UsageError(f"{path} gives one colour to two classes; mend it.")
    voids = {value for name, value, _ in rows if name not in numbers}
    voids |= {void} - {*values} if void is not None else set()
    coding = Coding(tuple(values), tuple(sorted(voids)), tuple(colors))
    return ClassFile(path, tuple(classes), coding)


def _rows(file: str, lines: Sequence[str]) -> list[_Row]:
    """A row of each class."""
    if file == "_classes.csv":
        cells = [[cell.strip() for cell in row] for row in csv.reader(lines[1:])]
        return [(row[1], int(row[0]), None) for row in cells]
    if file == "objectInfo150.txt":
        cells = [line.split("\t") for line in lines[1:]]
        of_file = [
            (row[-1].split(",")[0].split(";")[0].strip(), int(row[0]), None) for row in cells
        ]
        return [("void", 0, None), *of_file]
    if file == "labelmap.txt":
        return [_labelmap_row(line, number) for number, line in enumerate(lines)]
    first = lines[0] == "__ignore__" if lines else 0  # labelme counts it as -1
    return [(line, number, None) for number, line in enumerate(lines, -first) if number >= 0]


def _labelmap_row(line: str, number: int) -> _Row:
    name, _, rest = line.partition(":")
    color = [int(part) for part in rest.partition(":")[0].split(",") if part.strip()]
    if len(color) not in (0, 3) or not all(0 <= part < 256 for part in color):
        raise ValueError(f"{line!r:.60} is not NAME:R,G,B::")
    return name, number, (color[0], color[1], color[2]) if color else None
