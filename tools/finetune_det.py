"""Fine-tune a detector from a backbone on a Pascal VOC or MS-COCO tree, and score it.

It is Faster R-CNN, or SSD, RetinaNet, FCOS: --detector.kind, or a recipe of that kind.

python tools/finetune_det.py --backbone FILE               synthetic shapes, 5 minutes on a CPU
python tools/finetune_det.py --backbone FILE --data DIR    a Pascal VOC tree
python tools/finetune_det.py --backbone FILE --config configs/detection/X.yaml
torchrun --nproc_per_node 8 tools/finetune_det.py ...      on 8 GPUs, with either engine
"""

import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.run import Result, Run, plain
from tools.support.command import run_main
from tools.support.training import notes_in_words, run_task, steps_in_words
from transfer.detection.config import detector_name


def main(argv: list[str] | None = None) -> None:
    """Parse, train, score."""
    run_task("detection", __doc__, argv, describe, summarize)


def describe(setup: Any, config: Any) -> str:
    """What --dry-run shows of data and network."""
    train, test = setup.data.train, setup.data.test
    notes = notes_in_words(setup.data.notes, config, "detector")
    return (
        f"{notes}# {detector_name(plain(config))} on {setup.backbone.name}: "
        f"{setup.num_parameters / 1e6:.2f} M parameters; {len(train):,} training and {len(test):,} "
        f"scored images, classes {', '.join(train.classes)}; "
        f"{steps_in_words(setup.steps_per_epoch, config)}"
    )


def summarize(result: Result, run: Run) -> str:
    """The scores, and where everything lies."""
    metrics = result.metrics

    def figure(key: str) -> str:
        return f"{metrics[key]:5.1f}" if key in metrics else "    -"

    classes = "\n".join(
        f"    {name:<14} {'nothing to find' if value is None else f'{value:5.1f}'}"
        for name, value in metrics["per_class_AP50"].items()
    )
    if not metrics["classes_in_mean"]:
        classes += "\n  no mean: no class has an object to find that is not difficult"
    return f"""
{detector_name(result.config)} ({result.config["engine"]}) from {result.backbone["name"]} \
({result.backbone["fingerprint"]})
on {result.data["name"]} ({result.data["train"]:,} images, {metrics["epochs"]} epochs, \
{result.seconds / 60:.1f} min)
  AP50   {figure("AP50")} (VOC07 11-point)   {figure("AP50_area")} (area)   \
over {metrics["classes_in_mean"]} classes, {result.data["test"]:,} images
{classes}
  AP75   {figure("AP75")}                   {figure("AP75_area")}
  AP     {figure("AP")}                   {figure("AP_area")}   (IoU 0.50 to 0.95)
  pictures   {run.folder}/pictures/
  all        {run.folder}/result.json, detections.json, detector.pth

Beside another backbone? Run this for it too, then: python tools/report.py {run.folder.parent}"""


if __name__ == "__main__":
    run_main(main)
