"""The processes of a sweep on this machine: started, watched, stopped. No torch here.

Each is `process.py` in a session of its own, so that Ctrl-C reaches it from here, once; where this
process is killed, they notice and stop after their step. The same command in other terminals, or on
other machines that share OUT, adds its processes.
"""

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy.engine import URL

from pretrain.errors import UsageError
from pretrain.files import lock, write_text
from pretrain.progress import bar, log
from pretrain.reading import check, read_yaml
from pretrain.run import Run, differences, other_run
from tools.support.command import usable_cores
from tools.support.sweep.config import Sweep
from tools.support.sweep.result import FORMAT
from tools.support.sweep.rungs import budget
from tools.support.sweep.study import Studies, open_storage, shown

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
    # in an address a path's ? and { have meanings
    file = URL.create("sqlite", database=str(sweep.out.resolve() / "optuna.db"))
    url = url or file.render_as_string()
    wanted = sweep.plain()
    with lock(sweep.out / ".sweep.lock", f"another process prepares {sweep.out}", wait=True):
        if not path.exists():
            # what a sweep that was killed as it began leaves is not in the way
            own = (".", "optuna.db")
            others = [one.name for one in sweep.out.iterdir() if not one.name.startswith(own)]
            if others:
                raise UsageError(
                    f"{sweep.out} holds {others[0]} and no sweep (sweep.yaml). Give another --out."
                )
            open_storage(url)  # else the folder would be bound to one that is of no use
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
    sweep: Sweep, storage: Storage, jobs: int, device: str, gpus: Sequence[str]
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
    if studies.finished:
        return studies
    signals, failed, done = list[int](), list[str](), _epochs_done(sweep)
    before = {
        one: signal.signal(one, lambda number, _: signals.append(number))
        for one in (signal.SIGINT, signal.SIGTERM)
    }
    workers = [_start(sweep, storage, place, jobs, device, gpus) for place in range(jobs)]
    sent, logs = 0, sweep.out / "logs"
    try:
        with (
            selectors.DefaultSelector() as selector,
            bar(sweep.config.name, _epochs_in_all(sweep), "epochs", done) as advance,
        ):
            for worker in workers:
                selector.register(worker.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
            while workers:
                for key, _ in selector.select(_LOOK):
                    worker = key.data
                    if _listen(worker, failed):
                        continue
                    selector.unregister(worker.stdout)  # type: ignore[arg-type]
                    workers.remove(worker)
                    if worker.wait() and not failed and not signals:
                        code = worker.returncode
                        how = f"by signal {-code}" if code < 0 else f"code {code}"
                        log(f"a worker has ended, {how} (see {logs}): its trial goes on elsewhere")
                if failed and not signals:
                    signals.append(0)  # the others stop, too
                if len(signals) > sent:
                    if sent == 0 and signals[0]:
                        log(_STOPPING)
                    for worker in workers:
                        _stop(worker, at_once=len(signals) > 1)
                    sent = len(signals)
                now = _epochs_done(sweep)
                advance(now - done, f"{len(workers)} at work")
                done = now
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for worker in workers:  # where this function fails
            worker.kill()
    if failed:
        raise UsageError(failed[0])
    if signals:
        log("stopped; the same command goes on")
        sys.exit(128 + signals[0])
    if not studies.finished:
        log(f"no worker is left (see {logs}); the same command goes on")
        sys.exit(1)
    return studies


def _start(
    sweep: Sweep, storage: Storage, place: int, jobs: int, device: str, gpus: Sequence[str]
) -> "subprocess.Popen[bytes]":
    """One worker; where the user has set OMP_NUM_THREADS, that is its share of the cores."""
    env = {"OMP_NUM_THREADS": str(max(1, usable_cores() // jobs)), **os.environ}
    if gpus:
        env["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    worker = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("process.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # a line that is buffered here would not wake the selector
        start_new_session=True,
        env=env,
    )
    places = {"recipe": str(sweep.recipe), "data": sweep.data, "out": str(sweep.out)}
    order = {**places, "config": asdict(sweep.config), "storage": asdict(storage), "device": device}
    with suppress(BrokenPipeError):  # it has ended, and says so by that
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(order).encode() + b"\n")
    return worker


def _listen(worker: "subprocess.Popen[bytes]", failed: list[str]) -> bool:
    """Log what a worker says, or note why it ends; False once it has ended."""
    assert worker.stdout is not None
    if not (line := worker.stdout.readline()):
        return False
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        failed.append(answer["error"])
    else:
        log(answer["line"])
    return True


def _stop(worker: "subprocess.Popen[bytes]", at_once: bool) -> None:
    if at_once or os.name == "nt":
        worker.kill()
    elif worker.stdin is not None:
        worker.stdin.close()  # see process.py


def _epochs_in_all(sweep: Sweep) -> int:
    config = sweep.config
    trials = budget(config.trials, config.brackets, sweep.stops, config.keep)
    return len(config.arms) * (trials + len(config.finals) * sweep.epochs)


def _epochs_done(sweep: Sweep) -> int:
    """By the runs' logs, also of those that are under way."""
    return sum(
        len(Run(folder).read_log())
        for arm in sweep.config.arms
        for folder in (sweep.out / arm).glob("*")
    )
