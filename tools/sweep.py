"""Tune several methods with one budget, in trials and in epochs, on Optuna.

python tools/sweep.py configs/sweeps/X.yaml --data DIR [--out runs/sweep] [--jobs N]

Each arm spends exactly the same: trials are halved rung by rung, none ends early because another
was fast. The same command in several terminals, or on several machines that share --out, works on
one sweep, and goes on after a kill: no trial is lost or made twice, an unfinished one continues
from its checkpoint to the same bits. OUT/index.html has what came of it. docs/sweep.md has the
keys of the file.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from pretrain.files import write_text
from pretrain.progress import log
from tools.support.command import ROOT, SYNTHETIC, Parser, run_main
from transfer.task import PRETRAIN, load


def main(argv: list[str] | None = None) -> None:
    """Check everything, train what is missing, write the page."""
    options = _options(argv)
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "a sweep needs optuna, which is not installed: pip install 'cutmix-transfer[sweep]'"
        ) from error
    from tools.support.sweep.collect import collect
    from tools.support.sweep.config import Sweep, read_sweep
    from tools.support.sweep.launch import admit, run_workers
    from tools.support.sweep.page import to_html, to_markdown

    config, out = read_sweep(options.config), options.out
    recipe = Path(config.config)
    recipe = recipe if recipe.exists() else ROOT / recipe
    data = options.data or str(SYNTHETIC / PRETRAIN.name)
    sweep = Sweep(config=config, recipe=recipe, data=data, out=out)
    sweep.check()
    if config.sampler == "tpe" and config.brackets == 1:
        log(
            "note: sampler is tpe, which learns from the brackets before, and there is one: its "
            "points are random. Give brackets: 2 or more."
        )
    storage = admit(sweep, options.storage)
    if options.data is None:
        sweep = replace(sweep, data=str(load(PRETRAIN.demo.draw)(SYNTHETIC, **PRETRAIN.demo.tool)))
    gpus = [name for name in options.devices.split(",") if name]
    studies = run_workers(sweep, storage, options.jobs, options.device, gpus)

    result = collect(sweep, studies)
    write_text(out / "index.html", to_html(result))
    write_text(out / "sweep.md", to_markdown(result))
    write_text(out / "result.json", json.dumps(result, indent=1) + "\n")
    print(f"{to_markdown(result)}\nLook at: {out / 'index.html'}")


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("sweep", type=Path, nargs="?", help="The sweep: a YAML file, see docs/sweep.md.")
    add("--config", type=Path, metavar="SWEEP", help="The same.")
    add("--data", metavar="DIR", help="As of tools/pretrain.py (default: synthetic shapes).")
    add("--out", type=Path, default=Path("runs/sweep"), help="Folder of the sweep.")
    storage = "Optuna's, such as postgresql://user@host/name (default: an SQLite file in OUT)."
    add("--storage", metavar="URL", help=storage)
    add("--jobs", type=int, default=1, metavar="N", help="Processes here, cores shared.")
    devices = ["auto", "cpu", "cuda", "mps"]
    add("--device", choices=devices, default="auto", help="Where to compute.")
    add("--devices", default="", metavar="0,1", help="GPUs for the processes, in turn.")
    options = parser.parse(argv)
    if (options.sweep is None) == (options.config is None):
        raise UsageError("one file names the sweep: python tools/sweep.py configs/sweeps/X.yaml")
    options.config = options.sweep or options.config
    check_ranges("--", options, jobs="[1, 1024]")
    if options.out.is_file():
        raise UsageError(f"--out {options.out} is a file; a folder is needed.")
    return options


if __name__ == "__main__":
    run_main(main, again="the same command")
