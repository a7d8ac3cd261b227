"""A grid on a terminal: one live table; lines where there is no terminal."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pretrain.progress import log
from transfer import task
from transfer.grid import JobStatus, headline, progress, seconds_left

Show = Callable[[Sequence[JobStatus]], None]
_COLOURS = {"done": "green", "failed": "bold red", "running": "cyan", "elsewhere": "magenta"}
_STOPPING = "stopping: the jobs that run end after their step; a second Ctrl-C does not wait for it"


@contextmanager
def display(out: Path, slots: int, console: Console | None = None) -> Iterator[Show]:
    """A function that shows the jobs; called often.

    Args:
        out: the grid's folder.
        slots: jobs at once, for the time left.
        console: standard error, if not given.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _log_changes(out)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda statuses: live.update(
            Group(table(statuses, out), Text(footer(statuses, slots))), refresh=True
        )


def _log_changes(out: Path) -> Show:
    """A line when a job begins, and one when it ends."""
    logged: dict[int, str] = {}  # number of the job -> state; 0: the grid itself, when it stops

    def show(statuses: Sequence[JobStatus]) -> None:
        if 0 not in logged and any(status.state == "stopping" for status in statuses):
            logged[0] = "stopping"
            log(_STOPPING)
        for number, status in enumerate(statuses, 1):
            before = logged.get(number)
            if status.state in ("waiting", "stopping", before):
                continue
            logged[number] = status.state
            text = status.state if status.state == "running" else entry(status, out)
            if status.state == "done" and before is None:
                text += ", done before"
            if status.seconds is not None:
                text += f"  ({status.seconds:.0f} s)"
            if status.why:
                text += f": {status.why}"
            log(f"[{number}/{len(statuses)}] {status.job.title}: {text}")

    return show


def table(statuses: Sequence[JobStatus], out: Path) -> Table:
    """Rows are backbones and seeds, columns tasks."""
    texts = {
        (s.job.name, s.job.seed, s.job.task): Text(entry(s, out), _COLOURS.get(s.state, "dim"))
        for s in statuses
    }
    tasks = [name for name in ("pretrain", *task.names()) if name in {key[2] for key in texts}]
    view = Table("backbone", "seed", *tasks, title=str(out), title_justify="left")
    for name, seed in dict.fromkeys(key[:2] for key in texts):
        view.add_row(name, str(seed), *(texts.get((name, seed, column), "") for column in tasks))
    return view


def entry(status: JobStatus, out: Path) -> str:
    """A job in a few words."""
    match status.state:
        case "done" if status.result is not None:
            return headline(status.result)
        case "running":
            epoch, epochs = progress(status.job, out)
            return f"epoch {epoch} of {epochs}" if epochs else f"epoch {epoch}"
        case "elsewhere":
            return "another process works on it"
        case other:
            return other


def footer(statuses: Sequence[JobStatus], slots: int) -> str:
    """How many are done, and the time left; under it what failed, and where to read on."""
    failed = [status for status in statuses if status.state == "failed"]
    states = [status.state for status in statuses]
    line = f"{states.count('done')} of {len(states)} done"
    line += f", {len(failed)} failed" if failed else ""
    if "stopping" in states:
        line += f"\n{_STOPPING}"
    elif seconds := seconds_left(statuses, slots, time.monotonic()):
        minutes = seconds / 60
        left = f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
        line += f"; about {left if minutes >= 1 else f'{max(1, round(seconds))} s'} left"
    return "\n".join([line, *(f"failed: {status.job.title}: {status.why}" for status in failed)])
