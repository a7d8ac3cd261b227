"""A bar with rate and time left on a terminal, silence in a pipe (the log has a line per epoch)."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console
from rich.text import Text

from pretrain.errors import printable


class _Rate(progress.ProgressColumn):
    """Units per second, as `312 images/s`."""

    def render(self, task: progress.Task) -> Text:
        """The column's text."""
        speed = task.finished_speed or task.speed
        figure = "-" if speed is None else f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"
        return Text(f"{figure} {task.fields['unit']}/s")


Advance = Callable[..., None]
"""Called with the units just done, and with a note to show behind the bar."""


@contextmanager
def bar(title: str, total: int, unit: str, done: int = 0, shown: bool = True) -> Iterator[Advance]:
    """Show a progress bar on standard error while the block runs.

    Args:
        title: what is being done.
        total: units of work.
        unit: the plural shown behind the rate.
        done: units that are done already (a resumed run).
        shown: false for all but one of several processes.
    """
    columns = (
        "{task.description}",
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        _Rate(),
        progress.TimeElapsedColumn(),
        "left",
        progress.TimeRemainingColumn(),
        "{task.fields[note]}",
    )
    disable = not (shown and sys.stderr.isatty())
    with progress.Progress(
        *columns, console=Console(stderr=True), disable=disable, transient=True
    ) as display:
        task = display.add_task(title, total=total, completed=done, unit=unit, note="")

        def advance(done: int, note: str = "") -> None:
            display.update(task, advance=done, note=note)

        yield advance


def log(text: str) -> None:
    """Lines for the reader of a run, also where there is no terminal; no control characters."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)
