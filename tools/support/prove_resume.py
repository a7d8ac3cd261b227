"""Kill a run at random moments and show that it ends in the same bits as one left alone.

python tools/pretrain.py ... --prove-resume 3      for the recipe given

The moments are drawn over the time from the first checkpoint to the end of the process: the steps,
the validations, the writing of checkpoints, backbone and result. A kill before the first checkpoint
would prove nothing, for there the run begins anew.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Any

import yaml

from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.progress import log
from pretrain.run import Run, plain
from tools.support.command import ROOT

_STEPS = 12
_TRIES = 20


def prove(config: Any, device: str, *, kills: int, stop_after: int | None, seed: int = 0) -> None:
    """Compare `kills` killed and resumed runs with an uninterrupted one, and say what was compared.

    Args:
        config: the recipe, a PretrainConfig.
        device: as --device.
        kills: how many runs are killed, each once.
        stop_after: steps of each run; None takes twelve.
        seed: of the moments.

    Raises:
        UsageError: a run failed, or two differ: the message lists the values.
    """
    moments = random.Random(seed)
    scratch = Path(tempfile.mkdtemp(prefix="prove-resume-"))
    try:
        recipe = scratch / "recipe.yaml"
        write_text(recipe, yaml.safe_dump(plain(config), sort_keys=False))
        run = [sys.executable, str(ROOT / "tools" / "pretrain.py"), "--config", str(recipe),
               "--device", device, "--checkpoints.every_steps", "1",
               "--stop-after", str(stop_after or _STEPS)]  # fmt: skip
        log("a run without interruption ...")
        window = _watched([*run, "--out", str(scratch / "whole")], scratch / "whole", None)
        whole = state(scratch / "whole")
        for number in range(1, kills + 1):
            cut = scratch / f"cut{number}"
            killed = _killed([*run, "--out", str(cut)], cut, window, moments)
            if not Run(cut).finished:
                _watched([*run, "--resume", str(cut)], cut, None)
            resumed = state(cut)
            names = sorted(whole.keys() | resumed.keys())
            differing = [name for name in names if not _equal(whole.get(name), resumed.get(name))]
            story = f"kill {number} of {kills}: {killed}; resumed"
            if differing:
                problem = f"{len(differing)} of {len(names)} values differ"
                raise UsageError(f"{story}: {problem}: {', '.join(differing[:8])}")
            log(f"{story}: all {len(names)} values equal")
            shutil.rmtree(cut)
        print(
            f"{kills} of {kills} killed and resumed runs equal the uninterrupted one bit for bit: "
            f"{len(whole)} tensors and numbers (weights, optimiser, averages, running sums, log, "
            "best and last backbone)."
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _killed(command: list[str], folder: Path, window: float, moments: random.Random) -> str:
    """Start the run and kill it while it is at work; begin again where it was faster.

    Returns:
        When it was killed, and where its checkpoint stood.
    """
    for _ in range(_TRIES):
        moment = moments.uniform(0, window)
        if _watched(command, folder, moment) < 0:
            content = state(folder)
            return (
                f"SIGKILL {moment:.2f} s after the first checkpoint, the last was of epoch "
                f"{content['checkpoint.epoch']}, step {content['checkpoint.done']}"
            )
        shutil.rmtree(folder)
    raise UsageError(
        f"the run ended before it could be killed, {_TRIES} times: its {window:.2f} s are too "
        "short. Give a larger --stop-after."
    )


def _watched(command: list[str], folder: Path, moment: float | None) -> float:
    """Run a command, killed `moment` seconds after the first checkpoint where one is given.

    Returns:
        Seconds from the first checkpoint to its own end, or -1 where it was killed.

    Raises:
        UsageError: it failed.
    """
    checkpoint = Run(folder).checkpoint
    with tempfile.TemporaryFile("w+") as errors:
        process = Popen(command, stdout=DEVNULL, stderr=errors, start_new_session=True)
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.002)
        began = time.monotonic()
        try:
            process.wait(timeout=moment)
        except TimeoutExpired:
            if hasattr(os, "killpg"):  # and its loader processes, as out of memory
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # Windows has no groups
            process.wait()
            return -1.0
        if process.returncode:
            errors.seek(0)
            raise UsageError(
                f"the run failed ({process.returncode}):\n{errors.read().strip()[-2000:]}"
            )
        return time.monotonic() - began


def state(folder: Path) -> dict[str, Any]:
    """Every tensor and number that a run leaves, by name, but for its time, date and commit."""
    import torch

    run = Run(folder)
    content: dict[str, Any] = {"log": run.read_log()}
    best, kept = run.checkpoint.with_name("best.pth"), folder / "backbone.pth"
    for name, path in {"checkpoint": run.checkpoint, "best": best, "kept": kept}.items():
        if path.exists():
            content[name] = torch.load(path, weights_only=True)
    return dict(_flat("", content))


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    # of the commit, because a user may go on committing in the meantime
    timed = ("seconds", "clock", "created", "images_per_second", "commit")
    if isinstance(value, dict):
        inner = [(f"{name}.{key}" if name else str(key), v) for key, v in value.items()
                 if key not in timed]  # fmt: skip
    elif isinstance(value, list):
        inner = [(f"{name}.{index}", v) for index, v in enumerate(value)]
    else:
        return [(name, value)]
    return [pair for key, v in inner for pair in _flat(key, v)]


def _equal(one: Any, two: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    return type(one) is type(two) and bool(one == two)
