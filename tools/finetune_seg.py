"""Fine-tune a segmenter from a backbone on images and their masks, and score it.

It is an FCN, or DeepLabV3, U-Net: --segmenter.kind, or a recipe of that kind.

python tools/finetune_seg.py --backbone FILE               synthetic shapes, 4 minutes on a CPU
python tools/finetune_seg.py --backbone FILE --data DIR    a Pascal VOC tree, a folder of images
                                                           and one of masks, ACDC's volumes
python tools/finetune_seg.py --backbone FILE --config configs/segmentation/X.yaml
torchrun --nproc_per_node 8 tools/finetune_seg.py ...      on 8 GPUs
"""

import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.run import Result, Run, plain
from tools.support.command import run_main
from tools.support.training import notes_in_words, run_task, steps_in_words
from transfer.segmentation.config import segmenter_name


def main(argv: list[str] | None = None) -> None:
    """Parse, train, score."""
    run_task("segmentation", __doc__, argv, describe, summarize)


def describe(setup: Any, config: Any) -> str:
    """What --dry-run shows of data and network."""
    data = setup.data
    samples = "slices" if data.volumes else "images"
    notes = notes_in_words(data.notes, config, "segmenter")
    return (
        f"{notes}# {segmenter_name(plain(config))} on {setup.backbone.name}: "
        f"{setup.num_parameters / 1e6:.2f} M parameters; {len(data.train):,} training and "
        f"{len(data.val):,} scored {samples}, classes {', '.join(data.classes)}; "
        f"{steps_in_words(setup.steps_per_epoch, config)}"
    )


def summarize(result: Result, run: Run) -> str:
    """The scores, and where everything lies."""
    metrics = result.metrics
    samples, dice = ("slices", "Dice_3D") if "per_class_Dice_3D" in metrics else ("images", "Dice")

    def figure(value: float | None) -> str:
        return "      -" if value is None else f"{value:7.1f}"

    classes = "\n".join(
        f"  {name:<16} {figure(iou)} {figure(metrics[f'per_class_{dice}'][name])}"
        for name, iou in metrics["per_class_IoU"].items()
    )
    left_out = metrics.get("images_left_out", 0)
    not_scored = f"; {left_out:,} images could not be read" if left_out else ""
    return f"""
{segmenter_name(result.config)} from {result.backbone["name"]} ({result.backbone["fingerprint"]})
on {result.data["name"]} ({result.data["train"]:,} {samples}, {metrics["epochs"]} epochs, \
{result.seconds / 60:.1f} min)
                       IoU {"3D Dice" if samples == "slices" else "   Dice"}
  mean             {figure(metrics.get("mIoU"))} {figure(metrics.get(dice))}   \
IoU over {metrics["classes_in_mean"]} classes, {result.data["val"]:,} {samples}{not_scored}
{classes}
  boundary F       {figure(metrics.get("boundary_F"))}
  pixel accuracy   {figure(metrics.get("pixel_accuracy"))}
  pictures   {run.folder}/pictures/
  all        {run.folder}/result.json, segmenter.pth

Beside another backbone? Run this for it too, then: python tools/report.py {run.folder.parent}"""


if __name__ == "__main__":
    run_main(main)
