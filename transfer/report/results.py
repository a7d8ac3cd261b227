"""Reading: every run and every grid below a folder, and a line for each file that is left out.

No torch, and no trust: a file may be torn, foreign, hostile, huge or unreadable, a folder may be
locked or link to itself. Each such thing is one line, and the rest is read.
"""

import json
import os
import reprlib
import stat
import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pretrain.errors import UsageError
from pretrain.run import Result, rename_backbone_keys
from transfer import task
from transfer.grid import GRID_FORMAT

_LARGEST = 16 * 2**20  # bytes; our own files have ten thousand
# folders of a run that hold no other run, and may hold much
_NOT_ENTERED = frozenset({"checkpoints", "pictures", ".git", "__pycache__"})

# field -> what it must hold
_RESULT = {name: get_origin(kind) or kind for name, kind in get_type_hints(Result).items()}
_BACKBONE = {
    **dict.fromkeys(("name", "arch", "method", "fingerprint"), str),
    **dict.fromkeys(("recipe", "dataset", "recipe_hash"), str | None),
    "epochs": int | float | None,
    "seed": int | None,
}
_JOB = {"task": str, "backbone": dict, "seed": int, "folder": str, "state": str, "why": str | None}
_OLD = {"recipe_hash": None}  # results of before it was there do not have one
_KINDS = {
    str: "a text",
    dict: "an object",
    list: "a list",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = 60

Seed = int | None
"""Of a pretraining; None where a foreign backbone does not say."""


@dataclass(frozen=True)
class FinishedRun:
    """A run with a result."""

    result: Result
    folder: str = "."
    """Where it lies, relative to the folder that was read, with slashes."""
    path: Path | None = None
    """The folder itself, for its log and pictures; None for a result from elsewhere."""

    @property
    def seed(self) -> Seed:
        """Of its backbone's pretraining."""
        return self.result.backbone["seed"]


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
    for parent, name in _walk(folder, complaints):
        file = _join(parent, name)
        try:
            content = _load(folder / file)
            if name == "result.json":
                runs.append(FinishedRun(_check_result(content), parent, folder / parent))
            else:
                planned += _read_jobs(content, parent, complaints)
        except (UsageError, RecursionError) as error:
            why = "is nested too deeply" if isinstance(error, RecursionError) else error
            complaints.append(f"{file}: {why}")
    runs.sort(key=lambda run: run.folder)
    finished = {run.folder for run in runs}
    unfinished = tuple(run for run in planned if run.folder not in finished)
    complaints = [_printable(line) for line in complaints]
    if not runs and not unfinished:
        raise UsageError(
            f"{folder} holds no result.json that can be read: no run in it is finished."
            + "\n  ".join([" Left out:" if complaints else "", *complaints])
        )
    return RunSet(tuple(runs), unfinished, tuple(complaints))


def read_bytes(path: Path, largest: int = _LARGEST) -> bytes:
    """The content of a regular file; UsageError where it is none, too large or unreadable."""
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError("is no file")
        if facts.st_size > largest:
            raise UsageError(f"has {facts.st_size:,} bytes; at most {largest:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(error.strerror or str(error)) from error


def is_number(value: Any) -> bool:
    """Whether a value of a JSON or YAML file is a finite number."""
    is_numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return is_numeric and abs(value) <= sys.float_info.max


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
                    with_files.append(here)
                    yield here, entry.name
                elif entry.name not in _NOT_ENTERED and entry.is_dir():
                    put = waiting.appendleft if entry.is_symlink() else waiting.append
                    put(_join(here, entry.name))
            except OSError as error:  # a link that leads to itself
                complaints.append(f"{_join(here, entry.name)}: {error.strerror}")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path).decode("utf-8"))
        # half of a surrogate pair passes for JSON, and no file can hold it
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise UsageError("holds bytes that are no text in UTF-8") from error
    except ValueError as error:
        raise UsageError(f"cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        kind = _KINDS.get(type(content), "a number").replace("whole ", "")
        raise UsageError(f"holds {kind} where an object is expected")
    return content


def _check_result(content: dict[str, Any]) -> Result:
    result = Result.parse(content)
    _check_fields(vars(result), _RESULT)
    _check_fields(_OLD | result.backbone, _BACKBONE, "backbone")
    _check_fields(result.data, {"name": str}, "data")
    keys = [one.key for one in task.by_name(result.task).metrics if one.key in result.metrics]
    _check_fields(result.metrics, dict.fromkeys(sorted(keys), int | float), "metrics")
    return result


def _read_jobs(
    content: dict[str, Any], parent: str, complaints: list[str]
) -> Iterator[UnfinishedRun]:
    """The jobs of a grid, as if none had a result."""
    noun = {"grid/1": "cell", GRID_FORMAT: "job"}.get(str(content.get("format")))
    if noun is None:
        found = _SHORT.repr(content.get("format"))
        raise UsageError(f"is no grid of this project (format {found}, expected {GRID_FORMAT!r})")
    _check_fields(content, {f"{noun}s": list})
    jobs = content[f"{noun}s"]
    siblings: dict[str, set[str]] = defaultdict(set)
    for job in jobs:
        if isinstance(job, dict) and isinstance(job.get("folder"), str):
            siblings[str(job.get("task"))].add(_join(parent, job["folder"]))
    for number, job in enumerate(jobs, 1):
        try:
            _check(job, dict, f"the {noun}")
            _check_fields({"why": None} | job, _JOB)
            backbone = rename_backbone_keys(job["backbone"])
            _check_fields(_OLD | backbone, _BACKBONE, "backbone")
            task.by_name(job["task"])
            if job["state"] not in ("done", "failed", "missing"):
                raise UsageError(f"state is {_SHORT.repr(job['state'])}")
        except UsageError as error:
            complaints.append(f"{_join(parent, 'grid.json')}, {noun} {number}: {error}")
            continue
        # a job whose state is done has its result.json, or it is missing after all
        lost = "its result.json is gone or cannot be read" if job["state"] == "done" else None
        state: Literal["failed", "missing"] = "failed" if job["state"] == "failed" else "missing"
        name, seed, file, why = job["task"], job["seed"], job["folder"], job.get("why") or lost
        beside = frozenset(siblings[name])
        yield UnfinishedRun(name, backbone, seed, _join(parent, file), state, why, beside)


def _check_fields(content: Mapping[str, Any], kinds: Mapping[str, Any], parent: str = "") -> None:
    for key, kind in kinds.items():
        if key not in content:
            raise UsageError(f"{parent} has no {key}".strip())
        _check(content[key], kind, f"{parent}.{key}" if parent else key)


def _check(value: Any, kind: Any, name: str) -> None:
    kind = int | float if kind is float else kind
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = " or ".join(_KINDS[one] for one in get_args(kind) or (kind,))
        raise UsageError(f"{name} is {_SHORT.repr(value)}, expected {expected}")
    if isinstance(value, (int, float)) and not is_number(value):
        raise UsageError(f"{name} is {_SHORT.repr(value)}, no finite number")


def _join(parent: str, name: str) -> str:
    return os.path.normpath(f"{parent}/{name}")


def _printable(text: str) -> str:
    """One line of at most 280 letters, which a terminal and a table can show."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return text if len(text) <= 280 else text[:277] + "..."
