"""How the jobs of a grid are shown: a line for each begin and end; on a terminal what runs now."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from pretrain.errors import UsageError
from pretrain.run import Run
from transfer.grid import Job, JobStatus, headline, seconds_left


def view(statuses: Sequence[JobStatus], out: Path, slots: int) -> Group:
    """What runs now in the folder `out`, what comes next, and when all will be done."""
    table = Table.grid(padding=(0, 2))
    for status in statuses:
        if status.state == "running":
            table.add_row(status.job.title, progress(status.job, out))
    waiting = [status.job.title for status in statuses if status.state == "waiting"]
    if waiting:
        table.add_row(f"next: {waiting[0]}", "")
    return Group(table, footer(statuses, slots).splitlines()[0])


def progress(job: Job, out: Path) -> str:
    """`epoch 3 of 7`, from the log of a run under way."""
    records: list[dict[str, Any]] = []
    with suppress(UsageError):
        records = Run(out / job.folder).read_log()
    epoch = records[-1].get("epoch", len(records)) if records else 0
    epochs = job.config.get("epochs")
    return f"epoch {epoch} of {epochs}" if epochs else f"epoch {epoch}"


def entry(status: JobStatus) -> str:
    """A job in a few words."""
    text: str = status.state
    if status.state == "elsewhere":
        text = "another process works on it"
    elif status.state == "done" and status.result is not None:
        took = "done before" if status.seconds is None else f"{status.seconds:.0f} s"
        text = f"{headline(status.result)} ({took})"
    return f"{text}: {status.why}" if status.why else text


def footer(statuses: Sequence[JobStatus], slots: int) -> str:
    """How many are done, and when all will be; under it what failed, and where to read on."""
    failed = [status for status in statuses if status.state == "failed"]
    done = sum(status.state == "done" for status in statuses)
    line = f"{done} of {len(statuses)} done"
    line += f", {len(failed)} failed" if failed else ""
    line += time_left(statuses, slots)
    return "\n".join([line, *(f"failed: {status.job.title}: {status.why}" for status in failed)])


def time_left(statuses: Sequence[JobStatus], slots: int) -> str:
    """`; about 4 min left, until 14:32`, or nothing where that is not known."""
    seconds = seconds_left(statuses, slots, time.monotonic())
    if not seconds:
        return ""
    minutes, end = seconds / 60, time.localtime(time.time() + seconds)
    left = f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    left = left if minutes >= 1 else f"{max(1, round(seconds))} s"
    return f"; about {left} left, until {time.strftime('%H:%M', end)}"


def in_words(seconds: float) -> str:
    """`45 s`, `12.3 min` or `4.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
