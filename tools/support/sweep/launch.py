"""The processes of a sweep on this machine: started, watched, stopped. No torch here.

Each is a `worker.work` in a session of its own, so that Ctrl-C reaches it from here, once; where
this process is killed, they notice and stop after their step. The same command in other terminals,
or on other machines that share OUT, adds its processes.
"""

import contextlib
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import yaml

from pretrain.errors import Stopped, UsageError
from pretrain.files import lock, write_text
from pretrain.progress import bar, log
from pretrain.reading import check, read_yaml
from pretrain.run import Run, differences, other_run
from tools.support.sweep.config import Sweep
from tools.support.sweep.rungs import budget
from tools.support.sweep.study import Studies, shown
from tools.support.sweep.worker import Device, work

FORMAT = "sweep/1"
_LOOK = 1.0  # seconds between two looks at how far it is
_STOPPING = "stopping: each training ends after its step; a second Ctrl-C does not wait for it"


@dataclass(frozen=True)
class Storage:
    """Where a sweep's studies are."""

    url: str
    name: str
    """Of this sweep among all in the storage: two folders do not share trials by their name."""


def admit(sweep: Sweep, url: str | None) -> Storage:
    """Take up the sweep in OUT, or begin it there: OUT/sweep.yaml.

    Args:
        sweep: as the YAML file says.
        url: of the storage; None for an SQLite file in OUT.

    Raises:
        UsageError: OUT holds another sweep, one in another storage, or something else.
    """
    path, place = sweep.out / "sweep.yaml", "sqlite in OUT" if url is None else shown(url)
    url = url or f"sqlite:///{sweep.out.resolve() / 'optuna.db'}"
    wanted = sweep.plain()
    with lock(sweep.out / ".sweep.lock", f"another process prepares {sweep.out}", wait=True):
        if not path.exists():
            others = [one.name for one in sweep.out.iterdir() if not one.name.startswith(".")]
            if others:
                raise UsageError(
                    f"{sweep.out} holds {others[0]} and no sweep (sweep.yaml). Give another --out."
                )
            name = f"{sweep.config.name}-{secrets.token_hex(4)}"
            content = {"format": FORMAT, "study": name, "storage": place, **wanted}
            write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    held = check(read_yaml(path), dict, str(path))
    lines = differences(
        {"format": held.get("format"), "storage": held.get("storage"), "sweep": held.get("sweep")},
        {"format": FORMAT, "storage": place, "sweep": wanted["sweep"]},
    )
    for arm, recipe in wanted["recipes"].items():
        there = (held.get("recipes") or {}).get(arm, {})
        lines += [f"{arm}, {line}" for line in other_run(there, recipe, same_data=True)]
    if lines:
        raise UsageError(
            f"{sweep.out} was started with another sweep ({'; '.join(lines[:8])}). Give another "
            "--out, or the sweep of then."
        )
    return Storage(url, str(held["study"]))


def run_workers(
    sweep: Sweep, storage: Storage, jobs: int, device: Device, gpus: Sequence[str]
) -> Studies:
    """Run so many workers until the sweep has ended; returns its studies.

    Ends the program with 128 and the signal where one has stopped it, with 1 where every worker
    has died.

    Args:
        sweep: that they work on.
        storage: of its studies.
        jobs: workers on this machine.
        device: as --device.
        gpus: of CUDA, for the workers in turn; empty leaves all to each.

    Raises:
        UsageError: what a worker could not go on with.
    """
    studies = Studies(sweep, storage.url, storage.name)
    config, signals, failed = sweep.config, list[int](), list[str]()
    total = budget(config.trials, config.brackets, sweep.stops, config.keep)
    total = len(config.arms) * (total + len(config.finals) * sweep.epochs)
    done = _epochs_done(sweep)
    before = {one: signal.signal(one, lambda number, _: signals.append(number))
              for one in (signal.SIGINT, signal.SIGTERM)}  # fmt: skip
    workers = _start(sweep, storage, jobs, device, gpus)
    try:
        with bar(config.name, total, "epochs", done) as advance:
            sent = 0
            while workers:
                ready = wait([*workers.values(), *(one.sentinel for one in workers)], _LOOK)
                for process, pipe in list(workers.items()):
                    if pipe in ready and not _listen(pipe, failed):
                        process.join()
                        del workers[process]
                        if (process.exitcode or 0) < 0 and not signals:
                            log(f"a worker was killed by signal {-(process.exitcode or 0)}; what "
                                "it trained goes on from its checkpoint")  # fmt: skip
                if failed and not signals:
                    signals.append(0)  # the others stop, too
                if len(signals) > sent:
                    if sent == 0 and signals[0]:
                        log(_STOPPING)
                    for process in workers:
                        _stop(process, at_once=len(signals) > 1)
                    sent = len(signals)
                now = _epochs_done(sweep)
                advance(now - done, f"{len(workers)} at work")
                done = now
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for process in workers:
            process.kill()
    if failed:
        raise UsageError(failed[0])
    if signals:
        log("stopped; the same command goes on")
        sys.exit(128 + signals[0])
    if not studies.finished:
        log(f"no worker is left (see {sweep.out / 'logs'}); the same command goes on")
        sys.exit(1)
    return studies


def _start(
    sweep: Sweep, storage: Storage, jobs: int, device: Device, gpus: Sequence[str]
) -> dict[Any, Connection]:
    """By process, what it says."""
    context, workers = multiprocessing.get_context("spawn"), dict[Any, Connection]()
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    for number in range(jobs):
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        pipe, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_worker, args=(sweep, storage, device, theirs))
        process.start()
        theirs.close()
        workers[process] = pipe
    return workers


def _listen(pipe: Connection, failed: list[str]) -> bool:
    """Log what a worker says, or note why it ends; False once it has ended."""
    try:
        kind, text = pipe.recv()
    except (EOFError, OSError):
        return False
    if kind == "error":
        failed.append(text)
    else:
        log(text)
    return True


def _stop(process: Any, at_once: bool) -> None:
    if at_once or os.name == "nt":
        process.kill()
    elif process.is_alive():
        os.kill(process.pid, signal.SIGINT)


def _worker(sweep: Sweep, storage: Storage, device: Device, pipe: Connection) -> None:
    """The whole of a worker's process."""
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_follow, daemon=True).start()
    path = sweep.out / "logs" / f"{socket.gethostname()}-{os.getpid()}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        studies = Studies(sweep, storage.url, storage.name)
        work(sweep, studies, device, lambda text: pipe.send(("line", text)))
    except UsageError as error:
        pipe.send(("error", str(error)))
        sys.exit(2)
    except Stopped as stopped:
        sys.exit(128 + stopped.signal_number)
    except KeyboardInterrupt:
        sys.exit(130)


def _follow() -> None:
    """Stop after the step, as by a signal, once the process that started this one is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        with contextlib.suppress(ProcessLookupError):
            os.kill(os.getpid(), signal.SIGTERM)


def _epochs_done(sweep: Sweep) -> int:
    """By the runs' logs, also of those that are under way."""
    trials = [f"trial-{number:03}" for number in range(sweep.config.trials)]
    finals = [f"final-seed{seed}" for seed in sweep.config.finals]
    folders = [sweep.out / arm / name for arm in sweep.config.arms for name in (*trials, *finals)]
    return sum(len(Run(one).read_log()) for one in folders if one.exists())
