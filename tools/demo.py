"""The whole chain, small and real, in at most 15 minutes on 2 CPU cores.

Draws the shape world, pretrains a plain and a CutMix backbone, carries each into a Faster R-CNN and
into a captioner, and prints one table. What is finished is kept: run again to continue.

    python tools/demo.py [--out runs/demo] [--seed 0] [--device auto]
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Literal

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.config import PretrainConfig
from pretrain.errors import UserError
from pretrain.run import write_text
from tools.command import ROOT, Config, end, load_config
from transfer.captioning.config import CaptioningConfig
from transfer.detection.config import DetectionConfig


def main(argv: list[str] | None = None) -> None:
    """Six runs and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="Folder of the runs.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of every run.")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    options = parser.parse_args(argv)
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; it must be at least 0")

    from dataclasses import replace

    from pretrain import shapes
    from pretrain.backbone import Backbone
    from pretrain.engine import pretrain
    from pretrain.progress import say
    from pretrain.run import Run
    from pretrain.training import make_fabric
    from transfer.captioning.engine import finetune as finetune_captioner
    from transfer.detection.engine import finetune as finetune_detector
    from transfer.report import read_results, report

    started = time.monotonic()
    fabric = make_fabric(options.device)
    world = options.out / "shape_world"
    images = shapes.classification(world, train=5000, val=1000, size=64)
    voc = shapes.detection(world, train=1000, val=300, size=128)
    coco = shapes.captions(world, train=2000, val=300, size=96)

    def recipe(kind: type[Config], task: str, **changes: object) -> Config:
        path = ROOT / "configs" / task / "demo_short.yaml"
        return load_config(kind, path, seed=options.seed, **changes)

    def step(number: int, title: str, run: Run) -> bool:
        """Announce a step; False where its result stands already."""
        state = ": done before" if run.finished else ""
        minutes = (time.monotonic() - started) / 60
        say(f"\n[{number}/6] {title}{state}   ({minutes:.1f} min so far)")
        return not run.finished

    methods: tuple[Literal["none", "cutmix"], ...] = ("none", "cutmix")
    for place, method in enumerate(methods):
        run = Run(options.out / f"pretrain-{method}-seed{options.seed}")
        if step(3 * place + 1, f"pretraining with mixing: {method}", run):
            plan = recipe(PretrainConfig, "pretrain", data=str(images))
            pretrain(replace(plan, mixing=replace(plan.mixing, method=method)), run, fabric)
        file = run.folder / "backbone.pth"
        backbone = Backbone.load(file)

        run = Run(options.out / f"detection-{method}-seed{options.seed}")
        if step(3 * place + 2, f"detector from {backbone.name}", run):
            finetune_detector(
                backbone,
                recipe(DetectionConfig, "detection", data=str(voc), backbone=str(file)),
                run,
                fabric,
            )

        run = Run(options.out / f"captioning-{method}-seed{options.seed}")
        if step(3 * place + 3, f"captioner from {backbone.name}", run):
            finetune_captioner(
                backbone,
                recipe(CaptioningConfig, "captioning", data=str(coco), backbone=str(file)),
                run,
                fabric,
            )

    table = report(read_results(options.out)[0])
    write_text(options.out / "report.md", table)
    seed = options.seed
    print(f"""
{table}
The table is {options.out}/report.md. Look at:
  a mixed batch     {options.out}/pretrain-cutmix-seed{seed}/pictures/mixed_batch.png
  detections        {options.out}/detection-cutmix-seed{seed}/pictures/detections.png
  captions          {options.out}/captioning-cutmix-seed{seed}/captions.html
Six runs of one seed show that the chain works, not which backbone is better: --seed 1 adds a
replicate to the table. Your own images: python tools/pretrain.py --data DIR""")


if __name__ == "__main__":
    end(main, again="python tools/demo.py")
