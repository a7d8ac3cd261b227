"""Reading a foreign checkpoint and writing it in every format: seconds, and memory beyond the file.

python tools/bench.py formats [--arch resnet50] [--to torchvision timm ...] [--rounds 3]
    [--python INTERPRETER]                 of the environment that has detectron2, to measure it too

The checkpoint is made here: torchvision's network with weights as it draws them, BatchNorm's
statistics moved. Each format has a process of its own; the proof is part of what is measured.
"""

import argparse
import json
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from pretrain.errors import UsageError
from tools.benchmarks._timing import hardware, in_new_process, table
from transfer.formats.writing import SUFFIX, Format


def main(argv: list[str]) -> None:
    """Make a checkpoint, then read and write it in turn."""
    options = _options(argv)
    command = "python tools/bench.py formats " + " ".join(argv)
    print(f"`{command.rstrip()}`: {hardware(1)}\n")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pth"
        _make(options.arch, checkpoint)
        size = checkpoint.stat().st_size / 2**20
        print(
            f"A {options.arch} of {size:,.1f} MiB; the memory is what a process needs beyond what"
        )
        print("it needs for its libraries, without the processes that it starts.\n")
        best: dict[str, list[float]] = {}
        for turn in range(options.rounds):
            for to in options.to:
                out = Path(folder) / f"{to}-{turn}{SUFFIX[to]}"
                found = _measured(checkpoint, to, out, options.python)
                best[to] = [min(pair) for pair in zip(best.get(to, found), found, strict=True)]
    rows = [
        [to, f"{read:.2f}", f"{write:.2f}", f"{memory:,.0f}", f"{memory / size:.1f}"]
        for to, (read, write, memory) in best.items()
    ]
    print(table(["to", "seconds to read", "to write and prove", "MiB", "times the file"], rows))


def _make(arch: str, path: Path) -> None:
    import torch
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.get_model(arch)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.8, 1.2)  # type: ignore[union-attr]
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    torch.save(network.state_dict(), path)


def _measured(checkpoint: Path, to: str, out: Path, python: str | None) -> list[float]:
    """Seconds to read, seconds to write, MiB; in a process of its own."""
    code = (
        "import sys\n"
        "from tools.benchmarks.formats import once\n"
        "once(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] or None)"
    )
    words = [sys.executable, "-c", code, str(checkpoint), to, str(out), python or ""]
    return [float(value) for value in json.loads(in_new_process(words).splitlines()[-1])]


def once(checkpoint: str, to: Any, out: str, python: str | None) -> None:
    """Read and write, and print what it took."""
    import time

    import torch
    import torchvision  # noqa: F401  (libraries are not what is measured)
    from timm.models import create_model  # noqa: F401

    from pretrain.run import peak_resident_mib
    from transfer import formats
    from transfer.formats.sources import Given

    if to == "onnx":
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    torch.set_num_threads(1)
    before, began = peak_resident_mib(), time.perf_counter()
    backbone = formats.read(checkpoint, Given(source="torchvision"))
    read = time.perf_counter()
    formats.write(backbone, to, out, python=python)
    ended = time.perf_counter()
    print(json.dumps([read - began, ended - read, peak_resident_mib() - before]))


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.py formats",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--arch", default="resnet50", help="One of torchvision's ResNets.")
    parser.add_argument("--to", nargs="+", choices=get_args(Format))
    parser.add_argument("--python", help="Interpreter of the environment that has detectron2.")
    parser.add_argument("--rounds", type=int, default=3, help="Default: 3.")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        raise UsageError(f"--rounds is {options.rounds}; it must be at least 1")
    lacking = {to for to in ("onnx",) if find_spec(to) is None}
    if not options.python and find_spec("detectron2") is None:
        lacking.add("detectron2")
    options.to = options.to or [to for to in get_args(Format) if to not in lacking]
    return options
