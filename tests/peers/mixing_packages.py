"""What ten packages mean by "CutMix, alpha 1": labels, pixels, who shares a draw of lam.

    python tests/peers/mixing_packages.py [--environments DIR] [NAME ...]

Each package is installed from PyPI into an environment of its own (in a temporary folder, or kept
in DIR: 3 GB, ten minutes); torch is borrowed from the one that runs this. NAME is one of those of
mixing_calls.py. Prints a Markdown table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from environments import make_environment, reason
from mixing_calls import BATCH, CALLS, batch, measure, told

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# torchvision and timm are those of the environment that runs this
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "kornia": ("kornia==0.9.0",),
    "mosaicml": (
        "torchmetrics==1.7.4",
        "torch_optimizer==0.3.0",
        "coolname==5.0.0",
        "mosaicml-cli==0.8.3",
        "importlib_metadata==10.2.0",
        "py-cpuinfo==9.0.0",
        "psutil==7.2.2",
        "tabulate==0.9.0",
    ),
    "fastai": ("fastai==2.8.12",),
    "mmpretrain": ("mmpretrain==1.2.0", "mmengine==0.10.7", "mmcv-lite==2.2.0"),
    "keras": ("keras==3.15.1",),
    "keras-cv": ("keras-cv==0.9.0", "tensorflow-cpu==2.21.0"),
    "monai": ("monai==1.6.1",),
    "ultralytics": ("ultralytics==8.4.190",),
}
# it asks for an older torch, which its mixing does not need
ALONE = {"mosaicml": ("mosaicml==0.32.1",)}
COLUMNS = (
    "package",
    "call",
    "label error",
    "own pixels",
    "own label",
    "lam shared by",
    "boxes at the border",
)
GRANULARITIES = ("batch", "pair", "sample")


def run(package: str, folder: Path, names: list[str]) -> Iterator[dict]:
    """The lines of a package."""
    script, python = Path(__file__).parent / "mixing_calls.py", Path(sys.executable)
    if package in REQUIREMENTS:
        alone = ALONE.get(package, ())
        try:
            python = make_environment(folder / package, REQUIREMENTS[package], True, alone)
        except subprocess.CalledProcessError as error:
            yield {"package": package, "call": "not installed", "failure": reason(error)}
            return
    result = subprocess.run([python, script, *names], stdout=subprocess.PIPE, text=True)
    yield from map(json.loads, result.stdout.splitlines())


def ours() -> Iterator[dict]:
    """The lines of this project."""
    import torch

    from pretrain.mixing import CutMix

    for granularity in GRANULARITIES:
        mix, generator = CutMix(granularity=granularity), torch.Generator().manual_seed(0)

        def mixed(mix: CutMix = mix, generator: torch.Generator = generator):
            result = mix(*batch(), BATCH, generator)
            return told(result.images, result.targets)

        call = f"`CutMix(granularity='{granularity}')`"
        yield {"package": "here", "call": call} | measure(mixed)


def row(line: dict) -> str:
    """Of the table."""
    title = f"{line['package']} {line.get('version', '')}".strip()
    if "failure" in line:
        cells = [line["failure"][:100], "", "", "", ""]
    elif "mixed" in line:
        mixed = f"no label weights; mixes {line['mixed']:.0%} of the pictures"
        cells = [mixed, f"{line['pixels']:.3f}", "", "image", ""]
    else:
        owned = [f"{line[name]:.3f}" for name in ("error", "pixels", "label")]
        cells = [*owned, line["lam"], f"{line['border']:.0%}"]
    return "| " + " | ".join([title, line["call"], *cells]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=Path, metavar="DIR", help="keep them here")
    parser.add_argument("names", nargs="*", choices=[[], *CALLS], metavar="NAME")
    options = parser.parse_args()
    names = options.names or list(CALLS)
    with tempfile.TemporaryDirectory() as work:
        folder = options.environments or Path(work)
        print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
        for package in dict.fromkeys(CALLS[name][0] for name in names):
            wanted = [name for name in names if CALLS[name][0] == package]
            for line in run(package, folder, wanted):
                print(row(line), flush=True)
        for line in ours():
            print(row(line), flush=True)


if __name__ == "__main__":
    main()
