"""One process of a sweep: it trains what is due, until nothing is.

A trial is held by the lock in its run's folder, which the system gives up however its holder ends:
there is no heartbeat to wait for, and what was begun goes on from its checkpoint to the same bits.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

from filelock import AcquireReturnProxy

from pretrain.data_digest import describe_changes, read_digest
from pretrain.errors import Diverged, Stopped, UsageError
from pretrain.files import holder, lock, write_text
from pretrain.progress import log
from pretrain.run import Run
from tools.support.backbone_options import load
from tools.support.sweep.config import Sweep
from tools.support.sweep.study import Job, Studies

Device = Literal["auto", "cpu", "cuda", "mps"]
_PAUSE = 0.5  # seconds between two looks at what others do


def work(sweep: Sweep, studies: Studies, device: Device, say: Callable[[str], Any]) -> None:
    """Train until every trial and every final of the sweep has ended.

    Args:
        sweep: that is worked on.
        studies: its storage.
        device: as --device.
        say: takes a line for each training that has come to its rung or its end.

    Raises:
        UsageError: a training cannot be made, or the data is not that of before.
        Stopped: a signal; the same call goes on.
    """
    _check_data(sweep)
    while True:
        for job in studies.due():
            run = Run(sweep.out / job.folder)
            if (held := _claim(run)) is None:
                continue
            try:
                if studies.is_due(job):
                    say(_train(job, run, sweep, studies, device))
                    break
            finally:
                held.lock.release(force=True)  # what the run itself has locked, too
        else:
            if studies.finished:
                return
            time.sleep(_PAUSE)


def _claim(run: Run) -> AcquireReturnProxy | None:
    """The lock of a run; None where another process has it."""
    if holder(run.lock_file) is not None:
        return None
    with suppress(UsageError):
        return lock(run.lock_file, f"another process is working in {run.folder}")
    return None


def _train(job: Job, run: Run, sweep: Sweep, studies: Studies, device: Device) -> str:
    """Train a trial to its rung or its end, write what came of it, and return that in words."""
    from pretrain.engine import pretrain
    from pretrain.training import make_fabric

    config = sweep.trial(job.arm, job.point, job.seed)
    log(f"---- {job.title} to epoch {job.epochs}: {in_words(job.point)}")
    studies.begin(job)
    started, diverged = time.monotonic(), None
    try:
        if not run.finished:
            pretrain(
                config,
                run,
                make_fabric(device, config.precision, config.deterministic),
                init=None if config.init is None else load(config.init),
                guide=None if config.mixing.guide is None else load(config.mixing.guide),
                stop_after_epoch=job.epochs,
            )
    except Diverged as error:
        diverged = str(error)
    except Stopped as stopped:
        if stopped.signal_number:
            raise
    except UsageError as error:
        raise UsageError(f"{job.title} ({in_words(job.point)}): {error}") from error
    seconds, metric = time.monotonic() - started, sweep.config.metric
    log_lines = [one for one in run.read_log() if one["epoch"] <= job.epochs]
    scores = {one["epoch"]: one[metric] for one in log_lines}
    if not all(map(math.isfinite, scores.values())):
        diverged = f"{metric} is no number"
        scores = {epoch: score for epoch, score in scores.items() if math.isfinite(score)}
    studies.report(job, scores, seconds, diverged)
    found = f"{metric} {scores[job.epochs]:.4g}" if diverged is None else "diverged"
    return f"{job.title}, epoch {job.epochs}: {found}  ({in_words(job.point)}; {seconds:.0f} s)"


def in_words(point: Mapping[str, Any]) -> str:
    """`optimizer.lr 0.0312, mixing.probability 1`."""
    return ", ".join(f"{name} {short(value)}" for name, value in point.items())


def short(value: Any) -> str:
    """A parameter's value to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _check_data(sweep: Sweep) -> None:
    """Raise UsageError where the data has changed, or, at first, an arm cannot be built."""
    from pretrain.setup import build

    path = sweep.out / "data.json"
    seen = read_digest(path)
    for config in list(sweep.bases.values())[: 1 if seen else None]:
        init = None if config.init is None else load(config.init)
        guide = None if config.mixing.guide is None else load(config.mixing.guide)
        digest = build(config, init, guide).files.digest
    if changed := describe_changes(seen, digest):
        raise UsageError(
            f"the data has changed since {sweep.out} was started ({'; '.join(changed)}). Give the "
            "data of then, or another --out."
        )
    if not seen:
        write_text(path, json.dumps(digest) + "\n")
