"""Two CSV tables for programs: every run with everything it holds, and every cell."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from transfer.report.results import Found
from transfer.report.table import Cell, Column, Row, Table, setting_of
from transfer.statistics import Difference

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def runs_csv(found: Found) -> str:
    """One line per run: folder, state, and every field of the result by its dotted name.

    Runs without a result stand below, with their state and reason. A text that a spreadsheet would
    take for a formula is preceded by an apostrophe.
    """
    lines = []
    for run in found.runs:
        result = run.result
        setting = setting_of(result)
        line: dict[str, Any] = {"folder": run.folder, "state": "done", "why": None}
        line |= {"task": result.task, "metric": result.metric, "seed": result.seed}
        line |= {"setting": setting.digest, "seconds": result.seconds}
        for part in ("backbone", "metrics", "data", "environment", "config"):
            line |= flatten(getattr(result, part), part)
        lines.append(line)
    for cell in found.unfinished:
        line = {"folder": cell.folder, "state": cell.state, "why": cell.why}
        line |= {"task": cell.task, "seed": cell.seed} | flatten(cell.backbone, "backbone")
        lines.append(line)
    return _csv(lines)


def cells_csv(table: Table) -> str:
    """One line per method and column, and per difference: what the pages show, unrounded."""
    lines = []
    for row in table.rows:
        for column in table.columns:
            facts = _column(column)
            cell = table.cell(row, column)
            lines.append(facts | _row(row) | {"against": None} | _cell(cell))
    for row, other in table.comparisons:
        for column in table.columns:
            found = table.difference(row, other, column)
            facts = _column(column) | _row(row)
            facts |= {"against": other.method, "against_variant": other.recipe_hash}
            lines.append(facts | _difference(found))
    return _csv(lines)


def flatten(value: Any, name: str) -> dict[str, Any]:
    """{dotted name: plain value}; lists stay whole, as JSON."""
    if isinstance(value, Mapping) and value:
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= flatten(inner, f"{name}.{key}")
        return flat
    if isinstance(value, (list, dict)):
        value = json.dumps(value, ensure_ascii=False)
    return {name: value}


def _column(column: Column) -> dict[str, Any]:
    setting = column.setting
    facts = {"task": setting.task, "recipe": setting.recipe, "data": setting.data}
    facts |= {"engine": setting.engine, "setting": setting.digest}
    return facts | {"metric": column.metric.key, "title": column.metric.title}


def _row(row: Row) -> dict[str, Any]:
    facts = {
        "arch": row.arch,
        "method": row.method,
        "pretraining": row.recipe,
        "recipe_hash": row.recipe_hash,
    }
    return facts | {"pretraining_data": row.dataset, "pretraining_epochs": row.epochs}


def _cell(cell: Cell) -> dict[str, Any]:
    state = "measured" if cell.n else "not measured"
    if not cell.n and cell.unfinished:
        state = cell.unfinished[0].state
    return {
        "state": state,
        "n": cell.n,
        "mean": cell.mean if cell.n else None,
        "deviation": cell.deviation,
        "values": json.dumps({str(seed): value for seed, value in cell.values.items()}),
        "runs": len(cell.runs),
        "not_done": len(cell.unfinished),
    }


def _difference(found: Difference | None) -> dict[str, Any]:
    if found is None:
        return {"state": "not measured", "n": 0}
    return {
        "state": "measured",
        "n": found.n,
        "mean": found.mean,
        "half_width": found.half_width,
        "detectable": found.detectable,
        "p": found.p,
    }


def _csv(lines: Iterable[Mapping[str, Any]]) -> str:
    lines = list(lines)
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n", restval="")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _plain(value) for name, value in line.items()})
    return text.getvalue()


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
