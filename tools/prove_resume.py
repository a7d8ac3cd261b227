"""Kill a run at random moments and show that it ends in the same bits as one left alone.

python tools/pretrain.py ... --prove-resume 3      for the recipe given
"""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from pretrain.errors import UserError
from pretrain.progress import say
from pretrain.run import plain
from tools.command import ROOT

_STEPS = 12


def prove(config: Any, device: str, *, kills: int, stop_after: int | None, seed: int = 0) -> None:
    """Compare `kills` killed and resumed runs with an uninterrupted one, and say what was compared.

    Args:
        config: the recipe, a PretrainConfig.
        device: as --device.
        kills: how many runs are killed, each once.
        stop_after: steps of each run; None takes twelve.
        seed: of the moments.

    Raises:
        UserError: a run failed, or two differ: the message lists the tensors.
    """
    steps = stop_after or _STEPS
    moments = random.Random(seed)
    scratch = Path(tempfile.mkdtemp(prefix="prove-resume-"))
    try:
        recipe = scratch / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(plain(config), sort_keys=False), encoding="utf-8")
        run = [sys.executable, str(ROOT / "tools" / "pretrain.py"), "--config", str(recipe),
               "--device", device, "--checkpoints.every_steps", "1"]  # fmt: skip
        to_the_end = ["--stop-after", str(steps)]
        say(f"a run of {steps} steps without interruption ...")
        started = time.monotonic()
        _finish([*run, *to_the_end, "--out", str(scratch / "whole")])
        duration = time.monotonic() - started
        whole = _state(scratch / "whole")
        for number in range(1, kills + 1):
            cut = scratch / f"cut{number}"
            moment = moments.uniform(0, duration)
            where = _kill([*run, *to_the_end, "--out", str(cut)], moment, cut)
            if not (cut / "result.json").exists():
                held = (cut / "config.yaml").exists()
                _finish([*run, *to_the_end, "--resume" if held else "--out", str(cut)])
            found = _state(cut)
            names = sorted(whole.keys() | found.keys())
            differing = [name for name in names if not _equal(whole.get(name), found.get(name))]
            story = f"SIGKILL {moment:.2f} s after the start ({where}), resumed"
            if differing:
                raise UserError(
                    f"kill {number} of {kills}: {story}: {len(differing)} of {len(names)} values "
                    f"differ: {', '.join(differing[:8])}"
                )
            say(f"kill {number} of {kills}: {story}: all {len(names)} values equal")
            shutil.rmtree(cut)
        print(
            f"{kills} of {kills} killed and resumed runs equal the uninterrupted one bit for bit: "
            f"{len(whole)} tensors and numbers (weights, optimiser, averages, running sums)."
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the run failed ({done.returncode}):\n{done.stderr.strip()[-2000:]}")


def _kill(command: list[str], moment: float, folder: Path) -> str:
    """SIGKILL the run `moment` seconds after its start; how far it had come."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    if process.returncode != -signal.SIGKILL:
        return "it had ended"
    if not (folder / "checkpoints" / "last.pth").exists():
        return "before its first checkpoint"
    state = _state(folder)
    epoch, step = state["checkpoint.epoch"], state["checkpoint.batch"]
    return f"its checkpoint stood after epoch {epoch}, step {step}"


def _state(folder: Path) -> dict[str, Any]:
    """Every tensor and number of the checkpoint and, of a finished run, the backbone, by name.

    Left out is what time measures: seconds and dates.
    """
    import torch

    paths = {"checkpoint": folder / "checkpoints" / "last.pth", "kept": folder / "backbone.pth"}
    content: dict[str, Any] = {
        name: torch.load(path, weights_only=True) for name, path in paths.items() if path.exists()
    }
    content["checkpoint"].pop("seconds")
    content.get("kept", {}).get("provenance", {}).pop("created", None)
    flat: dict[str, Any] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}.{key}", inner)
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                walk(f"{name}.{place}", inner)
        else:
            flat[name[1:]] = value

    walk("", content)
    return flat


def _equal(one: Any, two: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    return bool(one == two)
