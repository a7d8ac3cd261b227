"""Charts of a table: differences with their intervals (forest plots), and learning curves."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.report import svg
from transfer.report.results import Finished
from transfer.report.table import Column, Row, Setting, Table, row_of
from transfer.report.words import p_text
from transfer.statistics import FEWEST, Difference

# task -> key in log.jsonl, what it is, factor to the unit shown
_LOGGED = {
    "pretrain": ("top1", "top-1 % on validation", 1.0),
    "classification": ("val_top1", "top-1 % on validation", 1.0),
    "detection": ("AP50", "AP50", 1.0),
    "captioning": ("val_CIDEr", "CIDEr on validation", 100.0),
}
_LARGEST_LOG = 16 * 2**20
_MOST_POINTS = 200
_MOST_RUNS = 8
STYLES = 6
"""Line styles that page.css knows, from a0 to a5."""


@dataclass(frozen=True)
class Chart:
    """A picture for the page."""

    task: str
    caption: str
    svg: str
    words: str
    """What the filter looks in."""


def forests(table: Table) -> list[Chart]:
    """One chart for each short column in which methods share several seeds.

    A single pair has no interval, so that nothing but itself would scale its axis.
    """
    charts: list[Chart] = []
    for column in table.columns:
        found = [
            (f"{row.method} - {other.method}", table.label(row, other), difference)
            for row, other in table.comparisons
            if (difference := table.difference(row, other, column)) is not None
            and difference.half_width is not None
        ]
        if column.metric.main and found:
            charts.append(_forest(column, found, f"forest-{len(charts)}"))
    return charts


def _forest(column: Column, found: Sequence[tuple[str, str, Difference]], name: str) -> Chart:
    """From (short label, full label, difference) of each comparison of several pairs."""
    reach = max(abs(one.mean) + (one.half_width or 0) for *_, one in found) * 1.08 or 1.0
    shorts = [short for short, *_ in found]
    left, right, row_height = 12, svg.WIDTH - 12, 46
    bottom = 8 + row_height * len(found)

    def place(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (right - left)

    body = [
        svg.line(place(tick), 6, place(tick), bottom, "zero" if tick == 0 else "grid")
        for tick in svg.ticks(-reach, reach)
    ]
    body += [
        svg.text(place(tick), bottom + 14, f"{tick:+g}" if tick else "0", "tick", "middle")
        for tick in svg.ticks(-reach, reach)
    ]
    told = []
    for number, (short, label, one) in enumerate(found):
        y = 22 + row_height * number
        shown = short if shorts.count(short) == 1 else label
        half = one.half_width or 0.0
        value = f"{one.mean:+.1f} ± {half:.1f}, n={one.n}, {p_text(one)}"
        low, high = one.mean - half, one.mean + half
        body += [svg.line(place(low), y + 14, place(high), y + 14, "interval")]
        body += [
            svg.line(place(end), y + 10, place(end), y + 18, "interval") for end in (low, high)
        ]
        clear = one.n >= FEWEST and (low > 0 or high < 0)
        body += [svg.dot(place(one.mean), y + 14, 5, "clear" if clear else "open")]
        body += [svg.text(left, y, svg.shorten(shown, 26), "label")]
        body += [svg.text(right, y, value, "value", "end")]
        told.append(f"{label}: {value}")
    head = f"{column.head} {column.setting.task}, {column.setting.recipe}"
    chart = svg.picture(
        bottom + 22, f"Differences in {column.metric.title}", "; ".join(told) + ".", body, name
    )
    words = " ".join([head, *(label for _, label, _ in found)])
    return Chart(column.setting.task, head, chart, words)


def curves(table: Table) -> list[Chart]:
    """One chart for each setting of which a run has logged its score at least twice."""
    charts = []
    methods = list(dict.fromkeys(["none", *(row.method for row in table.rows)]))
    for number, setting in enumerate(table.settings, 1):
        lines = _lines(setting.task, table.runs[setting])
        if any(len(points) > 1 for _, points in lines):
            charts.append(_curve(table, setting, number, lines, methods, f"curve-{number}"))
    return charts


Points = list[tuple[float, float]]


def _lines(task: str, runs: Sequence[Finished]) -> list[tuple[Row, Points]]:
    """The logged scores, of at most _MOST_RUNS runs of each row."""
    taken: dict[Row, int] = {}
    lines = []
    for run in runs:
        row = row_of(run.result.backbone)
        if run.path is None or taken.get(row, 0) >= _MOST_RUNS:
            continue
        if points := _logged(run.path / "log.jsonl", task):
            taken[row] = taken.get(row, 0) + 1
            lines.append((row, points))
    return lines


def _logged(path: Path, task: str) -> Points:
    """(epoch, score) of a log, thinned out; a torn or foreign line ends it."""
    key, _, factor = _LOGGED[task]
    points = []
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_LOG:
            return []
        for text in path.read_bytes().decode("utf-8", "replace").splitlines():
            record = json.loads(text)
            if isinstance(record, dict) and _is_number(record.get(key)):
                if not _is_number(record.get("epoch")):
                    break
                points.append((float(record["epoch"]), factor * float(record[key])))
    except (OSError, ValueError, RecursionError):
        pass
    return points[:: math.ceil(len(points) / _MOST_POINTS)] if points else []


def _curve(
    table: Table,
    setting: Setting,
    number: int,
    lines: Sequence[tuple[Row, Points]],
    methods: Sequence[str],
    name: str,
) -> Chart:
    every = [point for _, points in lines for point in points]
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    room = (high - low) * 0.05 or 1.0
    low, high = low - room, high + room
    rows = list(dict.fromkeys(row for row, _ in lines))
    styles = _styles(rows, methods)
    names = {row: f"{row.arch}, {row.method}" for row in rows}
    for row in rows:
        if sum(names[row] == other for other in names.values()) > 1:
            names[row] = table.name(row)
    left, right, top = 38, svg.WIDTH - 10, 10 + 16 * len(rows)
    bottom = top + 170

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = (point[0] - first) / (last - first or 1)
        y = (point[1] - low) / (high - low)
        return left + x * (right - left), bottom - y * (bottom - top)

    body = []
    for tick in svg.ticks(low, high):
        y = place((first, tick))[1]
        body += [svg.line(left, y, right, y, "grid")]
        body += [svg.text(left - 6, y + 4, f"{tick:g}", "tick", "end")]
    for tick in svg.ticks(first, last) if last > first else [first]:
        if tick == int(tick):
            body += [svg.text(place((tick, low))[0], bottom + 15, f"{tick:g}", "tick", "middle")]
    body += [svg.text(right, bottom + 29, "epoch", "tick", "end")]
    for row, points in lines:
        body += [svg.polyline([place(point) for point in points], f"curve {styles[row]}")]
        body += [svg.dot(*place(points[-1]), 2.5, f"end {styles[row]}")]
    for place_in_list, row in enumerate(rows):
        y = 10 + 16 * place_in_list
        body += [svg.line(left, y, left + 26, y, f"curve {styles[row]}")]
        body += [svg.text(left + 33, y + 4, svg.shorten(names[row], 42), "label")]
    told = "; ".join(
        f"{table.name(row)}: from {points[0][1]:.1f} to {points[-1][1]:.1f}"
        for row, points in lines
    )
    what = _LOGGED[setting.task][1]
    head = f"{what} [{number}] {setting.task}, {setting.recipe}"
    chart = svg.picture(bottom + 34, f"{what} over epochs", f"{told}.", body, name)
    return Chart(setting.task, head, chart, " ".join([head, *map(table.name, rows)]))


def _styles(rows: Sequence[Row], methods: Sequence[str]) -> dict[Row, str]:
    """An method looks alike in every chart, unless it stands twice in one."""
    styles: dict[Row, str] = {}
    for row in rows:
        number = methods.index(row.method)
        while f"a{number % STYLES}" in styles.values() and len(styles) < STYLES:
            number += 1
        styles[row] = f"a{number % STYLES}"
    return styles


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
