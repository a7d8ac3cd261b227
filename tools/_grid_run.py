"""One call of a grid: survey, work, and how it ends."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools._grid_jobs import Local, alone, survey, work, write_states
from tools._grid_table import footer, shown
from transfer.grid import Cell, look, shell_line


def run(cells: Sequence[Cell], options: argparse.Namespace, tools: Path) -> bool:
    """Run what is missing; a signal ends the program.

    Args:
        cells: of the grid.
        options: --out, --jobs, --devices, --slurm.
        tools: the folder of the tools.

    Returns:
        True where every cell is done.
    """
    out = options.out
    launcher: Any = Local(out, tools, options.jobs or 1, options.devices)
    if options.slurm is not None:
        from tools._grid_slurm import Cluster

        launcher = Cluster(options.slurm, out, tools, len(cells))

    def keep_states(states: Any) -> None:
        write_states(states, out)

    with alone(out):
        states = survey(cells, out)
        keep_states(states)
        with shown(out, launcher.slots) as show:
            number = work(states, out, launcher, show, keep_states)
    if not sys.stderr.isatty():  # there it stands under the table
        print(footer(states, launcher.slots), file=sys.stderr)
    if number is not None:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(128 + number)
    return all(state.state == "done" for state in states)


def print_lines(cells: Sequence[Cell], out: Path, tools: Path) -> None:
    """The commands of the cells that are not done, one a line; on stderr what stands in the way."""
    found = [(cell, look(cell, out)) for cell in cells]
    for cell, there in found:
        if there.state == "other":
            print(f"# {cell.title}: {there.why}", file=sys.stderr)
        elif there.state != "done":
            print(shell_line(cell, out, sys.executable, tools, Path.cwd()))
    if all(there.state == "done" for _, there in found):
        print(f"# nothing is missing: {len(found)} of {len(found)} cells are done", file=sys.stderr)
