"""The pictures of a sweep, as the report's charts are: SVG text whose colours come from style.css.

Parallel coordinates (Inselberg, 1985): an axis for each parameter and one for the score, a line for
each trial, its colour by the score over all arms.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tools.support.sweep.result import Arm, Summary, last_score, share
from transfer.report import svg

SHADES = 6
"""Colours that style.css knows, from s0, the worst, to s5."""
_TOP, _BOTTOM = 40, 210
_LEFT, _RIGHT = 34, svg.WIDTH - 34


def parallel(summary: Summary, arm: Arm, name: str) -> str:
    """The trials of an arm; those that ended early are dashed, those that diverged dotted.

    Args:
        summary: of all arms, whose scores share one axis and one scale of colours.
        arm: whose trials.
        name: for identifiers, unique on the page.
    """
    options, metric = [*arm.space], summary.result["metric"]
    columns = len(options) + 1
    xs = [_LEFT + (_RIGHT - _LEFT) * place / (columns - 1) for place in range(columns)]
    low, high = _limits(summary)
    y_of = svg.scale((0, 1), (_BOTTOM, _TOP))
    score_of = svg.scale((low, high), (_BOTTOM, _TOP))
    body = list[str]()
    for x, option, place in zip(xs, [*options, metric], range(columns), strict=True):
        words = svg.shorten(option.rpartition(".")[2], 44 // columns + 4)
        anchor = "start" if place == 0 else "end" if place == columns - 1 else "middle"
        edge = {"start": x - 28, "end": x + 28}.get(anchor, x)
        body.append(svg.line(x, _TOP, x, _BOTTOM, "axis"))
        body.append(svg.text(edge, 12 if place % 2 == 0 else 24, words, "label", anchor))
        for y, text in _labels(arm.space.get(option), low, high, y_of):
            body.append(svg.text(x + 4, y, text, "tick"))
    winner, ranked = arm.winner, sorted(arm.trials, key=lambda one: _order(summary, one))
    for trial in ranked:  # the better above the worse
        is_lost = trial["state"] == "diverged"
        score = score_of(last_score(trial)) if trial["scores"] and not is_lost else _BOTTOM + 8
        ys = [y_of(share(arm.space[option], trial["point"][option])) for option in options]
        kind = "lost" if is_lost else f"{trial['state']} s{_shade(summary, trial)}"
        kind += " winner" if trial is winner else ""
        body.append(svg.polyline([*zip(xs, [*ys, score], strict=True)], f"trial {kind}"))
        body.append(svg.dot(xs[-1], score, 2.5, f"score {kind}"))
    states = [trial["state"] for trial in arm.trials]
    count = f"{len(states)} trials, {states.count('complete')} in full, {states.count('pruned')} "
    count += f"ended early, {states.count('diverged')} diverged"
    best = (
        ""
        if winner is None
        else f"; the best: {metric} {last_score(winner):.4g} with "
        + (", ".join(f"{key} {value}" for key, value in winner["point"].items()))
    )
    return svg.picture(_BOTTOM + 16, f"Trials of {arm.name}", count + best, body, name)


def best_curves(summary: Summary, name: str) -> str:
    """The expected best of k trials, a line for each arm."""
    lines = {arm.name: summary.expected_best(arm) for arm in summary.arms}
    values = [value for line in lines.values() for value in line]
    if not values:
        return ""
    low, high = _around(min(values), max(values))
    count = max(map(len, lines.values()))
    top = 10 + 16 * len(lines)
    x_of = svg.scale((1, max(2, count)), (_LEFT + 8, svg.WIDTH - 12))
    y_of = svg.scale((low, high), (top + 160, top))
    body, texts = list[str](), list[str]()
    for tick in svg.ticks(low, high):
        body.append(svg.line(_LEFT + 8, y_of(tick), svg.WIDTH - 12, y_of(tick), "grid"))
        body.append(svg.text(_LEFT + 2, y_of(tick) + 4, f"{tick:g}", "tick", "end"))
    for tick in svg.ticks(1, count) if count > 1 else [1]:
        if tick == int(tick):
            body.append(svg.text(x_of(tick), top + 175, f"{tick:g}", "tick", "middle"))
    body.append(svg.text(svg.WIDTH - 12, top + 190, "trials", "tick", "end"))
    for place, (arm, line) in enumerate(lines.items()):
        style = f"a{place % 6}"
        points = [(x_of(k), y_of(value)) for k, value in enumerate(line, 1)]
        body.append(svg.polyline(points, f"curve {style}"))
        body.append(svg.dot(*points[-1], 2.5, f"end {style}"))
        body.append(svg.line(_LEFT, 10 + 16 * place, _LEFT + 26, 10 + 16 * place, f"curve {style}"))
        body.append(svg.text(_LEFT + 33, 14 + 16 * place, svg.shorten(arm, 40), "label"))
        texts.append(f"{arm}: from {line[0]:.4g} to {line[-1]:.4g}")
    title = f"Expected best {summary.result['metric']} of k trials"
    return svg.picture(top + 195, title, "; ".join(texts), body, name)


def _limits(summary: Summary) -> tuple[float, float]:
    """The ends of the axis of scores, the better one last."""
    low, high = _around(min(summary.scores, default=0.0), max(summary.scores, default=1.0))
    return (high, low) if summary.result["less"] else (low, high)


def _around(low: float, high: float) -> tuple[float, float]:
    margin = (high - low) * 0.04 if high > low else max(1e-6, abs(high) * 0.1)
    return low - margin, high + margin


def _labels(space: Mapping[str, Any] | None, low: float, high: float, y_of: Any) -> Iterator[
    tuple[float, str]
]:  # fmt: skip
    """(y, text) at an axis; without a space it is the score's."""
    if space is not None and space["choices"] is not None:
        for value in space["choices"]:
            yield y_of(share(space, value)) + 4, svg.shorten(str(value), 9)
        return
    ends = (low, high) if space is None else (space["low"], space["high"])
    for place, value in enumerate(ends):
        yield y_of(place) + (0 if place == 0 else 8), f"{value:.3g}"


def _order(summary: Summary, trial: Mapping[str, Any]) -> float:
    if trial["state"] == "diverged" or not trial["scores"]:
        return -float("inf")
    return -last_score(trial) if summary.result["less"] else last_score(trial)


def _shade(summary: Summary, trial: Mapping[str, Any]) -> int:
    """By the rank among all scores, so that one far off does not take all colours."""
    below = sum(_order(summary, {"state": "", "scores": {"0": score}}) < _order(summary, trial)
                for score in summary.scores)  # fmt: skip
    return min(SHADES - 1, SHADES * below // max(1, len(summary.scores)))
