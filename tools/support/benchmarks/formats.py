"""Reading a foreign checkpoint and writing it in every format: seconds, and memory.

python tools/bench.py formats [--arch resnet50] [--to torchvision timm ...] [--rounds 3]
    [--python INTERPRETER]                 of the environment that has detectron2, to measure it too

The checkpoint is made here: torchvision's network with weights as it draws them, BatchNorm's
statistics moved. Each format has a process of its own; verifying is part of what is measured. So
has `torch.load` with the file's SHA-256, which reading is compared with; they take turns.
"""

import json
import tempfile
import time
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from tools.support.benchmarks._timing import heading, in_new_process, table
from tools.support.command import Parser
from transfer.formats.writing import FORMATS, SUFFIX

_READING = ("torch.load and SHA-256", "transfer.formats.read")


def main(argv: list[str]) -> None:
    """Make a checkpoint, then read and write it in turn."""
    parser = Parser(__doc__)
    parser.add_argument("--arch", default="resnet50", help="One of torchvision's ResNets.")
    parser.add_argument("--to", nargs="+", choices=FORMATS, help="All that can be verified.")
    parser.add_argument("--python", help="Interpreter of the environment that has detectron2.")
    parser.add_argument("--rounds", type=int, default=3, help="The best one counts.")
    options: Any = parser.parse(argv)
    if options.rounds < 1:
        raise UsageError(f"--rounds is {options.rounds}; it must be at least 1")
    lacking = {to for to in ("onnx", "detectron2") if find_spec(to) is None}
    lacking -= {"detectron2"} if options.python else set()
    formats = options.to or [to for to in FORMATS if to not in lacking]
    print(heading("formats", argv) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pth"
        _make_checkpoint(options.arch, checkpoint)
        size = checkpoint.stat().st_size / 2**20
        print(
            f"A {options.arch} of {size:,.1f} MiB. Memory: what a process needs at most beyond\n"
            "its libraries and a first convolution, without the processes that it starts.\n"
        )
        code = f"import sys; from {__name__} import measure; measure(*sys.argv[1:])"
        best: dict[str, list[float]] = {}
        for turn, (at, to) in product(range(options.rounds), enumerate([*_READING, *formats])):
            out = str(Path(folder) / f"{at}-{turn}{dict(SUFFIX).get(to, '')}")
            output = in_new_process("-c", code, str(checkpoint), to, out, options.python or "")
            measured = json.loads(output.splitlines()[-1])
            best[to] = list(map(min, best.get(to, measured), measured))
    reference = best[_READING[0]][0]
    rows = [
        [side, f"{best[side][0]:.3f}", f"{best[side][0] / reference:.2f}",
         f"{best[side][2]:,.0f}", f"{best[side][2] / size:.2f}"]
        for side in _READING
    ]  # fmt: skip
    head = ["read by", "seconds", "times torch.load", "MiB", "times the file"]
    print(table(head, rows) + "\n")
    rows = [
        [to, f"{best[to][1]:.2f}", f"{best[to][2]:,.0f}", f"{best[to][2] / size:.2f}"]
        for to in formats
    ]
    print(table(["to", "seconds to write and verify", "MiB", "times the file"], rows))


def _make_checkpoint(arch: str, path: Path) -> None:
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


def measure(checkpoint: str, to: Any, out: str, python: str) -> None:
    """Read and write, and print seconds, seconds and MiB; for a process of its own."""
    import torch

    from pretrain.cache import file_sha256
    from pretrain.run import peak_resident_mib
    from transfer import formats

    torch.set_num_threads(1)
    _load_libraries(to, Path(out).with_suffix(".first"))
    before, start = peak_resident_mib(), time.perf_counter()
    if to == _READING[0]:
        _ = torch.load(checkpoint, map_location="cpu", weights_only=True)
        file_sha256(Path(checkpoint))
    else:
        backbone = formats.read(checkpoint, formats.Overrides(source="torchvision"))
    read = time.perf_counter()
    if to not in _READING:
        formats.write(backbone, to, out, python=python or None)
    end = time.perf_counter()
    print(json.dumps([read - start, end - read, peak_resident_mib() - before]))


def _load_libraries(to: str, graph: Path) -> None:
    """What they load with the first convolution is theirs, and not what is measured."""
    import timm  # noqa: F401
    import torch

    convolution, image = torch.nn.Conv2d(3, 8, 3).eval(), torch.zeros(1, 3, 8, 8)
    with torch.inference_mode():
        convolution(image)
    if to == "onnx":
        import onnx  # noqa: F401
        import onnxruntime

        torch.onnx.export(convolution, (image,), graph, dynamo=False)
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
