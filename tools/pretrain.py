"""Train a backbone with CutMix and its family.

python tools/pretrain.py                                  the shape world, 3 minutes on a CPU
python tools/pretrain.py --data DIR                       image folders DIR/{train,val}/CLASS/*.jpg
python tools/pretrain.py --config configs/pretrain/X.yaml --section.field value
"""

import sys
from dataclasses import replace
from pathlib import Path

# this script's own folder comes first on the path, where `import pretrain` would find this script
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.config import PretrainConfig
from tools.command import SHAPE_WORLD, end, parse, show_config

# the world of the demo recipe: 64 pixels, ten classes
WORLD = {"train": 5000, "val": 1000, "size": 64}


def main(argv: list[str] | None = None) -> None:
    """Parse, train, and say what to do next."""
    options = parse(
        PretrainConfig,
        task="pretrain",
        description=str(__doc__),
        default="configs/pretrain/demo.yaml",
        argv=argv,
    )

    from pretrain import shapes
    from pretrain.engine import prepare, pretrain
    from pretrain.training import make_fabric

    config, run = options.config, options.run
    fabric = make_fabric(options.device, config.precision)
    if config.data is None:
        config = replace(config, data=str(shapes.classification(SHAPE_WORLD, **WORLD)))
    if options.dry_run:
        ready = prepare(config)
        show_config(config)
        count = sum(parameter.numel() for parameter in ready.model.parameters())
        print(
            f"# {config.model.arch}: {count / 1e6:.2f} M parameters; {len(ready.train):,} "
            f"training and {len(ready.val):,} validation images of {len(ready.train.classes)} "
            f"classes; {ready.steps_per_epoch:,} steps an epoch, "
            f"{config.epochs * ready.steps_per_epoch:,} in all, on {fabric.device}"
        )
        return
    result = pretrain(config, run, fabric)
    metrics = result.metrics
    print(f"""
{result.backbone["name"]} on {result.data["name"]} ({result.data["train"]:,} images, \
{config.epochs} epochs, {result.seconds / 60:.1f} min)
  validation top-1     {metrics["top1"]:.2f} % (last epoch), \
{metrics["top1_best"]:.2f} % (best, epoch {metrics["best_epoch"]})
  backbone             {run.folder}/backbone.pth   fingerprint {result.backbone["fingerprint"]}
  a mixed batch        {run.folder}/pictures/mixed_batch.png
  curves               {run.folder}/pictures/curves.png

What is it worth? Carry it into a detector and a captioner:
  python tools/finetune_det.py --backbone {run.folder}/backbone.pth
  python tools/finetune_cap.py --backbone {run.folder}/backbone.pth""")


if __name__ == "__main__":
    end(main)
