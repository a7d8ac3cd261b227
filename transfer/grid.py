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
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import yaml

from pretrain import files
from pretrain.errors import UsageError
from pretrain.files import holder, write_text
from pretrain.run import Result, Run, other_run, rename_backbone_keys
from transfer import task

GRID_FORMAT = "grid/2"
"""Of grid.json; grid/1 is read too: its jobs are cells, and `backbone` has other keys."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of the grid."""

    task: str
    name: str
    """Of its backbone, unique in the grid: names the folder and the row."""
    seed: int
    backbone: Mapping[str, Any]
    """What `Backbone.describe` says; without a fingerprint where it is yet to be trained."""
    config: Mapping[str, Any]
    """Resolved, as plain values: what the run's config.yaml will hold."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the data beforehand: its name, numbers of images."""
    options: tuple[str, ...] = ()
    """Of the tool: --config, --backbone and so on."""

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
    state: Literal["waiting", "running", "stopping", "elsewhere", "done", "failed"] = "waiting"
    """stopping: asked to; elsewhere: another process works in its folder."""
    why: str | None = None
    result: Result | None = None
    process: Any = None
    """Started by this call: see `tools.support.grid_run.Launch`."""
    slot: int = 0
    started: float = 0.0
    """By `time.monotonic`."""
    seconds: float | None = None
    """Of a job that was done in this call."""
    log_start: int = 0
    """Length of its log before this call."""


def scan(jobs: Iterable[Job], out: Path) -> list[JobStatus]:
    """The status of each job, see `job_status`."""
    return [job_status(job, out) for job in jobs]


def job_status(job: Job, out: Path) -> JobStatus:
    """The status of a job, from its folder alone.

    Returns:
        done; waiting: there is no run, or an unfinished one of this job, to be resumed; failed:
        what is in the folder is not this job's run.
    """
    run, config = Run(out / job.folder), job.config
    config_file, fingerprint_file = run.folder / "config.yaml", run.folder / "backbone.txt"
    result = fingerprint = None
    try:
        if run.finished:
            result = Result.read(run.folder / "result.json")
            fingerprint = result.backbone.get("fingerprint")
            # a path is compared by where it leads, a backbone by what it is
            held = {**result.config, "backbone": config.get("backbone")}
            here, there = config.get("data"), held.get("data")
            if here and there and Path(here).resolve() == Path(there).resolve():
                held["data"] = here
        elif config_file.exists():
            # its tool will compare names, not only what they stand for
            held = yaml.safe_load(config_file.read_text(encoding="utf-8"))
        else:
            return JobStatus(job)  # where it holds foreign files, the tool will say so
    except UsageError as error:
        return JobStatus(job, "failed", str(error))
    except (OSError, ValueError, yaml.YAMLError) as error:
        return JobStatus(job, "failed", f"{config_file} cannot be read: {error}")
    if fingerprint_file.exists():  # a result from random weights has theirs, so this file counts
        fingerprint = fingerprint_file.read_text(encoding="utf-8").strip()

    differences = other_run(held, dict(config))
    expected = job.backbone.get("fingerprint")
    if None not in (fingerprint, expected) and fingerprint != expected:
        differences.append(f"backbone: {fingerprint} there, {expected} here")
    for key, value in result.data.items() if result else ():
        if key != "notes" and value != job.data.get(key, value):
            differences.append(f"data, {key}: {value!r} there, {job.data[key]!r} here")
    if not differences:
        return JobStatus(job, "waiting" if result is None else "done", None, result)
    why = f"another configuration is in this folder ({'; '.join(differences)})."
    return JobStatus(job, "failed", f"{why} Give another --out, or remove {run.folder}.")


def is_busy(folder: Path) -> bool:
    """Whether a process works in the folder of a run: an earlier grid's child, or another's."""
    return holder(Run(folder).lock_file) is not None


def lock(out: Path) -> AbstractContextManager[Any]:
    """Keep a second grid out of the folder; the kernel releases the lock however this one ends.

    Raises:
        UsageError: another grid runs in it.
    """
    return files.lock(out / ".grid.lock", f"another grid is at work in {out}")


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
    """Its metric, in the unit of the tables."""
    value = result.metrics.get(result.metric)
    if isinstance(value, int | float):
        metric = task.by_name(result.task).metric(result.metric)
        value = f"{value * (metric.factor if metric else 1):.1f}"
    return f"{result.metric} {value}"


def last_error(text: str) -> str:
    """What a failed process printed last: its `error: ...`, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("error: ")


def progress(job: Job, out: Path) -> tuple[int, int | None]:
    """(epochs done, epochs in all) of a run under way, from its log."""
    records = Run(out / job.folder).read_log()
    return (records[-1].get("epoch", len(records)) if records else 0), job.config.get("epochs")


def seconds_left(statuses: Iterable[JobStatus], slots: int, now: float) -> float | None:
    """Seconds until the grid is done, by the mean time of each task's finished jobs.

    Of jobs that were done before this call the training alone counts.

    Args:
        statuses: of all jobs.
        slots: jobs at once.
        now: by `time.monotonic`.

    Returns:
        None while a task that is still to come has no finished job.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    for status in statuses:
        if status.result is not None:
            seconds[status.job.task].append(status.seconds or status.result.seconds)
    left = []
    for status in statuses:
        if status.state in ("waiting", "running", "elsewhere"):
            if not seconds[status.job.task]:
                return None
            spent = 0.0 if status.state == "waiting" else now - status.started
            left.append(max(0.0, mean(seconds[status.job.task]) - spent))
    return max([sum(left) / slots, *left], default=0.0)


def write_grid(statuses: Iterable[JobStatus], out: Path) -> None:
    """Write OUT/grid.json: each job done, failed or missing, and why.

    The jobs of earlier calls stay in it; a job replaces the earlier one of its folder.
    """
    rows = {row["folder"]: row for row in earlier_jobs(out)}
    for status in statuses:
        job, folder = status.job, str(status.job.folder)
        state = status.state if status.state in ("done", "failed") else "missing"
        backbone = {"fingerprint": "", **job.backbone}  # the report reads a text
        row = {"task": job.task, "backbone": backbone, "seed": job.seed, "folder": folder}
        rows[folder] = {**row, "state": state, "why": status.why}
    content = {"format": GRID_FORMAT, "jobs": list(rows.values())}
    write_text(out / "grid.json", json.dumps(content, indent=1) + "\n")


def earlier_jobs(out: Path) -> list[dict[str, Any]]:
    """The jobs of earlier calls in OUT/grid.json; none where it cannot be read.

    A missing job without a folder is left out: it was planned once, and never begun.
    """
    try:
        content = json.loads((out / "grid.json").read_text(encoding="utf-8"))
        rows = content[{"grid/1": "cells", GRID_FORMAT: "jobs"}[content["format"]]]
        return [
            {**row, "backbone": rename_backbone_keys(row["backbone"])}
            for row in rows
            if row["state"] != "missing" or (out / row["folder"]).exists()
            if isinstance(row["folder"], str)
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
