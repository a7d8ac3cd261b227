"""Measure a backbone as a classifier: linear probe, nearest neighbours, fine-tuning.

python tools/finetune_cls.py --backbone FILE               synthetic shapes, 2 minutes on a CPU
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

from pretrain.run import Result, Run
from tools.support.command import run_main
from tools.support.training import run_task, steps_in_words


def main(argv: list[str] | None = None) -> None:
    """Parse, measure."""
    run_task("classification", __doc__, argv, describe, summarize)


def describe(setup: Any, config: Any) -> str:
    """What --dry-run shows of data and backbone."""
    data, steps = setup.data, len(setup.data.train) // config.batch_size
    notes = "".join(f"# {note}\n" for note in setup.notes)
    return (
        f"{notes}# {config.mode} on {setup.backbone.name}: {setup.num_features:,} features; "
        f"{len(data.classes)} classes, {len(data.train):,} training images, "
        f"{len(data.scored):,} scored ({data.scored_name})"
        + (f"; {steps_in_words(steps, config)}" if "full" in config.modes else "")
    )


def summarize(result: Result, run: Run) -> str:
    """The scores of each mode, what is confused, and where everything lies."""
    metrics, data = result.metrics, result.data
    tuned = {
        "linear": ("linear probe", "penalty {linear_penalty:g}"),
        "knn": ("k-NN", "k = {knn_k}"),
        "full": (
            "fine-tuned",
            "last of {epochs} epochs; best {full_top1_best:.2f}, epoch {best_epoch}",
        ),
    }
    lines = "\n".join(
        f"  {tuned[mode][0]:<15} {metrics[f'{mode}_top1']:6.2f}   "
        f"{metrics[f'{mode}_mean_per_class']:6.2f}            {tuned[mode][1].format(**metrics)}"
        for mode in metrics["modes"]
    )
    pairs = "\n".join(
        f"    {pair['true']} taken for {pair['predicted']}: {pair['count']} ({pair['share']} %)"
        for pair in metrics["confused"][:5]
    )
    return f"""
{result.backbone["name"]} ({result.backbone["fingerprint"]}) on {data["name"]}
({data["classes"]} classes, {data["train"]:,} training images, {data["scored"]:,} of \
{metrics["scored"]} scored, {result.seconds / 60:.1f} min)
                  top-1   mean of classes
{lines}
  most confused ({metrics["modes"][0]}):
{pairs or "    nothing"}
  picture  {run.folder}/pictures/confusion.png
  all      {run.folder}/result.json, predictions.json\
{", classifier.pth" if "full" in metrics["modes"] else ""}

Beside another backbone? Run this for it too, then: python tools/report.py {run.folder.parent}"""


if __name__ == "__main__":
    run_main(main)
