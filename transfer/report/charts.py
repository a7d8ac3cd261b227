"""Charts of a table: differences with their intervals (forest plots), and learning curves."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pretrain.errors import UsageError
from pretrain.reading import Number, check, read_bytes
from transfer import task
from transfer.report import svg
from transfer.report.results import FinishedRun, Log
from transfer.report.table import Column, Row, Table, row_of
from transfer.report.words import p_text
from transfer.statistics import FEWEST, Difference

_MOST_POINTS = 200
_MOST_RUNS = 8
_LARGEST_LOG = 4 * 2**20  # bytes
_NARROWEST = 1e-6  # what an axis spans at least
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
            (f"{row.method} - {other.method}", table.label(row, other), one, one.half_width)
            for (row, other, of), one in table.differences.items()
            if of == column and one.half_width is not None
        ]
        if column.metric.main and compared:
            name = f"forest-{column.number}-{len(charts)}"
            charts.append(_forest(column, compared, name))
    return charts


def _forest(
    column: Column, compared: Sequence[tuple[str, str, Difference, float]], name: str
) -> Chart:
    """From (short label, full label, difference, half of its interval) of each comparison."""
    reaches = [1.08 * (abs(one.mean) + half) for *_, one, half in compared]
    reach = max(10.0**-column.metric.decimals, *reaches)
    often = Counter(short for short, *_ in compared)
    left, right, row_height = 12, svg.WIDTH - 12, 46
    bottom, decimals = 8 + row_height * len(compared), column.metric.decimals
    x_of = svg.scale((-reach, reach), (left, right))
    body, texts = [], []
    for tick in svg.ticks(-reach, reach):
        body.append(svg.line(x_of(tick), 6, x_of(tick), bottom, "grid" if tick else "zero"))
        label = f"{tick:+g}" if tick else "0"
        body.append(svg.text(x_of(tick), bottom + 14, label, "tick", "middle"))
    for number, (short, label, one, half) in enumerate(compared):
        y = 22 + row_height * number
        value = f"{one.mean:+.{decimals}f} ± {half:.{decimals}f}, n={one.n}, {p_text(one)}"
        low, high = x_of(one.mean - half), x_of(one.mean + half)
        is_clear = one.n >= FEWEST and abs(one.mean) > half
        body += [
            svg.line(low, y + 14, high, y + 14, "interval"),
            *(svg.line(end, y + 10, end, y + 18, "interval") for end in (low, high)),
            svg.dot(x_of(one.mean), y + 14, 5, "clear" if is_clear else "open"),
            svg.text(left, y, svg.shorten(short if often[short] == 1 else label, 26), "label"),
            svg.text(right, y, value, "value", "end"),
        ]
        texts.append(f"{label}: {value}")
    head = f"{column.head} {column.setting.task}, {column.setting.label}"
    head += " (less is better)" if column.metric.less else ""
    title = f"Differences in {column.title}"
    chart = svg.picture(bottom + 22, title, f"{'; '.join(texts)}.", body, name)
    return Chart(column.setting.task, head, chart, " ".join([head, *(one[1] for one in compared)]))


def curves(table: Table, log: Log) -> Iterator[Chart]:
    """One chart for each setting of which a run has logged its score at least twice.

    `log` takes a line for each log.jsonl of which something is left out.
    """
    for number, setting in table.numbered:
        if (curve := task.by_name(setting.task).curve) is None:
            continue
        lines: list[tuple[Row, Points]] = []
        taken = Counter[Row]()
        for run in table.runs[setting]:
            row = row_of(run.result.backbone)
            if taken[row] < _MOST_RUNS and (points := _logged(run, curve, log)):
                taken[row] += 1
                lines.append((row, points))
        if any(len(points) > 1 for _, points in lines):
            head = f"{curve.title} [{number}] {setting.task}, {setting.label}"
            drawing = _draw_curves(table, lines, f"{curve.title} over epochs", f"curve-{number}")
            yield Chart(setting.task, head, drawing, " ".join([head, *map(table.name, taken)]))


def _logged(run: FinishedRun, curve: task.Metric, log: Log) -> Points:
    """(epoch, score) of a run's log, thinned out, up to a line that is no record."""
    name = f"{run.folder}/log.jsonl"
    if run.path is None or not os.path.lexists(run.path / "log.jsonl"):
        return []
    try:
        lines = read_bytes(run.path / "log.jsonl", name, _LARGEST_LOG).splitlines(keepends=True)
    except UsageError as error:
        log(str(error))
        return []
    points: Points = []
    for number, line in enumerate(lines, 1):
        try:
            record = check(json.loads(line), dict[str, Any], name)
            if curve.key in record:
                epoch, score = (check(record.get(key), Number, key) for key in ("epoch", curve.key))
                points.append((epoch, curve.factor * score))
        except (ValueError, RecursionError):
            if line.endswith(b"\n"):  # and was not torn by a kill
                log(f"{name}: line {number} is no record of an epoch; it ends there")
            break
    return points[:: max(1, math.ceil(len(points) / _MOST_POINTS))]


def _draw_curves(table: Table, lines: list[tuple[Row, Points]], title: str, name: str) -> str:
    epochs, scores = zip(*(point for _, points in lines for point in points), strict=True)
    first, last, low, high = min(epochs), max(epochs), min(scores), max(scores)
    margin = (high - low) * 0.05 if high - low > _NARROWEST else 1.0
    low, high = low - margin, high + margin
    styles = _styles(table, [row for row, _ in lines])
    often = Counter(row.title for row in styles)
    left, right, top = 38, svg.WIDTH - 10, 10 + 16 * len(styles)
    bottom = top + 170
    is_span = last - first > _NARROWEST
    x_of = svg.scale((first, last if is_span else first + 1), (left, right))
    y_of = svg.scale((low, high), (bottom, top))
    body = []
    for tick in svg.ticks(low, high):
        body.append(svg.line(left, y_of(tick), right, y_of(tick), "grid"))
        body.append(svg.text(left - 6, y_of(tick) + 4, f"{tick:g}", "tick", "end"))
    for tick in svg.ticks(first, last) if is_span else [first]:
        if tick == int(tick):
            body.append(svg.text(x_of(tick), bottom + 15, f"{tick:g}", "tick", "middle"))
    body.append(svg.text(right, bottom + 29, "epoch", "tick", "end"))
    for row, points in lines:
        line = [(x_of(epoch), y_of(score)) for epoch, score in points]
        body.append(svg.polyline(line, f"curve {styles[row]}"))
        body.append(svg.dot(*line[-1], 2.5, f"end {styles[row]}"))
    for y, (row, style) in zip(range(10, top, 16), styles.items(), strict=True):
        label = row.title if often[row.title] == 1 else table.name(row)
        body.append(svg.line(left, y, left + 26, y, f"curve {style}"))
        body.append(svg.text(left + 33, y + 4, svg.shorten(label, 42), "label"))
    ends = [(table.name(row), points[0][1], points[-1][1]) for row, points in lines]
    texts = [f"{label}: from {start:.1f} to {end:.1f}" for label, start, end in ends]
    return svg.picture(bottom + 34, title, f"{'; '.join(texts)}.", body, name)


def _styles(table: Table, rows: Sequence[Row]) -> dict[Row, str]:
    """A method looks alike in every chart, unless it stands twice in one."""
    methods = table.methods
    styles: dict[Row, str] = {}
    for row in dict.fromkeys(rows):
        number = methods.index(row.method)
        while f"a{number % STYLES}" in styles.values() and len(styles) < STYLES:
            number += 1
        styles[row] = f"a{number % STYLES}"
    return styles
