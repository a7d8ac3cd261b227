"""A grid of transfers: what its jobs are, which of them are done, how each is started.

A job is one backbone, one task, one seed: an ordinary run of a tool in its own folder,
OUT/TASK/NAME-seedS. Its status is what the folder says; nothing else is kept. No torch here.
"""

import json
import re
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from pretrain.data_digest import describe_changes, is_same, read_digest
from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.reading import read_json
from pretrain.run import Result, Run, other_run, rename_backbone_keys
from transfer import task

GRID_FORMAT = "grid/2"
"""Of grid.json; grid/1 is read too: its jobs are cells, and `backbone` has other keys."""

_LARGEST = 1e12  # metric that is written out


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of the grid."""

    task: str
    name: str
    """Of its backbone, unique in the grid: names the folder and the row."""
    seed: int
    backbone: Mapping[str, Any]
    """What `Backbone.describe` says; its fingerprint is empty where it is yet to be trained."""
    config: Mapping[str, Any]
    """Resolved, as plain values: what the run's config.yaml will hold."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the data beforehand: its name, digest, numbers of images."""
    digest: Mapping[str, Any] = field(default_factory=dict)
    """Of the data: see `pretrain.data_digest`."""
    options: tuple[str, ...] = ()
    """Of the tool: --config, --backbone and so on."""
    expected: float | None = None
    """Seconds that it takes, about; None where nobody knows."""

    @property
    def stem(self) -> str:
        """The name without this job's seed, where it ends with that: none of none-seed0."""
        return self.name.removesuffix(f"-seed{self.seed}") or self.name

    @property
    def folder(self) -> Path:
        """Relative to the grid's."""
        return Path(self.task) / f"{self.stem}-seed{self.seed}"

    @property
    def title(self) -> str:
        """For a line of text."""
        return f"{self.task} {self.stem} seed {self.seed}"

    @property
    def log(self) -> Path:
        """The output of its process, relative to the grid's folder."""
        return Path("logs") / self.task / f"{self.folder.name}.log"


@dataclass
class JobStatus:
    """Where a job stands."""

    job: Job
    state: Literal["waiting", "running", "elsewhere", "done", "failed"] = "waiting"
    """elsewhere: another process works in its folder."""
    why: str | None = None
    """It failed, or who works in its folder."""
    result: Result | None = None
    started: float = 0.0
    """By `time.monotonic`."""
    seconds: float | None = None
    """Of a job that was done in this call."""


def job_status(job: Job, out: Path) -> JobStatus:
    """The status of a job, from its folder alone.

    Returns:
        done; waiting: there is no run, or an unfinished one of this job, to be resumed; failed:
        what is in the folder is not this job's run, or cannot be read.
    """
    run = Run(out / job.folder)
    try:
        if run.finished:
            return JobStatus(job, "done", None, _own_result(job, run))
        run.refuse(job.config, job.backbone["fingerprint"] or None, job.digest)
    except (OSError, ValueError) as error:
        return JobStatus(job, "failed", str(error))
    return JobStatus(job)


def _own_result(job: Job, run: Run) -> Result:
    """The result of a run; UsageError where it cannot be read or is not this job's."""
    try:
        result = Result.read(run.folder / "result.json")
        what, differences = "another configuration", _other_run(job, run, result)
        if not differences:
            what, differences = "a result of other data", _other_data(job, run, result)
        if differences:
            raise UsageError(f"{what} is in this folder ({'; '.join(differences)})")
    except (OSError, ValueError) as error:
        raise UsageError(f"{error}. Give another --out, or remove {run.folder}.") from error
    return result


def _other_data(job: Job, run: Run, result: Result) -> list[str]:
    """What a finished run saw otherwise; results of before have no digest."""
    nothing = ("notes", "name") if is_same(result.data, job.data) else ("notes",)
    differences = [
        f"data, {key}: {value!r} there, {job.data[key]!r} here"
        for key, value in result.data.items()
        if key not in nothing and value != job.data.get(key, value)
    ]
    if differences:
        differences += describe_changes(read_digest(run.folder / "data.json"), job.digest)
    return differences


def _other_run(job: Job, run: Run, result: Result) -> list[str]:
    """Where a finished run was configured otherwise, or began with another backbone.

    A backbone is compared by what it is, not where it lies.
    """
    held = {**result.config, "backbone": job.config.get("backbone"), "task": result.task}
    same = is_same(result.data, job.data)
    differences = other_run(held, {**job.config, "task": job.task}, same_data=same)
    # a result from random weights has theirs, so what the run was given counts
    fingerprint = run.backbone or result.backbone["fingerprint"]
    expected = job.backbone["fingerprint"]
    if expected and fingerprint != expected:
        differences.append(f"backbone: {fingerprint} there, {expected} here")
    return differences


def order(jobs: Iterable[Job]) -> list[Job]:
    """Replicate after replicate, so that what is there after a while are whole pairs."""
    return sorted(jobs, key=lambda job: (job.seed, task.position(job.task)))


def labels(names: Sequence[str], fingerprints: Sequence[str]) -> list[str]:
    """Short names for folders, one for each backbone, from what the user typed.

    Raises:
        UsageError: two of them are the same backbone.
    """
    first: dict[str, str] = {}
    for name, fingerprint in zip(names, fingerprints, strict=True):
        if fingerprint in first:
            raise UsageError(
                f"--backbones names one backbone twice: {first[fingerprint]} and {name} have the "
                f"fingerprint {fingerprint}. Leave one out."
            )
        first[fingerprint] = name
    short = [_label(name) for name in names]
    counts = Counter(short)
    # `a` with seed 0 and `a-seed0` would have one folder
    for label in set(short):
        stem, _, seed = label.rpartition("-seed")
        counts[stem] += seed.isdigit()
    return [
        f"{label}-{fingerprint[:8]}" if counts[label] > 1 else label
        for label, fingerprint in zip(short, fingerprints, strict=True)
    ]


def _label(name: str) -> str:
    """`cutmix-seed0` of `runs/cutmix-seed0/backbone.pth`, `resnet50.a1_in1k` of timm's name."""
    path = name.partition("#")[0].rstrip("/").removesuffix("/backbone.pth")
    last = re.sub(r"\.(pth|pt|tar|pkl|npz|safetensors)$", "", re.split(r"[/:]", path)[-1])
    return re.sub(r"[^\w.+-]+", "-", last).strip("-.") or "backbone"


def command(job: Job, out: Path, tools: Path) -> list[str]:
    """The command that starts the job's run or, where it was stopped, resumes it.

    `tools` is the folder of the tools, for tasks whose tool is no path of its own.
    """
    tool, folder = str(tools / task.by_name(job.task).tool), str(out / job.folder)
    return [sys.executable, tool, *job.options, "--resume", "auto", "--out", folder]


def shell_line(job: Job, out: Path, tools: Path) -> str:
    """One line for any scheduler: it does nothing where the result stands."""
    result = shlex.quote(str(out / job.folder / "result.json"))
    line = f"{{ test -e {result} || {shlex.join(command(job, out, tools))}; }}"
    return f"cd {shlex.quote(str(Path.cwd()))} && {line}"


def headline(result: Result) -> str:
    """Its metric, under the title and in the unit of the tables."""
    value = result.metrics.get(result.metric)
    metric = task.by_name(result.task).metric(result.metric)
    if isinstance(value, int | float) and abs(value) < _LARGEST:
        value = f"{value * (metric.factor if metric else 1):.1f}"
    return f"{metric.title if metric else result.metric} {value!s:.40}"


def last_error(text: str) -> str:
    """What a failed process printed last: its `error: ...`, or else its last line.

    An error's further lines, which are indented, follow behind it.
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return (lines or ["it said nothing"])[-1].strip()
    first, *rest = lines[starts[-1] :]
    more = takewhile(lambda line: line.startswith(" "), rest)
    return " ".join([first.removeprefix("error: "), *map(str.strip, more)])


def seconds_left(statuses: Iterable[JobStatus], slots: int, now: float) -> float | None:
    """Seconds until the grid is done, by the mean time of each task's finished jobs.

    Of jobs that were done before this call the training alone counts. A task without a finished job
    takes what is expected of it, times what the others took of theirs.

    Args:
        statuses: of all jobs.
        slots: jobs at once.
        now: by `time.monotonic`.

    Returns:
        None while of a task that is still to come nothing is known.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    expected = {status.job.task: status.job.expected for status in statuses}
    for status in statuses:
        if status.result is not None:
            seconds[status.job.task].append(status.seconds or status.result.seconds)
    took = {task: mean(values) for task, values in seconds.items()}
    ratios = [mine / theirs for task, mine in took.items() if (theirs := expected[task])]
    pace = mean(ratios) if ratios else 1.0
    left = []
    for status in statuses:
        if status.state not in ("done", "failed"):
            name = status.job.task
            whole = took.get(name, (expected[name] or 0) * pace)
            if not whole:
                return None
            spent = 0.0 if status.state == "waiting" else now - status.started
            left.append(max(0.0, whole - spent))
    return max([sum(left) / slots, *left], default=0.0)


def write_grid(statuses: Iterable[JobStatus], out: Path, about: str = "") -> None:
    """Write OUT/grid.json: each job done, failed or missing, and why.

    The jobs of earlier calls stay in it; a job replaces the earlier one of its folder.

    Args:
        statuses: of the jobs.
        out: the grid's folder.
        about: what is to stand beside the table.
    """
    rows = {row["folder"]: row for row in earlier_jobs(out)}
    for status in statuses:
        job, folder = status.job, str(status.job.folder)
        state = status.state if status.state in ("done", "failed") else "missing"
        row = {"task": job.task, "backbone": dict(job.backbone), "seed": job.seed}
        rows[folder] = {**row, "folder": folder, "state": state, "why": status.why}
    content = {"format": GRID_FORMAT, "about": about, "jobs": list(rows.values())}
    write_text(out / "grid.json", json.dumps(content, indent=1) + "\n")


def earlier_about(out: Path) -> str:
    """What OUT/grid.json says of its grid; empty where it says nothing, or cannot be read."""
    try:
        return str(read_json(out / "grid.json").get("about", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def earlier_jobs(out: Path) -> list[dict[str, Any]]:
    """The jobs of earlier calls in OUT/grid.json; none where it cannot be read.

    A missing job without a folder is left out: it was planned once, and never begun.
    """
    try:
        content = read_json(out / "grid.json")
        rows = content[{"grid/1": "cells", GRID_FORMAT: "jobs"}[content["format"]]]
        return [
            {**row, "backbone": rename_backbone_keys(row["backbone"])}
            for row in rows
            if row["state"] != "missing" or (out / row["folder"]).exists()
            if isinstance(row["folder"], str)
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
