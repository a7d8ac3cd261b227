"""The embedded grid of this checkout beside that of another one, from nothing to the report.

python tools/bench.py grid --other PATH [--rounds 3] [--this='--shapes easy --seeds 0']
    [--that='--seeds 0']

Each side runs its own `tools/transfer.py` in a new folder, in turn, with nothing kept between the
rounds. `--this` and `--that` are further options of this tree's and of the other's. A part's
seconds are those of its runs, as their results say; what is left of the whole is start-up, drawing
the data, scoring and pictures behind the training, and the report.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pretrain.errors import UsageError, check_ranges
from tools.support.benchmarks._timing import check_checkout, heading, table
from tools.support.command import ROOT, Parser
from transfer.report import read_results


@dataclass(frozen=True)
class Timing:
    """One run of a grid, in seconds."""

    wall: float
    processor: float
    first: float
    """Until the first result."""
    jobs: dict[str, float]
    """Task -> mean of its runs."""


def main(argv: list[str]) -> None:
    """Measure, and print what each round took."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--other", type=Path, required=True, help="Another checkout of this project.")
    add("--this", type=str, default="", help="Options of this tree's transfer.py.")
    add("--that", type=str, default="", help="Options of the other's.")
    add("--rounds", type=int, default=3)
    options = parser.parse(argv)
    check_ranges("--", options, rounds=">= 1")
    check_checkout("--other", options.other)

    print(heading("grid", argv, len(os.sched_getaffinity(0))) + "\n", flush=True)
    sides = {"other": (options.other, options.that), "this": (ROOT, options.this)}
    found: dict[str, list[Timing]] = defaultdict(list)
    for number in range(1, options.rounds + 1):
        for name, (tree, words) in sides.items():
            found[name].append(one := time_grid(tree, shlex.split(words)))
            print(
                f"round {number}, {name}: {one.wall:.0f} s, processor {one.processor:.0f} s",
                flush=True,
            )
    rows = []
    for title, of in (
        ("whole", lambda one: one.wall),
        ("whole, processor", lambda one: one.processor),
        ("until the first result", lambda one: one.first),
    ):
        rows.append(_row(title, *(min(map(of, found[name])) for name in sides)))
    for task in found["this"][0].jobs:
        rows.append(_row(f"a {task} run", *(min(o.jobs[task] for o in found[n]) for n in sides)))
    print("\n" + table(["seconds, best round", *sides, "ratio"], rows))


def _row(title: str, other: float, this: float) -> list[str]:
    return [title, f"{other:.1f}", f"{this:.1f}", f"{this / other:.2f}"]


def time_grid(tree: Path, words: list[str]) -> Timing:
    """Run the embedded grid of a tree, from nothing.

    Raises:
        UsageError: it failed; the message ends with what it said last.
    """
    import resource  # Windows has none

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "grid"
        command = [sys.executable, "tools/transfer.py", "--out", str(out), *words]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree.resolve())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        first, lines = None, []
        for line in process.stdout:
            lines.append(line)
            if first is None and line.startswith("[") and line.rstrip().endswith(" s)"):
                first = time.monotonic() - started
        if process.wait() or first is None:
            raise UsageError(f"{' '.join(command)} in {tree} failed:\n{''.join(lines)[-2000:]}")
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        jobs = defaultdict(list)
        for result in read_results(out)[0]:
            jobs[result.task].append(result.seconds)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timing(wall, processor, first, {task: mean(times) for task, times in jobs.items()})
