"""The transfer grid: backbones x tasks x seeds, each cell an ordinary run in its own folder.

python tools/transfer.py                     the embedded grid: plain and CutMix backbones, three
                                             tasks, two replicates, 15 minutes on 2 cores
python tools/transfer.py --backbones A B --tasks detection captioning --seeds 0 1 2
                         --config detection=configs/detection/X.yaml --data detection=DIR
python tools/transfer.py ... --print             one shell command a line, for any scheduler
python tools/transfer.py ... --slurm slurm_partition=gpu timeout_min=240 gpus_per_node=1

The same command goes on where it stopped; a result that stands is not computed again. Without
--seeds the seed of a backbone's pretraining is the seed of its transfer: replicates are paired.
"""

import argparse
import os
import sys
from pathlib import Path

# this script's own folder comes first on the path, where `import transfer` would find this script
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from tools.command import run_main
from transfer.grid import TASKS


def main(argv: list[str] | None = None, tools: Path | None = None) -> None:
    """Plan, run what is missing, say where to look.

    Args:
        argv: the arguments, or None for the command line's.
        tools: the folder of the tools that the cells call, if not this one.
    """
    tools = tools or Path(os.path.relpath(Path(__file__).resolve().parent))
    options = _options(argv)
    if options.backbones is None:
        from tools._grid_embedded import embedded

        embedded(options, tools)
        return

    from tools._grid_plan import Wanted, chosen, plan
    from tools._grid_run import print_lines, run

    recipes = chosen("--config", options.config, options.tasks)
    for path in recipes.values():
        if not Path(path).is_file():
            raise UsageError(f"--config: there is no file {path}.")
    cells = plan(
        Wanted(
            options.backbones,
            options.tasks,
            options.seeds,
            {task: Path(path) for task, path in recipes.items()},
            chosen("--data", options.data, options.tasks),
            options.engine,
        )
    )
    if options.print:
        print_lines(cells, options.out, tools)
        return
    complete = run(cells, options, tools)
    print(f"\nThe table: python tools/report.py {options.out} --out {options.out}")
    sys.exit(0 if complete else 1)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--backbones",
        nargs="+",
        metavar="NAME_OR_FILE",
        help="What is compared: files, run folders, names (default: the embedded grid).",
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=TASKS,
        default=TASKS,
        metavar="TASK",
        help=f"Of {', '.join(TASKS)} (default: all).",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        metavar="S",
        help="Of the transfers (default: each backbone's own; embedded: 0 1).",
    )
    parser.add_argument(
        "--config",
        nargs="+",
        default=[],
        metavar="TASK=FILE",
        help="A task's recipe (default: configs/TASK/demo.yaml).",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="TASK=DIR",
        help="A task's data (default: the shape world).",
    )
    parser.add_argument(
        "--engine",
        choices=["auto", "detectron2", "torchvision"],
        help="The library that trains detectors (default: the recipe's).",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="Cells at once on this machine, cores shared (default: 1; embedded: 2).",
    )
    parser.add_argument(
        "--devices",
        type=lambda text: text.split(","),
        default=[],
        metavar="0,1",
        help="GPUs for the jobs, in turn.",
    )
    parser.add_argument(
        "--print",
        action="store_true",
        help="Run nothing; print the commands of the cells that are missing.",
    )
    parser.add_argument(
        "--slurm",
        nargs="*",
        metavar="KEY=VALUE",
        help="Submit the cells through submitit, with its parameters.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/transfer"),
        help="Folder of the runs (default: runs/transfer).",
    )
    options = parser.parse_args(argv)
    _refuse(options)
    return options


def _refuse(options: argparse.Namespace) -> None:
    if options.jobs is not None and options.jobs < 1:
        raise UsageError(f"--jobs is {options.jobs}; it must be at least 1")
    for flag in ("tasks", "seeds"):
        values = list(getattr(options, flag) or [])
        if len(set(values)) != len(values):
            raise UsageError(f"--{flag} is {' '.join(map(str, values))}; each may stand once.")
    if options.seeds is not None and min(options.seeds) < 0:
        raise UsageError(f"--seeds has {min(options.seeds)}; seeds are at least 0")
    if options.slurm is not None and (options.print or options.jobs is not None or options.devices):
        raise UsageError("--slurm goes without --print, --jobs and --devices: SLURM decides.")
    if options.print and (options.jobs is not None or options.devices):
        raise UsageError("--print goes without --jobs and --devices: it runs nothing.")
    given = [flag for flag in ("config", "data", "engine") if getattr(options, flag)]
    if options.backbones is None and given:
        raise UsageError(f"--{given[0]} needs --backbones; the embedded grid has its own.")
    if options.out.is_file():
        raise UsageError(f"--out {options.out} is a file; a folder is needed.")


if __name__ == "__main__":
    run_main(main, again="the same command")
