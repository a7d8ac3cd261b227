"""Two CSV tables for programs: every run with everything it holds, and every cell."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

from pretrain.errors import printable
from transfer.report.comparisons import Comparison
from transfer.report.results import RunSet
from transfer.report.table import Cell, Column, Row, Table, settings_of

_NO_DIFFERENCE = {"state": "not measured", "n": 0}
# a text that a spreadsheet takes for a formula, also in the wide letters of East Asia; no number
_NUMBER = r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?"
_FORMULA = re.compile(rf"(?!{_NUMBER}$)\s*[-=+@\uff1d\uff0b\uff0d\uff20]")


def runs_csv(run_set: RunSet) -> str:
    """One line per run: folder, state, and every field of the result by its dotted name.

    Runs without a result stand below, with their state and reason. Texts are one line, without
    control characters; one that a spreadsheet would take for a formula begins with an apostrophe.
    """
    lines = []
    for run, setting in zip(run_set.runs, settings_of(run_set.runs), strict=True):
        result = run.result
        line: dict[str, Any] = {"folder": run.folder, "state": "done", "why": None}
        line |= {"task": result.task, "metric": result.metric, "seed": result.seed}
        line |= {"setting": setting.digest, "seconds": result.seconds}
        for part in ("backbone", "metrics", "data", "environment", "config"):
            line |= flatten(getattr(result, part), part)
        lines.append(line)
    for job in run_set.unfinished:
        line = {name: getattr(job, name) for name in ("folder", "state", "why", "task", "seed")}
        lines.append(line | flatten(job.backbone, "backbone"))
    return _csv(lines)


def cells_csv(table: Table, compared: Sequence[Comparison] = ()) -> str:
    """One line per row and column, and per difference: what the pages show, unrounded.

    `compared` are the differences that stand in the table of comparisons.
    """
    lines = []
    corrected = {(one.row, one.other, one.column): _corrected(one) for one in compared}
    for one in table.tables:
        keys = product(one.rows, one.columns)
        lines += [cell_facts(*key) | _cell(one.cells[key]) for key in keys]
        for (row, other), column in product(one.comparisons, one.columns):
            between = one.differences.get((row, other, column))
            values = {"state": "measured", **vars(between)} if between else _NO_DIFFERENCE
            values = values | corrected.get((row, other, column), {})
            lines.append(cell_facts(row, column, other) | values)
    return _csv(lines)


def _corrected(one: Comparison) -> dict[str, Any]:
    values = {name: getattr(one, name) for name in ("corrected_p", "corrected_half_width")}
    return values | {"pairs_needed": one.pairs_needed, "primary": one.is_primary}


def cell_facts(row: Row, column: Column, against: Row | None = None) -> dict[str, Any]:
    """What tells a cell from the others, or a difference to the row `against`."""
    setting = asdict(column.setting)
    setting["setting"] = setting.pop("digest")
    metric = {"metric": column.metric.key, "title": column.metric.title}
    backbone = {"arch": row.arch, "method": row.method, "pretraining": row.recipe}
    backbone |= {"recipe_hash": row.recipe_hash, "pretraining_data": row.dataset}
    facts = {**setting, **metric, **backbone, "pretraining_epochs": row.epochs}
    if against is None:
        return facts | {"against": None}
    return facts | {"against": against.method, "against_recipe_hash": against.recipe_hash}


def flatten(value: Any, name: str) -> dict[str, Any]:
    """{dotted name: plain value}; lists stay whole, as JSON."""
    if isinstance(value, dict) and value:
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= flatten(inner, f"{name}.{key}")
        return flat
    plain = not isinstance(value, list | dict)
    return {name: value if plain else json.dumps(value, ensure_ascii=False)}


def _cell(cell: Cell) -> dict[str, Any]:
    states = ["measured"] if cell.n else [*(job.state for job in cell.unfinished), "not measured"]
    return {
        "state": states[0],
        "n": cell.n,
        "mean": cell.mean if cell.n else None,
        "deviation": cell.deviation,
        "values": json.dumps({str(seed): value for seed, value in cell.values.items()}),
        "runs": len(cell.runs),
        "not_done": len(cell.unfinished),
    }


def _csv(lines: list[dict[str, Any]]) -> str:
    text, names = io.StringIO(), dict.fromkeys(name for line in lines for name in line)
    rows = [names, *([line.get(name) for name in names] for line in lines)]
    csv.writer(text, lineterminator="\n").writerows(map(_plain, row) for row in rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """A cell; None becomes an empty one."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _FORMULA.match(text) else text
