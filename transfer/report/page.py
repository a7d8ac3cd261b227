"""One HTML file that needs nothing else: no network, no other file, any browser.

Text from runs is escaped wherever it stands, its control characters too, and the page's own policy
lets no script run but the one it came with.
"""

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from pretrain.errors import printable
from transfer import task
from transfer.evaluation import suites
from transfer.report import order, paper, provenance, published, words
from transfer.report.charts import curves, forests
from transfer.report.comparisons import compare_all
from transfer.report.crossing import crossings
from transfer.report.pictures import compare_examples, thumbnails
from transfer.report.results import LONGEST, Log, RunSet
from transfer.report.table import Column, Table
from transfer.statistics import FEWEST

_HERE = Path(__file__).parent
_MOST_BYTES = 1_200_000  # of each of the galleries
_MOST_EXAMPLES = 6


def to_html(
    table: Table,
    run_set: RunSet,
    log: Log = lambda line: None,
    title: str = "Transfer report",
    primary: str = "",
) -> str:
    """The whole page.

    Args:
        table: of `run_set`.
        run_set: its runs with their folders, for logs and pictures.
        log: takes a line for each of these that is left out.
        title: of the page.
        primary: the comparison that was named beforehand, as `compare_all` takes it.
    """
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    left_out = list(run_set.complaints)

    def leave_out(line: str) -> None:
        left_out.append(printable(line, LONGEST))
        log(left_out[-1])

    has_tasks = table is table.tables[0]
    compared = compare_all(table, primary)
    crossing_charts, ranked = crossings(compared), order.orders(table)
    galleries = list(_galleries(table, leave_out)) if has_tasks else []
    tasks_sections = {
        "summary": "Summary",
        **({"crossing": "The difference over images seen"} if crossing_charts else {}),
        "differences": "Differences",
        "paper": "In the shape of the paper's table",
        "curves": "Learning curves",
        **{gallery["about"].section: gallery["about"].title for gallery in galleries},
    }
    blocks = list(_blocks(table, leave_out))
    learning_curves = list(curves(table, leave_out))
    page = template().render(
        title=title,
        style=style,
        script=script,
        policy="default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}",
        sections={
            **(tasks_sections if has_tasks else {}),
            **{block["section"]: block["title"] for block in blocks},
            **({"order": "Published orders of methods"} if ranked else {}),
            **({"comparisons": "Comparisons"} if any(one.has_test for one in compared) else {}),
            "left-out": "Missing and left out",
            "appendix": "Appendix: every run",
        },
        table=table,
        run_set=run_set,
        has_tasks=has_tasks,
        blocks=blocks,
        anchors={
            (run.folder, run.result.task): f"run-{number}"
            for number, run in enumerate(run_set.runs, 1)
        },
        # an evaluation of several suites is one run
        results={run.folder: run.result for run in run_set.runs}.values(),
        tasks=list(dict.fromkeys(one.task for part in table.tables for one in part.settings)),
        today=f"{datetime.now(UTC):%Y-%m-%d}",
        paper_columns=_paper_columns(table),
        compared=compared,
        crossings=crossing_charts,
        ranked=ranked,
        order=order,
        forests=forests,
        heads=_heads,
        curves=learning_curves,
        galleries=galleries,
        left_out={
            "Jobs of the grid without a result": words.unfinished_lines(run_set),
            "Runs in no cell, and warnings": [note for part in table.tables for note in part.notes],
            "Files left out": left_out,
        },
        fewest=FEWEST,
        paper=paper,
        provenance=provenance,
        words=words,
    )
    return "\n".join(map(printable, page.split("\n")))


@cache
def template(folder: Path = _HERE) -> Template:
    """page.html of a folder: every text is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html")


def _paper_columns(table: Table) -> list[tuple[tuple[str, str], Column | None]]:
    """((title, task), column) of our metrics in the paper's order; None where we have no column."""
    columns: list[tuple[tuple[str, str], Column | None]] = []
    for theirs in paper.COLUMNS:
        key = theirs.task, theirs.network, theirs.key
        ours = [
            one
            for one in table.columns
            if (one.setting.task, one.setting.network, one.metric.key) == key
        ]
        columns += [((one.head, theirs.task), one) for one in ours]
        columns += [] if ours else [((theirs.title, theirs.task), None)]
    return columns


def _galleries(table: Table, log: Log) -> Iterator[dict[str, Any]]:
    """The sections with what the runs of a task have left to be seen.

    Each has its task, what it is about (`Picture` or `Examples`), what stands there if there is
    nothing, and pictures, with how many more the page has no room for, or examples of each setting.
    """
    for one in (*task.TASKS, task.PRETRAIN):
        kind = "pretraining" if one is task.PRETRAIN else one.name
        for picture in one.pictures:
            missing = f"No {kind} run here has left a readable pictures/{picture.file}."
            shown, more = thumbnails(table, one.name, picture, _MOST_BYTES, log)
            yield dict(task=one.name, about=picture, missing=missing, pictures=shown, more=more)
        if about := one.examples:
            examples = {
                f"[{number}] {setting.label}, {setting.data}": compared
                for number, setting in enumerate(table.settings, 1)
                if setting.task == one.name
                if (compared := compare_examples(table, setting, about, _MOST_EXAMPLES, log))
            }
            yield dict(task=one.name, about=about, missing=about.missing, examples=examples)


def _heads(table: Table) -> list[tuple[str, str, bool]]:
    """(title, task, whether less is better) of each column of numbers."""
    return [(one.metric.title, one.setting.task, one.metric.less) for one in table.columns]


def _blocks(table: Table, log: Log) -> Iterator[dict[str, Any]]:
    """The sections of the suites."""
    for name, part in table.suites.items():
        block = suites.blocks()[name]
        pictures = [(one, *thumbnails(part, name, one, _MOST_BYTES, log)) for one in block.pictures]
        yield {
            "section": f"suite-{name}",
            "title": block.title,
            "table": part,
            "published": published.beside(part),
            "pictures": [shown for shown in pictures if shown[1]],
        }


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
