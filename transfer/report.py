"""result.json files to one Markdown table. No torch: it reads what runs have written.

A row is a backbone arm (architecture, mixing method, pretraining recipe and data); a column is a
metric under one setting, so runs of different recipes, data or sizes never share one. A replicate
is a pretraining seed: several fine-tunings from one seed are averaged into one value first.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pretrain.errors import UserError
from pretrain.run import Result
from transfer.statistics import paired

# task -> (key in the metrics, column head, factor to the unit shown), in the order of the columns
_COLUMNS = {
    "pretrain": (("top1", "top-1 %, last", 1), ("top1_best", "top-1 %, best", 1)),
    "detection": (("AP50", "AP50", 1), ("AP", "AP", 1)),
    "captioning": (("Bleu_4", "BLEU-4", 100), ("CIDEr", "CIDEr", 100)),
}
# what does not make it another setting; `mixing` of a pretraining is what the rows compare
_NOT_A_SETTING = ("seed", "data", "backbone", "scratch", "engine", "workers", "mixing", "name")

SCRATCH = "from scratch"
"""The arm that detection gives a network with random weights."""

_PAPER = """\
The paper's own values (Yun et al., ICCV 2019, tables 3 and 10): ResNet-50 on ImageNet, Faster R-CNN
on VOC07+12, NIC on MS-COCO. Another scale than small runs: compare differences, not levels.

| backbone | top-1 %, best | AP50 | BLEU-4 | CIDEr |
|---|---:|---:|---:|---:|
| none | 76.32 | 75.6 | 22.9 | 71.2 |
| mixup | 77.42 | 73.9 | 23.2 | 72.2 |
| cutout | 77.07 | 75.0 | 24.0 | 74.1 |
| cutmix | 78.60 | 76.7 | 24.9 | 77.6 |
"""


@dataclass(frozen=True, order=True)
class Setting:
    """What runs must share to stand in one column."""

    task: str
    recipe: str
    data: str
    engine: str
    """The library that trained; empty where there is but one."""
    digest: str
    """Over the configuration, without engine, seed, paths and what the rows compare."""


@dataclass(frozen=True)
class Row:
    """What backbones must share to be replicates of each other."""

    arch: str
    arm: str
    recipe: str | None
    dataset: str | None
    epochs: int | None


def read_results(folder: Path) -> tuple[list[Result], list[str]]:
    """Every result.json below `folder`, and a complaint for each that cannot be read.

    Raises:
        UserError: no such folder, or no result in it.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}.")
    paths = sorted(folder.rglob("result.json"))
    if not paths:
        raise UserError(f"{folder} holds no result.json: no run in it is finished.")
    results, complaints = [], []
    for path in paths:
        try:
            results.append(Result.read(path))
        except UserError as error:
            complaints.append(str(error))
    return results, complaints


def report(results: Sequence[Result]) -> str:
    """The table in Markdown, what its columns are, and the paper's values."""
    cells: dict[tuple[Row, Setting], dict[int, list[dict[str, Any]]]]
    cells = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result.task in _COLUMNS:
            cells[_row(result), _setting(result)][result.backbone["seed"]].append(result.metrics)
    order = list(_COLUMNS)
    settings = sorted({s for _, s in cells}, key=lambda s: (order.index(s.task), s))
    rows = sorted({row for row, _ in cells}, key=lambda row: (row.arch, row.arm != "none", row.arm))

    head = ["backbone"]
    for number, setting in enumerate(settings, 1):
        head += [f"{title} [{number}]" for _, title, _ in _COLUMNS[setting.task]]
    lines = [_line(head), "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        values = _values(cells, row, settings)
        lines.append(_line([_name(row, rows), *map(_cell, values)]))
    for row in rows:
        for other in rows:
            if _is_compared(row, other):
                both = (_values(cells, one, settings) for one in (row, other))
                differences = (_difference(a, b) for a, b in zip(*both, strict=True))
                lines.append(_line([f"*{row.arm} - {other.arm}*", *differences]))
    legend = [
        f"[{number}] {setting.task}: recipe {setting.recipe}, data {setting.data}"
        + (f", engine {setting.engine}" if setting.engine else "")
        for number, setting in enumerate(settings, 1)
    ]
    legend += _between_engines(cells, rows, settings)
    note = (
        "A cell is the mean over n pretraining seeds; with n > 1 the standard deviation stands "
        "behind it. A difference is the mean over pairs of the same seed, with half of its 95 % "
        "interval; behind it the smallest true difference that n pairs with this spread would "
        "have found four times out of five. A cell without n is one run: its differences are no "
        "evidence."
    )
    return "\n".join([*lines, "", "  \n".join(legend), "", note, "", _PAPER])


def _between_engines(cells: Any, rows: Sequence[Row], settings: Sequence[Setting]) -> list[str]:
    """For each row that two libraries trained under one setting, the differences."""
    lines = []
    for row in rows:
        for left, right in combinations(range(len(settings)), 2):
            one, other = settings[left], settings[right]
            held = [_values(cells, row, [setting]) for setting in (one, other)]
            if replace(one, engine="") == replace(other, engine="") and all(map(any, held)):
                heads = [head for _, head, _ in _COLUMNS[one.task]]
                found = [
                    f"{head} {_difference(a, b)}"
                    for head, a, b in zip(heads, *held, strict=True)
                    if a.keys() & b.keys()
                ]
                lines.append(f"[{left + 1}] - [{right + 1}], {row.arm}: {', '.join(found)}")
    return lines


def _row(result: Result) -> Row:
    facts = result.backbone
    return Row(facts["arch"], facts["arm"], facts["recipe"], facts["dataset"], facts["epochs"])


def _setting(result: Result) -> Setting:
    rest = {key: value for key, value in result.config.items() if key not in _NOT_A_SETTING}
    sizes = {key: value for key, value in result.data.items() if isinstance(value, int)}
    digest = hashlib.sha256(json.dumps([rest, sizes], sort_keys=True).encode()).hexdigest()[:8]
    counts = ", ".join(f"{value:,} {key}" for key, value in sizes.items())
    data = f"{result.data['name']} ({counts})"
    recipe, engine = result.config.get("name", "?"), result.config.get("engine", "")
    return Setting(result.task, recipe, data, engine, digest)


def _name(row: Row, rows: Sequence[Row]) -> str:
    """As short as it can be told apart from the other rows."""
    same = [other for other in rows if (other.arch, other.arm) == (row.arch, row.arm)]
    more = f" ({row.recipe}, {row.epochs} epochs on {row.dataset})" if len(same) > 1 else ""
    return f"{row.arch}, {row.arm}{more}"


def _is_compared(row: Row, other: Row) -> bool:
    """Every arm with the plain one, and the plain one with random weights."""
    if row.arm == "none":
        return other.arm == SCRATCH and other.arch == row.arch
    return row.arm != SCRATCH and other.arm == "none" and _rivals(row, other)


def _rivals(one: Row, other: Row) -> bool:
    return (one.arch, one.recipe, one.dataset, one.epochs) == (
        other.arch,
        other.recipe,
        other.dataset,
        other.epochs,
    )


def _values(cells: Any, row: Row, settings: Sequence[Setting]) -> list[dict[int, float]]:
    """For each column {pretraining seed: value}; empty where nothing was measured."""
    columns = []
    for setting in settings:
        replicates = cells.get((row, setting), {})
        for key, _, factor in _COLUMNS[setting.task]:
            columns.append(
                {seed: factor * mean(run[key] for run in runs) for seed, runs in replicates.items()}
            )
    return columns


def _cell(values: dict[int, float]) -> str:
    found = list(values.values())
    if not found:
        return ""
    if len(found) == 1:
        return f"{found[0]:.1f}"
    return f"{mean(found):.1f} ± {stdev(found):.1f} (n={len(found)})"


def _difference(ours: dict[int, float], plain: dict[int, float]) -> str:
    seeds = sorted(ours.keys() & plain.keys())
    if not seeds:
        return ""
    found = paired([ours[seed] for seed in seeds], [plain[seed] for seed in seeds])
    if found.half_width is None:
        return f"*{found.mean:+.1f}*"
    return (
        f"*{found.mean:+.1f} ± {found.half_width:.1f} (n={found.n}, could find "
        f"{found.detectable:.1f})*"
    )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
