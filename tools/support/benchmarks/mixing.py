"""The price of mixing, from a uint8 batch to mixed normalised floats, beside other libraries.

python tools/bench.py mixing [--parts pixels network] [--methods cutmix mixup ...] [--device cpu]
    [--batch 256] [--size 224] [--rounds 5] [--draws 4] [--memory kept] [--arch resnet50]

pixels: every method that needs no network, at each granularity, in times of casting, flipping and
    normalising alone (its flips are in all of ours, but in nobody else's); timm's Mixup behind the
    normalisation of its loader, its FastCollateMixup, torchvision's v2 and kornia's, where it is
    installed.
network: training steps of those that look at images or features, of a ResNet and of a DeiT, in
    times of a step without mixing.

Every round has the same draws, --draws of them. --memory returned is what a plain Python process
has: each block that is freed goes back to the system, which clears its pages again; with kept, as
this project trains on a CPU, glibc keeps it.
"""

from typing import get_args

from pretrain.config import Method
from pretrain.errors import check_ranges
from tools.support.benchmarks._timing import heading
from tools.support.command import Parser

PARTS = ("pixels", "network")


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    parser = Parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    ours = [name for name in get_args(Method) if name != "none"]
    parser.add_argument("--methods", nargs="+", choices=ours, default=ours)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--memory", choices=["kept", "returned"], default="kept")
    parser.add_argument("--arch", default="resnet50", help="Of the network; TransMix has a DeiT.")
    numbers = {"size": 224, "batch": 256, "threads": 2, "rounds": 5, "draws": 4}
    numbers |= {"network-batch": 16}
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse(argv)
    names = [name.replace("-", "_") for name in numbers]
    check_ranges("--", options, **dict.fromkeys(names, ">= 1"))
    check_ranges("--", options, size="[1, 8192]", threads="[1, 1024]")

    import torch

    from pretrain.training import make_fabric
    from tools.support.benchmarks import _mixing_parts

    torch.set_num_threads(options.threads)
    if options.memory == "kept":
        make_fabric(options.device)
    print(heading("mixing", argv, options.threads) + "\n")
    for part in options.parts:
        print(getattr(_mixing_parts, f"measure_{part}")(options) + "\n", flush=True)
