"""A study: backbones of several arms, cells and seeds, and what each is worth, from one file.

python tools/study.py configs/studies/imagenette.yaml --data DIR --results docs/results/imagenette
python tools/study.py ... --hours 2          stop then, each run after its step
python tools/study.py ... --cells 300x80 --seeds 1 2 --arms none cutmix --steps pretrain
python tools/study.py ... --print            the commands that are left, for any scheduler

The file's cells are settings of the pretraining, its arms what is compared in each, its steps what
every backbone of a cell is carried into. Each job is an ordinary run of a tool in OUT/CELL/STEP/
ARM-seedS; the same command goes on where it stopped. A job whose result stands in --results is
done, also where its folder is gone: a long study goes in pieces, each of which leaves its results
to be committed. docs/results.md shows the report of one.
"""

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from pretrain.files import lock
from pretrain.progress import log
from tools.support.command import Parser, file_in_the_way, run_main
from tools.support.study_plan import (
    PRETRAIN,
    Choice,
    Lane,
    Study,
    read_study,
    refuse_other_commands,
    write_commands,
)
from transfer.stores import is_there


def main(argv: list[str] | None = None) -> None:
    """Read, choose what is left, run it."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("study", type=Path, help="A file such as configs/studies/imagenette.yaml.")
    add("--data", default=".", help="The folder that the file's {data} stands for.")
    add("--out", type=Path, help="Folder of the runs (default: runs/NAME of the study).")
    add("--results", type=Path, help="Folder that keeps a copy of each result.json.")
    add("--cells", nargs="+", metavar="CELL", help="Of the study (default: all).")
    add("--arms", nargs="+", metavar="ARM", help="Of the study (default: all).")
    add("--seeds", nargs="+", type=int, metavar="S", help="Of the study (default: all).")
    steps = f"Of the study, or {PRETRAIN}; with the pretraining that they need (default: all)."
    add("--steps", nargs="+", metavar="STEP", help=steps)
    add("--jobs", type=int, default=1, help="Jobs at once, cores shared.")
    add("--hours", type=float, help="Stop after so long; the same command goes on.")
    add("--print", action="store_true", help="Print the commands that are left; run nothing.")
    options = parser.parse(argv)
    check_ranges("--", options, jobs="[1, 1024]", hours="> 0")

    study = read_study(options.study)
    _refuse_choice(study, options)
    out = options.out or Path("runs", study.name)
    tools = Path(os.path.relpath(Path(__file__).resolve().parent))
    choice = Choice(options.cells, options.arms, options.seeds, options.steps)
    lanes = study.lanes(tools, options.data, out, choice)
    if not lanes:
        words = [
            " ".join([f"--{flag}", *map(str, chosen)])
            for flag, chosen in asdict(choice).items()
            if chosen
        ]
        raise UsageError(f"{options.study} has nothing of {' '.join(words)}.")
    from tools.support.study_run import (
        TIME_IS_UP,
        StudyRun,
        refuse_wrong_options,
        refuse_wrong_results,
        run_study,
    )

    run = StudyRun(out, options.results, options.jobs)
    _refuse_places(options, lanes, run.folders)
    refuse_wrong_options(lanes, run)
    if options.print:
        for folder in run.folders:
            refuse_other_commands(lanes, folder)
        refuse_wrong_results(lanes, run.folders)
        print_commands(lanes, run.folders)
        return
    with lock(out / ".study.lock", f"another study is at work in {out}"):
        for folder in run.folders:
            refuse_other_commands(lanes, folder)
        refuse_wrong_results(lanes, run.folders)
        for folder in run.folders:
            write_commands(lanes, folder)
        run_study(lanes, run, options.hours)
    jobs = sum(len(lane.jobs) for lane in lanes)
    log(f"jobs: {jobs - len(run.left)} of {jobs} done, {len(run.failed)} failed")
    if run.signals and run.signals[0] != TIME_IS_UP:
        sys.exit(128 + run.signals[0])
    if not run.signals and not run.failed:
        log(f"The tables: python tools/report.py {options.results or out}")
    sys.exit(1 if run.failed else 0)


def _refuse_choice(study: Study, options: argparse.Namespace) -> None:
    """Raise UsageError where --cells and so on name what the study does not have."""
    for flag, known in (
        ("cells", [*study.cells]),
        ("arms", [*study.arms]),
        ("steps", [PRETRAIN, *study.steps]),
    ):
        for name in getattr(options, flag) or []:
            if name not in known:
                names = ", ".join(known)
                raise UsageError(f"--{flag} has {name!r}; {options.study} has {names}.")
    chosen = options.cells or [*study.cells]
    there = sorted(
        {seed for cell in chosen for own in study.cells[cell].seeds.values() for seed in own}
    )
    if not there:
        raise UsageError(f"{options.study} has no seed in {', '.join(chosen) or 'any cell'}.")
    for seed in options.seeds or []:
        if seed not in there:
            raise UsageError(
                f"--seeds has {seed}; {options.study} has {', '.join(map(str, there))} in "
                f"{', '.join(chosen)}."
            )


def _refuse_places(options: argparse.Namespace, lanes: list[Lane], folders: list[Path]) -> None:
    """Raise UsageError for a file in the place of a folder, and data that is not there.

    The commands may be printed for another machine, where it is.
    """
    for folder in folders:
        if (place := file_in_the_way(folder)) is not None:
            raise UsageError(f"{place} is a file; --out and --results must name folders.")
    asks = any("{data}" in job.recorded for lane in lanes for job in lane.left(folders))
    if asks and not options.print and not is_there(options.data):
        raise UsageError(f"--data {options.data}: there is no such folder.")


def print_commands(lanes: list[Lane], folders: list[Path]) -> None:
    """One line a lane: its jobs need one another.

    Raises:
        UsageError: a backbone that some of them need was removed.
    """
    for job in (job for lane in lanes for job in lane.left(folders)):
        if job.obstacle:
            raise UsageError(job.obstacle)
    for lane in lanes:
        if left := lane.left(folders):
            print(" && ".join(job.shell_line() for job in left))
    kept, *others = folders
    done = [job for lane in lanes for job in lane.jobs if job.is_done(others)]
    if lost := sum(not job.is_done([kept]) for job in done):
        log(
            f"note: {lost} of {len(done)} results lie in {others[0]} alone; the same command "
            f"without --print copies them to {kept}"
        )


if __name__ == "__main__":
    run_main(main, again="the same command")
