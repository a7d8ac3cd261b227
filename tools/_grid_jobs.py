"""The jobs of a grid: started, watched, stopped; what came of each is read from its folder."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from pretrain.errors import UsageError
from pretrain.run import Result, write_text
from transfer.grid import Cell, as_json, command, earlier_cells, is_busy, last_error, look

_PAUSE = 0.25  # seconds between two looks


class Job(Protocol):
    """A cell's process, wherever it runs."""

    def code(self) -> int | None:
        """None while it runs; its exit code, negative for the signal that killed it."""
        ...

    def stop(self, hard: bool = False) -> None:
        """Ask it to stop after a step (a resumable run stays), or end it at once."""
        ...


class Launcher(Protocol):
    """Starts jobs; `slots` of them at once."""

    slots: int

    def start(self, cell: Cell, slot: int) -> Job:
        """Start the run of a cell; what it says goes to the end of its log."""
        ...


@dataclass
class State:
    """Where a cell stands in this call."""

    cell: Cell
    state: str = "waiting"
    """waiting, running, stopping (asked to), elsewhere (another process works in its folder), done,
    failed."""
    why: str | None = None
    result: Result | None = None
    job: Job | None = None
    slot: int = 0
    began: float = 0.0
    seconds: float | None = None
    """Of a cell that was done in this call."""
    said: int = field(default=0)
    """Length of its log before this call."""


class Local:
    """Processes of this machine."""

    def __init__(self, out: Path, tools: Path, slots: int = 1, devices: Sequence[str] = ()) -> None:
        self.out, self.tools, self.slots, self.devices = out, tools, slots, devices

    def start(self, cell: Cell, slot: int) -> "Process":
        """See `Launcher`."""
        threads = max(1, _cores() // self.slots)
        more = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        if self.devices:
            more["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        log = self.out / cell.log
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as handle:
            # in a session of its own: Ctrl-C reaches it from here, once
            return Process(
                subprocess.Popen(
                    command(cell, self.out, sys.executable, self.tools),
                    stdin=subprocess.DEVNULL,
                    stdout=handle,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, **more},
                )
            )


@dataclass(frozen=True)
class Process:
    """A process of this machine."""

    process: subprocess.Popen

    def code(self) -> int | None:
        """See `Job`."""
        return self.process.poll()

    def stop(self, hard: bool = False) -> None:
        """See `Job`."""
        if self.code() is None:
            if hard:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.send_signal(signal.SIGINT)


def _cores() -> int:
    """That this process may use; macOS does not say."""
    ask = getattr(os, "sched_getaffinity", None)
    return len(ask(0)) if ask else os.cpu_count() or 1


def survey(cells: Sequence[Cell], out: Path) -> list[State]:
    """Every cell as its folder says: done, failed for what is in its way, or waiting."""
    states = []
    for cell in cells:
        found = look(cell, out)
        named = {"done": "done", "other": "failed"}.get(found.state, "waiting")
        states.append(State(cell, named, found.why, found.result))
    return states


def write_states(states: Sequence[State], out: Path) -> None:
    """OUT/grid.json, whole or not at all; the cells of earlier calls stay in it."""
    now = ((s.cell, s.state, s.why) for s in states)
    write_text(out / "grid.json", as_json(now, earlier_cells(out)))


def work(
    states: Sequence[State],
    out: Path,
    launcher: Launcher,
    show: Callable[[Sequence[State]], Any],
    keep: Callable[[Sequence[State]], Any],
) -> int | None:
    """Run every waiting cell, so many at once; a failed one does not keep the others.

    Args:
        states: of all cells; changed in place.
        out: the grid's folder.
        launcher: where they run.
        show: called at every look.
        keep: called when a cell has ended.

    Returns:
        The number of the signal that stopped it, or None at its end.
    """
    with _signals() as received:
        while True:
            for state in states:
                if state.state in ("running", "elsewhere") and _has_ended(state, out):
                    _settle(state, out)
                    keep(states)
            if received:
                break
            under_way = [s for s in states if s.state in ("running", "elsewhere")]
            waiting = [s for s in states if s.state == "waiting"]
            if not under_way and not waiting:
                show(states)
                return None
            free = sorted(set(range(launcher.slots)) - {s.slot for s in under_way})
            for state, slot in zip(waiting, free, strict=False):
                _begin(state, slot, out, launcher)
            show(states)
            time.sleep(_PAUSE)
        _stop(states, received, show)
        for state in states:
            if state.state == "stopping":
                found = look(state.cell, out)
                state.state = "done" if found.state == "done" else "waiting"
                state.result = found.result
        keep(states)
        return received[0]


def _begin(state: State, slot: int, out: Path, launcher: Launcher) -> None:
    state.slot, state.began = slot, time.monotonic()
    if is_busy(out / state.cell.folder):  # the child of a grid that was killed goes on
        state.state = "elsewhere"
        return
    log = out / state.cell.log
    state.said = log.stat().st_size if log.exists() else 0
    state.job = launcher.start(state.cell, slot)
    state.state = "running"


def _has_ended(state: State, out: Path) -> bool:
    if state.job is not None:
        return state.job.code() is not None
    return not is_busy(out / state.cell.folder)


def _settle(state: State, out: Path) -> None:
    """What came of it."""
    found = look(state.cell, out)
    if found.state == "done":
        state.state, state.why, state.result = "done", None, found.result
        state.seconds = time.monotonic() - state.began
    elif state.job is None or is_busy(out / state.cell.folder):
        # another process has worked there, and left it unfinished or works on: wait, or take it up
        state.state, state.job = "waiting", None
    else:
        state.state = "failed"
        log = out / state.cell.log
        with open(log, "rb") as handle:
            handle.seek(state.said)
            said = handle.read().decode(errors="replace")
        code = state.job.code() or 0
        killed = f"killed by signal {-code}; it said last: " if code < 0 else ""
        state.why = f"{found.why or killed + last_error(said)} (log: {log})"


def _stop(states: Sequence[State], received: list[int], show: Callable[..., Any]) -> None:
    """Stop what runs and wait for its end; a second signal does not wait for steps."""
    stopping = [(s, s.job) for s in states if s.state == "running" and s.job is not None]
    jobs = [job for _, job in stopping]
    for state, job in stopping:
        job.stop()
        state.state = "stopping"
    hard = False
    while any(job.code() is None for job in jobs):
        if len(received) > 1 and not hard:
            hard = True
            for job in jobs:
                job.stop(hard=True)
        show(states)
        time.sleep(_PAUSE)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted within the block."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    before: Mapping[int, Any] = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep a second grid out of the folder; the kernel gives the lock up however this one ends."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".grid.lock", "a+", encoding="utf-8") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise UsageError(
                f"another grid is at work in {out} (process {handle.read().strip() or '?'}). Wait "
                "for its end, or give another --out."
            ) from error
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield
