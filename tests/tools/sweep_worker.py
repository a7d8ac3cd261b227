"""A worker of a sweep, as tools/sweep.py starts them: python sweep_worker.py SWEEP DATA OUT [fake].

fake: a training is a formula, so that what is kept and who goes on shows in no time.
"""
# ruff: noqa: E402

import math
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from pretrain.errors import Diverged, Stopped
from tools.support.command import run_main
from tools.support.sweep.config import Sweep, read_sweep
from tools.support.sweep.launch import admit
from tools.support.sweep.study import Studies
from tools.support.sweep.worker import work

PAUSE = 0.01


def formula(config, epoch: int) -> float:
    """A score that has its best at a rate of 0.1, grows with the epochs, and differs by seed."""
    rate = config.optimizer.lr
    method = 5.0 if config.mixing.method == "cutmix" else 0.0
    return (
        50 + method - 10 * math.log10(rate / 0.1) ** 2 + epoch + math.sin(1e4 * rate + config.seed)
    )


def fake(config, run, fabric, *, init, guide, stop_after_epoch):
    """What pretrain does, as a sweep sees it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    done = len(run.read_log())
    for epoch in range(done + 1, config.epochs + 1):
        time.sleep(PAUSE)
        if not 0.0045 < config.optimizer.lr < 0.8:
            raise Diverged("the training loss is nan in epoch 1: it has diverged.")
        score = formula(config, epoch)
        run.log({"epoch": epoch, "top1": score, "top5": score, "val_loss": 100 - score})
        if epoch == stop_after_epoch and epoch < config.epochs:
            raise Stopped(str(run.folder), f"epoch {epoch}", 0)


def open_sweep(path: Path, data: Path, out: Path) -> tuple[Sweep, Studies]:
    config = read_sweep(path)
    recipe = Path(__file__).resolve().parents[2] / config.config
    sweep = Sweep(config=config, recipe=recipe, data=str(data), out=out)
    sweep.check()
    storage = admit(sweep, None)
    return sweep, Studies(sweep, storage.url, storage.name)


def main() -> None:
    path, data, out, *more = sys.argv[1:]
    if more:
        import pretrain.engine

        pretrain.engine.pretrain = fake
    work(*open_sweep(Path(path), Path(data), Path(out)), "cpu", print)


if __name__ == "__main__":
    run_main(main, again="the same command")
