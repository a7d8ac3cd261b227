"""Grouping: which runs are replicates of each other, and which may stand in one column.

A row is what backbones have in common (architecture, mixing method, pretraining recipe and data); a
column is a metric under one setting, so runs of different recipes, data or sizes never share one. A
replicate is a pretraining seed: several fine-tunings from one seed are averaged into one value
first, and n counts pretrainings. So are the folds of a cross-validation: a backbone that lacks one
that others have is in no cell. Nor are backbones that differ though they say the same of
themselves; data that differs though it is called the same stands in columns of its own.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from functools import cache, cached_property
from itertools import combinations, permutations
from pathlib import PurePath
from statistics import fmean, stdev
from typing import Any

from pretrain.errors import shorten
from pretrain.run import CHANGEABLE, Result, plain
from transfer import task
from transfer.evaluation import suites
from transfer.report.results import (
    FinishedRun,
    RunSet,
    Seed,
    UnfinishedRun,
    fold_of,
    kind,
    network_of,
    seed_text,
)
from transfer.statistics import Difference, paired_difference

# what does not make it another setting
_NOT_A_SETTING = {"seed", "data", "backbone", "random_init", "engine", "name", "meteor"}
_NOT_A_SETTING |= {*CHANGEABLE, "scratch", "workers"}  # the last two: names of before
_NOT_A_SETTING |= {"parts", "methods"}  # of a suite: what is measured
_OWN_SIZE = ("classification", "captioning")  # of the images, unless the recipe names one
_OF_A_METHOD = ("mixing", "rotation")  # of a pretraining: what the rows compare
_PLAIN = ("none", "baseline")
_FEW_CAPTIONS = 0.1  # different ones for each image
RANDOM = "from scratch"
"""The method of a network with random weights, as results have it."""


@dataclass(frozen=True)
class Setting:
    """What runs must share to stand in one column."""

    task: str
    recipe: str
    data: str
    engine: str
    """The library that trained; empty where there is but one."""
    network: str
    """What people call it, such as SSD; empty where a task has but one kind."""
    digest: str
    """Over the configuration, without engine, seed, paths and what the rows compare."""

    @property
    def label(self) -> str:
        """Network and recipe."""
        return ", ".join(filter(None, (self.network, self.recipe)))

    @property
    def title(self) -> str:
        """As a legend says it."""
        engine = f", engine {self.engine}" if self.engine else ""
        recipe = self.recipe if self.task in suites.blocks() else f"recipe {self.recipe}"
        recipe = ", ".join(filter(None, (self.network, recipe)))
        return f"{self.task}: {recipe}, data {self.data}{engine}"


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
    model_args: str | None = None
    """Of the network, in words; None where there are none, or a result of before does not say."""

    @property
    def title(self) -> str:
        """Without what may be needed to tell it from others."""
        return f"{self.arch}, {self.method}"

    def is_compared_with(self, other: "Row") -> bool:
        """Every method with the plain one of its recipe, the plain one with random weights."""
        if (self.arch, self.model_args) != (other.arch, other.model_args):
            return False
        if self.method == "none":
            return other.method == RANDOM
        mine, theirs = (
            (_without_method(row.recipe, row.method), row.dataset, row.epochs)
            for row in (self, other)
        )
        return self.method != RANDOM and other.method == "none" and mine == theirs


@dataclass(frozen=True)
class Column:
    """A metric under a setting."""

    number: int
    """Of the setting, from 1."""
    setting: Setting
    metric: task.Metric

    @property
    def title(self) -> str:
        """Metric, and network where a task has several kinds."""
        network = self.setting.network
        return f"{self.metric.title} ({network})" if network else self.metric.title

    @property
    def head(self) -> str:
        """Title and number of the setting."""
        return f"{self.title} [{self.number}]"


@dataclass(frozen=True)
class Cell:
    """The measurements of one row in one column."""

    values: dict[Seed, float]
    """In the unit shown, by pretraining seed; empty where nothing was measured."""
    runs: tuple[FinishedRun, ...] = ()
    unfinished: tuple[UnfinishedRun, ...] = ()
    transfers: dict[Seed, dict[int, float]] = field(default_factory=dict)
    """What is behind each value, by the seed of the fine-tuning; empty with folds."""

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
        return stdev(self.values.values()) if self.n > 1 else None


@dataclass(frozen=True)
class Table:
    """Everything that the pages show of the tasks, or of one suite, in their order."""

    rows: tuple[Row, ...]
    settings: tuple[Setting, ...]
    columns: tuple[Column, ...]
    cells: dict[tuple[Row, Column], Cell]
    runs: dict[Setting, tuple[FinishedRun, ...]]
    notes: tuple[str, ...] = ()
    """One line for each seed that is in no cell: several backbones have it, or it lacks a fold."""
    first: int = 1
    """Number of the first setting."""
    suites: dict[str, "Table"] = field(default_factory=dict)
    """Of each block of evaluations that a run holds, by name."""
    pretrained: dict[Row, frozenset[str]] = field(default_factory=dict)
    """Digests of the settings in which the backbones of a row were trained, where results say."""

    def name(self, row: Row) -> str:
        """As short as it can be told apart from the other rows."""
        detail = self.detail(row)
        return f"{row.title} ({detail})" if detail else row.title

    def detail(self, row: Row) -> str:
        """What tells it apart from rows of the same title; empty for an only one."""
        same = [one for one in self.rows if one.title == row.title]
        if len(same) == 1:
            return ""
        text = f"{row.recipe}, {row.epochs} epochs on {row.dataset}"
        if len({one.model_args for one in same}) > 1:
            network = row.model_args or "no arguments"
            text = network if row.method == RANDOM else f"{network}, {text}"
        alike = [one for one in same if replace(one, recipe_hash=row.recipe_hash) == row]
        return f"{text}, recipe hash {row.recipe_hash or 'unknown'}" if len(alike) > 1 else text

    @property
    def methods(self) -> list[str]:
        """Each once, the plain one first and foreign weights last: a colour for each, in order."""
        ours = [row.method for row in self.rows if row.recipe is not None]
        return list(dict.fromkeys(["none", *ours, *(row.method for row in self.rows)]))

    @property
    def tables(self) -> tuple["Table", ...]:
        """This one, if it holds anything or nothing else does, and those of the suites."""
        own = (self,) if self.rows or not self.suites else ()
        return (*own, *self.suites.values())

    @cached_property
    def components(self) -> tuple["Table", ...]:
        """Parts without a row, a setting or a comparison between them: each a table of its own.

        Random weights are compared with every plain row, and join none that nothing else joins.
        """
        sets = [{row, other} for row, other in self.comparisons if other.method != RANDOM]
        for setting in self.settings:
            of_setting = [one for one in self.columns if one.setting == setting]
            cells = ((row, self.cells[row, one]) for row in self.rows for one in of_setting)
            sets.append({row for row, cell in cells if cell.n or cell.unfinished})
        joined: list[set[Row]] = []
        for rows in filter(None, sets):
            rows = rows.union(*(other for other in joined if rows & other))
            joined = [*(other for other in joined if not rows & other), rows]
        if len(joined) < 2:
            return (self,)
        parts = map(self._part, joined)
        return tuple(sorted(parts, key=lambda part: (-len(part.rows), part.columns[0].number)))

    def _part(self, rows: set[Row]) -> "Table":
        """With the columns in which one of them has something."""
        cells = ((one.setting, self.cells[row, one]) for row in rows for one in self.columns)
        settings = {setting for setting, cell in cells if cell.n or cell.unfinished}
        return replace(
            self,
            rows=tuple(row for row in self.rows if row in rows),
            columns=tuple(one for one in self.columns if one.setting in settings),
        )

    def last_of(self, column: Column) -> Column | None:
        """The column of the last epoch beside one of the best."""
        beside = (one for one in self.columns if one.setting == column.setting)
        return next((o for o in beside if f"{o.metric.key}_best" == column.metric.key), None)

    def flattery(self, row: Row, best: Column) -> Cell:
        """By how much the best epoch is above the last, which nobody chose."""
        mine, last = self.cells[row, best], self.last_of(best)
        theirs = self.cells[row, last].values if last else {}
        return Cell({key: mine.values[key] - theirs[key] for key in mine.values if key in theirs})

    @property
    def numbered(self) -> list[tuple[int, Setting]]:
        """The settings with their numbers."""
        return list(enumerate(self.settings, self.first))

    @cached_property
    def comparisons(self) -> tuple[tuple[Row, Row], ...]:
        """(row, the other that is subtracted from it)."""
        pairs = permutations(self.rows, 2)
        return tuple(pair for pair in pairs if self._are_compared(*pair))

    def _are_compared(self, row: Row, other: Row) -> bool:
        """Rows that say the same may still be of other pretrainings: of fewer images, say."""
        mine, theirs = (self.pretrained.get(one, frozenset()) for one in (row, other))
        is_known = bool(mine and theirs) and RANDOM not in (row.method, other.method)
        return row.is_compared_with(other) and not (is_known and mine.isdisjoint(theirs))

    def _has_rivals(self, row: Row, other: Row) -> bool:
        """Whether `row` is compared with several rows of one method."""
        key = row, other.method
        return [(one, two.method) for one, two in self.comparisons].count(key) > 1

    def pair_detail(self, row: Row, other: Row) -> str:
        """What tells a comparison apart from others of the same two methods."""
        against = f"against {self.detail(other)}" if self._has_rivals(row, other) else ""
        return ", ".join(filter(None, (self.detail(row), against)))

    def label(self, row: Row, other: Row) -> str:
        """A comparison as a table shows it."""
        methods = [(one.method, two.method) for one, two in self.comparisons]
        if methods.count((row.method, other.method)) == 1:
            return f"{row.method} - {other.method}"
        subtracted = self.name(other) if self._has_rivals(row, other) else other.method
        return f"{self.name(row)} - {subtracted}"

    def brief_detail(self, row: Row, other: Row) -> str:
        """What tells a comparison from others of its methods: the recipe, where that is enough."""
        pairs = [(one.method, two.method, one.recipe) for one, two in self.comparisons]
        recipes = [recipe for *pair, recipe in pairs if pair == [row.method, other.method]]
        if len(recipes) < 2:
            return ""
        if row.recipe and recipes.count(row.recipe) == 1:
            return row.recipe
        return self.pair_detail(row, other)

    def brief(self, row: Row, other: Row) -> str:
        """A comparison as a list of many shows it."""
        detail = self.brief_detail(row, other)
        return ", ".join(filter(None, (f"{row.method} - {other.method}", detail)))

    @cached_property
    def differences(self) -> dict[tuple[Row, Row, Column], Difference]:
        """Row minus other, over the pretraining seeds that both have; no entry without a pair."""
        return {
            (row, other, column): between
            for row, other in self.comparisons
            for column in self.columns
            if (between := difference(self.cells[row, column], self.cells[other, column]))
        }

    def between_engines(self) -> Iterator[tuple[Row, Column, Column, Difference]]:
        """Each row that two libraries trained under one setting: the first minus the second."""
        for row in self.rows:
            for one, other in combinations(self.columns, 2):
                same = replace(one.setting, engine="") == replace(other.setting, engine="")
                between = difference(self.cells[row, one], self.cells[row, other])
                if same and one.metric == other.metric and one.number != other.number and between:
                    yield row, one, other, between


def difference(cell: Cell, other: Cell) -> Difference | None:
    """Paired by pretraining seed; None where no seed is in both.

    Fine-tunings of one seed begin alike, so of each pair those count whose seed both have.
    """
    pairs = [_pair(cell, other, seed) for seed in cell.values if seed in other.values]
    return paired_difference(*zip(*pairs, strict=True)) if pairs else None


def _pair(cell: Cell, other: Cell, seed: Seed) -> tuple[float, float]:
    mine, theirs = cell.transfers.get(seed, {}), other.transfers.get(seed, {})
    common = mine.keys() & theirs.keys()
    if not common or mine.keys() == theirs.keys():
        return cell.values[seed], other.values[seed]
    return fmean(mine[one] for one in common), fmean(theirs[one] for one in common)


def tabulate(run_set: RunSet) -> Table:
    """Rows, columns and cells of what was read: of the tasks, and of each suite."""
    run_set, blocks = _foreign_apart(run_set), suites.blocks()
    of_tasks = tuple(run for run in run_set.runs if run.result.task not in blocks)
    table = _tabulate(RunSet(of_tasks, run_set.unfinished), 1)
    parts, first = dict[str, Table](), 1 + len(table.settings)
    for name in blocks:
        if runs := tuple(run for run in run_set.runs if run.result.task == name):
            parts[name] = _tabulate(RunSet(runs), first)
            first += len(parts[name].settings)
    pretrained: dict[Row, frozenset[str]] = defaultdict(frozenset)
    for setting, runs in table.runs.items():
        for run in runs if setting.task == task.PRETRAIN.name else ():
            pretrained[row_of(run.result.backbone)] |= {setting.digest}
    parts = {name: replace(part, pretrained=pretrained) for name, part in parts.items()}
    return replace(table, suites=parts, pretrained=pretrained)


def _foreign_apart(run_set: RunSet) -> RunSet:
    """Foreign weights of one name get their fingerprint: nothing else tells `model.safetensors`.

    They have no seed by which they could be replicates.
    """
    prints: dict[tuple[str, str], set[str]] = defaultdict(set)
    backbones = [run.result.backbone for run in run_set.runs]
    for one in (*backbones, *(job.backbone for job in run_set.unfinished)):
        if one["seed"] is None:
            prints[one["arch"], one["method"]].add(one["fingerprint"])

    def named(one: dict[str, Any]) -> dict[str, Any]:
        alike = one["seed"] is None and len(prints[one["arch"], one["method"]]) > 1
        return one | {"method": f"{one['method']} {one['fingerprint'][:8]}"} if alike else one

    return replace(
        run_set,
        runs=tuple(
            replace(run, result=replace(run.result, backbone=named(run.result.backbone)))
            for run in run_set.runs
        ),
        unfinished=tuple(replace(job, backbone=named(job.backbone)) for job in run_set.unfinished),
    )


def _tabulate(run_set: RunSet, first: int) -> Table:
    runs: dict[tuple[Row, Setting], list[FinishedRun]] = defaultdict(list)
    setting_of_folder: dict[str, Setting] = {}
    folds: dict[Setting, set[int | None]] = defaultdict(set)
    for run, setting in zip(run_set.runs, settings_of(run_set.runs), strict=True):
        setting_of_folder[run.folder] = setting
        runs[row_of(run.result.backbone), setting].append(run)
        folds[setting].add(run.fold)

    @cache
    def settings_beside(siblings: frozenset[str]) -> set[Setting]:
        return {setting_of_folder[name] for name in siblings & setting_of_folder.keys()}

    lost: dict[tuple[Row, Setting], list[UnfinishedRun]] = defaultdict(list)
    for job in run_set.unfinished:
        # the settings of the finished runs beside it; one of its own where there are none
        for setting in settings_beside(job.siblings) or {
            Setting(job.task, "unknown", "no run finished", "", "", "")
        }:
            lost[row_of(job.backbone), setting].append(job)

    rows = sorted({row for row, _ in (*runs, *lost)}, key=_row_order)
    order = ["pretrain", *task.names(), *suites.blocks()]
    every_setting = {setting for _, setting in (*runs, *lost)}
    settings = sorted(every_setting, key=lambda one: (order.index(one.task), *astuple(one)))
    runs_of = {one: tuple(run for row in rows for run in runs[row, one]) for one in settings}
    left_out = {
        (row, setting): _left_out(runs[row, setting], folds[setting])
        for setting in settings
        for row in rows
    }
    columns = [
        Column(number, setting, metric)
        for number, setting in enumerate(settings, first)
        for metric in _metrics_of(setting.task, runs_of[setting])
    ]
    cells = {
        (row, column): _cell(
            [run for run in runs[row, setting] if run.seed not in left_out[row, setting]],
            lost[row, setting],
            column.metric,
        )
        for column in columns
        for row in rows
        if (setting := column.setting)
    }
    notes = [
        f"in no cell: {setting.task} from {row.title}, pretraining seed {seed_text(seed)}: {why}"
        for (row, setting), seeds in left_out.items()
        for seed, why in seeds.items()
    ]
    numbers = {setting: number for number, setting in enumerate(settings, first)}
    notes += [
        f"{setting.task} from {row.title}, seed {run.result.seed}, column {numbers[setting]}: {why}"
        for (row, setting), found in runs.items()
        for run in found
        for why in _warnings(run.result)
    ]
    return Table(tuple(rows), tuple(settings), tuple(columns), cells, runs_of, tuple(notes), first)


def _warnings(result: Result) -> Iterator[str]:
    """Why a score may say something else than it seems to."""
    metrics, data = result.metrics, result.data
    epochs, few = metrics.get("epochs_above_chance"), metrics.get("different_captions")
    if isinstance(epochs, int) and epochs > 0:
        yield (
            f"the mean training loss of {epochs} {'epoch' if epochs == 1 else 'epochs'} was far "
            "above that of chance, so the learning rate was too high for this network"
        )
    images = data.get(str(metrics.get("scored")))
    if isinstance(few, int) and isinstance(images, int) and few < _FEW_CAPTIONS * images:
        yield (
            f"only {few} different captions for {images} images, so its scores tell little of what "
            "the encoder sees"
        )


def _cell(runs: Sequence[FinishedRun], lost: Sequence[UnfinishedRun], metric: task.Metric) -> Cell:
    without = [run for run in runs if metric.key not in run.result.metrics]
    fewer = {run.seed for run in without if run.fold is not None}  # of a mean over the folds
    measured = [run for run in runs if metric.key in run.result.metrics and run.seed not in fewer]
    scores: dict[Seed, dict[int | None, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in measured:
        scores[run.seed][run.fold].append(run.result.metrics[metric.key])
    seeds = sorted(scores, key=lambda seed: (seed is None, seed))
    values = {seed: metric.factor * fmean(map(fmean, scores[seed].values())) for seed in seeds}
    by_seed: dict[Seed, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in measured if all(run.fold is None for run in measured) else ():
        by_seed[run.seed][run.result.seed].append(metric.factor * run.result.metrics[metric.key])
    transfers = {
        seed: {one: fmean(found) for one, found in of_seed.items()}
        for seed, of_seed in by_seed.items()
    }
    return Cell(values, tuple(measured), tuple(lost), transfers)


def _left_out(runs: Sequence[FinishedRun], folds: set[int | None]) -> dict[Seed, str]:
    """Why pretraining seeds of a row are in no cell; `folds` are those that any row has."""
    by_seed: dict[Seed, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        by_seed[run.seed].append(run)
    reasons = dict[Seed, str]()
    for seed, group in by_seed.items():
        if lacking := folds - {run.fold for run in group}:
            names = ", ".join(map(str, sorted(lacking, key=str)))
            reasons[seed] = f"without the folds that others have: {names}"
        if len({run.result.backbone["fingerprint"] for run in group}) > 1:
            reasons[seed] = "different backbones that nothing tells apart: " + ", ".join(
                f"{run.folder} ({run.result.backbone['fingerprint']})" for run in group
            )
    return reasons


def _metrics_of(name: str, runs: Sequence[FinishedRun]) -> list[task.Metric]:
    """Those that a run holds, and those that every run of the task should."""
    metrics = kind(name).metrics
    measured = {key for run in runs for key in run.result.metrics}
    return [one for one in metrics if one.always or one.key in measured] or list(metrics[:1])


def row_of(backbone: dict[str, Any]) -> Row:
    """The row of a backbone, by what a result says about it."""
    facts: dict[str, Any] = {field.name: backbone.get(field.name) for field in fields(Row)}
    words = [f"{key} {_in_words(value)}" for key, value in (facts["model_args"] or {}).items()]
    return Row(**facts | {"model_args": ", ".join(sorted(words)) or None})


def settings_of(runs: Sequence[FinishedRun]) -> list[Setting]:
    """The setting of each run.

    Where results of one setting say that their data differs in content, each content is a setting,
    and so are those that do not say it. So is each size of images, whether the recipe names it or
    each backbone takes its own. The folds of a cross-validation are one, named by them all.
    """
    settings = [_setting_by_name(run.result) for run in runs]
    for key in ("digest", "digest_bytes"):
        contents = [run.result.data.get(key) for run in runs]
        known = {pair for pair in zip(settings, contents, strict=True) if pair[1]}
        contents_of = Counter(setting for setting, _ in known)
        settings = [
            _with_content(setting, content) if contents_of[setting] > 1 else setting
            for setting, content in zip(settings, contents, strict=True)
        ]
    input_sizes = _input_sizes(runs, settings)
    sizes_of: dict[str, set[str]] = defaultdict(set)  # by title: where one is named, all are
    for setting, size in zip(settings, input_sizes, strict=True):
        sizes_of[setting.title].add(size)
    settings = [
        _with_input_size(setting, size) if len(sizes_of[setting.title]) > 1 else setting
        for setting, size in zip(settings, input_sizes, strict=True)
    ]
    folds: dict[Setting, set[int]] = defaultdict(set)
    for run, setting in zip(runs, settings, strict=True):
        if run.fold is not None:
            folds[setting].add(run.fold)
    named = {one: replace(one, data=f"{one.data}, {_in_folds(folds[one])}") for one in folds}
    return _told_apart(runs, [named.get(setting, setting) for setting in settings])


def _told_apart(runs: Sequence[FinishedRun], settings: Sequence[Setting]) -> list[Setting]:
    """Settings of one title get the options in which they differ, such as mixing.cutmix 0.5."""
    alike: dict[str, dict[Setting, dict[str, str]]] = defaultdict(dict)
    for run, setting in zip(runs, settings, strict=True):
        if setting.task not in suites.blocks():  # whose title has them
            alike[setting.title].setdefault(setting, _words_of(run.result))
    named = dict[Setting, Setting]()
    for group in alike.values():
        known = sorted({key for options in group.values() for key in options})
        differ = [key for key in known if len({words.get(key) for words in group.values()}) > 1]
        for setting, options in group.items():
            text = shorten([f"{key} {options.get(key, 'unknown')}" for key in differ], 6)
            named[setting] = replace(setting, data=f"{setting.data}; {text}") if differ else setting
    return [named.get(setting, setting) for setting in settings]


def _words_of(result: Result) -> dict[str, str]:
    """{dotted name: value in words} of the options that make a setting."""
    left_out = {*_NOT_A_SETTING, "start_from", "dataset.fold"}
    if result.task == task.PRETRAIN.name:
        left_out |= {*_OF_A_METHOD}
    if result.task in _OWN_SIZE:  # whose sizes are told apart by the pixels
        left_out |= {"dataset.image_size"}
    options = dict[str, str]()
    for key, value in result.config.items():
        parts = value if isinstance(value, dict) else {"": value}
        for name, one in {} if key in left_out else parts.items():
            options[f"{key}.{name}".rstrip(".")] = "null" if one is None else _in_words(one)
    return {key: words for key, words in options.items() if key not in left_out}


def _in_folds(folds: set[int]) -> str:
    return f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, sorted(folds)))}"


def _with_content(setting: Setting, content: str | None) -> Setting:
    name = content[:8] if content else "unknown"
    data, digest = f"{setting.data}, content {name}", short_hash([setting.digest, content])
    return replace(setting, data=data, digest=digest)


def _input_sizes(runs: Sequence[FinishedRun], settings: Sequence[Setting]) -> list[str]:
    """The size of the images of each run: the configuration's, or the backbone's own.

    "" where the task has a size of its own. What a result of before does not say, others of its
    architecture and setting do, where they agree; else the architecture stands for it.
    """
    backbones = [run.result.backbone for run in runs]
    own = [one.get("input_size") for one in backbones]
    sizes = [_pixels(*size[1:]) if size else "" for size in own]
    keys = [(setting, one["arch"]) for setting, one in zip(settings, backbones, strict=True)]
    sizes_of: dict[tuple[Setting, str], set[str]] = defaultdict(set)
    for key, size in zip(keys, sizes, strict=True):
        sizes_of[key] |= {size} - {""}

    def resolve(run: FinishedRun, key: tuple[Setting, str], size: str) -> str:
        if side := _asked_size(run.result):
            return _pixels(side, side)
        if not _takes_own_size(run.result):
            return ""
        known = sizes_of[key]
        return size or (min(known) if len(known) == 1 else f"the input size of {key[1]}")

    return list(map(resolve, runs, keys, sizes))


def _pixels(height: int, width: int) -> str:
    return f"{height} x {width} pixels"


def _takes_own_size(result: Result) -> bool:
    """Detectors and segmenters have a size of their own, as has a pretraining."""
    if result.task in suites.blocks():
        return not any(result.config.get(key) for key in ("image_size", "size"))
    section = result.config.get("dataset")
    return isinstance(section, dict) and section.get("image_size", 0) is None


def _asked_size(result: Result) -> int | None:
    """Of the images, where the configuration names one instead of the backbone's own."""
    section = result.config.get("dataset")
    if result.task not in _OWN_SIZE or not isinstance(section, dict):
        return None
    size = section.get("image_size")
    return size if isinstance(size, int) else None


def _with_input_size(setting: Setting, size: str) -> Setting:
    data, digest = f"{setting.data}, {size or 'size unknown'}", short_hash([setting.digest, size])
    return replace(setting, data=data, digest=digest)


def _setting_by_name(result: Result) -> Setting:
    config, data = result.config, result.data["name"]
    rest = {key: value for key, value in config.items() if key not in _NOT_A_SETTING}
    sizes = {key: value for key, value in result.data.items() if isinstance(value, int)}
    if fold_of(result) is not None:  # whose parts are of different sizes
        rest["dataset"] = {**rest["dataset"], "fold": "each"}
        sizes = {key: value for key, value in sizes.items() if key not in ("train", "val")}
    if sizes:
        data += f" ({', '.join(f'{value:,} {key}' for key, value in sizes.items())})"
    if _asked_size(result):  # told apart by all sizes, asked for or own
        rest["dataset"] = {**rest["dataset"], "image_size": None}
    recipe, engine = str(config.get("name", "?")), str(config.get("engine", ""))
    if result.task == task.PRETRAIN.name:  # whose rows are the methods
        rest = {key: value for key, value in rest.items() if key not in _OF_A_METHOD}
        recipe = _without_method(recipe, result.backbone["method"]) or recipe
    if rest.get("start_from"):
        rest["start_from"] = "given"  # each backbone has one of its own
    if block := suites.blocks().get(result.task):
        rest, recipe = _options(block, rest)
    digest = short_hash([rest, sizes])
    return Setting(result.task, recipe, data, engine, network_of(result), digest)


def _options(block: suites.Block, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """All options of a suite that make a setting, and in words those that are not the default.

    Options that a result of before lacks are the default; folders count by their names.
    """
    defaults: dict[str, Any] = {"preprocess": "pil", "precision": "32-true"}
    defaults |= {"split": None, "class_order": None}
    if isinstance(block, suites.Suite):
        defaults |= plain(task.load(block.config)())
        given |= {key: _names(given[key]) for key in block.paths if key in given}
    defaults = {key: value for key, value in defaults.items() if key not in _NOT_A_SETTING}
    unusual = {key: value for key, value in given.items() if value != defaults.get(key)}
    words = ", ".join(f"{key} {_in_words(value)}" for key, value in unusual.items())
    return defaults | given, words or "default options"


def _names(value: Any) -> Any:
    """Of a folder its last name, or what stands before the equals sign of NAME=DIR."""
    if isinstance(value, list):
        return [_names(one) for one in value]
    if not isinstance(value, str):
        return value
    name, equals, _ = value.partition("=")
    return name if equals and "/" not in name else PurePath(value).name


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def short_hash(value: Any) -> str:
    """Eight digits over plain values, whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _without_method(recipe: str | None, method: str) -> str | None:
    """imagenet_resnet50 for imagenet_resnet50_cutmix, also where the method has arguments."""
    for word in (method, *_PLAIN) if method in _PLAIN else (method, *method.split()[:1]):
        if recipe is not None and recipe.endswith((f"_{word}", f"-{word}")):
            return recipe[: -len(word) - 1]
    return recipe


def _row_order(row: Row) -> tuple[Any, ...]:
    more = str(row.recipe), str(row.dataset), row.epochs or 0, row.recipe_hash or ""
    return (row.arch, row.method != "none", row.method, *more, row.model_args or "")
