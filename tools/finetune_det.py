"""Fine-tune Faster R-CNN from a backbone on a Pascal VOC tree, and score it.

python tools/finetune_det.py --backbone FILE               the shape world, 5 minutes on a CPU
python tools/finetune_det.py --backbone FILE --data DIR    a Pascal VOC tree
python tools/finetune_det.py --backbone FILE --config configs/detection/X.yaml
torchrun --nproc_per_node 8 tools/finetune_det.py ...      on 8 GPUs, with either engine
"""

import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tools._transfer_run import begin
from tools.command import run_main, show_config
from transfer.detection.config import DetectionConfig

# the world of the demo recipe
WORLD = {"train": 1000, "val": 300, "size": 128}


def main(argv: list[str] | None = None) -> None:
    """Parse, train, score."""
    begun = begin(
        DetectionConfig,
        task="detection",
        description=str(__doc__),
        argv=argv,
        world=WORLD,
    )
    config, run, backbone, fabric = begun.config, begun.run, begun.backbone, begun.fabric

    from transfer.detection.engine import finetune
    from transfer.detection.setup import build, resolved

    if begun.dry_run:
        config = resolved(config)
        setup = build(backbone, config)
        if not fabric.is_global_zero:
            return
        show_config(config)
        count = sum(parameter.numel() for parameter in setup.model.parameters())
        train, test = setup.data.train, setup.data.test
        print(
            f"# Faster R-CNN on {backbone.name}: {count / 1e6:.2f} M parameters; "
            f"{len(train):,} training and {len(test):,} scored images, classes "
            f"{', '.join(train.classes)}; {setup.steps_per_epoch:,} steps an epoch, "
            f"{config.epochs * setup.steps_per_epoch:,} in all, on {fabric.device}"
        )
        return
    result = finetune(backbone, config, run, fabric, stop_after=begun.stop_after)
    if not fabric.is_global_zero:
        return
    metrics = result.metrics
    classes = "\n".join(
        f"    {name:<14} {'no objects' if value is None else f'{value:5.1f}'}"
        for name, value in metrics["per_class_AP50"].items()
    )
    print(f"""
Faster R-CNN ({result.config["engine"]}) from {result.backbone["name"]} \
({result.backbone["fingerprint"]})
on {result.data["name"]} ({result.data["train"]:,} images, {config.epochs} epochs, \
{result.seconds / 60:.1f} min)
  AP50   {metrics["AP50"]:5.1f} (VOC07 11-point)   {metrics["AP50_area"]:5.1f} (area)   \
over {metrics["classes_in_mean"]} classes, {result.data["test"]:,} images
{classes}
  AP75   {metrics["AP75"]:5.1f}                   {metrics["AP75_area"]:5.1f}
  AP     {metrics["AP"]:5.1f}                   {metrics["AP_area"]:5.1f}   (IoU 0.50 to 0.95)
  pictures   {run.folder}/pictures/
  all        {run.folder}/result.json, detections.json, detector.pth

Beside another backbone? Run this for it too, then: python tools/report.py {run.folder.parent}""")


if __name__ == "__main__":
    run_main(main)
