"""One HTML file that needs nothing else: no network, no other file, any browser.

Text from runs is escaped wherever it stands, and the page's own policy lets no script run but the
one it came with.
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from transfer import task
from transfer.report import paper, provenance, words
from transfer.report.charts import curves, forests
from transfer.report.pictures import ComparedExample, Thumbnail, compare_examples, thumbnails
from transfer.report.results import RunSet
from transfer.report.table import Column, Table
from transfer.statistics import FEWEST
from transfer.task import Examples, Picture

_HERE = Path(__file__).parent
_MOST_BYTES = 1_200_000  # of each of the galleries
_MOST_EXAMPLES = 6


@dataclass(frozen=True)
class Gallery:
    """A section with what the runs of a task have left to be seen."""

    task: str
    about: Picture | Examples
    missing: str
    """What stands there if there is nothing."""
    pictures: list[Thumbnail]
    left: int
    """Pictures that the page has no room for."""
    examples: list[tuple[str, list[ComparedExample]]]
    """(heading, examples) of each setting."""


def to_html(table: Table, run_set: RunSet, title: str = "Transfer report") -> str:
    """The whole page.

    Args:
        table: of `run_set`.
        run_set: its runs with their folders, for logs and pictures.
        title: of the page.
    """
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    galleries = _galleries(table)
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html").render(
        title=title,
        style=style,
        script=script,
        policy="default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}",
        sections={
            "summary": "Summary",
            "differences": "Differences",
            "paper": "In the shape of the paper's table",
            "curves": "Learning curves",
            **{gallery.about.section: gallery.about.title for gallery in galleries},
            "left-out": "Missing and left out",
            "appendix": "Appendix: every run",
        },
        table=table,
        runs=run_set.runs,
        anchors={run.folder: f"run-{number}" for number, run in enumerate(run_set.runs, 1)},
        unfinished=run_set.unfinished,
        today=f"{datetime.now(UTC):%Y-%m-%d}",
        summary_heads=[(one.metric.title, one.setting.task) for one in table.columns],
        paper_columns=_paper_columns(table),
        forests=forests(table),
        curves=curves(table),
        galleries=galleries,
        left_out={
            "Jobs of the grid without a result": words.unfinished_lines(run_set.unfinished),
            "Runs in no cell": table.notes,
            "Files left out": run_set.complaints,
        },
        fewest=FEWEST,
        paper=paper,
        provenance=provenance,
        words=words,
    )


def _paper_columns(table: Table) -> list[tuple[tuple[str, str], Column | None]]:
    """((title, task), column) of our metrics in the paper's order; None where we have no column."""
    columns: list[tuple[tuple[str, str], Column | None]] = []
    for theirs in paper.COLUMNS:
        ours = [
            ((column.head, theirs.task), column)
            for column in table.columns
            if (column.setting.task, column.metric.key) == (theirs.task, theirs.key)
        ]
        columns += ours or [((theirs.title, theirs.task), None)]
    return columns


def _galleries(table: Table) -> list[Gallery]:
    galleries = []
    for one in (*task.TASKS, task.PRETRAIN):
        kind = "pretraining" if one is task.PRETRAIN else one.name
        for picture in one.pictures:
            shown, left = thumbnails(table, one.name, picture, _MOST_BYTES)
            missing = f"No {kind} run here has left a readable pictures/{picture.file}."
            galleries.append(Gallery(one.name, picture, missing, shown, left, []))
        if one.examples is not None:
            blocks = [
                (f"[{number}] {setting.recipe}, {setting.data}", examples)
                for number, setting in enumerate(table.settings, 1)
                if setting.task == one.name
                if (examples := compare_examples(table, setting, one.examples, _MOST_EXAMPLES))
            ]
            missing = one.examples.missing
            galleries.append(Gallery(one.name, one.examples, missing, [], 0, blocks))
    return galleries


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
