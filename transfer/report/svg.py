"""The few shapes that our charts need, as SVG text with classes; colours come from page.css.

Coordinates are pixels of the view box, y downwards.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape

WIDTH = 340
"""Of every chart: what fits a phone held upright."""
Scale = Callable[[float], float]
"""From values to pixels."""


def picture(height: float, title: str, description: str, body: Iterable[str], name: str) -> str:
    """A chart that scales with its place and says what it shows.

    Args:
        height: of the view box.
        title: its name for a screen reader.
        description: what a reader would see.
        body: shapes.
        name: for the identifiers, unique on the page.
    """
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
        f'height="{height:g}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(description)}</desc>' + "".join(body) + "</svg>"
    )


def alone(chart: str, style: str) -> str:
    """A picture as a file of its own, twice as large, on the colour of a sheet."""
    size = re.search(r'width="(\d+)" height="(\d+)"', chart)
    assert size is not None
    width, height = (2 * int(number) for number in size.groups())
    chart = chart.replace(size[0], f'width="{width}" height="{height}"', 1)
    chart = chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    ground = '<rect width="100%" height="100%" style="fill: var(--sheet)"/>'
    style = f"<style>{style}\n.chart {{ max-width: none; background: var(--sheet); }}</style>"
    return chart.replace("</desc>", f"</desc>{style}{ground}", 1) + "\n"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """One line of text; `anchor` is start, middle or end."""
    position = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {position}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def dot(x: float, y: float, radius: float, kind: str) -> str:
    """A circle."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{corners}"/>'


def scale(values: tuple[float, float], pixels: tuple[float, float]) -> Scale:
    """The linear function that takes the two values to the two pixels."""
    (low, high), (start, end) = values, pixels
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values inside [low, high], about `count` of them; high must be above low."""
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def shorten(words: str, length: int) -> str:
    """At most `length` letters."""
    return words if len(words) <= length else words[: length - 1] + "…"
