"""The difference over images seen: where, with longer training, a method crosses the plain one.

One point for each pretraining setting, on the page as an SVG, and as two files for a README.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from transfer import task
from transfer.report import svg
from transfer.report.charts import STYLES, Chart
from transfer.report.comparisons import Comparison, correct
from transfer.statistics import FEWEST

_METRIC = "top1"  # of the last epoch, which nobody chose
_STYLE = re.compile(r"\.(chart|curve|end|bar|point|ring)\b")  # lines of page.css that draw it
_LIGHT_DARK = re.compile(r"light-dark\((#\w+), (#\w+)\)")
TIMES = "\u00d7"
_AXIS = "points of top-1, last epoch"
_LANE, _LETTER = 14, 6.2  # pixels of a line of labels, and of a letter
_ASIDE = 9  # pixels between points of one cell


@dataclass(frozen=True, eq=False)
class Point:
    """A difference to the plain network, and how long both were trained."""

    comparison: Comparison
    images: int
    """Training images, of which each is seen once in an epoch."""
    per_class: int | None
    """Of each class, where not all were taken."""
    epochs: float
    beside_parts: bool = False
    """Others of its chart took so many of each class."""

    @property
    def seen(self) -> float:
        """Training images x epochs."""
        return self.images * self.epochs

    @property
    def cell(self) -> str:
        """300 x 80 or all x 80: images, of a class where so many were taken, and epochs."""
        whole = "all" if self.beside_parts else f"{self.images:,}"
        return f"{f'{self.per_class:,}' if self.per_class else whole} {TIMES} {self.epochs:g}"

    @property
    def method(self) -> str:
        """Which is compared with none."""
        return self.comparison.row.method

    @property
    def half_width(self) -> float | None:
        """Of its interval: plain where the comparison was named beforehand, else after Holm."""
        one = self.comparison
        is_plain = one.is_primary and one.has_test
        return one.difference.half_width if is_plain else one.corrected_half_width

    @property
    def ends(self) -> tuple[float, ...]:
        """Of its interval, or the difference alone."""
        mean, half = self.comparison.difference.mean, self.half_width
        return (mean,) if half is None else (mean - half, mean + half)

    @property
    def text(self) -> str:
        """For who cannot see it."""
        between, half = self.comparison.difference, self.half_width
        interval = "" if half is None else f" ± {half:.1f}"
        return f"{self.method}, {self.cell}: {between.mean:+.1f}{interval}, n={between.n}"


def crossings(compared: Sequence[Comparison]) -> list[Chart]:
    """One chart for each network and data set: of methods with pairs in two settings or more."""
    groups: dict[tuple[str, str | None], list[Point]] = defaultdict(list)
    for of_method in _by_method(_points(compared)):
        row = of_method[0].comparison.row
        groups[row.arch, row.dataset] += of_method
    for key, points in groups.items():
        in_parts = any(one.per_class for one in points)
        points = sorted(_corrected(points), key=lambda point: point.seen)
        groups[key] = [replace(one, beside_parts=in_parts) for one in points]
    # the one with what was named beforehand comes first
    order = sorted(groups, key=lambda key: not any(p.comparison.is_primary for p in groups[key]))
    return [_draw(*key, groups[key], f"crossing-{n}") for n, key in enumerate(order)]


def crossing_files(compared: Sequence[Comparison]) -> dict[str, str]:
    """{"light": SVG, "dark": SVG} of the first chart, each complete in itself.

    Raises:
        UsageError: there is none.
    """
    charts = crossings(compared)
    if not charts:
        raise UsageError(
            "--crossing: no two pretraining settings of one network (images, epochs) have pairs of "
            "a method and none in top-1. Give a folder with such runs."
        )
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    root = style[: style.index("}") + 1]
    rules = "\n".join([root, *(line for line in style.splitlines() if _STYLE.match(line))])
    return {theme: svg.alone(charts[0].svg, _in(theme, rules)) for theme in ("light", "dark")}


def _in(theme: str, rules: str) -> str:
    return _LIGHT_DARK.sub(r"\1" if theme == "light" else r"\2", rules)


def _by_method(points: Iterable[Point]) -> list[list[Point]]:
    """The points of each method, network and data set that has several settings."""
    groups: dict[tuple[str, str, str | None], list[Point]] = defaultdict(list)
    for one in points:
        groups[one.method, one.comparison.row.arch, one.comparison.row.dataset].append(one)
    return [group for group in groups.values() if len({one.cell for one in group}) > 1]


def _points(compared: Iterable[Comparison]) -> list[Point]:
    """Of methods and the plain network."""
    of_top1 = (
        one
        for one in compared
        if (one.column.setting.task, one.column.metric.key) == (task.PRETRAIN.name, _METRIC)
    )
    return [*filter(None, map(_point, of_top1))]


def _corrected(points: Sequence[Point]) -> list[Point]:
    """Those that are not primary corrected for their number: the tests of one chart."""
    others = iter(correct(p.comparison for p in points if not p.comparison.is_primary))
    return [p if p.comparison.is_primary else replace(p, comparison=next(others)) for p in points]


def _point(one: Comparison) -> Point | None:
    """None where a result does not say what was seen."""
    result = one.table.cells[one.row, one.column].runs[0].result
    section: Any = result.config.get("dataset")
    per_class = section.get("per_class") if isinstance(section, dict) else None
    images, epochs = result.data.get("train"), one.row.epochs
    if not isinstance(images, int) or images <= 0 or epochs is None or epochs <= 0:
        return None
    return Point(one, images, per_class if isinstance(per_class, int) else None, epochs)


def _draw(arch: str, dataset: str | None, points: Sequence[Point], name: str) -> Chart:
    styles, cells = _styles(points), {one.cell: one.seen for one in points}
    seen = [math.log10(number) for number in cells.values()]
    left, right = 40, svg.WIDTH - 12
    x_of = svg.scale((min(seen), max(seen)), (left + 24, right - 24))
    labels, lanes = _labels({cell: x_of(math.log10(number)) for cell, number in cells.items()})
    top = 30 + 16 * len(styles) + _LANE * lanes
    bottom = top + 190
    ends = [end for one in points for end in one.ends]
    margin = 0.06 * (max(0, *ends) - min(0, *ends)) or 1.0
    low, high = min(0, *ends) - margin, max(0, *ends) + margin
    y_of = svg.scale((low, high), (bottom, top))

    body = [svg.text(12, 13, svg.shorten(f"{arch} on {dataset}: {_AXIS}", 56), "tick")]
    for tick in svg.ticks(low, high):
        y = y_of(tick)
        body.append(svg.line(left, y, right, y, "grid" if tick else "zero"))
        body.append(svg.text(left - 6, y + 4, f"{tick:+g}" if tick else "0", "tick", "end"))
    for tick in _log_ticks(10 ** min(seen), 10 ** max(seen)):
        x = x_of(math.log10(tick))
        body.append(svg.line(x, bottom, x, bottom + 4, "zero"))
        body.append(svg.text(x, bottom + 16, _short(tick), "tick", "middle"))
    body.append(svg.text(right, bottom + 31, f"training images {TIMES} epochs", "tick", "end"))
    body.append(svg.text(right, bottom + 46, _key(points), "tick", "end"))
    for cell, (_, lane) in labels.items():
        x = x_of(math.log10(cells[cell]))
        body.append(svg.line(x, top - _LANE * lane - 3, x, bottom, "grid"))
    for cell, (x, lane) in labels.items():
        body.append(svg.text(x, top - _LANE * lane - 6, cell, "label", "middle"))
    for number, (method, style) in enumerate(styles.items()):
        y = 28 + 16 * number
        body.append(svg.line(left, y, left + 26, y, f"curve {style}"))
        body.append(svg.text(left + 33, y + 4, svg.shorten(f"{method} - none", 42), "label"))
    places = dict(zip(points, _places(points, x_of, y_of), strict=True))
    for line in _lines(points):
        style = styles[line[0].method]
        body.append(svg.polyline([places[one] for one in line], f"curve {style}"))
    for one, (x, y) in places.items():
        body += _mark(one, x, y, [y_of(end) for end in one.ends], styles[one.method])
    title = f"{arch} on {dataset}: {_AXIS}, over images seen"
    texts = "; ".join(one.text for one in points)
    words = " ".join([title, *(one.comparison.label for one in points)])
    chart = svg.picture(bottom + 54, title, f"{texts}.", body, name)
    return Chart(task.PRETRAIN.name, _caption(arch, dataset, points), chart, words)


def _mark(one: Point, x: float, y: float, ends: Sequence[float], style: str) -> list[str]:
    """A dot with its interval; filled where that excludes zero."""
    bars = [svg.line(x - 4, end, x + 4, end, f"bar {style}") for end in ends if len(ends) > 1]
    bars.append(svg.line(x, ends[0], x, ends[-1], f"bar {style}"))
    is_clear = len(ends) > 1 and one.ends[0] * one.ends[1] > 0
    kind, radius = "point" if is_clear else "ring", 6 if one.comparison.is_primary else 4
    return [*bars, svg.dot(x, y, radius, f"{kind} {style}")]


def _key(points: Sequence[Point]) -> str:
    """What the intervals are, in a line of the picture."""
    tests = sum(one.comparison.corrected_p is not None for one in points)
    is_named = any(one.comparison.is_primary for one in points)
    parts = ["large: primary, 95 %"] if is_named else []
    parts += [f"{'others' if parts else 'intervals'}: Holm over {tests} tests"] if tests else []
    return "; ".join(parts)


def _caption(arch: str, dataset: str | None, points: Sequence[Point]) -> str:
    unit = "images per class" if any(one.per_class for one in points) else "training images"
    return (
        f"{arch} on {dataset}, method - none: {_AXIS}. Above each point {unit} {TIMES} epochs; a "
        "line joins what has the same images. A dot is filled where its interval excludes zero; "
        f"fewer than {FEWEST} pairs have none."
    )


def _styles(points: Iterable[Point]) -> dict[str, str]:
    """The colour of each method, as page.css names them, alike in every chart of the page."""
    tables = (one.comparison.table for one in points)
    methods = list(dict.fromkeys(method for table in tables for method in table.methods))
    drawn = dict.fromkeys(one.comparison.row.method for one in points)
    return {method: f"a{methods.index(method) % STYLES}" for method in drawn}


def _labels(places: dict[str, float]) -> tuple[dict[str, tuple[float, int]], int]:
    """{label: (x, lane)}, the lowest lane being 0, so that none overlap; and how many lanes."""
    free: list[float] = []  # where each lane is free from
    labels = dict[str, tuple[float, int]]()
    for label, at in sorted(places.items(), key=lambda item: item[1]):
        half = _LETTER * len(label) / 2
        x = min(max(at, half + 2), svg.WIDTH - half - 2)
        lane = next((n for n, end in enumerate(free) if end <= x - half), len(free))
        free[lane:] = [x + half + 6, *free[lane + 1 :]]
        labels[label] = x, lane
    return labels, len(free)


def _lines(points: Sequence[Point]) -> list[list[Point]]:
    """What is joined: one method, the same images, more and more epochs."""
    groups: dict[tuple[str, int], list[Point]] = defaultdict(list)
    for one in points:
        groups[one.comparison.row.method, one.images].append(one)
    return [group for group in groups.values() if len(group) > 1]


def _places(points: Sequence[Point], x_of: svg.Scale, y_of: svg.Scale) -> list[tuple[float, float]]:
    """Points of one cell stand side by side."""
    cells: dict[str, list[Point]] = defaultdict(list)
    for one in points:
        cells[one.cell].append(one)
    places = []
    for one in points:
        group = cells[one.cell]
        aside = _ASIDE * (group.index(one) - (len(group) - 1) / 2)
        x = x_of(math.log10(one.seen)) + aside
        places.append((x, y_of(one.comparison.difference.mean)))
    return places


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten inside [low, high]."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _short(number: float) -> str:
    """50,000 as 50k and 1,200,000 as 1.2M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"
