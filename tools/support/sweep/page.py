"""The page of a sweep and its tables in Markdown, from result.json alone.

The page is one file that needs nothing else: no network, no script, light and dark.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pretrain.errors import printable
from tools.support.grid_display import in_words
from tools.support.sweep.picture import SHADES, best_curves, parallel
from tools.support.sweep.result import Summary, last_score, notes
from transfer import report
from transfer.report.markdown import escape
from transfer.report.page import template
from transfer.statistics import FEWEST, Difference

_HERE = Path(__file__).parent
_NONE = "-"
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Titles of the columns, and rows of cells."""


def to_html(result: Mapping[str, Any]) -> str:
    """The whole page."""
    summary = Summary(result)
    shared = Path(report.__file__).with_name("page.css")
    style = "".join(path.read_text(encoding="utf-8") for path in (shared, _HERE / "style.css"))
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = template(_HERE).render(
        result=result,
        summary=summary,
        style=style,
        policy="default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{hashed}'",
        sections={
            "summary": "Summary",
            "trials": "Trials",
            "best": "What so many trials bring",
            "all": "Every trial",
        },
        notes=notes(summary),
        captions=captions(summary),
        tables={
            "budget": budget_table(summary),
            "winners": winners_table(summary),
            "spread": spread_table(summary),
            "trials": trials_table(summary),
        },
        pictures=[
            (arm, parallel(summary, arm, f"trials-{place}"))
            for place, arm in enumerate(summary.arms)
        ],
        curves=best_curves(summary, "best-of"),
        shades=SHADES,
        in_words=in_words,
        metric=in_unit(result["metric"]),
        total_seconds=sum(
            one["seconds"]
            for arm in result["arms"].values()
            for one in (*arm["trials"], *arm["finals"])
        ),
        plan=yaml.safe_dump(result["sweep"], sort_keys=False, allow_unicode=True),
        environment=json.dumps(
            {"data": result["data"], "environment": result["environment"]}, indent=2
        ),
    )
    return "\n".join(map(printable, page.split("\n")))


def to_markdown(result: Mapping[str, Any]) -> str:
    """Notes and tables."""
    summary = Summary(result)
    said, words = notes(summary), captions(summary)
    blocks = ["  \n".join(map(escape, said))] if said else []
    for name, table in (
        ("budget", budget_table(summary)),
        ("winners", winners_table(summary)),
        ("spread", spread_table(summary)),
    ):
        titles, rows = table
        lines = ["| " + " | ".join(map(_cell, cells)) + " |" for cells in (titles, *rows)]
        ruler = "|---|" + "---:|" * (len(titles) - 1)
        blocks += [escape(words[name]), "\n".join([lines[0], ruler, *lines[1:]])]
    return "\n\n".join(blocks) + "\n"


def _cell(text: str) -> str:
    """Of a table, where a sign or a point in front makes no list."""
    return escape(f"x{text}")[1:]


def captions(summary: Summary) -> dict[str, str]:
    """What the tables and pictures show."""
    result, config = summary.result, summary.result["sweep"]
    rungs = "; ".join(
        f"after epoch {rung} the better {config['keep'] * 100:.3g} % go on"
        for rung in config["rungs"]
    )
    rule = f"Synchronous halving: {rungs}." if rungs else "Every trial is trained in full."
    brackets, metric = config["brackets"], in_unit(result["metric"])
    rule += f" {brackets} brackets, one after another." if brackets > 1 else ""
    return {
        "budget": f"What each arm was given and spent. {rule} Points: {config['sampler']}, seed "
        f"{config['seed']}.",
        "winners": f"The best trial of each arm ({metric}, of the last epoch), and what its "
        "parameters give on other seeds: mean with its 95 % interval, and the mean difference "
        "over pairs of equal seeds to the first arm, with p of the paired t test, from "
        f"{FEWEST} pairs on.",
        "trials": "A line for each trial: its parameters, then its score. All arms share the axis "
        "of scores and its colours, by rank; the thick line is the arm's winner.",
        "best": "The expected best of the first k trials, by the scores of all (Dodge et al., "
        "2019: the maximum of k draws with replacement; a little low for k near all). A trial that "
        "ended early counts with the score it had then, one that diverged with the worst of all.",
        "spread": "Scores of the trials that came so far: a method whose spread is small needs "
        "little tuning.",
    }


def budget_table(summary: Summary) -> Table:
    """What each arm had to spend."""
    titles = ["arm", "trials", "in full", "diverged", "epochs: budget", "trained", "time"]
    rows = []
    for arm in summary.arms:
        states = [trial["state"] for trial in arm.trials]
        counts = [len(states), states.count("complete"), states.count("diverged")]
        cells = [*map(str, counts), str(arm.budget), str(arm.epochs), in_words(arm.seconds)]
        rows.append([arm.name, *cells])
    return titles, rows


def winners_table(summary: Summary) -> Table:
    """Who won, and what that is worth."""
    titles = ["arm", "winner", "parameters", "in the sweep", "other seeds", "n", "difference", "p"]
    rows, first = [], summary.arms[0]
    for arm in summary.arms:
        winner, interval = arm.winner, arm.interval
        found = None if arm is first else arm.difference(first)
        rows.append(
            [
                arm.name,
                _NONE if winner is None else str(winner["number"]),
                _NONE if winner is None else point_text(winner["point"]),
                _NONE if winner is None else f"{last_score(winner):.2f}",
                _NONE if interval is None else _with_interval(interval, ""),
                _NONE if interval is None else str(interval.n),
                _NONE if found is None else _with_interval(found, "+"),
                _NONE if found is None else _p_text(found),
            ]
        )
    return titles, rows


def spread_table(summary: Summary) -> Table:
    """Least, quartiles and largest after each rung and at the end."""
    titles = ["arm", "after epoch", "trials", "least", "1st quartile", "median", "3rd quartile",
              "largest"]  # fmt: skip
    rows = [
        [arm.name, str(one.epochs), str(one.n), *(f"{value:.2f}" for value in one.values)]
        for arm in summary.arms
        for one in arm.spreads
    ]
    return titles, rows


def trials_table(summary: Summary) -> Table:
    """All trials and finals."""
    stops, metric = summary.result["stops"], summary.result["metric"]
    heads = [f"{metric} after {stop}" for stop in stops]
    rows = []
    for arm in summary.arms:
        finals = summary.result["arms"][arm.name]["finals"]
        named = [(f"trial {one['number']}", one) for one in arm.trials]
        named += [(f"seed {one['seed']} of the winner", one) for one in finals]
        for name, trial in named:
            scores = [trial["scores"].get(str(stop)) for stop in stops]
            cells = [_NONE if score is None else f"{score:.2f}" for score in scores]
            state = {"complete": "in full", "pruned": "ended early"}.get(
                trial["state"], trial["state"]
            )
            rows.append([f"{arm.name}, {name}", state, point_text(trial["point"]), *cells,
                         in_words(trial["seconds"])])  # fmt: skip
    return ["trial", "state", "parameters", *heads, "time"], rows


def in_unit(metric: str) -> str:
    """A metric with its unit: `top1 in %`; a loss has none."""
    return metric if metric == "val_loss" else f"{metric} in %"


def point_text(point: Mapping[str, Any]) -> str:
    """`optimizer.lr 0.0312, mixing.probability 1.0`."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in point.items()
    )


def _p_text(found: Difference) -> str:
    if found.n < FEWEST:
        return "too few"
    return "no spread" if found.p is None else f"{found.p:.2g}"


def _with_interval(found: Any, sign: str) -> str:
    mean = f"{found.mean:{sign}.2f}"
    return mean if found.half_width is None else f"{mean} ± {found.half_width:.2f}"
