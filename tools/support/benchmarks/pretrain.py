"""Pretraining against timm: loader, training step, the whole pipeline, memory.

python tools/bench.py pretrain --images DIR [--parts loader step pipeline memory]
    [--arch resnet50] [--size 224] [--batch 16] [--precision 32-true] [--device cpu] [--rounds 5]

DIR holds class folders of photographs. timm's side is its own create_dataset, create_loader, Mixup,
create_model, create_optimizer_v2 and SoftTargetCrossEntropy in the loop of its train.py; once with
its default memory layout and once with channels_last, which is ours.
"""

from pathlib import Path

from pretrain.errors import UsageError, check_ranges
from tools.support.benchmarks._timing import heading
from tools.support.command import Parser

PARTS = ("loader", "step", "pipeline", "memory")


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=Path, required=True, help="Class folders of photographs.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    numbers = {"size": 224, "batch": 16, "threads": 2, "workers": 1, "rounds": 5, "steps": 4}
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse(argv)
    if not options.images.is_dir():
        raise UsageError(f"there is no folder {options.images}.")
    check_ranges("--", options, **dict.fromkeys(numbers, ">= 1") | {"workers": "[0, 512]"})
    check_ranges("--", options, size="[1, 8192]", threads="[1, 1024]")

    import torch

    from tools.support.benchmarks import _pretrain_parts

    torch.set_num_threads(options.threads)
    print(heading("pretrain", argv, options.threads) + "\n")
    for part in options.parts:
        print(getattr(_pretrain_parts, f"measure_{part}")(options) + "\n", flush=True)
