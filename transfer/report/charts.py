"""Charts of a table: differences with their intervals (forest plots), and learning curves."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pretrain.errors import UsageError
from transfer import task
from transfer.report import svg
from transfer.report.results import FinishedRun, is_number, read_bytes
from transfer.report.table import Column, Row, Setting, Table, row_of
from transfer.report.words import p_text
from transfer.statistics import FEWEST, Difference

_MOST_POINTS = 200
_MOST_RUNS = 8
STYLES = 6
"""Line styles that page.css knows, from a0 to a5."""

Points = list[tuple[float, float]]


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
        compared = [
            (f"{row.method} - {other.method}", table.label(row, other), one)
            for (row, other, of), one in table.differences.items()
            if of == column and one.half_width is not None
        ]
        if column.metric.main and compared:
            charts.append(_forest(column, compared, f"forest-{len(charts)}"))
    return charts


def _forest(column: Column, compared: Sequence[tuple[str, str, Difference]], name: str) -> Chart:
    """From (short label, full label, difference) of each comparison of several pairs."""
    reach = max(abs(one.mean) + (one.half_width or 0) for *_, one in compared) * 1.08 or 1.0
    often = Counter(short for short, *_ in compared)
    left, right, row_height = 12, svg.WIDTH - 12, 46
    bottom = 8 + row_height * len(compared)

    def scale(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (right - left)

    body, texts = [], []
    for tick in svg.ticks(-reach, reach):
        x, text = scale(tick), f"{tick:+g}" if tick else "0"
        body.append(svg.line(x, 6, x, bottom, "grid" if tick else "zero"))
        body.append(svg.text(x, bottom + 14, text, "tick", "middle"))
    for number, (short, label, one) in enumerate(compared):
        y = 22 + row_height * number
        half = one.half_width or 0.0
        value = f"{one.mean:+.1f} ± {half:.1f}, n={one.n}, {p_text(one)}"
        low, high = one.mean - half, one.mean + half
        clear = one.n >= FEWEST and (low > 0 or high < 0)
        body += [
            svg.line(scale(low), y + 14, scale(high), y + 14, "interval"),
            *(svg.line(scale(end), y + 10, scale(end), y + 18, "interval") for end in (low, high)),
            svg.dot(scale(one.mean), y + 14, 5, "clear" if clear else "open"),
            svg.text(left, y, svg.shorten(short if often[short] == 1 else label, 26), "label"),
            svg.text(right, y, value, "value", "end"),
        ]
        texts.append(f"{label}: {value}")
    head = f"{column.head} {column.setting.task}, {column.setting.recipe}"
    title = f"Differences in {column.metric.title}"
    chart = svg.picture(bottom + 22, title, f"{'; '.join(texts)}.", body, name)
    return Chart(column.setting.task, head, chart, " ".join([head, *(one[1] for one in compared)]))


def curves(table: Table) -> list[Chart]:
    """One chart for each setting of which a run has logged its score at least twice."""
    charts = []
    methods = list(dict.fromkeys(["none", *(row.method for row in table.rows)]))
    for number, setting in enumerate(table.settings, 1):
        curve = task.by_name(setting.task).curve
        lines = _lines(table.runs[setting], curve) if curve else []
        if curve and any(len(points) > 1 for _, points in lines):
            charts.append(_draw_curves(table, setting, number, curve, lines, methods))
    return charts


def _lines(runs: Sequence[FinishedRun], curve: task.Curve) -> list[tuple[Row, Points]]:
    """The logged scores, of at most _MOST_RUNS runs of each row."""
    taken = Counter[Row]()
    lines = []
    for run in runs:
        row = row_of(run.result.backbone)
        if taken[row] < _MOST_RUNS and (points := _logged(run, curve)):
            taken[row] += 1
            lines.append((row, points))
    return lines


def _logged(run: FinishedRun, curve: task.Curve) -> Points:
    """(epoch, score) of a run's log, thinned out; a torn or foreign line ends it."""
    points: Points = []
    try:
        log = read_bytes(run.path / "log.jsonl") if run.path else b""
        for line in log.decode("utf-8", "replace").splitlines():
            record = json.loads(line)
            if isinstance(record, dict) and is_number(record.get(curve.key)):
                if not is_number(record.get("epoch")):
                    break
                points.append((float(record["epoch"]), curve.factor * float(record[curve.key])))
    except (UsageError, ValueError, RecursionError):
        pass
    return points[:: math.ceil(len(points) / _MOST_POINTS)] if points else []


def _draw_curves(
    table: Table,
    setting: Setting,
    number: int,
    curve: task.Curve,
    lines: Sequence[tuple[Row, Points]],
    methods: Sequence[str],
) -> Chart:
    epochs, scores = zip(*(point for _, points in lines for point in points), strict=True)
    first, last, low, high = min(epochs), max(epochs), min(scores), max(scores)
    margin = (high - low) * 0.05 or 1.0
    low, high = low - margin, high + margin
    rows = list(dict.fromkeys(row for row, _ in lines))
    styles = _styles(rows, methods)
    often = Counter(row.title for row in rows)
    left, right, top = 38, svg.WIDTH - 10, 10 + 16 * len(rows)
    bottom = top + 170

    def scale(epoch: float, score: float) -> tuple[float, float]:
        x = (epoch - first) / (last - first or 1)
        y = (score - low) / (high - low)
        return left + x * (right - left), bottom - y * (bottom - top)

    body = []
    for tick in svg.ticks(low, high):
        _, y = scale(first, tick)
        body.append(svg.line(left, y, right, y, "grid"))
        body.append(svg.text(left - 6, y + 4, f"{tick:g}", "tick", "end"))
    for tick in svg.ticks(first, last) if last > first else [first]:
        if tick == int(tick):
            x, _ = scale(tick, low)
            body.append(svg.text(x, bottom + 15, f"{tick:g}", "tick", "middle"))
    body.append(svg.text(right, bottom + 29, "epoch", "tick", "end"))
    for row, points in lines:
        line = [scale(*point) for point in points]
        body.append(svg.polyline(line, f"curve {styles[row]}"))
        body.append(svg.dot(*line[-1], 2.5, f"end {styles[row]}"))
    for index, row in enumerate(rows):
        y = 10 + 16 * index
        label = row.title if often[row.title] == 1 else table.name(row)
        body.append(svg.line(left, y, left + 26, y, f"curve {styles[row]}"))
        body.append(svg.text(left + 33, y + 4, svg.shorten(label, 42), "label"))
    texts = [
        f"{table.name(row)}: from {points[0][1]:.1f} to {points[-1][1]:.1f}"
        for row, points in lines
    ]
    head = f"{curve.title} [{number}] {setting.task}, {setting.recipe}"
    title, description = f"{curve.title} over epochs", f"{'; '.join(texts)}."
    chart = svg.picture(bottom + 34, title, description, body, f"curve-{number}")
    return Chart(setting.task, head, chart, " ".join([head, *map(table.name, rows)]))


def _styles(rows: Sequence[Row], methods: Sequence[str]) -> dict[Row, str]:
    """A method looks alike in every chart, unless it stands twice in one."""
    styles: dict[Row, str] = {}
    for row in rows:
        number = methods.index(row.method)
        while f"a{number % STYLES}" in styles.values() and len(styles) < STYLES:
            number += 1
        styles[row] = f"a{number % STYLES}"
    return styles
