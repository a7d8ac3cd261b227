"""Reading: every run and every grid below a folder, and a word for each file that is left out.

No torch, and no trust: a file may be torn, foreign, hostile, huge or unreadable, a folder may be
locked or link to itself. Each such thing is one line, and the rest is read.
"""

import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pretrain.errors import UsageError
from pretrain.run import RESULT_FORMAT, Result
from transfer.report.metrics import METRICS

GRID_FORMAT = "grid/1"
_LARGEST = 16 * 2**20  # bytes; our own files have ten thousand
# folders of a run that hold no other run, and may hold much
_CLOSED = frozenset({"checkpoints", "pictures", ".git", "__pycache__"})
_NUMBER = (int, float)
# field of Result -> what it must hold: (name, allowed types) of its entries
_ENTRIES: dict[str, tuple[tuple[str, tuple[type, ...]], ...]] = {
    "backbone": (
        ("name", (str,)),
        ("arch", (str,)),
        ("method", (str,)),
        ("fingerprint", (str,)),
        ("recipe", (str, type(None))),
        ("dataset", (str, type(None))),
        ("epochs", (*_NUMBER, type(None))),
        ("seed", (int, type(None))),
    ),
    "data": (("name", (str,)),),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "metric": (str,),
    "metrics": (dict,),
    "backbone": (dict,),
    "data": (dict,),
    "seed": (int,),
    "config": (dict,),
    "seconds": _NUMBER,
    "environment": (dict,),
    "format": (str,),
}


@dataclass(frozen=True)
class Finished:
    """A run with a result."""

    result: Result
    folder: str = "."
    """Where it lies, relative to the folder that was read, with slashes."""
    path: Path | None = None
    """The folder itself, for its log and pictures; None for a result from elsewhere."""


@dataclass(frozen=True)
class Unfinished:
    """A cell of a grid that has no result."""

    task: str
    backbone: dict[str, Any]
    seed: int
    folder: str
    state: Literal["failed", "missing"]
    why: str | None
    siblings: frozenset[str] = frozenset()
    """Folders of the same task in the same grid."""


@dataclass(frozen=True)
class Found:
    """What lies below a folder."""

    runs: tuple[Finished, ...]
    unfinished: tuple[Unfinished, ...] = ()
    complaints: tuple[str, ...] = ()
    """One line for each thing that was left out, beginning with its name."""


class _LeftOut(Exception):
    """Why a file is not read."""


def read(folder: Path) -> Found:
    """Every result.json below `folder`, and the unfinished cells of every grid.json.

    Links to folders are followed; a folder is read once, however many ways lead to it.

    Raises:
        UsageError: no such folder, or nothing to report in it.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}.")
    complaints: list[str] = []
    runs, grids = [], []
    for place, kind in _walk(folder, complaints):
        name = _join(place, kind)
        try:
            if kind == "result.json":
                runs.append(Finished(_result(folder / name), place, folder / place))
            else:
                grids.append((place, _grid(folder / name)))
        except _LeftOut as reason:
            complaints.append(f"{name}: {reason}")
    runs.sort(key=lambda run: run.folder)
    done = {run.folder for run in runs}
    unfinished = [
        cell
        for place, content in grids
        for cell in _cells(content, place, complaints)
        if cell.folder not in done
    ]
    if not runs and not unfinished:
        told = "".join(f"\n  {line}" for line in complaints)
        raise UsageError(
            f"{folder} holds no result.json that can be read: no run in it is finished."
            + (f" Left out:{told}" if told else "")
        )
    return Found(tuple(runs), tuple(unfinished), tuple(map(_one_line, complaints)))


def _walk(folder: Path, complaints: list[str]) -> Iterator[tuple[str, str]]:
    """(folder, name) of the result.json and grid.json below; folders before links to folders."""
    waiting, links = ["."], list[str]()
    seen: dict[tuple[int, int], str] = {}
    held: list[str] = []
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        try:
            facts = os.stat(folder / here)
            first = seen.setdefault((facts.st_dev, facts.st_ino), here)
            if first != here:
                if first == "." or any(f"{one}/".startswith(f"{first}/") for one in held):
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
                    held.append(here)
                    yield here, entry.name
                elif entry.name not in _CLOSED and entry.is_dir():
                    (links if entry.is_symlink() else waiting).append(_join(here, entry.name))
            except OSError as error:  # a link that leads to itself
                complaints.append(f"{_join(here, entry.name)}: {error.strerror}")


def _load(path: Path) -> dict[str, Any]:
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise _LeftOut("is no file")
        if facts.st_size > _LARGEST:
            raise _LeftOut(f"has {facts.st_size:,} bytes; a result has at most {_LARGEST:,}")
        text = path.read_bytes().decode("utf-8")
        content = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair passes for JSON, and no file can hold it
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except OSError as error:
        raise _LeftOut(error.strerror or str(error)) from error
    except UnicodeError as error:
        raise _LeftOut("holds bytes that are no text in UTF-8") from error
    except ValueError as error:
        raise _LeftOut(f"cannot be read as JSON: {error}") from error
    except RecursionError as error:
        raise _LeftOut("is nested too deeply") from error
    if not isinstance(content, dict):
        raise _LeftOut(f"holds {_kind(content)} where an object is expected")
    return content


def _result(path: Path) -> Result:
    content = _load(path)
    if content.get("format") != RESULT_FORMAT:
        raise _LeftOut(
            f"is no result of this project (format {_short(content.get('format'))}, expected "
            f"{RESULT_FORMAT!r})"
        )
    names = {field.name for field in fields(Result)}
    if set(content) != names:
        raise _LeftOut(f"missing or unknown fields {_short(sorted(set(content) ^ names))}")
    for name, types in _TYPES.items():
        _check(content[name], types, name)
    for name, entries in _ENTRIES.items():
        _check_entries(content[name], entries, name)
    _check_variant(content["backbone"])
    if content["task"] not in METRICS:
        raise _LeftOut(f"task {_short(content['task'])}; known are {', '.join(METRICS)}")
    for metric in METRICS[content["task"]]:
        if metric.key in content["metrics"]:
            _check(content["metrics"][metric.key], _NUMBER, f"metrics.{metric.key}")
    return Result(**content)


def _check_entries(held: Any, entries: Any, name: str) -> None:
    for key, types in entries:
        if key not in held:
            raise _LeftOut(f"{name} has no {key}")
        _check(held[key], types, f"{name}.{key}")


def _check_variant(backbone: dict[str, Any]) -> None:
    """Results of before it was there do not have one."""
    _check(backbone.get("recipe_hash"), (str, type(None)), "backbone.recipe_hash")


def _check(value: Any, types: tuple[type, ...], name: str) -> None:
    if not isinstance(value, types) or isinstance(value, bool):
        raise _LeftOut(f"{name} is {_short(value)}, expected {_words(types)}")
    if isinstance(value, _NUMBER):
        try:
            finite = math.isfinite(float(value))
        except OverflowError:
            finite = False
        if not finite:
            raise _LeftOut(f"{name} is {_short(value)}, no finite number")


def _grid(path: Path) -> dict[str, Any]:
    content = _load(path)
    if content.get("format") != GRID_FORMAT:
        raise _LeftOut(
            f"is no grid of this project (format {_short(content.get('format'))}, expected "
            f"{GRID_FORMAT!r})"
        )
    _check(content.get("cells"), (list,), "cells")
    return content


def _cells(content: dict[str, Any], place: str, complaints: list[str]) -> Iterator[Unfinished]:
    beside: dict[str, set[str]] = {}
    for cell in content["cells"]:
        if isinstance(cell, dict) and isinstance(cell.get("folder"), str):
            beside.setdefault(str(cell.get("task")), set()).add(_join(place, cell["folder"]))
    for number, cell in enumerate(content["cells"], 1):
        try:
            _check(cell, (dict,), "the cell")
            for key, types in (("task", (str,)), ("backbone", (dict,)), ("folder", (str,))):
                _check(cell.get(key), types, key)
            _check(cell.get("seed"), (int,), "seed")
            _check(cell.get("why"), (str, type(None)), "why")
            _check_entries(cell["backbone"], _ENTRIES["backbone"], "backbone")
            _check_variant(cell["backbone"])
            if cell["task"] not in METRICS:
                raise _LeftOut(f"task {_short(cell['task'])}; known are {', '.join(METRICS)}")
            if cell.get("state") not in ("done", "failed", "missing"):
                raise _LeftOut(f"state {_short(cell.get('state'))}")
        except _LeftOut as reason:
            complaints.append(f"{_join(place, 'grid.json')}, cell {number}: {reason}")
            continue
        # a cell said to be done has its result.json, or it is missing after all
        state: Literal["failed", "missing"] = "failed" if cell["state"] == "failed" else "missing"
        lost = "its result.json is gone or cannot be read" if cell["state"] == "done" else None
        yield Unfinished(
            cell["task"],
            cell["backbone"],
            cell["seed"],
            _join(place, cell["folder"]),
            state,
            cell.get("why") or lost,
            frozenset(beside[cell["task"]]),
        )


def _join(place: str, name: str) -> str:
    return os.path.normpath(name if place == "." else f"{place}/{name}")


def _words(types: tuple[type, ...]) -> str:
    names = {
        str: "a text",
        dict: "an object",
        list: "a list",
        int: "a whole number",
        float: "a number",
        type(None): "null",
    }
    return " or ".join(names[kind] for kind in types)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")


def _short(value: Any) -> str:
    """A value for a message, however long it is."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # a number of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(text: str) -> str:
    """What a terminal and a table can show."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
