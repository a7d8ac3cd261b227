"""Where each number comes from: beside it on the page, and in the appendix."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import yaml

from pretrain.run import CHANGEABLE
from transfer.report.metrics import METRICS
from transfer.report.results import Finished
from transfer.report.table import Cell, Column

# differ from run to run of one recipe: they stand in the appendix beside each run
_OF_A_RUN = ("seed", "data", "backbone", *CHANGEABLE)
_MOST_BESIDE = 12


def anchors_of(runs: Sequence[Finished]) -> dict[str, str]:
    """{folder: identifier of its row in the appendix}."""
    return {run.folder: f"run-{number}" for number, run in enumerate(runs, 1)}


def digest(run: Finished) -> str:
    """Over the configuration without seed, paths and what may change on resume."""
    return _digest(_common(run))


def measured(
    cell: Cell, column: Column, name: str, anchors: Mapping[str, str], more: str = ""
) -> str:
    """A number that leads to its runs, and says on hover or focus which they are (HTML).

    Args:
        cell: with at least one value.
        column: of the cell.
        name: an identifier, unique on the page.
        anchors: rows of the appendix, by folder.
        more: HTML behind the number.
    """
    shown = cell.runs[:_MOST_BESIDE]
    told = "".join(f"<span>{_beside(run, column)}</span>" for run in shown)
    if len(cell.runs) > len(shown):
        told += f"<span>and {len(cell.runs) - len(shown)} more, in the appendix</span>"
    return (
        f'<a class="value" href="#{anchors[cell.runs[0].folder]}" aria-describedby="{name}">'
        f'{cell.mean:.1f}</a>{more}<span id="{name}" hidden>{told}</span>'
    )


def _beside(run: Finished, column: Column) -> str:
    result = run.result
    number = column.metric.factor * result.metrics[column.metric.key]
    epoch = result.metrics.get("best_epoch")
    best = f" (best epoch {epoch})" if epoch is not None and "best" in column.metric.key else ""
    facts = [
        f"config {digest(run)}",
        f"commit {commit(run)}",
        duration(result.seconds),
        memory(run),
        str(result.environment.get("device") or "device unknown"),
    ]
    seed = result.backbone["seed"]
    head = f"{number:.2f}{best}, pretraining seed {'unknown' if seed is None else seed}"
    return f"<b>{escape(head)}</b> {escape(run.folder)}<br>{escape(', '.join(facts))}"


def headline(run: Finished) -> str:
    """The short metrics of a run, and its best epoch."""
    metrics = run.result.metrics
    told = [
        f"{metric.title} {metric.factor * metrics[metric.key]:.2f}"
        for metric in METRICS[run.result.task]
        if metric.main and metric.key in metrics
    ]
    if metrics.get("best_epoch") is not None:
        told.append(f"best epoch {metrics['best_epoch']}")
    return "; ".join(told)


def commit(run: Finished) -> str:
    """Seven letters and whether files were changed; 'unknown' outside a checkout."""
    environment = run.result.environment
    if not environment.get("commit"):
        return "unknown"
    return str(environment["commit"])[:7] + (" (changed files)" if environment.get("dirty") else "")


def duration(seconds: float) -> str:
    """In the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def memory(run: Finished) -> str:
    """The peak."""
    peak = run.result.environment.get("peak_memory_mib")
    return f"{peak:,.0f} MiB" if isinstance(peak, (int, float)) else "memory unknown"


def configs(runs: Iterable[Finished]) -> str:
    """Each configuration once, with what differs from run to run (HTML)."""
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(digest(run), []).append(run)
    return "".join(_config(name, group) for name, group in groups.items())


def environments(runs: Iterable[Finished]) -> str:
    """Each set of versions once, with the number of runs (HTML)."""
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        held = run.result.environment
        facts = {key: held.get(key) for key in ("device", "threads", "processes", "versions")}
        groups.setdefault(_yaml(facts), []).append(run)
    return "".join(
        f"<details><summary>{escape(str(group[0].result.environment.get('device')))}, torch "
        f"{escape(_torch(group[0]))}: {len(group)} {'run' if len(group) == 1 else 'runs'}"
        f'</summary><pre tabindex="0">{escape(text)}</pre></details>'
        for text, group in groups.items()
    )


def _torch(run: Finished) -> str:
    versions = run.result.environment.get("versions")
    return str(versions.get("torch", "unknown")) if isinstance(versions, dict) else "unknown"


def _config(name: str, group: Sequence[Finished]) -> str:
    result = group[0].result
    differing = "".join(
        f"# {run.folder}: "
        + ", ".join(
            f"{key} {run.result.config[key]}" for key in _OF_A_RUN if key in run.result.config
        )
        + "\n"
        for run in group
    )
    text = f"{differing}{_yaml(_common(group[0]))}"
    count = f"{len(group)} {'run' if len(group) == 1 else 'runs'}"
    head = f"{result.task}, {result.config.get('name', '?')}, {count}"
    return (
        f'<details id="config-{name}" data-task="{escape(result.task)}">'
        f"<summary><code>{name}</code> {escape(head)}</summary>"
        f'<pre tabindex="0">{escape(text)}</pre></details>'
    )


def _common(run: Finished) -> dict[str, Any]:
    return {key: value for key, value in run.result.config.items() if key not in _OF_A_RUN}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
