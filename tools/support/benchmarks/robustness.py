"""The robustness suite beside the plain passes of the network that it needs: seconds, and memory.

python tools/bench.py robustness [--arch resnet50] [--images 32] [--batch-size 16] [--rounds 2]
    [--backbone FILE]          instead of an architecture with weights as timm draws them
    [--data DIR]               photographs, which the suite decodes; else images drawn by number
    [--frost DIR]              ImageNet-C's photographs of frost, for 15 corruptions in place of 14
    [--parts attacks ...] [--device cuda] [--threads 1]

A plain pass takes a normalised batch that lies in memory, by the same network and in the same
precision: forward alone, or forward and backward to the images (the weights want no gradient). They
and the suite, which builds the network, reads its images and draws its pictures besides, take turns
in every round, and the best of each counts. On the CPU the seconds are those of the processor, so
that other programs do not count.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pretrain.errors import UsageError
from tools.support.benchmarks._timing import (
    heading,
    peak_memory_mib,
    table,
    wait,
)
from tools.support.command import Parser
from transfer.evaluation.config import RobustnessConfig

PARTS = ("attacks", "occlusion", "between", "corruptions")


def main(argv: list[str]) -> None:
    """Time each part and its passes in turn, then measure the memory for N and 4 N images."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--arch", default="resnet50", help="One of timm's.")
    add("--backbone", help="A backbone file.")
    add("--data", type=Path, help="A folder of labelled photographs.")
    add("--frost", help="A folder.")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--images", type=int, default=32)
    add("--batch-size", type=int, default=16)
    add("--rounds", type=int, default=2, help="The best one counts.")
    add("--threads", type=int, default=1)
    add("--device", choices=["cpu", "cuda"], default="cpu")
    options: Any = parser.parse(argv)
    if min(options.images, options.batch_size, options.rounds, options.threads) < 1:
        raise UsageError("--images, --batch-size, --rounds and --threads must be at least 1")
    print(heading("robustness", argv, options.threads) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_time_parts(options, Path(folder)))
    head = ["part", "forward", "forward and backward", "seconds of these", "of the part", "ratio"]
    print(table(head, rows) + "\n")
    code = f"import sys; from {__name__} import run_all; run_all(*sys.argv[1:])"
    counts = (2 * options.batch_size, 8 * options.batch_size)
    peaks = [peak_memory_mib(code, options.device, options.device, str(options.batch_size), str(n))
             for n in counts]  # fmt: skip
    figures = [f"{peak:,.0f} MiB for {n} images" for peak, n in zip(peaks, counts, strict=True)]
    print(f"Peak memory, resnet10t at 96 pixels, all parts: {', '.join(figures)}.")


def passes(part: str, options: RobustnessConfig) -> tuple[int, int]:
    """What a part needs of each image: passes forward, and passes forward and backward."""
    from transfer.evaluation.corruptions import NAMES, SEVERITIES
    from transfer.evaluation.robustness import BLENDS

    corruptions = len(NAMES) - (options.frost is None)
    return {
        "attacks": (4, 1 + options.pgd_steps),  # three of FGSM and PGD's result; the clean image
        "occlusion": (2 * options.sizes, 0),  # both curves share the image and what has nothing
        "between": (1 + len(BLENDS) - 2 + options.sizes - 1, 0),  # the ends of both are images
        "corruptions": (corruptions * len(SEVERITIES), 0),
    }[part]


def _time_parts(options: Any, folder: Path) -> Iterator[list[str]]:
    """A row of the table for each part, and one for all."""
    import torch

    from transfer.evaluation import robustness
    from transfer.evaluation.images import Labels
    from transfer.evaluation.session import normalise, to_unit

    torch.set_num_threads(options.threads)
    backbone = _backbone(options)
    config = RobustnessConfig(frost=options.frost)
    session = _session(options.device, options.batch_size, folder)
    if options.data is None:
        data: Any = _drawn(options.images, 256)
    else:
        opened = robustness.open_data(backbone, options.data, config, Labels())
        data = _thinned(opened.images, options.images)
    network = session.network(backbone)
    batch, numbers = next(session.batches(data.images, backbone.spec, "batch"))
    images = normalise(to_unit(batch), backbone.spec)
    labels = torch.from_numpy(data.images.labels)[numbers].to(session.device)

    def forward() -> None:
        with torch.inference_mode():
            network(images)

    def backward() -> None:
        leaf = images.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(network(leaf), labels, reduction="sum")
        torch.autograd.grad(loss, leaf)

    def run(part: Any) -> None:
        inside = replace(session, folder=folder / str(next(runs)))
        robustness.evaluate(backbone, data, replace(config, parts=[part]), inside)

    def seconds(side: Callable[[], None]) -> float:
        clock = time.perf_counter if options.device == "cuda" else time.process_time
        wait(options.device)
        started = clock()
        side()
        wait(options.device)
        return clock() - started

    totals, runs = [0.0, 0.0], count()
    forward()
    backward()  # the first of all is slower
    for part in options.parts:
        best = [float("inf")] * 3
        for _ in range(options.rounds):
            sides: list[Callable[[], None]] = [forward, backward, partial(run, part)]
            best = list(map(min, best, map(seconds, sides)))
        once, twice = passes(part, config)
        plain = (once * best[0] + twice * best[1]) * len(data.images) / len(batch)
        totals = [totals[0] + plain, totals[1] + best[2]]
        yield [part, f"{once}", f"{twice}", *_figures(plain, best[2])]
    yield ["all", "", "", *_figures(*totals)]


def _figures(plain: float, suite: float) -> list[str]:
    return [f"{plain:.1f}", f"{suite:.1f}", f"{suite / plain:.2f}"]


def run_all(device: str, batch_size: str, images: str) -> None:
    """All parts on drawn images; for a process whose memory is measured."""
    import torch

    from transfer.evaluation import robustness

    torch.set_num_threads(1)
    backbone = _backbone(None)
    config = RobustnessConfig(pgd_steps=2, sizes=4)
    with tempfile.TemporaryDirectory() as folder:
        session = _session(device, int(batch_size), Path(folder))
        robustness.evaluate(backbone, _drawn(int(images), 110), config, session)


def _session(device: Any, batch_size: int, folder: Path) -> Any:
    from pretrain.training import make_fabric
    from transfer.evaluation.session import Session

    return Session(
        fabric=make_fabric(device), folder=folder, suite="robustness", batch_size=batch_size,
        workers=0,
    )  # fmt: skip


def _backbone(options: Any) -> Any:
    """Of the options; without them the small one of the memory."""
    from pretrain.backbone import Backbone, BackboneSpec, Provenance

    if options is not None and options.backbone:
        return Backbone.load(options.backbone)
    if options is None:
        spec = BackboneSpec(arch="resnet10t", input_size=(3, 96, 96), num_classes=1000)
    else:
        spec = BackboneSpec(arch=options.arch, num_classes=1000)
    return Backbone.of(spec.create(1000, seed=0), spec, Provenance())


def _drawn(number: int, side: int) -> Any:
    """Images of random pixels that are made as they are read, and take no memory."""
    import numpy as np
    import torch

    from pretrain.data import Images
    from pretrain.training import generator

    class Drawn(Images):
        def read(self, index: int) -> torch.Tensor:
            draw = generator(0, "pixels", index)
            return torch.randint(256, (3, side, side), dtype=torch.uint8, generator=draw)

    labels = np.arange(number, dtype=np.int64) % 1000
    return SimpleNamespace(images=Drawn(tuple(map(str, range(1000))), labels))


def _thinned(images: Any, number: int) -> Any:
    """At most `number` of the images, at equal distances."""
    import numpy as np

    from pretrain.data import Images

    places = np.linspace(0, len(images) - 1, min(number, len(images))).astype(int)

    class Thinned(Images):
        def read(self, index: int) -> Any:
            return images.read(int(places[index]))

    return SimpleNamespace(images=Thinned(images.classes, images.labels[places]))
