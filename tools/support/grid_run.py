"""The jobs of a grid: started, watched, stopped; what came of each is read from its folder."""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any

from rich.console import Console
from rich.live import Live

from pretrain.errors import UsageError
from pretrain.files import holder, lock
from pretrain.progress import log
from pretrain.run import Run
from tools.support.command import usable_cores
from tools.support.grid_display import entry, footer, view
from tools.support.job_server import ForkedJob, JobServer
from transfer import grid

_PAUSE = 0.25  # seconds between two looks at the jobs
_TICK = 0.05  # seconds between two looks at a process
_LITTLE = 2**20  # bytes: no run writes its files there
_STOPPING = "stopping: the jobs that run end after their step; a second Ctrl-C does not wait for it"

Launch = Callable[[list[str], Path, int, Sequence[int]], int]
"""(command, log, slot, signals) -> exit code, negative for the signal that killed it.

Runs a command, whose output goes to the end of the log. Running jobs have different slots, from 0
on. Once `signals` holds one, the command is asked to stop after a step (a resumable run stays); at
a second it is ended at once.
"""


def launch_here(
    words: list[str],
    log_file: Path,
    slot: int,
    signals: Sequence[int],
    slots: int = 1,
    devices: Sequence[str] = (),
    server: JobServer | None = None,
) -> int:
    """A job on this machine, with its share of the cores and its GPU, or a server's; see `Launch`.

    Where the user has set OMP_NUM_THREADS, that is the share.
    """
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, usable_cores() // slots)))
    process: Popen[bytes] | ForkedJob
    if server is not None:
        process = server.start(words[1:], log_file, threads)
    else:
        env = {**os.environ, "OMP_NUM_THREADS": threads}
        if devices:
            env["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
        with open(log_file, "ab") as handle:
            # in a session of its own: Ctrl-C reaches it from here, once
            process = Popen(
                words, stdin=DEVNULL, stdout=handle, stderr=STDOUT, start_new_session=True, env=env
            )
    sent = 0
    while (code := process.poll()) is None:
        time.sleep(_TICK)
        if len(signals) > sent:
            sent = len(signals)
            if isinstance(process, Popen) and not hasattr(os, "killpg"):  # Windows
                process.terminate()
            elif sent == 1:
                os.kill(process.pid, signal.SIGINT)
            else:
                os.killpg(process.pid, signal.SIGKILL)
    return code


@dataclass(frozen=True)
class Stage:
    """What a call's jobs are a part of, for what is shown."""

    about: str = ""
    """What is to stand beside the table."""
    done: int = 0
    """Jobs of the stages before."""
    later: Sequence[grid.Job] = ()
    """Jobs of the stages behind, of which nothing is read."""
    lost: Sequence[grid.Job] = ()
    """Jobs that will not be: their backbone could not be made."""


def run_all(
    statuses: list[grid.JobStatus],
    out: Path,
    tools: Path,
    launch: Launch = launch_here,
    slots: int = 1,
    show: Callable[[Sequence[grid.JobStatus]], Any] = lambda _: None,
    stage: "Stage | None" = None,
) -> int | None:
    """Run every waiting job, so many at once; a failed one does not stop the others.

    At SIGINT or SIGTERM the running jobs are asked to stop; a second signal ends them at once.

    Args:
        statuses: of all jobs; changed in place. OUT/grid.json is written whenever a job has ended.
        out: the grid's folder.
        tools: the folder of the tools.
        launch: runs a job.
        slots: jobs at once.
        show: called at every look, with the statuses.
        stage: what the jobs are a part of.

    Returns:
        The number of the signal that stopped it, or None at its end.
    """
    stage = stage or Stage()
    signals: list[int] = []
    lines: list[str] = []  # to be shown: the jobs' threads print nothing
    free = list(range(slots))

    def note(number: int, _: Any) -> None:
        if not signals:
            lines.append(_STOPPING)
        signals.append(number)

    def tell(number: int) -> None:
        status = statuses[number]
        if status.state != "waiting":
            place = f"[{stage.done + number + 1}/{stage.done + len(statuses) + len(stage.later)}]"
            lines.append(f"{place} {status.job.title}: {entry(status)}")

    def work(number: int) -> None:
        slot, job = free.pop(0), statuses[number].job
        try:
            for status in _run(job, out, tools, launch, slot, signals):
                statuses[number] = status
                tell(number)
        except (UsageError, OSError) as error:
            statuses[number] = grid.JobStatus(job, "failed", str(error))
            tell(number)
        free.append(slot)

    with ExitStack() as stack:
        for stop in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, stop, signal.signal(stop, note))
        pool = stack.enter_context(ThreadPoolExecutor(slots))
        stack.callback(signals.append, 0)  # where this function fails, the jobs are stopped
        waiting = [n for n, status in enumerate(statuses) if status.state == "waiting"]
        for number in range(len(statuses)):  # those of earlier calls
            tell(number)
        left = {pool.submit(work, number) for number in waiting}
        while True:
            ended, left = wait(left, _PAUSE, FIRST_COMPLETED)
            while lines:
                log(lines.pop(0))
            show(statuses)
            for future in ended:
                future.result()
            if ended:
                grid.write_grid(statuses, out, stage.about)
            if not left:
                return signals[0] if signals else None


def _run(
    job: grid.Job, out: Path, tools: Path, launch: Launch, slot: int, signals: Sequence[int]
) -> Iterator[grid.JobStatus]:
    """Run a job to its end, or until a signal stops it: each status that it takes meanwhile."""
    run, log_file = Run(out / job.folder), out / job.log
    found = grid.JobStatus(job)
    while found.state == "waiting" and not signals:
        started = time.monotonic()
        if who := holder(run.lock_file):  # the child of a grid that was killed goes on
            yield grid.JobStatus(job, "elsewhere", who, started=started)
            while holder(run.lock_file) and not signals:
                time.sleep(_PAUSE)
            found = grid.job_status(job, out)
            continue
        log_file.parent.mkdir(parents=True, exist_ok=True)
        start = log_file.stat().st_size if log_file.exists() else 0
        yield grid.JobStatus(job, "running", started=started)
        code = launch(grid.command(job, out, tools), log_file, slot, signals)
        found = grid.job_status(job, out)
        if found.state == "done":
            found.seconds = time.monotonic() - started
        elif not signals and not holder(run.lock_file):
            output = log_file.read_bytes()[start:].decode(errors="replace")
            killed = f"killed by signal {-code}; it said last: " if code < 0 else ""
            why = found.why or killed + grid.last_error(output)
            if (left := shutil.disk_usage(out).free) < _LITTLE:
                why += f"; {left:,} bytes are left on the disk of {out}"
            found = grid.JobStatus(job, "failed", f"{why} (log: {log_file})")
    yield found


def run_grid(
    jobs: Sequence[grid.Job],
    options: argparse.Namespace,
    tools: Path,
    stage: Stage | None = None,
    server: JobServer | None = None,
) -> list[grid.Job]:
    """Run what is missing; a signal ends the program.

    Args:
        jobs: of the grid, or of a stage of it.
        options: --out, --jobs, --devices, --slurm.
        tools: the folder of the tools.
        stage: what the jobs are a part of.
        server: starts those on this machine.

    Returns:
        The jobs that are done.
    """
    out, stage = options.out, stage or Stage()
    submit: Launch | None = None
    if options.slurm is not None:  # before the folder is made: it may be refused
        from tools.support.grid_slurm import slurm_launcher

        submit = slurm_launcher(options.slurm, out / "logs" / "submitit")
    with lock(out / ".grid.lock", f"another grid is at work in {out}"):
        statuses = [grid.job_status(job, out) for job in jobs]
        # where fewer are left, each has a larger share of the cores; a cluster takes all at once
        slots = max(1, [status.state for status in statuses].count("waiting"))
        if submit is None:
            slots = min(slots, options.jobs or 1)
        launch = submit or partial(launch_here, slots=slots, devices=options.devices, server=server)
        statuses += [grid.JobStatus(job, "failed", "its pretraining failed") for job in stage.lost]
        later = [
            grid.JobStatus(job, "done" if Run(out / job.folder).finished else "waiting")
            for job in stage.later
        ]
        grid.write_grid(statuses, out, stage.about)
        with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:

            def show(statuses: Sequence[grid.JobStatus]) -> None:
                live.update(view([*statuses, *later], out, slots), refresh=True)

            number = run_all(statuses, out, tools, launch, slots, show, stage)
    log(footer([*statuses, *later], slots))
    if number is not None:
        log("stopped; the same command goes on")
        sys.exit(128 + number)
    return [status.job for status in statuses if status.state == "done"]


def print_lines(jobs: Sequence[grid.Job], out: Path, tools: Path) -> None:
    """The commands of the jobs that are not done, one a line.

    Ends the program with exit code 2 where something is in the way of one; stderr has it.
    """
    statuses = [grid.job_status(job, out) for job in jobs]
    states = [status.state for status in statuses]
    for status in statuses:
        if status.state == "waiting":
            print(grid.shell_line(status.job, out, tools))
        elif status.state == "failed":
            log(f"error: {status.job.title}: {status.why}")
    log(f"# {states.count('done')} of {len(jobs)} jobs are done")
    if "failed" in states:
        sys.exit(2)
