"""A bar with rate and time left on a terminal, silence in a pipe (the log has a line per epoch)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """Units per second, as `312 images/s`."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        speed = task.finished_speed or task.speed
        figure = "-" if speed is None else f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"
        return Text(f"{figure} {task.fields['unit']}/s")


class Advance(Protocol):
    """Called with the units just done and, if wanted, a few words shown behind the bar."""

    def __call__(self, done: int, note: str = "") -> None:
        """Move on by `done` units."""
        ...


@contextmanager
def bar(title: str, total: int, unit: str, done: int = 0, shown: bool = True) -> Iterator[Advance]:
    """Show a progress bar on standard error while the block runs.

    Args:
        title: what is being done.
        total: units of work.
        unit: the plural shown behind the rate.
        done: units that lie behind us already (a resumed run).
        shown: false for all but one of several processes.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    shown = shown and sys.stderr.isatty()
    with Progress(*columns, console=console, disable=not shown, transient=True) as progress:
        task = progress.add_task(title, total=total, completed=done, unit=unit, note="")

        def advance(done: int, note: str = "") -> None:
            progress.update(task, advance=done, note=note)

        yield advance


def log(text: str) -> None:
    """One line for the reader of a run, also where there is no terminal."""
    print(text, file=sys.stderr, flush=True)
