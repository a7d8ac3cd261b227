"""The jobs of a grid: started, watched, stopped; what came of each is read from its folder."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any

from tools.support.grid_display import display, footer
from transfer import grid

_PAUSE = 0.25  # seconds between two looks
_ACTIVE = ("running", "stopping", "elsewhere")

Launch = Callable[[list[str], Path, int], Any]
"""(command, log, slot) -> process: starts a command whose output goes to the end of the log.

Running jobs have different slots, from 0 on. A process has `poll()`, None while it runs, then its
exit code, negative for the signal that killed it; and `stop(hard)`: asks it to stop after a step (a
resumable run stays) or, hard, ends it at once.
"""


class LocalProcess(Popen):
    """A job on this machine, in a session of its own: Ctrl-C reaches it from here, once."""

    def __init__(
        self, words: list[str], log: Path, slot: int, slots: int = 1, devices: Sequence[str] = ()
    ) -> None:
        affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        env = {"OMP_NUM_THREADS": str(max(1, cores // slots)), **os.environ}
        if devices:
            env["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
        with open(log, "ab") as handle:
            super().__init__(
                words, stdin=DEVNULL, stdout=handle, stderr=STDOUT, start_new_session=True, env=env
            )

    def stop(self, hard: bool) -> None:
        """See `Launch`."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL) if hard else self.send_signal(signal.SIGINT)


def run_all(
    statuses: Sequence[grid.JobStatus],
    out: Path,
    tools: Path,
    launch: Launch = LocalProcess,
    slots: int = 1,
    show: Callable[[Sequence[grid.JobStatus]], Any] = lambda _: None,
) -> int | None:
    """Run every waiting job, so many at once; a failed one does not stop the others.

    At SIGINT or SIGTERM the running jobs are asked to stop; a second signal ends them at once.

    Args:
        statuses: of all jobs; changed in place. OUT/grid.json is written whenever a job has ended.
        out: the grid's folder.
        tools: the folder of the tools.
        launch: starts a job.
        slots: jobs at once.
        show: called at every look.

    Returns:
        The number of the signal that stopped it, or None at its end.
    """
    received: list[int] = []
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda number, _: received.append(number))
            stack.callback(signal.signal, number, before)
        while True:
            for status in statuses:
                if status.state in _ACTIVE and _update(status, out):
                    grid.write_grid(statuses, out)
            active = [s for s in statuses if s.state in _ACTIVE]
            waiting = [s for s in statuses if s.state == "waiting"]
            if received:
                active, waiting = [s for s in active if s.state != "elsewhere"], []
                for status in active:
                    if status.state == "running" or len(received) > 1:
                        status.process.stop(len(received) > 1)
                        status.state = "stopping"
            if not active and not waiting:
                break
            free = sorted(set(range(slots)) - {s.slot for s in active})
            for status, slot in zip(waiting, free, strict=False):
                _start(status, slot, out, tools, launch)
            show(statuses)
            time.sleep(_PAUSE)
        show(statuses)
    return received[0] if received else None


def _start(status: grid.JobStatus, slot: int, out: Path, tools: Path, launch: Launch) -> None:
    status.slot, status.started = slot, time.monotonic()
    if grid.is_busy(out / status.job.folder):  # the child of a grid that was killed goes on
        status.state = "elsewhere"
        return
    log = out / status.job.log
    log.parent.mkdir(parents=True, exist_ok=True)
    status.log_start = log.stat().st_size if log.exists() else 0
    status.process = launch(grid.command(status.job, out, tools), log, slot)
    status.state = "running"


def _update(status: grid.JobStatus, out: Path) -> bool:
    """Note what came of a job, if its process has ended; whether it has."""
    process, folder = status.process, out / status.job.folder
    code = 0 if process is None else process.poll()
    if code is None or (process is None and grid.is_busy(folder)):
        return False
    found = grid.job_status(status.job, out)
    if found.state == "done":
        status.state, status.why, status.result = "done", None, found.result
        status.seconds = time.monotonic() - status.started
    elif status.state == "stopping" or process is None or grid.is_busy(folder):
        # stopped, or another process has worked there: the run is to be taken up
        status.state, status.process = "waiting", None
    else:
        log = out / status.job.log
        output = log.read_bytes()[status.log_start :].decode(errors="replace")
        killed = f"killed by signal {-code}; it said last: " if code < 0 else ""
        status.state = "failed"
        status.why = f"{found.why or killed + grid.last_error(output)} (log: {log})"
    return True


def run_grid(jobs: Sequence[grid.Job], options: argparse.Namespace, tools: Path) -> bool:
    """Run what is missing; a signal ends the program.

    Args:
        jobs: of the grid.
        options: --out, --jobs, --devices, --slurm.
        tools: the folder of the tools.

    Returns:
        True where every job is done.
    """
    out, slots = options.out, options.jobs or 1
    launch: Launch = partial(LocalProcess, slots=slots, devices=options.devices)
    if options.slurm is not None:
        from tools.support.grid_slurm import slurm_launcher

        slots = max(1, len(jobs))  # all are submitted; the cluster decides when each runs
        launch = slurm_launcher(options.slurm, out / "logs" / "submitit")
    with grid.lock(out):
        statuses = grid.scan(jobs, out)
        grid.write_grid(statuses, out)
        with display(out, slots) as show:
            number = run_all(statuses, out, tools, launch, slots, show)
    if not sys.stderr.isatty():  # there it stands under the table
        print(footer(statuses, slots), file=sys.stderr)
    if number is not None:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(128 + number)
    return all(status.state == "done" for status in statuses)


def print_lines(jobs: Sequence[grid.Job], out: Path, tools: Path) -> None:
    """The commands of the jobs that are not done, one a line; on stderr what stands in the way."""
    missing = [status for status in grid.scan(jobs, out) if status.state != "done"]
    for status in missing:
        if status.state == "failed":
            print(f"# {status.job.title}: {status.why}", file=sys.stderr)
        else:
            print(grid.shell_line(status.job, out, tools))
    if not missing:
        print(f"# nothing is missing: {len(jobs)} of {len(jobs)} jobs are done", file=sys.stderr)
