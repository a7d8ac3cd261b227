"""The transfer grid: backbones x tasks x seeds, each job an ordinary run in its own folder.

python tools/transfer.py --quick             the whole chain on very little, a minute on 2 cores
python tools/transfer.py                     the embedded grid: plain and CutMix backbones, every
                                             task, two replicates, 8 minutes on 2 cores
python tools/transfer.py --shapes easy       the same where training images are many
python tools/transfer.py --backbones A B --tasks detection classification --seeds 0 1 2
                         --config detection=configs/detection/X.yaml --data detection=DIR
python tools/transfer.py ... --print             one shell command a line, for any scheduler
python tools/transfer.py ... --slurm slurm_partition=gpu timeout_min=240 gpus_per_node=1

The same command goes on where it stopped; a result that stands is not computed again. Without
--seeds the seed of a backbone's pretraining is the seed of its transfer: replicates are paired.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path, where `import transfer` would find this script
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from pretrain.progress import log
from tools.support.command import SYNTHETIC, Parser, run_main
from transfer import grid, task

METHODS = ("none", "cutmix")
SEEDS = (0, 1)
_ENOUGH = 5  # replicates


def main(argv: list[str] | None = None, tools: Path | None = None) -> None:
    """Plan, run what is missing, say where to look.

    Args:
        argv: the arguments, or None for the command line's.
        tools: the folder of the tools that the jobs call, if not this one.
    """
    tools = tools or Path(os.path.relpath(Path(__file__).resolve().parent))
    options = _options(argv)
    if options.backbones is None:
        run_embedded(options, tools)
        return

    from tools.support.grid_plan import by_task, fields_by_task, plan
    from tools.support.grid_run import print_lines, run_grid

    backbones, tasks, seeds = options.backbones, options.tasks, options.seeds
    recipes = by_task("--config", options.config, tasks)
    for path in recipes.values():
        if not Path(path).is_file():
            raise UsageError(f"--config: there is no file {path}.")
    data = by_task("--data", options.data, tasks)
    words = fields_by_task(options.set, tasks)
    random, engine = options.random_init, options.engine
    jobs = plan(backbones, tasks, recipes, data, seeds, words, random, engine=engine)
    if options.print:
        print_lines(jobs, options.out, tools)
        return
    done = run_grid(jobs, options, tools)
    print(f"\nThe table: python tools/report.py {options.out} --out {options.out}")
    sys.exit(0 if len(done) == len(jobs) else 1)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter  # the texts name the defaults
    names = task.names()
    add = parser.add_argument
    backbones = "What is compared: files, run folders, names (default: the embedded grid)."
    add("--backbones", nargs="+", metavar="NAME_OR_FILE", help=backbones)
    tasks = f"Of {', '.join(names)} (default: all)."
    add("--tasks", nargs="+", choices=names, default=names, metavar="TASK", help=tasks)
    seeds = "Of the transfers (default: each backbone's own; embedded: 0 1)."
    add("--seeds", nargs="+", type=int, metavar="S", help=seeds)
    random = "Also each architecture with random weights: what a backbone is worth."
    add("--random_init", action="store_true", help=random)
    recipes = "A task's recipe (default: one that fits its data; for shapes demo.yaml)."
    add("--config", nargs="+", default=[], metavar="TASK=FILE", help=recipes)
    fields = "A field of a task's recipe, such as classification.dataset.image_size=64."
    add("--set", nargs="+", default=[], metavar="TASK.FIELD=VALUE", help=fields)
    add("--data", nargs="+", default=[], metavar="TASK=DIR", help="Default: synthetic shapes.")
    engine = "The library that trains detectors (default: the recipe's)."
    add("--engine", choices=["auto", "detectron2", "torchvision"], help=engine)
    jobs = "Jobs at once on this machine, cores shared (default: 1; embedded: 2)."
    shapes = "Of the embedded grid: few training images and objects partly hidden, or neither."
    add("--shapes", choices=["hard", "easy"], default="hard", help=shapes)
    add("--quick", action="store_true", help="The embedded grid, tiny: one seed, a minute.")
    add("--jobs", type=int, metavar="N", help=jobs)
    add("--devices", default="", metavar="0,1", help="GPUs for the jobs, in turn.")
    add("--print", action="store_true", help="Print the commands of the missing jobs; run nothing.")
    add("--slurm", nargs="*", metavar="KEY=VALUE", help="Submit by submitit, with its parameters.")
    add("--out", type=Path, help="Folder (default: runs/transfer, runs/easy, runs/quick).")
    options = parser.parse(argv)
    options.devices = [name for name in options.devices.split(",") if name]
    if options.out is None:
        easy = "runs/easy" if options.shapes == "easy" else "runs/transfer"
        options.out = Path("runs/quick" if options.quick else easy)

    check_ranges("--", options, jobs="[1, 1024]")
    for seed in options.seeds or []:
        check_ranges("--", argparse.Namespace(seeds=seed), seeds="[0, 4294967295]")
    for flag in ("tasks", "seeds"):
        values = list(getattr(options, flag) or [])
        if len(set(values)) != len(values):
            raise UsageError(f"--{flag} is {' '.join(map(str, values))}; each may stand once.")
    is_local = options.jobs is not None or options.devices
    if options.slurm is not None and (options.print or is_local):
        raise UsageError("--slurm goes without --print, --jobs and --devices: SLURM decides.")
    flags = ("config", "set", "data", "engine", "random_init")
    given = [flag for flag in flags if getattr(options, flag)]
    if options.backbones is None and given:
        raise UsageError(f"--{given[0]} needs --backbones; the embedded grid has its own.")
    if options.backbones is not None and (options.quick or options.shapes != "hard"):
        flag = "quick" if options.quick else "shapes"
        raise UsageError(f"--{flag} is of the embedded grid; it goes without --backbones.")
    if options.quick and options.shapes != "hard":
        raise UsageError("--quick has shapes of its own; it goes without --shapes.")
    if options.out.is_file():
        raise UsageError(f"--out {options.out} is a file; a folder is needed.")
    return options


def run_embedded(options: argparse.Namespace, tools: Path) -> None:
    """Pretrain, transfer, report; what is done is kept, and the same command goes on."""
    from tools.support.job_server import job_server

    local = options.slurm is None and not options.devices and not options.print
    with job_server() if local else nullcontext() as server:
        _run_embedded(options, tools, server)


def _run_embedded(options: argparse.Namespace, tools: Path, server: Any) -> None:
    from tools.support.grid_plan import draw, plan, pretraining, recipe_of
    from tools.support.grid_run import Stage, print_lines, run_grid

    started = time.monotonic()
    name = "quick" if options.quick else options.shapes
    if options.jobs is None and options.slurm is None:
        options.jobs = 2  # networks this small gain little from a second thread
    out, about = options.out, task.GRIDS[name]
    if (earlier := grid.earlier_about(out)) not in ("", about):
        raise UsageError(f"--out {out} holds another grid ({earlier}) Give another folder.")
    seeds = (SEEDS[:1] if options.quick else SEEDS) if options.seeds is None else options.seeds
    # all data, drawn once before the jobs
    kinds = {one: task.by_name(one) for one in ("pretrain", *options.tasks)}
    parts = {one: kind.demo.grids[name] for one, kind in kinds.items() if name in kind.demo.grids}
    tasks = [one for one in options.tasks if one in parts]
    data = {one: draw(kinds[one], out / SYNTHETIC.name, part.data) for one, part in parts.items()}
    recipes = {one: recipe_of(kinds[one], part) for one, part in parts.items()}
    first = [
        replace(
            pretraining(method, seed, data["pretrain"], recipes["pretrain"]),
            expected=parts["pretrain"].seconds,
        )
        for seed in seeds
        for method in METHODS
    ]

    def behind(jobs: Sequence[grid.Job]) -> list[grid.Job]:
        """The transfers of pretrainings."""
        return [
            replace(job, task=one, name=job.folder.name, expected=parts[one].seconds)
            for one in tasks
            for job in jobs
        ]

    if not options.print:
        trained = run_grid(first, options, tools, Stage(about, later=behind(first)), server)
    elif [grid.job_status(job, out).state for job in first] == ["done"] * len(first):
        trained = first
    else:
        log("# these make the backbones; then call this again for the rest")
        print_lines(first, out, tools)
        return
    failed = [job for job in first if job not in trained]
    backbones = [str(out / job.folder) for job in trained]
    jobs = [
        replace(job, expected=parts[job.task].seconds)
        for job in plan(backbones, tasks, recipes, data, cache=str(out / "features"))
    ]
    if options.print:
        print_lines(jobs, out, tools)
        return
    stage = Stage(about, done=len(first), lost=behind(failed))
    done = run_grid(jobs, options, tools, stage, server)
    report = [sys.executable, str(tools / "report.py"), str(out), "--out", str(out)]
    reported = subprocess.run(report).returncode == 0
    page = next((p for p in (out / "report.html", out / "report.md") if p.exists()), out)
    print(
        f"\n{about}\n{len(trained) + len(done)} runs, {(time.monotonic() - started) / 60:.1f} "
        f"minutes in this call. Look at: {page}"
    )
    if options.quick:
        print("The embedded grid, two replicates in minutes: python tools/transfer.py")
    elif len(seeds) < _ENOUGH:
        print(
            f"So few replicates show that the chain works, not which backbone is better; the same "
            f"command with --seeds {' '.join(map(str, enough_seeds(seeds)))} goes on to {_ENOUGH}."
        )
    sys.exit(0 if reported and not failed and len(done) == len(jobs) else 1)


def enough_seeds(seeds: Sequence[int]) -> list[int]:
    """Those of before, and the smallest others."""
    others = (seed for seed in range(_ENOUGH) if seed not in seeds)
    return sorted([*seeds, *others][:_ENOUGH])


if __name__ == "__main__":
    run_main(main, again="the same command")
