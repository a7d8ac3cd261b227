"""Expected numbers in a YAML file, compared with a table: a report that can fail.

    tolerance: 0.5                  # for rows without their own; in the unit of the table
    rows:
      - {task: pretrain, method: cutmix, metric: top1_best, value: 85.4, tolerance: 0.3, n: 3}
      - {task: pretrain, method: cutmix, against: none, metric: top1_best, value: -0.7}

`metric` is the key in result.json, `value` the number as the table shows it (many scores are in
percent). With `against` it is the paired difference to that method. `n`, where given, must be the
number of pretrainings (of pairs). `arch`, `recipe`, `data`, `engine`, `network` choose where
several rows or columns fit: the last four are of the column, as the legend of the table names them;
`pretraining` is the recipe of the backbone, `recipe_hash` the digest that tells its rows apart.
`task` may be a suite of tools/evaluate.py too, whose `recipe` is what the legend says of its
options.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from pretrain.errors import UsageError
from pretrain.reading import Number, check, read_yaml
from transfer.report.flat import cell_facts
from transfer.report.results import kind
from transfer.report.table import Table

_CHOOSING = ("arch", "recipe", "data", "engine", "network", "pretraining", "recipe_hash")
_RENAMED = {"arm": "method", "variant": "recipe_hash"}


class Expected(Struct, frozen=True, kw_only=True):
    """One number that a table should hold."""

    task: str
    method: str
    metric: str
    value: Number
    tolerance: Annotated[float, Meta(ge=0, le=1e12)]
    n: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None
    against: str | None = None
    arch: str | None = None
    recipe: str | None = None
    data: str | None = None
    engine: str | None = None
    network: str | None = None
    pretraining: str | None = None
    recipe_hash: str | None = None

    @property
    def title(self) -> str:
        """As a message names it."""
        against = f" - {self.against}" if self.against else ""
        more = [f"{key} {value}" for key in _CHOOSING if (value := getattr(self, key)) is not None]
        return ", ".join([f"{self.task} {self.metric}", self.method + against, *more])

    def fits(self, facts: dict[str, Any]) -> bool:
        """Whether it is about the number of these `cell_facts`; data with or without its sizes."""
        short = facts | {"data": facts["data"].split(" (")[0]}
        wanted = {key: getattr(self, key) for key in ("task", "method", "metric", "against")}
        wanted |= {key: value for key in _CHOOSING if (value := getattr(self, key)) is not None}
        return all(value in (facts[key], short[key]) for key, value in wanted.items())


class _File(Struct, forbid_unknown_fields=True):
    rows: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    tolerance: float | None = None


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
    file = check(read_yaml(path, where), _File, where)
    rows = enumerate(file.rows, 1)
    return [_parse_row(row, file.tolerance, f"{where}: row {number}") for number, row in rows]


def _parse_row(row: dict[str, Any], tolerance: float | None, where: str) -> Expected:
    for old in _RENAMED.keys() & row:
        raise UsageError(f"{where}: {old} is called {_RENAMED[old]} now.")
    if unknown := sorted(row.keys() - {field.name for field in structs.fields(Expected)}):
        allowed = ", ".join(field.name for field in structs.fields(Expected))
        raise UsageError(f"{where}: unknown {unknown}; allowed are {allowed}.")
    given = {} if tolerance is None else {"tolerance": tolerance}
    expected: Expected = check(given | row, Expected, where)
    known = [metric.key for metric in kind(expected.task, f"{where}: ").metrics]
    if expected.metric not in known:
        raise UsageError(f"{where}: metric {expected.metric!r}; known are {', '.join(known)}.")
    return expected


def compare(expected: list[Expected], table: Table) -> list[Outcome]:
    """Each row with what the table holds.

    Raises:
        UsageError: a row fits several numbers, so that it says nothing about any.
    """
    # (what tells it from the others, value, n) of every number in the table
    numbers = []
    for part in table.tables:
        cells = part.cells.items()
        numbers += [(cell_facts(*key), cell.mean, cell.n) for key, cell in cells if cell.n]
        for (row, other, column), between in part.differences.items():
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
