"""The jobs of a study: started one behind the other in each lane, and their results kept."""

import os
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from threading import TIMEOUT_MAX, Timer
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pretrain.errors import UsageError
from pretrain.files import atomic, holder
from pretrain.progress import log
from pretrain.run import Result, Run
from tools.support.command import PARSE_ONLY, usable_cores
from tools.support.grid_display import in_words
from tools.support.grid_run import launch_here
from tools.support.study_plan import PRETRAIN, Job, Lane
from transfer import task
from transfer.grid import headline, last_error

_PAUSE = 0.25  # seconds between two looks at the jobs
TIME_IS_UP = 0
"""Among the signals: the hours that were given are over."""


@dataclass
class StudyRun:
    """A study at work: its threads change this, its main thread shows it."""

    out: Path
    results: Path | None
    """Where a copy of each result is kept."""
    slots: int
    """Jobs at once."""
    signals: list[int] = field(default_factory=list)
    """That were received."""
    running: dict[str, float] = field(default_factory=dict)
    """Titles of jobs, and since when, by `time.monotonic`."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of each step, what its jobs took."""
    left: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)

    @property
    def folders(self) -> list[Path]:
        """Where a result may stand."""
        return [folder for folder in (self.results, self.out) if folder is not None]

    def work(self, lane: Lane, slot: int) -> None:
        """Run what is left of a lane, until a job fails or a signal comes."""
        left = lane.left(self.folders)
        kept = [] if self.results is None else [self.results]
        for job in (job for job in lane.jobs if job not in left):
            if job in self.left:  # done elsewhere meanwhile
                self.left.remove(job)
            if job.is_done([self.out]) and (left or not job.is_done(kept)):
                self.keep(job)  # of a run without results, or one that was killed
        for job in left:
            if self.signals:
                return
            started = time.monotonic()
            self.running[job.title] = started
            why = self._run(job, slot)
            seconds = time.monotonic() - self.running.pop(job.title)
            if why is None:
                self.seconds[job.step].append(seconds)
                if job in self.left:
                    self.left.remove(job)
                result = self.keep(job)
                known = (task.PRETRAIN.name, *task.names())
                shown = headline(result) if result.task in known else "done"
                log(f"{job.title}: {shown}, {in_words(seconds)}")
            elif not self.signals:
                self.failed.append(job)
                log(f"{job.title}: failed: {why}")
                if job.step == PRETRAIN:
                    return

    def _run(self, job: Job, slot: int) -> str | None:
        """Why it failed; None where its result is there."""
        # the job of a study that was killed goes on
        while holder(Run(self.out / job.folder).lock_file) and not self.signals:
            time.sleep(_PAUSE)
        if job.obstacle:
            return job.obstacle
        if job.is_done([self.out]):
            return None
        file = self.out / "logs" / f"{job.folder}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        start = file.stat().st_size if file.exists() else 0
        code = launch_here(job.command, file, slot, self.signals, slots=self.slots)
        if code == 0 and job.is_done([self.out]):
            return None
        text = file.read_bytes()[start:].decode(errors="replace")
        return f"{last_error(text)} (exit code {code}, log: {file})"

    def keep(self, job: Job) -> Result:
        """Copy a result to the results' folder, where it does not stand there.

        Of a pretraining its log as well, which has the accuracy on the training images.

        Raises:
            UsageError: another backbone's stands there, as another processor trains to other bits.
        """
        ours = self.out / job.folder / "result.json"
        result = Result.read(ours)
        if self.results is None:
            return result
        kept = self.results / job.folder / "result.json"
        cell, _, name = job.folder.parts
        for other in (kept, self.results / cell / PRETRAIN / name / "result.json"):
            if not other.exists():
                continue
            there, here = (r.backbone["fingerprint"] for r in (Result.read(other), result))
            if there != here:
                raise UsageError(
                    f"{ours} is of the backbone {here}, {other} of {there}: trained again, it came "
                    "to other bits. Its other results need that one: remove "
                    f"{self.results / cell}/*/{name}, and all of them are made anew."
                )
        if kept.exists():
            return result
        files = ["log.jsonl"] * (job.step == PRETRAIN) + [ours.name]
        for name in (one for one in files if ours.with_name(one).exists()):
            with atomic(kept.with_name(name)) as unfinished:
                shutil.copyfile(ours.with_name(name), unfinished)
        return result

    def time_left(self) -> float | None:
        """Seconds, by the mean time of each step; None while of one nothing is known."""
        if any(job.step not in self.seconds for job in self.left):
            return None
        now = time.monotonic()
        whole = sum(fmean(self.seconds[job.step]) for job in self.left)
        begun = sum(now - since for since in list(self.running.values()))
        return max(0.0, whole - begun) / self.slots

    def line(self) -> str:
        """What is going on."""
        now = time.monotonic()
        jobs = [f"{title} ({in_words(now - since)})" for title, since in list(self.running.items())]
        left = self.time_left()
        rest = f"about {in_words(left)} left" if left is not None else "time left unknown"
        to_do = "1 job" if len(self.left) == 1 else f"{len(self.left)} jobs"
        return f"{to_do} to do, {rest}: {', '.join(jobs) or 'none runs'}"


def refuse_wrong_results(lanes: Sequence[Lane], folders: Sequence[Path]) -> None:
    """Look at the results that stand: a job is not done by a file alone.

    Raises:
        UsageError: one cannot be read or is of another seed, or those of a lane are of two
            backbones.
    """
    for lane in lanes:
        first: tuple[Path, Path, str] | None = None
        for folder, job in product(folders, lane.jobs):
            path = folder / job.folder / "result.json"
            if not os.path.lexists(path):
                continue
            backbone = _backbone_of(path)
            fingerprint, seed = backbone["fingerprint"], backbone["seed"]
            if lane.jobs[0].has_seed and seed not in (None, job.seed):
                raise UsageError(
                    f"{path} is of a backbone of seed {seed}, not {job.seed}: it was put there. "
                    f"{_anew(path)}"
                )
            first = first or (folder, path, fingerprint)
            if fingerprint != first[2]:
                cell, _, name = job.folder.parts
                places = dict.fromkeys(f"{one}/{cell}/*/{name}" for one in (first[0], folder))
                raise UsageError(
                    f"{path} is of the backbone {fingerprint}, {first[1]} of {first[2]}; all "
                    f"results of a backbone must be its own. Remove {' or '.join(places)}, and the "
                    "same command makes anew what is missing."
                )


def _backbone_of(path: Path) -> Any:
    try:
        return Result.read(path).backbone
    except UsageError as error:
        raise UsageError(f"{error}. {_anew(path)}") from error


def _anew(path: Path) -> str:
    return f"Remove {path.parent}, and the same command makes it anew."


def refuse_wrong_options(lanes: Sequence[Lane], study: StudyRun) -> None:
    """Ask the tools whether they take the options of what is left, before hours are spent on it.

    Raises:
        UsageError: one does not, with what it says; of each kind of job one is asked.
    """
    jobs = dict[str, Job]()
    for job in (job for lane in lanes for job in lane.left(study.folders)):
        jobs.setdefault(job.kind, job)

    def ask(job: Job) -> str:
        asked = subprocess.run([*job.command, PARSE_ONLY], capture_output=True, text=True)
        return f"{job.title}: {last_error(asked.stderr)}" if asked.returncode else ""

    with ThreadPoolExecutor(usable_cores()) as pool:
        if wrong := [*filter(None, pool.map(ask, jobs.values()))]:
            raise UsageError("\n".join(["these commands are wrong, and nothing is run:", *wrong]))


def run_study(lanes: Sequence[Lane], study: StudyRun, hours: float | None = None) -> None:
    """Run what is left of each lane, so many at once; a failed one does not stop the others.

    At SIGINT or SIGTERM, and when the hours are over, the jobs that run are asked to stop after
    their step; at a second signal they are ended at once. `study` says in the end what came of it.

    Raises:
        UsageError: see `StudyRun.keep`.
    """
    study.left = [job for lane in lanes for job in lane.left(study.folders)]
    for job in (job for lane in lanes for job in lane.jobs if job.is_done(study.folders)):
        folder = next(f for f in study.folders if job.is_done([f]))
        study.seconds[job.step].append(Result.read(folder / job.folder / "result.json").seconds)

    def note(number: int, _: Any = None) -> None:
        if not study.signals:
            log("stopping: the jobs that run end after their step; the same command goes on")
        study.signals.append(number)

    with ExitStack() as stack:
        for stop in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, stop, signal.signal(stop, note))
        if hours is not None:
            timer = Timer(min(hours * 3600, TIMEOUT_MAX), note, [TIME_IS_UP])
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        pool = stack.enter_context(ThreadPoolExecutor(study.slots))
        slots = list(range(study.slots))

        def work(lane: Lane) -> None:
            slot = slots.pop()
            try:
                study.work(lane, slot)
            finally:
                slots.append(slot)

        futures = {pool.submit(work, lane) for lane in lanes}
        live = stack.enter_context(
            Live(console=Console(stderr=True), auto_refresh=False, transient=True)
        )
        try:
            while futures:
                ended, futures = wait(futures, _PAUSE, FIRST_COMPLETED)
                for future in ended:
                    future.result()  # its error ends all
                live.update(Text(study.line()), refresh=True)
        except BaseException:
            study.signals.append(signal.SIGINT)  # what runs is stopped
            raise
