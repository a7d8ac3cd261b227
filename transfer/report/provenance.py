"""Where each number comes from: beside it on the page, and in the appendix."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from pretrain.run import CHANGEABLE
from transfer.report.results import FinishedRun, kind, network_of, seed_text
from transfer.report.table import Column, short_hash

# differ from run to run of one recipe: they stand in the appendix beside each run
_OF_A_RUN = ("seed", "data", "backbone", "start_from", "workers", *CHANGEABLE)


def digest(run: FinishedRun) -> str:
    """Over the configuration without seed, paths and what may change on resume."""
    return short_hash(_common(run))


def source(run: FinishedRun, column: Column) -> tuple[str, str]:
    """One of the values behind a mean, and what it was measured with."""
    metric, metrics = column.metric, run.result.metrics
    epoch = metrics.get("best_epoch")
    best = f" (best epoch {epoch})" if epoch is not None and "best" in metric.key else ""
    fold = "" if run.fold is None else f", fold {run.fold}"
    device = run.result.environment.get("device") or "device unknown"
    return (
        f"{metric.factor * metrics[metric.key]:.2f}{best}, pretraining seed "
        f"{seed_text(run.seed)}{fold}",
        f"config {digest(run)}, commit {commit(run)}, {duration(run.result.seconds)}, "
        f"{memory(run)}, {device}",
    )


def appendix(run: FinishedRun) -> list[tuple[str, Any]]:
    """(text, what it is sorted by) of a run's cells in the appendix."""
    result, backbone, environment = run.result, run.result.backbone, run.result.environment
    when = str(environment.get("created") or "unknown")
    return [
        (result.task, result.task),
        (f"{backbone['name']} ({backbone['fingerprint']})", backbone["name"]),
        (seed_text(run.seed), run.seed),
        (str(result.seed), result.seed),
        *((text, text) for text in (headline(run), digest(run), commit(run))),
        (str(environment.get("device") or "unknown"), None),
        (duration(result.seconds), result.seconds),
        (memory(run), environment.get("peak_memory_mib")),
        (when[:16].replace("T", " "), when),
    ]


def headline(run: FinishedRun) -> str:
    """Network and short metrics of a run, and its best epoch."""
    metrics, network = run.result.metrics, network_of(run.result)
    texts = [
        f"{metric.title} {metric.factor * metrics[metric.key]:.2f}"
        for metric in kind(run.result.task).metrics
        if metric.main and metric.key in metrics
    ]
    if metrics.get("best_epoch") is not None:
        texts.append(f"best epoch {metrics['best_epoch']}")
    return "; ".join(filter(None, [network, *texts]))


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


def count(number: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def configs(runs: Sequence[FinishedRun]) -> Iterator[tuple[str, str, str, str]]:
    """(digest, task, summary, text) of each configuration, with what differs from run to run."""
    groups: dict[str, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        groups[digest(run)].append(run)
    for name, group in groups.items():
        result, text = group[0].result, ""
        for run in group:
            config = run.result.config
            facts = ", ".join(f"{key} {config[key]}" for key in _OF_A_RUN if key in config)
            text += f"# {run.folder}: {facts}\n"
        summary = f"{result.task}, {result.config.get('name', '?')}, {count(len(group), 'run')}"
        yield name, result.task, summary, text + _yaml(_common(group[0]))


def environments(runs: Sequence[FinishedRun]) -> Counter[tuple[str, str]]:
    """How many runs have each (device and torch, all versions)."""
    numbers = Counter[tuple[str, str]]()
    for run in runs:
        environment = run.result.environment
        facts = {
            key: environment.get(key) for key in ("device", "threads", "processes", "versions")
        }
        versions = facts["versions"]
        torch = versions.get("torch", "unknown") if isinstance(versions, dict) else "unknown"
        numbers[f"{environment.get('device')}, torch {torch}", _yaml(facts)] += 1
    return numbers


def _common(run: FinishedRun) -> dict[str, Any]:
    return {key: value for key, value in run.result.config.items() if key not in _OF_A_RUN}


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
