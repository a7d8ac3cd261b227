"""Where each number comes from: beside it on the page, and in the appendix."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from pretrain.run import CHANGEABLE
from transfer import task
from transfer.report.results import FinishedRun
from transfer.report.table import Column

# differ from run to run of one recipe: they stand in the appendix beside each run
_OF_A_RUN = ("seed", "data", "backbone", *CHANGEABLE)


class Details(NamedTuple):
    """What several runs share."""

    summary: str
    text: str
    task: str = ""
    digest: str = ""


def digest(run: FinishedRun) -> str:
    """Over the configuration without seed, paths and what may change on resume."""
    text = json.dumps(_common(run), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def source(run: FinishedRun, column: Column) -> tuple[str, str]:
    """One of the values behind a mean, and what it was measured with."""
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
    return head, ", ".join(facts)


def appendix(run: FinishedRun) -> list[tuple[str, Any]]:
    """(text, what it is sorted by) of a run's cells in the appendix."""
    result, facts = run.result, run.result.backbone
    seed, when = facts["seed"], str(result.environment.get("created") or "unknown")
    device = str(result.environment.get("device") or "unknown")
    return [
        (result.task, result.task),
        (f"{facts['name']} ({facts['fingerprint']})", facts["name"]),
        ("unknown" if seed is None else str(seed), seed),
        (str(result.seed), result.seed),
        (headline(run), headline(run)),
        (digest(run), digest(run)),
        (commit(run), commit(run)),
        (device, None),
        (duration(result.seconds), result.seconds),
        (memory(run), result.environment.get("peak_memory_mib")),
        (when[:16].replace("T", " "), when),
    ]


def headline(run: FinishedRun) -> str:
    """The short metrics of a run, and its best epoch."""
    metrics = run.result.metrics
    texts = [
        f"{metric.title} {metric.factor * metrics[metric.key]:.2f}"
        for metric in task.by_name(run.result.task).metrics
        if metric.main and metric.key in metrics
    ]
    if metrics.get("best_epoch") is not None:
        texts.append(f"best epoch {metrics['best_epoch']}")
    return "; ".join(texts)


def commit(run: FinishedRun) -> str:
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


def memory(run: FinishedRun) -> str:
    """The peak."""
    peak = run.result.environment.get("peak_memory_mib")
    return f"{peak:,.0f} MiB" if isinstance(peak, (int, float)) else "memory unknown"


def count(things: Sequence[Any] | int, noun: str) -> str:
    """1 run, 2 runs."""
    number = things if isinstance(things, int) else len(things)
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def configs(runs: Sequence[FinishedRun]) -> list[Details]:
    """Each configuration once, with what differs from run to run."""
    groups: dict[str, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        groups[digest(run)].append(run)
    details = []
    for name, group in groups.items():
        result = group[0].result
        differing = [
            f"# {run.folder}: "
            + ", ".join(f"{key} {held[key]}" for key in _OF_A_RUN if key in held)
            + "\n"
            for run in group
            for held in [run.result.config]
        ]
        summary = f"{result.task}, {result.config.get('name', '?')}, {count(group, 'run')}"
        text = "".join(differing) + _yaml(_common(group[0]))
        details.append(Details(summary, text, result.task, name))
    return details


def environments(runs: Sequence[FinishedRun]) -> list[Details]:
    """Each set of versions once, with the number of runs."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        held = run.result.environment
        facts = {key: held.get(key) for key in ("device", "threads", "processes", "versions")}
        groups[_yaml(facts)].append(facts)
    details = []
    for text, group in groups.items():
        versions = group[0]["versions"]
        torch = versions.get("torch", "unknown") if isinstance(versions, dict) else "unknown"
        summary = f"{group[0]['device']}, torch {torch}: {count(group, 'run')}"
        details.append(Details(summary, text))
    return details


def _common(run: FinishedRun) -> dict[str, Any]:
    return {key: value for key, value in run.result.config.items() if key not in _OF_A_RUN}


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
