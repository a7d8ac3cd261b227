"""Pretraining against timm: mixing, loader, training step, the whole pipeline, memory.

python tools/bench.py pretrain --images DIR [--parts mixing loader step pipeline memory]
    [--arch resnet50] [--size 224] [--batch 16] [--precision 32-true] [--device cpu] [--rounds 5]

DIR holds class folders of photographs. timm's side is its own create_dataset, create_loader, Mixup,
create_model, create_optimizer_v2 and SoftTargetCrossEntropy in the loop of its train.py; once with
its default memory layout and once with channels_last, which is ours.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pretrain.errors import UsageError
from tools.benchmarks._timing import hardware, peak_memory_mib, table, take_turns

PARTS = ("mixing", "loader", "step", "pipeline", "memory")


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    options = _options(argv)
    import torch

    torch.set_num_threads(options.threads)
    command = "python tools/bench.py pretrain " + " ".join(argv)
    print(f"`{command}`: {hardware(options.threads)}\n")
    run: dict[str, Callable[[argparse.Namespace], str]] = {
        "mixing": mixing,
        "loader": loader,
        "step": step,
        "pipeline": pipeline,
        "memory": memory,
    }
    for part in options.parts:
        print(run[part](options) + "\n", flush=True)


# ---- mixing


def mixing(options: argparse.Namespace) -> str:
    """Each way to mix, in the time of cloning the batch."""
    import torch
    from timm.data.mixup import Mixup as TimmMixup
    from torchvision.transforms import v2

    from pretrain.mixing import CutMix, Cutout, Mix, Mixup

    shape = (256, 3, 224, 224)
    labels = torch.randint(0, 1000, (shape[0],))
    draws = torch.Generator().manual_seed(0)
    ours: dict[str, Mix] = {
        **{
            f"CutMix, {who}": CutMix(granularity=who) for who in ("batch", "pair", "half", "sample")
        },
        **{f"Mixup, {who}": Mixup(granularity=who) for who in ("batch", "sample")},
        "Cutout": Cutout(),
    }
    theirs: dict[str, Any] = {
        f"timm CutMix, {mode} (in place)": TimmMixup(
            mixup_alpha=0, cutmix_alpha=1.0, mode=mode, num_classes=1000
        )
        for mode in ("batch", "pair", "elem")
    }
    theirs["torchvision CutMix, batch"] = v2.CutMix(num_classes=1000)
    figures: dict[str, dict[str, float]] = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.randn(shape).contiguous(memory_format=layout)
        sides: dict[str, Callable[[], object]] = {"clone": images.clone}
        for name, mix in ours.items():
            sides[name] = partial(mix, images, labels, 1000, draws)
        for name, other in theirs.items():
            sides[name] = partial(other, images, labels)
        best = take_turns(sides, options.rounds)
        figures[str(layout)] = {name: seconds / best["clone"] for name, seconds in best.items()}
    names = list(next(iter(figures.values())))
    rows = [[name, *(f"{figures[key][name]:.2f}" for key in figures)] for name in names]
    shown = " x ".join(map(str, shape))
    return f"Mixing on the CPU, {shown} float32, in clones of the batch:\n\n" + table(
        ["", *(key.removeprefix("torch.") for key in figures)], rows
    )


# ---- loader


def loader(options: argparse.Namespace) -> str:
    """Images a second and core, from files to batches that a network takes.

    One thread, as every loader process has.
    """
    import numpy as np
    import torch

    from tools.benchmarks._sides import our_loader, our_pixels, timm_loader

    ours, theirs, pixels = our_loader(options, 0), timm_loader(options, 0), our_pixels(options)
    counts: dict[str, int] = {}

    def mine() -> None:
        draw = np.random.default_rng(0)
        counts["ours"] = sum(len(pixels.augmented(x, draw)) for x, _ in ours.epoch(0))

    def timm() -> None:
        counts["timm"] = sum(len(x) for x, _ in theirs)

    torch.set_num_threads(1)
    best = take_turns({"ours": mine, "timm": timm}, options.rounds, clock=time.process_time)
    torch.set_num_threads(options.threads)
    speed = {name: counts[name] / best[name] for name in best}
    rows = [[name, f"{value:.0f}", f"{value / speed['timm']:.2f}"] for name, value in speed.items()]
    return (
        f"Loader: {counts['ours']} photographs of {options.images.name} to normalised batches of "
        f"{options.size} pixels, random resized crop and flip, one thread, by processor time:\n\n"
        + table(["", "images a second and core", "times timm"], rows)
    )


# ---- step and pipeline


def step(options: argparse.Namespace) -> str:
    """A training step on a batch that is there."""
    import torch

    from tools.benchmarks._sides import (
        network_alone,
        our_loader,
        our_pixels,
        our_side,
        timm_side,
    )

    draws = torch.Generator().manual_seed(0)
    shape = (options.batch, 3, options.size, options.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws).to(options.device)
    labels = torch.randint(0, 1000, (options.batch,), generator=draws).to(options.device)
    last = our_pixels(options).normalised(pixels)
    first = last.contiguous()
    mine, bare = our_side(options, our_loader(options, 0)), network_alone(options)
    timm_first, timm_last = timm_side(options, False), timm_side(options, True)
    best = take_turns(
        {
            "ours": lambda: mine((pixels, labels)),
            "timm, channels_last": lambda: timm_last((last.clone(), labels)),
            "timm": lambda: timm_first((first.clone(), labels)),
            "the network alone": lambda: bare((last, labels)),
        },
        options.rounds,
    )
    alone = best.pop("the network alone")
    return (
        f"Training step, {_setting(options)} (ours from bytes, with normalisation and flip; timm's "
        f"from normalised images):\n\n{_ratios(best, options.batch)}\n\n"
        f"Not the network (forward, backward, optimiser): {100 * (1 - alone / best['ours']):.1f} % "
        f"of our step."
    )


def pipeline(options: argparse.Namespace) -> str:
    """From files to updated weights, loader processes beside the training."""
    from tools.benchmarks._sides import forever, our_loader, our_side, timm_loader, timm_side

    ours, theirs = our_loader(options, options.workers), timm_loader(options, options.workers)
    mine, last, plain = our_side(options, ours), timm_side(options, True), timm_side(options, False)
    mine_from, theirs_from = forever(ours), forever(theirs)
    steps = options.steps

    def go(one: Callable[[Any], None], batches: Iterator[Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(steps):
                one(next(batches))

        return run

    best = take_turns(
        {
            "ours": go(mine, mine_from),
            "timm, channels_last": go(last, theirs_from),
            "timm": go(plain, theirs_from),
        },
        options.rounds,
    )
    return (
        f"Whole pipeline, {_setting(options)}, {options.workers} loader process(es), rounds of "
        f"{steps} steps:\n\n" + _ratios(best, options.batch * steps)
    )


def _setting(options: argparse.Namespace) -> str:
    return (
        f"{options.arch}, {options.size} pixels, batch {options.batch}, {options.precision}, CutMix"
    )


def _ratios(best: dict[str, float], images: int) -> str:
    speed = {name: images / seconds for name, seconds in best.items()}
    rows = [
        [
            name,
            f"{value:.4g}",
            *(f"{value / speed[other]:.2f}" for other in ("timm", "timm, channels_last")),
        ]
        for name, value in speed.items()
    ]
    return table(["", "images/s", "times timm", "times timm, channels_last"], rows)


# ---- memory


def memory(options: argparse.Namespace) -> str:
    """Peak of processes of their own that make three steps each, files included.

    Several, because the allocator of a CPU makes one process need some 200 MiB more than the next.
    """
    code = (
        "import sys, json\n"
        "from tools.benchmarks.pretrain import three_steps\n"
        "three_steps(sys.argv[1], json.loads(sys.argv[2]))"
    )
    plain = json.dumps(
        {
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(options).items()
        }
    )
    peaks: dict[str, list[float]] = {"ours": [], "timm, channels_last": [], "timm": []}
    for _ in range(options.rounds):
        for side, found in peaks.items():
            found.append(peak_memory_mib(code, options.device, side, plain))
    rows = [
        [side, *(f"{x:,.0f}" for x in (min(found), median(found), max(found)))]
        for side, found in peaks.items()
    ]
    return (
        f"Peak memory of a training process, {_setting(options)}, {options.rounds} process(es) a "
        "side:\n\n" + table(["MiB", "least", "median", "most"], rows)
    )


def three_steps(side: str, plain: dict[str, Any]) -> None:
    """One side alone, for its memory."""
    import torch

    from tools.benchmarks._sides import forever, our_loader, our_side, timm_loader, timm_side

    options = argparse.Namespace(**plain)
    options.images = Path(options.images)
    torch.set_num_threads(options.threads)
    batches = our_loader(options, 0) if side == "ours" else timm_loader(options, 0)
    one = our_side(options, batches) if side == "ours" else timm_side(options, "last" in side)
    source = forever(batches)
    for _ in range(3):
        one(next(source))


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.py pretrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--images", type=Path, required=True, help="Class folders of photographs.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    numbers = {"size": 224, "batch": 16, "threads": 2, "workers": 1, "rounds": 5, "steps": 4}
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"Default: {value}.")
    options = parser.parse_args(argv)
    if not options.images.is_dir():
        raise UsageError(f"there is no folder {options.images}.")
    for name in numbers:
        least = 0 if name == "workers" else 1
        if getattr(options, name) < least:
            raise UsageError(f"--{name} is {getattr(options, name)}; it must be at least {least}")
    return options
