"""What runs have drawn, made small and part of the page: no picture is loaded from elsewhere."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pretrain.errors import UsageError
from transfer import task
from transfer.report.results import FinishedRun, read_bytes
from transfer.report.table import Row, Setting, Table, row_of

_LARGEST_FILE = 32 * 2**20
_MOST_PIXELS = 40_000_000


@dataclass(frozen=True)
class Thumbnail:
    """A picture that stands in the page itself."""

    source: str
    """data:image/webp;base64,..."""
    width: int
    height: int
    alt: str
    caption: str
    """The run that has drawn it; empty for an input."""


@dataclass(frozen=True)
class ComparedExample:
    """An input and what the networks from several backbones answered."""

    name: str
    picture: Thumbnail | None
    answers: tuple[tuple[str, str], ...]
    """(row as the table names it, answer)."""
    references: tuple[str, ...]


def thumbnails(
    table: Table, name: str, picture: task.Picture, limit: int
) -> tuple[list[Thumbnail], int]:
    """The picture of one run of each row and setting, and how many more there are.

    It is the run of the smallest seed that has it; what cannot be read is left out.

    Args:
        table: with its runs.
        name: of the task whose runs are looked at.
        picture: the one to be shown.
        limit: bytes that the pictures may have together.
    """
    chosen = [
        run_and_file
        for setting, runs in table.runs.items()
        if setting.task == name
        for run_and_file in _smallest_seeds(runs, f"pictures/{picture.file}").values()
    ]
    shown: list[Thumbnail] = []
    for index, (run, path) in enumerate(chosen):
        result, recipe = run.result, run.result.config.get("name", "?")
        alt = picture.alt.format(method=result.backbone["name"], recipe=recipe, seed=result.seed)
        caption = f"{result.backbone['name']}, {recipe} ({run.folder})"
        if thumbnail := _shrink(_content(path), picture.width, alt, caption):
            limit -= len(thumbnail.source)
            if limit < 0:
                return shown, len(chosen) - index
            shown.append(thumbnail)
    return shown, 0


def compare_examples(
    table: Table, setting: Setting, examples: task.Examples, count: int
) -> list[ComparedExample]:
    """The same inputs as several rows answer them, where at least two rows have examples.

    Of each row it is the run of the smallest seed. Those are shown that no run has chosen for their
    score, spread evenly; any, if there are none.
    """
    runs = _smallest_seeds(table.runs[setting], examples.files[0])
    of_rows: dict[str, dict[str, task.Example]] = {}
    for row in sorted(runs, key=lambda row: (row.method != "none", table.name(row))):
        contents = [_content(runs[row][1].parent / file) for file in examples.files]
        if row_examples := task.load(examples.read)(*contents):
            of_rows[table.name(row)] = row_examples
    if len(of_rows) < 2:
        return []
    first, *others = of_rows.values()
    shared = [name for name in first if all(name in other for other in others)]
    typical = [name for name in shared if all(each[name].is_typical for each in of_rows.values())]
    names = typical or sorted(shared)
    chosen = dict.fromkeys(names[i * len(names) // count] for i in range(count if names else 0))
    return [
        ComparedExample(
            name,
            _shrink(first[name].picture, 320, f"image {name}, described below"),
            tuple((row, each[name].answer) for row, each in of_rows.items()),
            first[name].references,
        )
        for name in chosen
    ]


def _smallest_seeds(runs: Sequence[FinishedRun], file: str) -> dict[Row, tuple[FinishedRun, Path]]:
    """Of each row the run of the smallest seed that has left a file, and the file."""
    chosen: dict[Row, tuple[FinishedRun, Path]] = {}
    for run in sorted(runs, key=lambda run: run.result.seed):
        if run.path is not None and (run.path / file).is_file():
            chosen.setdefault(row_of(run.result.backbone), (run, run.path / file))
    return chosen


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, _LARGEST_FILE)
    except UsageError:
        return b""


def _shrink(content: bytes, width: int, alt: str, caption: str = "") -> Thumbnail | None:
    """At most `width` pixels wide, as WebP; None where it is no picture or far too large."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                return None
            image = opened.convert("RGB")
    except Exception:  # whatever a decoder says of a broken file
        return None
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, "webp", quality=82, method=4)
    data = base64.b64encode(packed.getvalue()).decode()
    return Thumbnail(f"data:image/webp;base64,{data}", *image.size, alt, caption)
