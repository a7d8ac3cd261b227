"""How long saving the run's state keeps a training step waiting, at once and by a thread.

python tools/bench.py checkpoints [--arch resnet50] [--size 64] [--batch 4] [--device cpu]
    [--every 1 2 5] [--steps 10] [--out DIR]

Each row saves after every so many steps of SGD with momentum: at once, where the step waits for the
disk, and by a thread beside the steps that follow. Written below is `best.pth`, once an epoch. The
files lie in a new folder below --out, whose disk makes a difference. On a CPU the thread computes
beside the steps, on a GPU it does not.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError, check_ranges
from tools.support.benchmarks._timing import heading, table, wait
from tools.support.command import Parser


def main(argv: list[str]) -> None:
    """Measure both ways."""
    parser = Parser(__doc__)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--every", nargs="+", type=int, default=[1, 2, 5])
    parser.add_argument("--out", type=Path, default=Path(), help="Where the files are written.")
    numbers = {"size": 64, "batch": 4, "threads": 2, "steps": 10}
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse(argv)
    check_ranges("--", options, **dict.fromkeys(numbers, ">= 1"))
    if not options.out.is_dir():
        raise UsageError(f"there is no folder {options.out}.")

    import torch

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        print(heading("checkpoints", argv, options.threads) + "\n")
        print(measure(options, Path(folder)))


def measure(options: Any, folder: Path) -> str:
    """A table of milliseconds: the step without, what saving adds to it, the mean of all steps."""
    import timm
    import torch
    from torch.nn import functional

    from pretrain.backbone import Backbone, BackboneSpec, Provenance
    from pretrain.training.checkpoint import CheckpointWriter, save_checkpoint

    device = torch.device(options.device)
    network = timm.create_model(options.arch).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    images = torch.randn(options.batch, 3, options.size, options.size, device=device)
    labels = torch.zeros(options.batch, dtype=torch.int64, device=device)
    path = folder / "last.pth"

    def state() -> dict[str, Any]:
        return {"model": network.state_dict(), "optimizer": optimizer.state_dict()}

    def times(every: int, save: Callable[[], None]) -> tuple[list[float], list[float]]:
        """Of the calls that save, and of all steps."""
        calls, steps = list[float](), list[float]()
        for number in range(1, max(options.steps, 3 * every) + 1):
            started = time.perf_counter()
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            if every and number % every == 0:
                wait(options.device)
                called = time.perf_counter()
                save()
                calls.append(1000 * (time.perf_counter() - called))
            wait(options.device)
            steps.append(1000 * (time.perf_counter() - started))
        return calls, steps

    writer = CheckpointWriter(path, device)
    ways = {
        "at once": lambda: save_checkpoint(path, state(), device),
        "by a thread": lambda: writer.save(state()),
    }
    times(1, ways["by a thread"])  # warm
    writer.wait()
    _, steps = times(0, lambda: None)
    rows = [["never", "", "", "", f"{sum(steps) / len(steps):.0f}"]]
    for every in options.every:
        for name, save in ways.items():
            calls, steps = times(every, save)
            writer.wait()
            figures = sorted(calls)[len(calls) // 2], max(calls), sum(steps) / len(steps)
            rows.append([f"every {every}", name, *(f"{figure:.0f}" for figure in figures)])
    spec = BackboneSpec(arch=options.arch, input_size=(3, 224, 224), num_classes=1000)
    started = time.perf_counter()
    Backbone.of(network, spec, Provenance()).save(folder / "best.pth")
    best = 1000 * (time.perf_counter() - started)
    head = ["saved", "how", "a save, ms", "the longest", "mean of all steps"]
    size = path.stat().st_size / 1e6
    return f"{table(head, rows)}\n\nA state of {size:.0f} MB; best.pth takes {best:.0f} ms."
