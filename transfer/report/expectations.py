"""Expected numbers in a YAML file, compared with a table: a report that can fail.

    tolerance: 0.5                  # for rows without their own; in the unit of the table
    rows:
      - {task: pretrain, method: cutmix, metric: top1_best, value: 85.4, tolerance: 0.3, n: 3}
      - {task: pretrain, method: cutmix, against: none, metric: top1_best, value: -0.7}

`metric` is the key in result.json, `value` the number as the table shows it (many scores are in
percent). With `against` it is the paired difference to that method. `n`, where given, must be the
number of pretrainings (of pairs). `arch`, `recipe`, `data`, `engine` choose where several rows or
columns fit: `recipe` and `data` of the column, as the legend of the table names them; `pretraining`
is the recipe of the backbone, `recipe_hash` the digest that tells its rows apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pretrain.errors import UsageError
from transfer import task
from transfer.report.flat import cell_facts
from transfer.report.results import is_number
from transfer.report.table import Table

_NEEDED = ("task", "method", "metric", "value")
_CHOOSING = ("arch", "recipe", "data", "engine", "pretraining", "recipe_hash")
_ALLOWED = (*_NEEDED, "tolerance", "n", "against", *_CHOOSING)
_RENAMED = {"arm": "method", "variant": "recipe_hash"}
# key -> whether its value is right, and what it should be
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(_ALLOWED, (lambda value: isinstance(value, str), "a text (in quotes)")),
    "value": (is_number, "a number"),
    "tolerance": (lambda value: is_number(value) and value >= 0, "a number of at least 0"),
    "n": (lambda n: isinstance(n, int) and is_number(n) and n >= 1, "a number of pretrainings"),
}


@dataclass(frozen=True)
class Expected:
    """One number that a table should hold."""

    value: float
    tolerance: float
    n: int | None
    chosen_by: dict[str, Any]
    """What its cell must have: task, method, metric, against (None where it is no difference), and
    more where given."""

    @property
    def title(self) -> str:
        """As a message names it."""
        facts = self.chosen_by
        against = f" - {facts['against']}" if facts["against"] else ""
        more = [f"{key} {facts[key]}" for key in _CHOOSING if key in facts]
        return ", ".join([f"{facts['task']} {facts['metric']}", facts["method"] + against, *more])

    def fits(self, facts: dict[str, Any]) -> bool:
        """Whether it is about the number of these `cell_facts`; data with or without its sizes."""
        short = facts | {"data": facts["data"].split(" (")[0]}
        return all(value in (facts[key], short[key]) for key, value in self.chosen_by.items())


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
    where = f"--check {path}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{where}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise UsageError(f"{where}: expected a mapping with a list `rows`, see docs/report.md.")
    if unknown := [key for key in content if key not in ("rows", "tolerance")]:
        raise UsageError(f"{where}: unknown {unknown}; allowed are rows, tolerance.")
    if not content["rows"]:
        raise UsageError(f"{where}: rows is empty, so nothing would be checked.")
    return [
        _parse_row(row, content.get("tolerance"), f"{where}: row {number}")
        for number, row in enumerate(content["rows"], 1)
    ]


def _parse_row(row: Any, tolerance: Any, where: str) -> Expected:
    if not isinstance(row, dict):
        raise UsageError(f"{where}: {row!r} is no mapping.")
    for old in _RENAMED.keys() & row:
        raise UsageError(f"{where}: {old} is called {_RENAMED[old]} now.")
    if unknown := [key for key in row if key not in _ALLOWED]:
        raise UsageError(f"{where}: unknown {unknown}; allowed are {', '.join(_ALLOWED)}.")
    row = {"tolerance": tolerance} | row
    if missing := [key for key in (*_NEEDED, "tolerance") if row.get(key) is None]:
        raise UsageError(f"{where}: {', '.join(missing)} missing.")
    for key, value in row.items():
        is_right, kind = _KINDS[key]
        if not is_right(value):
            raise UsageError(f"{where}: {key} is {value!r}, expected {kind}.")
    known = [metric.key for metric in task.by_name(row["task"], f"{where}: ").metrics]
    if row["metric"] not in known:
        raise UsageError(f"{where}: metric {row['metric']!r}; known are {', '.join(known)}.")
    value, tolerance, n = row.pop("value"), row.pop("tolerance"), row.pop("n", None)
    return Expected(value, tolerance, n, {"against": None} | row)


def compare(expected: list[Expected], table: Table) -> list[Outcome]:
    """Each row with what the table holds.

    Raises:
        UsageError: a row fits several numbers, so that it says nothing about any.
    """
    # (what tells it from the others, value, n) of every number in the table
    numbers = [(cell_facts(*key), cell.mean, cell.n) for key, cell in table.cells.items() if cell.n]
    for (row, other, column), between in table.differences.items():
        numbers.append((cell_facts(row, column, other), between.mean, between.n))
    return [_compare(one, numbers) for one in expected]


def _compare(one: Expected, numbers: list[tuple[dict[str, Any], float, int]]) -> Outcome:
    fitting = [(value, n) for facts, value, n in numbers if one.fits(facts)]
    if len(fitting) > 1:
        raise UsageError(
            f"--check: {one.title} fits {len(fitting)} numbers of the table; choose one by "
            f"{', '.join(_CHOOSING)}."
        )
    expected = f"expected {one.value:g} ± {one.tolerance:g}"
    if not fitting:
        return Outcome(False, f"{one.title}: not measured, {expected}")
    ((value, n),) = fitting
    off = value - one.value
    text = f"{one.title}: {value:.4g}, {expected}, off by {off:+.2g}"
    if one.n not in (None, n):
        return Outcome(False, f"{text}; n is {n}, expected {one.n}")
    # a number typed as the table shows it must not fail by the last bit
    return Outcome(abs(off) <= one.tolerance + 1e-9, text)
