"""Fine-tune the NIC captioner on a backbone's frozen features, and score its sentences.

python tools/finetune_cap.py --backbone FILE               the shape world, 3 minutes on a CPU
python tools/finetune_cap.py --backbone FILE --data DIR    an MS-COCO tree
python tools/finetune_cap.py --backbone FILE --config configs/captioning/X.yaml
"""

import sys
from dataclasses import replace
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tools.command import SHAPE_WORLD, backbone_name, end, parse, show_config
from transfer.captioning.config import CaptioningConfig

# the world of the demo recipe
WORLD = {"train": 4000, "val": 500, "size": 96}


def main(argv: list[str] | None = None) -> None:
    """Parse, train, score."""
    options = parse(
        CaptioningConfig,
        task="captioning",
        description=str(__doc__),
        default="configs/captioning/demo.yaml",
        argv=argv,
    )
    config, run = options.config, options.run
    name = backbone_name(config.backbone)

    from pretrain import shapes
    from pretrain.training import make_fabric
    from transfer import hub
    from transfer.captioning.engine import finetune, prepare

    backbone = hub.resolve(name)
    fabric = make_fabric(options.device)
    if config.data is None:
        config = replace(config, data=str(shapes.captions(SHAPE_WORLD, **WORLD)))
    if options.dry_run:
        ready = prepare(backbone, config)
        show_config(config)
        count = sum(parameter.numel() for parameter in ready.model.parameters())
        sentences = sum(len(image.captions) for image in ready.train)
        print(
            f"# NIC on {backbone.name}: {count / 1e6:.2f} M parameters, {len(ready.vocabulary)} "
            f"words; {len(ready.train):,} training images with {sentences:,} captions, "
            f"{len(ready.val):,} scored; {sentences // config.batch_size:,} steps an epoch, "
            f"{config.epochs * (sentences // config.batch_size):,} in all, on {fabric.device}"
        )
        return
    result = finetune(backbone, config, run, fabric)
    metrics = result.metrics
    print(f"""
NIC from {backbone.name} ({backbone.fingerprint()}) on {result.data["name"]} \
({result.data["train"]:,} images, {config.epochs} epochs, {result.seconds / 60:.1f} min)
  BLEU-1 {100 * metrics["Bleu_1"]:.1f}   BLEU-4 {100 * metrics["Bleu_4"]:.1f}   \
CIDEr {100 * metrics["CIDEr"]:.1f}   on {result.data["val"]:,} images, \
{metrics["different_captions"]} different sentences
  page     {run.folder}/captions.html
  all      {run.folder}/result.json, captions.json, captioner.pth

Beside another backbone? Run this for it too, then: python tools/report.py {run.folder.parent}""")


if __name__ == "__main__":
    end(main)
