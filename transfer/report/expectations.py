"""Expected numbers in a YAML file, compared with a table: a report that can fail.

    tolerance: 0.5                  # for rows without their own; in the unit of the table
    rows:
      - {task: pretrain, method: cutmix, metric: top1_best, value: 85.4, tolerance: 0.3, n: 3}
      - {task: pretrain, method: cutmix, against: none, metric: top1_best, value: -0.7}

`metric` is the key in result.json, `value` the number as the table shows it (captioning scores in
percent). With `against` it is the paired difference to that method. `n`, where given, must be the
number of pretrainings (of pairs). `arch`, `recipe`, `data`, `engine` choose where several rows or
columns fit: `recipe` and `data` of the column, as the legend of the table names them; `pretraining`
is the recipe of the backbone, `recipe_hash` the digest that tells its rows apart.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pretrain.errors import UsageError
from transfer.report.metrics import METRICS
from transfer.report.table import Column, Row, Table

_NEEDED = ("task", "method", "metric", "value")
_CHOOSING = ("arch", "recipe", "data", "engine", "pretraining", "recipe_hash")
_ALLOWED = (*_NEEDED, "tolerance", "n", "against", *_CHOOSING)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """One number that a table should hold."""

    task: str
    method: str
    metric: str
    value: float
    tolerance: float
    n: int | None = None
    against: str | None = None
    arch: str | None = None
    recipe: str | None = None
    data: str | None = None
    engine: str | None = None
    pretraining: str | None = None
    recipe_hash: str | None = None

    @property
    def title(self) -> str:
        """As a message names it."""
        method = f"{self.method} - {self.against}" if self.against else self.method
        chosen = [f"{key} {getattr(self, key)}" for key in _CHOOSING if getattr(self, key)]
        return ", ".join([f"{self.task} {self.metric}", method, *chosen])


@dataclass(frozen=True)
class Outcome:
    """Whether a number is where it should be."""

    holds: bool
    text: str


def read_expected(path: Path) -> list[Expected]:
    """The rows of a file.

    Raises:
        UsageError: no such file, no YAML, or rows that say too little, too much or nonsense.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"--check {path}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise UsageError(
            f"--check {path}: expected a mapping with a list `rows`, see docs/report.md."
        )
    if unknown := [key for key in content if key not in ("rows", "tolerance")]:
        raise UsageError(f"--check {path}: unknown {unknown}; allowed are rows, tolerance.")
    if not content["rows"]:
        raise UsageError(f"--check {path}: rows is empty, so nothing would be checked.")
    return [
        _expected(row, content.get("tolerance"), f"--check {path}: row {number}")
        for number, row in enumerate(content["rows"], 1)
    ]


def compare(expected: list[Expected], table: Table) -> list[Outcome]:
    """Each row with what the table holds.

    Raises:
        UsageError: a row fits several numbers, so that it says nothing about any.
    """
    return [_compare(one, table) for one in expected]


def _expected(row: Any, tolerance: Any, where: str) -> Expected:
    if not isinstance(row, dict):
        raise UsageError(f"{where}: {row!r} is no mapping.")
    if unknown := [key for key in row if key not in _ALLOWED]:
        raise UsageError(f"{where}: unknown {unknown}; allowed are {', '.join(_ALLOWED)}.")
    held = {"tolerance": tolerance} | row
    if missing := [key for key in (*_NEEDED, "tolerance") if held.get(key) is None]:
        raise UsageError(f"{where}: {', '.join(missing)} missing.")
    for key, value in held.items():
        if key in ("value", "tolerance"):
            if not _is_number(value) or (key == "tolerance" and value < 0):
                kind = "a number" if key == "value" else "a number of at least 0"
                raise UsageError(f"{where}: {key} is {value!r}, expected {kind}.")
        elif key == "n":
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{where}: n is {value!r}, expected a number of pretrainings.")
        elif not isinstance(value, str):
            raise UsageError(f"{where}: {key} is {value!r}, expected a text (in quotes).")
    if held["task"] not in METRICS:
        raise UsageError(f"{where}: task {held['task']!r}; known are {', '.join(METRICS)}.")
    known = [metric.key for metric in METRICS[held["task"]]]
    if held["metric"] not in known:
        raise UsageError(f"{where}: metric {held['metric']!r}; known are {', '.join(known)}.")
    return Expected(**held)


def _compare(expected: Expected, table: Table) -> Outcome:
    found: list[tuple[float, int]] = []
    for column in table.columns:
        if _fits_column(expected, column):
            found += _numbers(expected, table, column)
    if len(found) > 1:
        raise UsageError(
            f"--check: {expected.title} fits {len(found)} numbers of the table; choose one by "
            f"{', '.join(_CHOOSING)}."
        )
    wanted = f"expected {expected.value:g} ± {expected.tolerance:g}"
    if not found:
        return Outcome(False, f"{expected.title}: not measured, {wanted}")
    value, n = found[0]
    off = value - expected.value
    # a number typed as the table shows it must not fail by the last bit
    holds = abs(off) <= expected.tolerance + 1e-9
    text = f"{expected.title}: {value:.4g}, {wanted}, off by {off:+.2g}"
    if expected.n is not None and n != expected.n:
        return Outcome(False, f"{text}; n is {n}, expected {expected.n}")
    return Outcome(holds, text)


def _numbers(expected: Expected, table: Table, column: Column) -> list[tuple[float, int]]:
    """(value, n) of every row, or pair of rows, that fits."""
    found = []
    for row in table.rows:
        if not _fits_row(expected, row, expected.method):
            continue
        if expected.against is None:
            cell = table.cell(row, column)
            found += [(cell.mean, cell.n)] if cell.n else []
            continue
        for other in table.rows:
            if (row, other) in table.comparisons and other.method == expected.against:
                difference = table.difference(row, other, column)
                found += [(difference.mean, difference.n)] if difference else []
    return found


def _fits_column(expected: Expected, column: Column) -> bool:
    setting = column.setting
    return (
        (setting.task, column.metric.key) == (expected.task, expected.metric)
        and expected.recipe in (None, setting.recipe)
        and expected.data in (None, setting.data, setting.data.split(" (")[0])
        and expected.engine in (None, setting.engine)
    )


def _fits_row(expected: Expected, row: Row, method: str) -> bool:
    return (
        row.method == method
        and expected.arch in (None, row.arch)
        and expected.pretraining in (None, row.recipe)
        and expected.recipe_hash in (None, row.recipe_hash)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
