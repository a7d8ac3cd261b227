"""The embedded grid: plain and CutMix backbones on the shape world, carried into every task."""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pretrain.run import plain
from tools import finetune_cls
from tools._grid_jobs import State, alone, write_states
from tools._grid_plan import Wanted, plan, world
from tools._grid_run import print_lines, run
from tools.command import ROOT, load_config
from transfer.grid import TASKS, Cell, look, order

METHODS = ("none", "cutmix")
SEEDS = (0, 1)
_ENOUGH = 5  # replicates
_LOST = "its pretraining failed"
# images for training, for scoring, and their side
WORLDS: dict[str, dict[str, Any]] = {
    "pretrain": {"train": 5000, "val": 1000, "size": 64},
    "classification": finetune_cls.WORLD,
    "detection": {"train": 500, "val": 200, "size": 96},
    "captioning": {"train": 1500, "val": 300, "size": 96},
}


def embedded(options: argparse.Namespace, tools: Path) -> None:
    """Pretrain, transfer, report; what is done is kept, and the same command goes on."""
    started = time.monotonic()
    if options.jobs is None and options.slurm is None:
        options.jobs = 2  # networks this small gain little from a second thread
    out: Path = options.out
    worlds = draw(out / "shape_world", options.tasks)
    seeds = SEEDS if options.seeds is None else tuple(options.seeds)
    first = [pretraining(method, seed, worlds["pretrain"]) for seed in seeds for method in METHODS]
    missing = [cell for cell in first if look(cell, out).state != "done"]
    if options.print and missing:
        print_lines(first, out, tools)
        print("# these make the backbones; then call this again for the rest", file=sys.stderr)
        return
    complete = not missing or run(first, options, tools)
    trained = [cell for cell in first if look(cell, out).state == "done"]
    if lost := [cell for cell in first if cell not in trained]:
        with alone(out):
            states = [State(cell, "failed", _LOST) for cell in transfers(lost, options.tasks)]
            write_states(states, out)
    if not trained:
        sys.exit(1)
    cells = plan(
        Wanted(
            [str(out / cell.folder) for cell in trained],
            options.tasks,
            recipes={task: _recipe(task) for task in options.tasks},
            data=worlds,
            cache=str(out / "features"),
        )
    )
    if options.print:
        print_lines(cells, out, tools)
        return
    complete &= run(cells, options, tools)
    report = [sys.executable, str(tools / "report.py"), str(out), "--out", str(out)]
    complete &= subprocess.run(report).returncode == 0
    page = next((p for p in (out / "report.html", out / "report.md") if p.exists()), out)
    print(
        f"\n{len(trained) + len(cells)} runs, {(time.monotonic() - started) / 60:.0f} minutes in "
        f"this call. Look at: {page}"
    )
    if words := too_few(seeds, options.tasks, out):
        print(words)
    sys.exit(0 if complete else 1)


def draw(root: Path, tasks: Any) -> dict[str, str]:
    """Every world that is needed, drawn once before the jobs; task to folder."""
    return {
        task: world(task, root, sizes)
        for task, sizes in WORLDS.items()
        if task == "pretrain" or task in tasks
    }


def pretraining(method: Any, seed: int, data: str) -> Cell:
    """The cell that makes a backbone; it has no fingerprint yet."""
    from pretrain.backbone import recipe_hash
    from pretrain.config import PretrainConfig

    recipe = _recipe("pretrain")
    config = load_config(PretrainConfig, recipe, seed=seed, data=data)
    config = replace(config, mixing=replace(config.mixing, method=method))
    return Cell(
        task="pretrain",
        name=method,
        seed=seed,
        backbone={  # as `Backbone.describe` will say it
            "name": f"{config.model.arch}, {method}",
            "arch": config.model.arch,
            "method": method,
            "recipe": config.name,
            "recipe_hash": recipe_hash(plain(config)),
            "dataset": Path(data).name,
            "epochs": config.epochs,
            "seed": seed,
        },
        config=plain(config),
        data={"train": WORLDS["pretrain"]["train"]},
        options=(
            *("--config", str(recipe), "--data", data),
            *("--mixing.method", method, "--seed", str(seed)),
        ),
    )


def too_few(seeds: Sequence[int], tasks: Sequence[str], out: Path) -> str | None:
    """What so few replicates do not show, and the command for more; None from five on."""
    missing = _ENOUGH - len(seeds)
    if missing <= 0:
        return None
    more = [seed for seed in range(_ENOUGH) if seed not in seeds][:missing]
    words = ["python", "tools/transfer.py", "--seeds", *map(str, sorted([*seeds, *more]))]
    words += [] if set(tasks) == set(TASKS) else ["--tasks", *tasks]
    shows = "One replicate shows" if len(seeds) == 1 else f"{len(seeds)} replicates show"
    return (
        f"{shows} that the chain works, not which backbone is better; {_ENOUGH} come from: "
        + shlex.join([*words, "--out", str(out)])
    )


def transfers(lost: Sequence[Cell], tasks: Sequence[str]) -> list[Cell]:
    """The cells that would have begun from the backbones of these pretrainings."""
    return order(
        Cell(task=task, name=cell.folder.name, seed=cell.seed, backbone=cell.backbone, config={})
        for task in tasks
        for cell in lost
    )


def _recipe(task: str) -> Path:
    name = "demo_short" if task == "pretrain" else "demo_tiny"
    return ROOT / "configs" / task / f"{name}.yaml"
