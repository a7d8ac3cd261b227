"""What recipes of pretraining cost: images, floating-point operations, and hours where measured.

python tools/bench.py recipes [NAME ...] [--measure] [--batch 8] [--device cpu]
    [--precision 32-true] [--threads 1]

NAME is a recipe of configs/pretrain on ImageNet, CIFAR or Tiny ImageNet; all of them without. The
operations of an image are three times those of its forward pass, which torch.utils.flop_counter
counts, a multiplication with its addition as two: each layer has two gradients of its own size.
(Its own count of a backward pass is too high where convolutions have groups.)

--measure times the training step of each network on random images; hours are images / (images per
second), without reading data and without scoring. On a CPU it is the processor time that counts,
which other programs hardly change: hours are those of a core. Of your own data and device,
tools/pretrain.py --dry-run says the same of the whole run.
"""

from collections import Counter
from functools import cache
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.errors import UsageError, check_ranges
from tools.support.benchmarks._timing import heading, table, take_turns, wait
from tools.support.command import ROOT, Parser, load_config

RECIPES = ROOT / "configs" / "pretrain"
# the first word of a recipe's name: training images and classes of its data
DATA = {"imagenet": (1_281_167, 1000), "cifar": (50_000, 100), "cifar10": (50_000, 10),
        "tinyimagenet": (100_000, 200)}  # fmt: skip
# on small pictures, or measured in docs/results.md: what it takes is in the recipe's head
_SMALL = ("cifar10_cpu", "cifar10_small")


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = Parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    numbers = {"batch": 8, "threads": 1, "rounds": 2}
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse(argv)
    check_ranges("--", options, **dict.fromkeys(numbers, ">= 1"))
    known = names()
    if unknown := sorted({*options.names} - {*known}):
        raise UsageError(f"there is no recipe {unknown[0]!r}; there are {', '.join(known)}.")

    import torch

    torch.set_num_threads(options.threads)
    print(heading("recipes", argv, options.threads) + "\n")
    head = ["recipe", "parameters, M", "images, M", "PFLOPs", "images/s", "hours"]
    rows, speeds = [], {}
    for name in options.names or known:
        config = load_config(PretrainConfig, RECIPES / f"{name}.yaml")
        images, classes = trained(name, config), DATA[name.partition("_")[0]][1]
        measured = ["", ""]
        if options.measure:
            key = (config.model.arch, str(config.model.args), config.dataset.image_size)
            if key not in speeds:
                speeds[key] = speed(config, classes, options)
            measured = [f"{speeds[key]:.3g}", f"{images / speeds[key] / 3600:,.0f}"]
        count = parameters(config, classes) / 1e6
        work = operations(name, config) / 1e15
        rows.append([name, f"{count:.2f}", f"{images / 1e6:.1f}", f"{work:,.0f}", *measured])
    print(table(head, rows))


def names() -> list[str]:
    """The recipes on data whose size is known."""
    stems = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    return [stem for stem in stems if stem.partition("_")[0] in DATA and stem not in _SMALL]


def trained(name: str, config: PretrainConfig) -> int:
    """Images of the whole run."""
    return DATA[name.partition("_")[0]][0] * (config.epochs or 0)


def parameters(config: PretrainConfig, classes: int) -> int:
    """Of the network with its classifier."""
    from pretrain.spec import create_outline

    network = create_outline(config.model.arch, num_classes=classes, **config.model.args)
    return sum(parameter.numel() for parameter in network.parameters())


def operations(name: str, config: PretrainConfig) -> float:
    """Floating-point operations of the whole run, forward and backward."""
    images, classes = DATA[name.partition("_")[0]]
    sizes = Counter(config.dataset.size_at(epoch) for epoch in range(config.epochs or 0))
    arch, arguments = config.model.arch, tuple(sorted(config.model.args.items()))
    each = {size: count(arch, arguments, classes, size) for size in sizes}
    return 3 * images * sum(epochs * each[size] for size, epochs in sizes.items())


@cache
def count(arch: str, arguments: tuple[tuple[str, Any], ...], classes: int, size: int) -> float:
    """Operations of one image forward, from the pass of two on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pretrain.spec import create_outline

    network = create_outline(arch, num_classes=classes, **dict(arguments)).train()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(2, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2


def speed(config: PretrainConfig, classes: int, options: Any) -> float:
    """Images a second of training steps on random images: the best of some rounds."""
    import time

    import torch
    from torch.nn import functional

    from pretrain.spec import create_model

    device, size = torch.device(options.device), config.dataset.image_size
    arch, arguments = config.model.arch, config.model.args
    network: Any = create_model(arch, num_classes=classes, **arguments).train()
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9, nesterov=True, fused=True)
    images = torch.randn(options.batch, 3, size, size, device=device)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.rand(options.batch, classes, device=device).softmax(1)

    def step() -> None:
        half = options.precision == "bf16-mixed"
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = functional.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait(device.type)

    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = take_turns({"step": step}, options.rounds, clock)["step"]
    return float(options.batch / seconds)
