"""This checkout of the project beside another one: the same recipes on the same data.

python tools/bench.py trees --other PATH [--parts pretrain detection captioning classification]
    [--rounds 3] [--threads 1]

Each side runs its own tools, in processes of their own. The recipes are those of the embedded grid
of PATH, their keys brought up to date for this tree; data is drawn by this tree for both.

start-up   a run that is stopped after its first step: imports, data, network, features
step       the steps after it, loaders included
epoch      a whole run of one epoch, with scoring, pictures and files
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pretrain.errors import UsageError, check_ranges
from pretrain.reading import read_yaml
from tools.support.benchmarks._timing import check_checkout, heading, table
from tools.support.command import ROOT, Parser, renamed
from transfer import task


@dataclass(frozen=True)
class Part:
    """A trainer, as the embedded grid of 593bb30 calls it."""

    recipe: str
    """In configs/TASK."""
    data: dict[str, Any]
    """What is drawn; of pretraining a third of the grid's, for time."""
    steps: int
    """To be timed, all of the first epoch."""


PARTS = {
    "pretrain": Part("demo_short", {"train": 1600, "val": 320, "size": 64}, 40),
    "detection": Part("demo_tiny", {"train": 500, "val": 200, "size": 96}, 20),
    "captioning": Part("demo_tiny", {"train": 1500, "val": 300, "size": 96}, 100),
    "classification": Part("demo_tiny", {"train": 300, "val": 500, "size": 64, "seed": 1,
                                         "smallest": 0.1, "largest": 0.2}, 8),
}  # fmt: skip
Seconds = tuple[float, float]
"""That passed, and of the processors."""


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--other", type=Path, required=True, help="Another checkout of this project.")
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=1)
    options = parser.parse(argv)
    check_ranges("--", options, rounds=">= 1", threads="[1, 1024]")
    check_checkout("--other", options.other)

    print(heading("trees", argv, options.threads) + "\n")
    head = ["", "other, s", "this, s", "ratio", "other, processor s", "this, processor s", "ratio"]
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            rows = list(_measure(part, options, Path(folder)))
            print(table([f"**{part}**", *head[1:]], rows) + "\n", flush=True)


def _measure(name: str, options: Any, folder: Path) -> Iterator[list[str]]:
    """The rows of a part."""
    kind, part = task.by_name(name), PARTS[name]
    data = task.load(kind.demo.draw)(folder, **part.data)
    there = options.other.resolve() / "configs" / name / f"{part.recipe}.yaml"
    here = folder / f"{name}.yaml"
    here.write_text(yaml.safe_dump(update_recipe(read_yaml(there))), encoding="utf-8")
    shared = ["--data", str(data), "--device", "cpu"]
    if name != "pretrain":
        shared += ["--backbone", str(_backbone(folder))]
    runs = {
        "start-up": ["--stop-after", "1"],
        "step": ["--stop-after", str(1 + part.steps)],
        "epoch": ["--epochs", "1"],
    }
    sides = {options.other.resolve(): there, ROOT: here}
    best: dict[tuple[str, Path], Seconds] = {}
    for _ in range(options.rounds):
        for run, own in runs.items():
            for tree, recipe in sides.items():
                words = ["--config", str(recipe), *shared, *own]
                took = run_tool(tree, kind.tool, words, options.threads)
                before = best.get((run, tree), took)
                best[run, tree] = min(took[0], before[0]), min(took[1], before[1])
    for tree in sides:
        until, first = best["step", tree], best["start-up", tree]
        best["step", tree] = (
            (until[0] - first[0]) / part.steps,
            (until[1] - first[1]) / part.steps,
        )
    for run in runs:
        pairs = zip(best[run, options.other.resolve()], best[run, ROOT], strict=True)
        yield [run, *(f"{x:.3g}" for a, b in pairs for x in (a, b, b / a))]


def run_tool(tree: Path, tool: str, words: list[str], threads: int) -> Seconds:
    """Call a tool of a tree in a folder of its own, which is removed.

    Raises:
        UsageError: it failed; the message ends with its standard error.
    """
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w+b") as output:
        command = [sys.executable, str(tree / "tools" / tool), *words, "--out", f"{folder}/run"]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "XDG_CACHE_HOME": folder}
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)  # with the processes that it has started
        seconds = time.perf_counter() - started
        if code := os.waitstatus_to_exitcode(status):
            output.seek(0)
            said = output.read().decode(errors="replace").strip()[-2000:]
            raise UsageError(f"{' '.join(command)} failed ({code}):\n{said}")
    return seconds, usage.ru_utime + usage.ru_stime


def update_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of before under today's names."""
    result: dict[str, Any] = {}
    for key, value in recipe.items():
        inner = value if isinstance(value, dict) else {"": value}
        for field, entry in inner.items():
            *sections, last = renamed(f"{key}.{field}".rstrip(".")).split(".")
            target = result
            for section in sections:
                target = target.setdefault(section, {})
            target[last] = entry
    return result


def _backbone(folder: Path) -> Path:
    """The file of a network with drawn weights."""
    from pretrain.backbone import Backbone, BackboneSpec, Provenance

    spec = BackboneSpec(arch="resnet10t", input_size=(3, 48, 48), crop_pct=1.0, num_classes=10)
    path = folder / "backbone.pth"
    if not path.exists():
        Backbone.of(spec.create(10, 0), spec, Provenance(seed=0)).save(path)
    return path
