"""A grid on a terminal: one live table; lines where there is no terminal."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tools._grid_jobs import State
from transfer.grid import SCRIPTS, figure, progress, time_left

Show = Callable[[Sequence[State]], None]
_COLOURS = {"done": "green", "failed": "bold red", "running": "cyan", "elsewhere": "magenta"}
_STOPPING = (
    "stopping: the cells that run end after their step; a second Ctrl-C does not wait for it"
)


@contextmanager
def shown(out: Path, slots: int, console: Console | None = None) -> Iterator[Show]:
    """A function that shows the states; called often.

    Args:
        out: the grid's folder.
        slots: cells at once, for the time left.
        console: standard error, if not given.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(out).show
        return
    with Live(console=console, auto_refresh=False) as live:
        last, told = 0.0, list[str]()

        def show(states: Sequence[State]) -> None:
            nonlocal last, told
            now = [s.state for s in states]
            if time.monotonic() - last > 0.5 or now != told:
                last, told = time.monotonic(), now
                live.update(Group(table(states, out), Text(footer(states, slots))), refresh=True)

        yield show


class _Lines:
    """A line when a cell begins, and one when it ends."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.told: dict[str, str] = {}
        self.stopping = False

    def show(self, states: Sequence[State]) -> None:
        """Print what has changed."""
        if not self.stopping and any(s.state == "stopping" for s in states):
            self.stopping = True
            print(_STOPPING, file=sys.stderr, flush=True)
        for number, state in enumerate(states, 1):
            key = str(state.cell.folder)
            if state.state in ("waiting", "stopping", self.told.get(key)):
                continue
            before, self.told[key] = self.told.get(key), state.state
            told = state.state in ("done", "elsewhere")
            words = entry(state, self.out) if told else state.state
            if state.state == "done" and before is None:
                words += ", done before"
            if state.seconds is not None:
                words += f"  ({state.seconds:.0f} s)"
            if state.why:
                words += f": {state.why}"
            print(f"[{number}/{len(states)}] {state.cell.title}: {words}", file=sys.stderr)
            sys.stderr.flush()


def table(states: Sequence[State], out: Path) -> Table:
    """Rows are backbones and seeds, columns tasks."""
    tasks = [task for task in SCRIPTS if any(s.cell.task == task for s in states)]
    cells = {(s.cell.name, s.cell.seed, s.cell.task): s for s in states}
    made = Table("backbone", "seed", *tasks, title=str(out), title_justify="left")
    for name, seed in dict.fromkeys((s.cell.name, s.cell.seed) for s in states):
        row = [
            Text("")
            if (state := cells.get((name, seed, task))) is None
            else Text(entry(state, out), style=_COLOURS.get(state.state, "dim"))
            for task in tasks
        ]
        made.add_row(name, str(seed), *row)
    return made


def entry(state: State, out: Path) -> str:
    """A cell in a few words."""
    match state.state:
        case "done" if state.result is not None:
            return figure(state.result)
        case "running":
            done, total = progress(state.cell, out)
            return f"epoch {done} of {total}" if total else f"epoch {done}"
        case "elsewhere":
            return "another process works on it"
        case other:
            return other


def footer(states: Sequence[State], slots: int) -> str:
    """How many are done, and the time left; under it what failed, and where to read on."""
    counts = {name: sum(s.state == name for s in states) for name in ("done", "failed")}
    line = f"{counts['done']} of {len(states)} done"
    if counts["failed"]:
        line += f", {counts['failed']} failed"
    if any(s.state == "stopping" for s in states):
        line += f"\n{_STOPPING}"
    elif (left := seconds_left(states, slots)) is not None and left > 0:
        line += f"; about {_duration(left)} left"
    failed = [f"failed: {s.cell.title}: {s.why}" for s in states if s.state == "failed"]
    return "\n".join([line, *failed])


def seconds_left(states: Sequence[State], slots: int) -> float | None:
    """By the cells of this grid that are done, in this call or (training alone) before."""
    finished: dict[str, list[float]] = defaultdict(list)
    for state in states:
        if state.seconds is not None:
            finished[state.cell.task].append(state.seconds)
        elif state.result is not None:
            finished[state.cell.task].append(state.result.seconds)
    now = time.monotonic()
    running = [(s.cell.task, now - s.began) for s in states if s.state in ("running", "elsewhere")]
    return time_left(
        finished, running, [s.cell.task for s in states if s.state == "waiting"], slots
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{max(1, round(seconds))} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
