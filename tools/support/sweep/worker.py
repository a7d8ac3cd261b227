"""One process of a sweep: it trains what is due, until nothing is.

A trial is held by the lock in its run's folder, which the system gives up however its holder ends:
there is no heartbeat to wait for, and what was begun goes on from its checkpoint to the same bits.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from filelock import AcquireReturnProxy, Timeout

from pretrain.config import DatasetConfig
from pretrain.data_digest import Digest, describe_changes
from pretrain.errors import Diverged, Stopped, UsageError
from pretrain.files import holder, lock, write_text
from pretrain.progress import log
from pretrain.reading import check, read_json
from pretrain.run import Run
from tools.support.backbone_options import load
from tools.support.sweep.config import Sweep
from tools.support.sweep.study import Job, Studies

Device = Literal["auto", "cpu", "cuda", "mps"]
_PAUSE = 0.5  # seconds between two looks at what others do


def work(
    sweep: Sweep,
    studies: Studies,
    device: Device,
    say: Callable[[str], Any],
    is_asked_to_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train until every trial and every final of the sweep has ended.

    Args:
        sweep: that is worked on.
        studies: its storage.
        device: as --device.
        say: takes a line for each training that has come to its rung or its end.
        is_asked_to_stop: looked at before each training.

    Raises:
        UsageError: a training cannot be made, or the data is not that of before.
        Stopped: a signal; the same call goes on.
    """
    _check_data(sweep)
    while True:
        for job in studies.due():
            if is_asked_to_stop():
                raise Stopped(str(sweep.out), "between two trainings", signal.SIGTERM)
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
    try:
        return lock(run.lock_file, f"another process is working in {run.folder}")
    except UsageError as error:
        if isinstance(error.__cause__, Timeout):
            return None
        raise  # it cannot be locked, by nobody


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
    """Raise UsageError where an arm's data has changed, or, at first, an arm cannot be built."""
    from pretrain.setup import build

    path = sweep.out / "data.json"
    seen = check(read_json(path), dict[str, Any], str(path)) if path.exists() else {}
    digests, looked_at = dict[str, Any](), list[DatasetConfig]()
    for arm, config in sweep.bases.items():
        if arm in seen and config.dataset in looked_at:
            continue  # the same files
        init = None if config.init is None else load(config.init)
        guide = None if config.mixing.guide is None else load(config.mixing.guide)
        digests[arm] = build(config, init, guide).files.digest
        looked_at.append(config.dataset)
        if changed := describe_changes(check(seen.get(arm, {}), Digest, str(path)), digests[arm]):
            raise UsageError(
                f"the data has changed since {sweep.out} was started (arm {arm}, "
                f"{'; '.join(changed)}). Give the data of then, or another --out."
            )
    if digests.keys() - seen.keys():
        write_text(path, json.dumps(digests) + "\n")
