"""A grid of transfers: what its cells are, which of them stand already, how they are called.

A cell is one backbone, one task, one seed: an ordinary run of a tool in its own folder,
OUT/TASK/NAME-seedS. Its state is what the folder says; nothing else is kept. No torch here.
"""

import fcntl
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from pretrain.errors import UsageError
from pretrain.run import Result, Run, other_run
from transfer.report.results import GRID_FORMAT

_SEED = r"-seed\d+$"
TASKS = ("classification", "detection", "captioning")
SCRIPTS = {
    "pretrain": "pretrain.py",
    "classification": "finetune_cls.py",
    "detection": "finetune_det.py",
    "captioning": "finetune_cap.py",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
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
        """The name without this cell's seed, where it ends with that: none of none-seed0."""
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
        """What its process says, relative to the grid's folder."""
        return Path("logs") / self.task / f"{self.folder.name}.log"


@dataclass(frozen=True)
class Found:
    """What the folder of a cell holds."""

    state: Literal["done", "started", "absent", "other"]
    """started: an unfinished run of this cell, to be resumed; other: not this cell's run."""
    why: str | None = None
    result: Result | None = None


def look(cell: Cell, out: Path) -> Found:
    """The state of a cell, from its folder alone."""
    run = Run(out / cell.folder)
    config = run.folder / "config.yaml"
    if run.finished:
        try:
            result = Result.read(run.folder / "result.json")
        except UsageError as error:
            return Found("other", str(error))
        start = _started_from(run, result)
        if differing := _differing(cell, result.config, start, result.data):
            return Found("other", _other(run, differing))
        return Found("done", None, result)
    if not config.exists():
        return Found("absent")  # where it holds foreign files, the tool will say so
    try:
        held = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        return Found("other", f"{config} cannot be read: {error}")
    # its tool will compare names, not only what they stand for
    differing = other_run(held, dict(cell.config)) or _differing(cell, held, _started_from(run), {})
    return Found("other", _other(run, differing)) if differing else Found("started")


def _differing(
    cell: Cell, config: Mapping[str, Any], start: str | None, data: Mapping[str, Any]
) -> list[str]:
    """What makes it the run of another cell: configuration, backbone, data."""
    # a path is compared by where it leads, a backbone by what it is
    same_data = _same_place(config.get("data"), cell.config.get("data"))
    apart = {"backbone": None} | ({"data": None} if same_data else {})
    lines = other_run({**config, **apart}, {**cell.config, **apart})
    wanted = cell.backbone.get("fingerprint")
    if wanted is not None and start is not None and start != wanted:
        lines.append(f"backbone: {start} there, {wanted} here")
    lines += [
        f"data, {key}: {data[key]!r} there, {value!r} here"
        for key, value in cell.data.items()
        if key in data and data[key] != value
    ]
    return lines


def _same_place(one: Any, other: Any) -> bool:
    return bool(one and other) and Path(one).resolve() == Path(other).resolve()


def _started_from(run: Run, result: Result | None = None) -> str | None:
    """Fingerprint of the backbone; a result from random weights has those, so the note counts."""
    note = run.folder / "backbone.txt"
    if note.exists():
        return note.read_text(encoding="utf-8").strip()
    return None if result is None else result.backbone.get("fingerprint")


def _other(run: Run, differing: Sequence[str]) -> str:
    return (
        f"another configuration is in this folder ({'; '.join(differing)}). Give another --out, "
        f"or remove {run.folder}."
    )


def is_busy(folder: Path) -> bool:
    """Whether a process works in the folder of a run: an earlier grid's child, or another's."""
    try:
        with open(folder / ".lock", "rb+") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def order(cells: Iterable[Cell]) -> list[Cell]:
    """Replicate after replicate, so that what is there after a while are whole pairs."""
    tasks = list(SCRIPTS)
    return sorted(cells, key=lambda cell: (cell.seed, tasks.index(cell.task)))


def labels(names: Sequence[str], fingerprints: Sequence[str]) -> list[str]:
    """Short names for folders, one for each backbone, from what the user typed.

    Raises:
        UsageError: two of them are the same backbone.
    """
    for place, fingerprint in enumerate(fingerprints):
        first = fingerprints.index(fingerprint)
        if first != place:
            raise UsageError(
                f"--backbones names one backbone twice: {names[first]} and {names[place]} have "
                f"the fingerprint {fingerprint}. Leave one out."
            )
    short = [_label(name) for name in names]
    often = Counter(short)
    # `a` with seed 0 and `a-seed0` would have one folder
    often.update(label.rpartition("-seed")[0] for label in set(short) if re.search(_SEED, label))
    return [
        f"{label}-{fingerprint[:8]}" if often[label] > 1 else label
        for label, fingerprint in zip(short, fingerprints, strict=True)
    ]


def _label(name: str) -> str:
    """`cutmix-seed0` of `runs/cutmix-seed0/backbone.pth`, `resnet50.a1_in1k` of timm's name."""
    plain = name.partition("#")[0].rstrip("/").removesuffix("/backbone.pth")
    last = re.sub(r"\.(pth|pt|tar|pkl|npz|safetensors)$", "", re.split(r"[/:]", plain)[-1])
    return re.sub(r"[^\w.+-]+", "-", last).strip("-.") or "backbone"


def command(cell: Cell, out: Path, python: str, tools: Path) -> list[str]:
    """The words that start the cell's run or, where it was stopped, go on with it."""
    place = ["--resume", "auto", "--out", str(out / cell.folder)]
    return [python, str(tools / SCRIPTS[cell.task]), *cell.options, *place]


def shell_line(cell: Cell, out: Path, python: str, tools: Path, where: Path) -> str:
    """One line for any scheduler: it does nothing where the result stands."""
    words = shlex.join(command(cell, out, python, tools))
    result = shlex.quote(str(out / cell.folder / "result.json"))
    return f"cd {shlex.quote(str(where))} && {{ test -e {result} || {words}; }}"


def figure(result: Result) -> str:
    """The headline in the unit of a table: percent."""
    value = result.metrics.get(result.metric)
    if not isinstance(value, int | float):
        return f"{result.metric} {value}"
    factor = 100 if result.task == "captioning" else 1  # these are fractions
    return f"{result.metric} {factor * value:.1f}"


def last_error(text: str) -> str:
    """What a failed process said last: its `error: ...`, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error: ")]
    return (told or lines or ["it said nothing"])[-1].removeprefix("error: ")


def progress(cell: Cell, out: Path) -> tuple[int, int | None]:
    """(epochs done, epochs in all) of a run under way, from its log."""
    total = cell.config.get("epochs")
    done = Run(out / cell.folder).read_log()
    return (done[-1].get("epoch", len(done)) if done else 0), total


def time_left(
    finished: Mapping[str, Sequence[float]],
    running: Iterable[tuple[str, float]],
    waiting: Iterable[str],
    slots: int,
) -> float | None:
    """Seconds until the grid is done, by the mean time of each task's finished cells.

    Args:
        finished: task to the seconds of its cells that are done.
        running: (task, seconds so far) of each running cell.
        waiting: the task of each cell that is still to come.
        slots: cells at once.

    Returns:
        None while a task that is still to come has no finished cell.
    """
    mean = {task: sum(times) / len(times) for task, times in finished.items() if times}
    rest = [(task, spent) for task, spent in running] + [(task, 0.0) for task in waiting]
    if any(task not in mean for task, _ in rest):
        return None
    left = [max(0.0, mean[task] - spent) for task, spent in rest]
    return max([sum(left) / slots, *left], default=0.0)


def as_json(
    states: Iterable[tuple[Cell, str, str | None]], earlier: Iterable[Mapping[str, Any]] = ()
) -> str:
    """The text of grid.json: each cell, done, failed or missing, and why.

    Args:
        states: of this call's cells.
        earlier: what `earlier_cells` says; a cell of this call replaces the one of its folder.
    """
    cells = {cell["folder"]: cell for cell in earlier}
    for cell, state, why in states:
        cells[str(cell.folder)] = {
            "task": cell.task,
            "backbone": {"fingerprint": "", **cell.backbone},  # the report reads a text
            "seed": cell.seed,
            "folder": str(cell.folder),
            "state": state if state in ("done", "failed") else "missing",
            "why": why,
        }
    return json.dumps({"format": GRID_FORMAT, "cells": list(cells.values())}, indent=1) + "\n"


def earlier_cells(out: Path) -> list[dict[str, Any]]:
    """What OUT/grid.json says of the cells of earlier calls; nothing where it cannot be read.

    A missing cell without a folder is left out: it was planned once, and never begun.
    """
    try:
        content = json.loads((out / "grid.json").read_text(encoding="utf-8"))
        cells = content["cells"] if content["format"] == GRID_FORMAT else []
        return [
            cell
            for cell in cells
            if cell["state"] != "missing" or (out / cell["folder"]).exists()
            if isinstance(cell["folder"], str)
        ]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
