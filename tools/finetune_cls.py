"""Measure a backbone on image folders: linear probe, nearest neighbours, full fine-tuning.

python tools/finetune_cls.py --backbone FILE               the shape world, 2 minutes on a CPU
python tools/finetune_cls.py --backbone FILE --data DIR    DIR/{train,val[,test]}/CLASS/*.jpg, or
                                                           DIR/CLASS/*.jpg
python tools/finetune_cls.py --backbone FILE --data DIR --mode linear,knn
python tools/finetune_cls.py --backbone FILE --config configs/classification/X.yaml
torchrun --nproc_per_node 8 tools/finetune_cls.py ...      on 8 GPUs
"""

import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tools._transfer_run import begin
from tools.command import run_main, show_config
from transfer.classification.config import ClassificationConfig

# the world of the demo recipes: 30 images a class, things smaller than any seen in pretraining
WORLD: dict[str, Any] = {
    **{"train": 300, "val": 500, "size": 64, "seed": 1},
    **{"smallest": 0.1, "largest": 0.2},
}


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    begun = begin(
        ClassificationConfig,
        task="classification",
        description=str(__doc__),
        argv=argv,
        world=WORLD,
    )
    config, run, backbone, fabric = begun.config, begun.run, begun.backbone, begun.fabric

    from transfer.classification.engine import finetune
    from transfer.classification.setup import build

    if begun.dry_run:
        setup = build(backbone, config)
        if fabric.is_global_zero:
            show_config(config)
            images, steps = setup.data, len(setup.data.train) // config.batch_size
            full = f"; {steps:,} steps an epoch, {config.epochs * steps:,} in all"
            print(
                f"# {config.mode} on {backbone.name}: {setup.num_features:,} features; "
                f"{len(images.classes)} classes, {len(images.train):,} training images, "
                f"{len(images.scored):,} scored ({images.scored_name})"
                f"{full if 'full' in config.modes else ''}, on {fabric.device}"
            )
        return
    result = finetune(backbone, config, run, fabric, stop_after=begun.stop_after)
    if not fabric.is_global_zero:
        return
    metrics, data = result.metrics, result.data
    lines = "\n".join(f"  {line}" for mode in config.modes for line in _lines(mode, metrics))
    pairs = "\n".join(
        f"    {pair['true']} taken for {pair['predicted']}: {pair['count']} ({pair['share']} %)"
        for pair in metrics["confused"][:5]
    )
    print(f"""
{backbone.name} ({backbone.fingerprint()}) on {data["name"]}
({data["classes"]} classes, {data["train"]:,} training images, {data["scored"]:,} of \
{metrics["scored"]} scored, {result.seconds / 60:.1f} min)
                  top-1   mean of classes
{lines}
  most confused ({config.modes[0]}):
{pairs or "    nothing"}
  picture  {run.folder}/pictures/confusion.png
  all      {run.folder}/result.json, predictions.json\
{", classifier.pth" if "full" in config.modes else ""}

Beside another backbone? Run this for it too, then: python tools/report.py {run.folder.parent}""")


def _lines(mode: str, metrics: dict[str, Any]) -> list[str]:
    match mode:
        case "linear":
            name, more = "linear probe", f"penalty {metrics['linear_penalty']:g}"
        case "knn":
            name, more = "k-NN", f"k = {metrics['knn_k']}"
        case _:
            name = "fine-tuned"
            more = (
                f"last of {metrics['epochs']} epochs; best {metrics['full_top1_best']:.2f}, "
                f"epoch {metrics['best_epoch']}"
            )
    figures = f"{metrics[f'{mode}_top1']:6.2f}   {metrics[f'{mode}_mean_per_class']:6.2f}"
    return [f"{name:<15} {figures}            {more}"]


if __name__ == "__main__":
    run_main(main)
