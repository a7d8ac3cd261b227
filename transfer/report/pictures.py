"""What runs have drawn, made small and part of the page: no picture is loaded from elsewhere."""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pretrain.errors import UsageError, first_line
from pretrain.reading import read_bytes, read_json
from transfer import task
from transfer.evaluation import suites
from transfer.report.results import FinishedRun, Log
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
    table: Table, name: str, picture: task.Picture, limit: int, log: Log
) -> tuple[list[Thumbnail], int]:
    """The picture of one run of each row and setting, and how many more there are.

    It is the run of the smallest seed that has it.

    Args:
        table: with its runs.
        name: of the task whose runs are looked at.
        picture: the one to be shown.
        limit: bytes that the pictures may have together.
        log: takes a line for each that cannot be read.
    """
    shown: list[Thumbnail] = []
    chosen = [
        (setting.network, run)
        for setting, runs in table.runs.items()
        if setting.task == name
        for run in _smallest_seeds(runs, f"pictures/{picture.file}").values()
    ]
    for index, (network, run) in enumerate(chosen):
        result = run.result
        recipe = ", ".join(filter(None, (network, str(result.config.get("name", "?")))))
        seed = run.seed if name in suites.blocks() else result.seed
        alt = picture.alt.format(method=result.backbone["name"], recipe=recipe, seed=seed)
        caption = f"{result.backbone['name']}, {recipe} ({run.folder})"
        file = f"pictures/{picture.file}"
        if thumbnail := _shrink(run, file, picture.width, log, alt, caption):
            limit -= len(thumbnail.source)
            if limit < 0:
                return shown, len(chosen) - index
            shown.append(thumbnail)
    return shown, 0


def compare_examples(
    table: Table, setting: Setting, examples: task.Examples, count: int, log: Log
) -> list[ComparedExample]:
    """The same inputs as several rows answer them, where at least two rows have examples.

    Of each row it is the run of the smallest seed. Those are shown that the first run has chosen
    for the report; any, if there are none. `log` takes a line for each file that is left out.
    """
    runs = _smallest_seeds(table.runs[setting], examples.file)
    of_rows: dict[str, tuple[FinishedRun, dict[str, task.Example]]] = {}
    for row in sorted(runs, key=lambda row: (row.method != "none", table.name(row))):
        run, name = runs[row], f"{runs[row].folder}/{examples.file}"
        assert run.path is not None
        try:
            content = read_json(run.path / examples.file, name, _LARGEST_FILE)
            of_rows[table.name(row)] = run, task.load(examples.read)(content, name)
        except UsageError as error:
            log(str(error))
    if len(of_rows) < 2:
        return []
    (run, first), *others = of_rows.values()
    shared = [name for name in first if all(name in other for _, other in others)]
    names = [name for name in shared if first[name].picture] or shared
    chosen = dict.fromkeys(names[i * len(names) // count] for i in range(count if names else 0))

    def picture(name: str) -> Thumbnail | None:
        file, alt = first[name].picture, f"image {name}, described below"
        return _shrink(run, f"pictures/{file}", 320, log, alt) if file else None

    return [
        ComparedExample(
            name,
            picture(name),
            tuple((row, each[name].answer) for row, (_, each) in of_rows.items()),
            first[name].references,
        )
        for name in chosen
    ]


def _smallest_seeds(runs: Sequence[FinishedRun], file: str) -> dict[Row, FinishedRun]:
    """Of each row the run of the smallest seed that has left a file.

    Evaluations, which have none, go by the seed of the pretraining.
    """
    chosen: dict[Row, FinishedRun] = {}
    for run in sorted(runs, key=lambda run: (run.result.seed, run.seed is None, run.seed or 0)):
        if run.path is not None and os.path.lexists(run.path / file):
            chosen.setdefault(row_of(run.result.backbone), run)
    return chosen


def _shrink(
    run: FinishedRun, file: str, width: int, log: Log, alt: str, caption: str = ""
) -> Thumbnail | None:
    """At most `width` pixels wide and four times as high, as WebP; None where it is left out."""
    assert run.path is not None
    name, packed = f"{run.folder}/{file}", io.BytesIO()
    try:
        content = io.BytesIO(read_bytes(run.path / file, name, _LARGEST_FILE))
        with Image.open(content, formats=("png", "jpeg", "webp")) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise UsageError(f"{name}: has {opened.width} x {opened.height} pixels")
            image = opened.convert("RGB")
        image.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        image.save(packed, "webp", quality=82, method=4)
    except UsageError as error:
        log(str(error))
        return None
    except Exception as error:  # whatever a decoder says of a broken file
        log(f"{name}: is no picture that can be read: {first_line(error)}")
        return None
    data = base64.b64encode(packed.getvalue()).decode()
    return Thumbnail(f"data:image/webp;base64,{data}", *image.size, alt, caption)
