"""Grouping: which runs are replicates of each other, and which may stand in one column.

A row is a backbone method (architecture, mixing method, pretraining recipe and data); a column is a
metric under one setting, so runs of different recipes, data or sizes never share one. A replicate
is a pretraining seed: several fine-tunings from one seed are averaged into one value first, and n
counts pretrainings. Backbones that differ though they say the same of themselves are in no cell.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from statistics import fmean
from typing import Any

from pretrain.run import CHANGEABLE, Result
from transfer.report.metrics import METRICS, SCRATCH, Metric
from transfer.report.results import Finished, Found, Unfinished
from transfer.statistics import Difference, deviation, paired

# what does not make it another setting; `mixing` of a pretraining is what the rows compare
_NOT_A_SETTING = frozenset(
    {"seed", "data", "backbone", "scratch", "engine", "mixing", "name", "meteor", *CHANGEABLE}
)
_PLAIN = ("none", "baseline")

Seed = int | None
"""Of a pretraining; None where a foreign backbone does not say."""


@dataclass(frozen=True)
class Setting:
    """What runs must share to stand in one column."""

    task: str
    recipe: str
    data: str
    engine: str
    """The library that trained; empty where there is but one."""
    digest: str
    """Over the configuration, without engine, seed, paths and what the rows compare."""

    @property
    def title(self) -> str:
        """As a legend says it."""
        engine = f", engine {self.engine}" if self.engine else ""
        return f"{self.task}: recipe {self.recipe}, data {self.data}{engine}"


@dataclass(frozen=True)
class Row:
    """What backbones must share to be replicates of each other."""

    arch: str
    method: str
    recipe: str | None
    dataset: str | None
    epochs: float | None
    recipe_hash: str | None = None
    """Over the whole pretraining recipe; None where a result does not say."""

    @property
    def family(self) -> str | None:
        """The recipe without the method: imagenet_resnet50 for imagenet_resnet50_cutmix."""
        return _family(self.recipe, self.method)

    def is_rival(self, other: "Row") -> bool:
        """Alike but for the method."""
        mine = (self.arch, self.family, self.dataset, self.epochs)
        alike = mine == (other.arch, other.family, other.dataset, other.epochs)
        return alike and self.method != other.method


@dataclass(frozen=True)
class Column:
    """A metric under a setting."""

    number: int
    """Of the setting, from 1."""
    setting: Setting
    metric: Metric

    @property
    def head(self) -> str:
        """Title and number of the setting."""
        return f"{self.metric.title} [{self.number}]"


@dataclass(frozen=True)
class Cell:
    """The measurements of one method in one column."""

    values: dict[Seed, float]
    """In the unit shown, by pretraining seed; empty where nothing was measured."""
    runs: tuple[Finished, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()

    @property
    def n(self) -> int:
        """Pretrainings."""
        return len(self.values)

    @cached_property
    def mean(self) -> float:
        """Over pretrainings; an empty cell has none."""
        return fmean(self.values.values())

    @cached_property
    def deviation(self) -> float | None:
        """Standard deviation over pretrainings; one has none."""
        return deviation(list(self.values.values())) if self.n > 1 else None


@dataclass(frozen=True)
class Table:
    """Everything that the pages show, in their order."""

    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    columns: tuple[Column, ...]
    cells: dict[tuple[Row, Column], Cell]
    runs: dict[Setting, tuple[Finished, ...]]
    notes: tuple[str, ...] = ()
    """One line for each seed that is in no cell, since several backbones have it."""

    def cell(self, row: Row, column: Column) -> Cell:
        """An empty one where nothing was measured."""
        return self.cells.get((row, column), Cell({}))

    def name(self, row: Row) -> str:
        """As short as it can be told apart from the other rows."""
        more = self.detail(row)
        return f"{row.arch}, {row.method}" + (f" ({more})" if more else "")

    def detail(self, row: Row) -> str:
        """What tells it apart from rows of the same architecture and method; empty for an only one."""
        same = [one for one in self.rows if (one.arch, one.method) == (row.arch, row.method)]
        if len(same) == 1:
            return ""
        told = f"{row.recipe}, {row.epochs} epochs on {row.dataset}"
        alike = [one for one in same if replace(one, recipe_hash=row.recipe_hash) == row]
        return f"{told}, recipe_hash {row.recipe_hash or 'unknown'}" if len(alike) > 1 else told

    def pair_detail(self, row: Row, other: Row) -> str:
        """What tells a comparison apart from others of the same two methods."""
        rivals = [two for one, two in self.comparisons if one == row and two.method == other.method]
        against = f"against {self.detail(other)}" if len(rivals) > 1 else ""
        return ", ".join(filter(None, (self.detail(row), against)))

    @cached_property
    def comparisons(self) -> tuple[tuple[Row, Row], ...]:
        """Every method with the plain one, and the plain one with random weights."""
        return tuple(
            (row, other) for row in self.rows for other in self.rows if _is_compared(row, other)
        )

    def label(self, row: Row, other: Row) -> str:
        """A comparison as a table shows it."""
        short = f"{row.method} - {other.method}"
        alike = [
            one
            for one in self.comparisons
            if (one[0].method, one[1].method) == (row.method, other.method)
        ]
        if len(alike) == 1:
            return short
        rivals = [two for one, two in alike if one == row]
        return f"{self.name(row)} - {self.name(other) if len(rivals) > 1 else other.method}"

    def difference(self, row: Row, other: Row, column: Column) -> Difference | None:
        """Row minus other, over the pretraining seeds that both have; None without a pair."""
        key = row, other, column
        if key not in self._differences:
            self._differences[key] = difference(self.cell(row, column), self.cell(other, column))
        return self._differences[key]

    @cached_property
    def _differences(self) -> dict[tuple[Row, Row, Column], Difference | None]:
        return {}

    def between_engines(self) -> Iterator[tuple[Row, Column, Column, Difference]]:
        """Each row that two libraries trained under one setting: the first minus the second."""
        for row in self.rows:
            for one, other in combinations(self.columns, 2):
                same = replace(one.setting, engine="") == replace(other.setting, engine="")
                if same and one.metric == other.metric and one.number != other.number:
                    found = difference(self.cell(row, one), self.cell(row, other))
                    if found is not None:
                        yield row, one, other, found


def difference(cell: Cell, other: Cell) -> Difference | None:
    """Paired by pretraining seed; None where no seed is in both."""
    seeds = [seed for seed in cell.values if seed in other.values]
    if not seeds:
        return None
    return paired([cell.values[seed] for seed in seeds], [other.values[seed] for seed in seeds])


def tabulate(found: Found) -> Table:
    """Rows, columns and cells of what was read."""
    runs: dict[tuple[Row, Setting], list[Finished]] = defaultdict(list)
    places: dict[str, Setting] = {}
    for run in found.runs:
        setting = setting_of(run.result)
        places[run.folder] = setting
        runs[row_of(run.result.backbone), setting].append(run)
    lost: dict[tuple[Row, Setting], list[Unfinished]] = defaultdict(list)
    for cell in found.unfinished:
        for setting in _settings_of(cell, places):
            lost[row_of(cell.backbone), setting].append(cell)

    both = [*runs, *(key for key in lost if key not in runs)]
    order = list(METRICS)
    settings = sorted(
        {setting for _, setting in both},
        key=lambda s: (order.index(s.task), s.recipe, s.data, s.engine, s.digest),
    )
    rows = sorted({row for row, _ in both}, key=_row_order)
    held = {setting: set[str]() for setting in settings}
    for (_, setting), group in runs.items():
        held[setting].update(*(run.result.metrics for run in group))
    columns = [
        Column(number, setting, metric)
        for number, setting in enumerate(settings, 1)
        for metric in _metrics_of(setting, held[setting])
    ]
    cells = {}
    for column in columns:
        for row in rows:
            key = row, column.setting
            if key in runs or key in lost:
                cells[row, column] = _cell(runs.get(key, ()), lost.get(key, ()), column.metric)
    by_setting = {
        setting: tuple(run for row in rows for run in runs.get((row, setting), ()))
        for setting in settings
    }
    notes = tuple(
        _note(row, setting, seed, told)
        for (row, setting), group in runs.items()
        for seed, told in _ambiguous(group).items()
    )
    return Table(tuple(rows), tuple(settings), tuple(columns), cells, by_setting, notes)


def _cell(runs: Sequence[Finished], lost: Sequence[Unfinished], metric: Metric) -> Cell:
    ambiguous = _ambiguous(runs)
    measured = [
        run
        for run in runs
        if metric.key in run.result.metrics and run.result.backbone["seed"] not in ambiguous
    ]
    by_seed: dict[Seed, list[float]] = defaultdict(list)
    for run in measured:
        by_seed[run.result.backbone["seed"]].append(run.result.metrics[metric.key])
    seeds = sorted(by_seed, key=lambda seed: (seed is None, seed))
    return Cell(
        {seed: metric.factor * fmean(by_seed[seed]) for seed in seeds}, tuple(measured), tuple(lost)
    )


def _ambiguous(runs: Sequence[Finished]) -> dict[Seed, list[Finished]]:
    """The runs of each pretraining seed that several backbones of a row have."""
    by_seed: dict[Seed, list[Finished]] = defaultdict(list)
    for run in runs:
        by_seed[run.result.backbone["seed"]].append(run)
    return {
        seed: group
        for seed, group in by_seed.items()
        if len({run.result.backbone["fingerprint"] for run in group}) > 1
    }


def _note(row: Row, setting: Setting, seed: Seed, runs: Sequence[Finished]) -> str:
    told = ", ".join(f"{run.folder} ({run.result.backbone['fingerprint']})" for run in runs)
    return (
        f"in no cell: {setting.task} from {row.arch}, {row.method}, pretraining seed "
        f"{'unknown' if seed is None else seed}: different backbones that nothing tells apart: "
        f"{told}"
    )


def _metrics_of(setting: Setting, held: set[str]) -> list[Metric]:
    """Those that a run holds, and those that every run of the task should."""
    known = METRICS[setting.task]
    shown = [metric for metric in known if metric.key in held or metric.always]
    return shown or list(known[:1])


def row_of(backbone: dict[str, Any]) -> Row:
    """The row of a backbone, by what a result says about it."""
    facts = {key: backbone[key] for key in ("arch", "method", "recipe", "dataset", "epochs")}
    return Row(**facts, recipe_hash=backbone.get("recipe_hash"))


def setting_of(result: Result) -> Setting:
    """The setting of a run."""
    config = result.config
    rest = {key: value for key, value in config.items() if key not in _NOT_A_SETTING}
    sizes = {key: value for key, value in result.data.items() if isinstance(value, int)}
    digest = hashlib.sha256(json.dumps([rest, sizes], sort_keys=True).encode()).hexdigest()[:8]
    counts = ", ".join(f"{value:,} {key}" for key, value in sizes.items())
    recipe = str(config.get("name", "?"))
    if result.task == "pretrain":  # whose rows are the methods
        recipe = _family(recipe, result.backbone["method"]) or recipe
    data = f"{result.data['name']} ({counts})" if counts else result.data["name"]
    return Setting(result.task, recipe, data, str(config.get("engine", "")), digest)


def _settings_of(cell: Unfinished, places: dict[str, Setting]) -> list[Setting]:
    """Those of the finished cells beside it; one of its own where there are none."""
    beside = {places[folder] for folder in cell.siblings if folder in places}
    return list(beside) or [Setting(cell.task, "unknown", "no run finished", "", "")]


def _family(recipe: str | None, method: str) -> str | None:
    if recipe is None:
        return None
    words = (method, *_PLAIN) if method in _PLAIN else (method,)
    for word in words:
        if recipe.endswith((f"_{word}", f"-{word}")):
            return recipe[: -len(word) - 1]
    return recipe


def _row_order(row: Row) -> tuple[Any, ...]:
    more = str(row.recipe), str(row.dataset), row.epochs or 0, row.recipe_hash or ""
    return (row.arch, row.method != "none", row.method, *more)


def _is_compared(row: Row, other: Row) -> bool:
    if row.method == "none":
        return other.method == SCRATCH and other.arch == row.arch
    return row.method != SCRATCH and other.method == "none" and row.is_rival(other)
