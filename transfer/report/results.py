"""Reading: every run and every grid below a folder, and a line for each file that is left out.

No torch, and no trust: a file may be torn, foreign, hostile, huge or unreadable, a folder may be
locked or link to itself. Each such thing is one line, and the rest is read.
"""

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from pretrain.errors import UsageError, printable
from pretrain.reading import Integer, Number, check, read_json
from pretrain.run import BackboneFacts, Result, rename_backbone_keys
from transfer import task
from transfer.evaluation import suites
from transfer.grid import GRID_FORMAT

# folders of a run that hold no other run, and may hold much
_NOT_ENTERED = frozenset({"checkpoints", "pictures", ".git", "__pycache__"})
# what an evaluation's configuration says of how everything in it was measured
_OF_EVALUATION = ("data", "preprocess", "precision", "split", "class_order")

_ROUNDING = 1e-6  # what sums of floats may be above 100 %


class _Job(TypedDict):
    task: str
    backbone: dict[str, Any]
    seed: Integer
    folder: str
    state: Literal["done", "failed", "missing"]
    why: NotRequired[str | None]


LONGEST = 280
"""Letters of a line on what is left out."""
Log = Callable[[str], None]
"""Takes a line for each thing that is left out, beginning with its name."""
Seed = int | None
"""Of a pretraining; None where a foreign backbone does not say."""


@dataclass(frozen=True)
class FinishedRun:
    """A run with a result, or one suite of an evaluation, as if it were a run of its own."""

    result: Result
    folder: str = "."
    """Where it lies, relative to the folder that was read, with slashes."""
    path: Path | None = None
    """The folder itself, for its log and pictures; None for a result from elsewhere."""

    @property
    def seed(self) -> Seed:
        """Of its backbone's pretraining."""
        return self.result.backbone["seed"]

    @property
    def fold(self) -> int | None:
        """Which part of a cross-validation it is."""
        return fold_of(self.result)


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that a grid has planned and that has no result."""

    task: str
    backbone: dict[str, Any]
    seed: int
    folder: str
    state: Literal["failed", "missing"]
    why: str | None
    siblings: frozenset[str] = frozenset()
    """Folders of the same task in the same grid."""


@dataclass(frozen=True)
class RunSet:
    """What lies below a folder."""

    runs: tuple[FinishedRun, ...]
    unfinished: tuple[UnfinishedRun, ...] = ()
    complaints: tuple[str, ...] = ()
    """One line for each thing that was left out, beginning with its name."""
    about: tuple[str, ...] = ()
    """What the grids say of themselves."""


def read_runs(folder: Path) -> RunSet:
    """Every result.json below `folder`, and what every grid.json says of unfinished runs.

    Links to folders are followed; a folder is read once, however many ways lead to it.

    Raises:
        UsageError: no such folder, or nothing to report in it.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}.")
    complaints: list[str] = []
    runs: list[FinishedRun] = []
    planned: list[UnfinishedRun] = []
    about: list[str] = []
    for parent, name in _walk(folder, complaints):
        file = _join(parent, name)
        try:
            if name == "result.json":
                for result in _read_results(folder, file, complaints):
                    runs.append(FinishedRun(result, parent, folder / parent))
            else:
                content = read_json(folder / file, file)
                planned += _read_jobs(content, parent, complaints)
                about.append(check(content.get("about", ""), str, f"{file}: about"))
        except UsageError as error:
            complaints.append(str(error))
    runs = _completed(sorted(runs, key=lambda run: run.folder))
    finished = {run.folder for run in runs}
    unfinished = tuple(run for run in planned if run.folder not in finished)
    complaints = [printable(text, LONGEST) for text in complaints]
    if not runs and not unfinished:
        raise UsageError(
            f"{folder} holds no result.json that can be read: no run in it is finished."
            + "\n  ".join([" Left out:" if complaints else "", *complaints])
        )
    texts = dict.fromkeys(printable(text, LONGEST) for text in about if text)
    return RunSet(tuple(runs), unfinished, tuple(complaints), tuple(texts))


def _walk(folder: Path, complaints: list[str]) -> Iterator[tuple[str, str]]:
    """(folder, name) of the result.json and grid.json below; folders before links to folders."""
    waiting = deque(["."])
    first_seen: dict[tuple[int, int], str] = {}
    with_files: list[str] = []
    while waiting:
        here = waiting.pop()
        try:
            facts = os.stat(folder / here)
            first = first_seen.setdefault((facts.st_dev, facts.st_ino), here)
            if first != here:
                if first == "." or any(f"{one}/".startswith(f"{first}/") for one in with_files):
                    complaints.append(f"{here}: links to {first}, which is read already")
                continue
            with os.scandir(folder / here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            complaints.append(f"{here}: {error.strerror or error}")
            continue
        for entry in entries:
            try:
                if entry.name in ("result.json", "grid.json"):
                    if any(other.name == "sweep.yaml" for other in entries):
                        continue  # of a sweep, whose trials lie below
                    with_files.append(here)
                    yield here, entry.name
                elif entry.name not in _NOT_ENTERED and entry.is_dir():
                    entry.name.encode()
                    put = waiting.appendleft if entry.is_symlink() else waiting.append
                    put(_join(here, entry.name))
            except UnicodeEncodeError:
                complaints.append(f"{_join(here, entry.name)}: its name is no text in UTF-8")
            except OSError as error:  # a link that leads to itself
                complaints.append(f"{_join(here, entry.name)}: {error.strerror}")


def kind(name: str, where: str = "") -> task.Task | suites.Block:
    """What results are called by `Result.task`: a task, pretraining, or a block of an evaluation.

    Raises:
        UsageError: there is none of that name; the message begins with `where`.
    """
    known = {one.name: one for one in (task.PRETRAIN, *task.TASKS)} | suites.blocks()
    if name not in known:
        raise UsageError(f"{where}there is no task {name!r}; there are {', '.join(known)}.")
    return known[name]


def network_of(result: Result) -> str:
    """What people call the network of a task that has several kinds; otherwise nothing."""
    reference = getattr(kind(result.task), "network", None)
    return str(task.load(reference)(result.config)) if reference else ""


def seed_text(seed: Seed) -> str:
    """Of a pretraining, in words."""
    return "unknown" if seed is None else str(seed)


def fold_of(result: Result) -> int | None:
    """Which part of a cross-validation a run is; None where it is none."""
    section = result.config.get("dataset")
    fold = section.get("fold") if isinstance(section, dict) else None
    return fold if isinstance(fold, int) else None


def _read_results(folder: Path, file: str, complaints: list[str]) -> Iterator[Result]:
    """The result of a run; of an evaluation one for each suite that can be read."""
    whole = Result.read(folder / file, file)
    if whole.task != suites.ACCURACY.name:
        yield _checked(whole, file)
    elif "top1" in whole.metrics:  # without --suite
        config = _shared_options(whole) | {"name": whole.task}
        yield _checked(replace(whole, config=config), file)
    elif not whole.metrics:
        raise UsageError(f"{file}: holds nothing that was measured")
    else:
        for name in whole.metrics:
            try:
                suites.by_name(name, f"{file}: ")
                yield _checked(_of_suite(whole, name, f"{file}: {name}"), f"{file}: {name}")
            except UsageError as error:
                complaints.append(str(error))


def _of_suite(whole: Result, name: str, where: str) -> Result:
    """What an evaluation says of one suite."""
    parts = {
        part: check(getattr(whole, part).get(name), dict, f"{where}: {part}")
        for part in ("metrics", "data", "config")
    }
    parts["config"] = _shared_options(whole) | parts["config"] | {"name": name}
    return Result.parse(vars(whole) | parts | {"task": name}, where)


def _completed(runs: list[FinishedRun]) -> list[FinishedRun]:
    """With what another result here says of a backbone, where one of before does not say it."""
    sizes: dict[str, list[int]] = {}
    args: dict[str, Any] = {}
    for run in runs:
        if "model_args" in run.result.backbone:
            args[run.result.backbone["fingerprint"]] = run.result.backbone["model_args"]
        section = run.result.config.get("dataset")
        size = section.get("image_size") if isinstance(section, dict) else None
        if run.result.task == task.PRETRAIN.name and isinstance(size, int):
            sizes[run.result.backbone["fingerprint"]] = [3, size, size]

    def completed(run: FinishedRun) -> FinishedRun:
        backbone, missing = run.result.backbone, dict[str, Any]()
        name = backbone["fingerprint"]
        if not backbone.get("input_size") and name in sizes:
            missing["input_size"] = sizes[name]
        if "model_args" not in backbone and name in args:
            missing["model_args"] = args[name]
        return replace(run, result=replace(run.result, backbone=backbone | missing))

    return [completed(run) for run in runs]


def _shared_options(whole: Result) -> dict[str, Any]:
    return {key: whole.config[key] for key in _OF_EVALUATION if key in whole.config}


def _checked(result: Result, where: str) -> Result:
    for metric in kind(result.task, f"{where}: ").metrics:
        if metric.key in result.metrics:
            value = check(result.metrics[metric.key], Number, f"{where}: metrics.{metric.key}")
            if not -_ROUNDING <= value * metric.factor <= metric.highest + _ROUNDING:
                limit = metric.highest / metric.factor
                allowed = f"between 0 and {limit:g}" if limit < inf else "0 or more"
                raise UsageError(f"{where}: metrics.{metric.key} is {value}; it must be {allowed}")
    return result


def _read_jobs(content: Any, parent: str, complaints: list[str]) -> Iterator[UnfinishedRun]:
    """The jobs of a grid, as if none had a result."""
    file = _join(parent, "grid.json")
    found = content.get("format") if isinstance(content, dict) else None
    noun = {"grid/1": "cell", GRID_FORMAT: "job"}.get(str(found))
    if noun is None:
        raise UsageError(
            f"{file}: is no grid of this project (format {found!r:.60}, expected {GRID_FORMAT!r})"
        )
    jobs = check(content, dict[str, Any], file).get(f"{noun}s")
    check(jobs, list, f"{file}: {noun}s")
    siblings: dict[str, set[str]] = defaultdict(set)
    for job in jobs:
        if isinstance(job, dict) and isinstance(job.get("folder"), str):
            siblings[str(job.get("task"))].add(_join(parent, job["folder"]))
    siblings_of = {name: frozenset(folders) for name, folders in siblings.items()}
    for number, job in enumerate(jobs, 1):
        where = f"{file}, {noun} {number}"
        try:
            check(job, _Job, where)
            backbone = rename_backbone_keys(job["backbone"])
            check(backbone, BackboneFacts, f"{where}: backbone")
            task.by_name(job["task"], f"{where}: ")
        except UsageError as error:
            complaints.append(str(error))
            continue
        # a job whose state is done has its result.json, or it is missing after all
        lost = "its result.json is gone or cannot be read" if job["state"] == "done" else None
        yield UnfinishedRun(
            task=job["task"],
            backbone=backbone,
            seed=job["seed"],
            folder=_join(parent, job["folder"]),
            state="failed" if job["state"] == "failed" else "missing",
            why=job.get("why") or lost,
            siblings=siblings_of[job["task"]],
        )


def _join(parent: str, name: str) -> str:
    return os.path.normpath(f"{parent}/{name}")
