"""Train a captioner on a backbone, and score its sentences.

python tools/finetune_cap.py --backbone FILE               the shape world, 3 minutes on a CPU
python tools/finetune_cap.py --backbone FILE --data DIR    MS-COCO, Karpathy's split, Flickr8k, or a
                                                           folder of images with captions.json
python tools/finetune_cap.py --backbone FILE --config configs/captioning/X.yaml
torchrun --nproc_per_node 8 tools/finetune_cap.py ...      on 8 GPUs
"""

import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tools._transfer_run import begin
from tools.command import run_main, show_config
from transfer.captioning.config import CaptioningConfig

# the world of the demo recipe
WORLD = {"train": 4000, "val": 500, "size": 96}


def main(argv: list[str] | None = None) -> None:
    """Parse, train, score."""
    begun = begin(
        CaptioningConfig,
        task="captioning",
        description=str(__doc__),
        argv=argv,
        world=WORLD,
    )
    config, run, backbone, fabric = begun.config, begun.run, begun.backbone, begun.fabric

    from transfer.captioning.engine import finetune
    from transfer.captioning.setup import build

    if begun.dry_run:
        setup = build(backbone, config)
        if fabric.is_global_zero:
            show_config(config)
            count = sum(parameter.numel() for parameter in setup.decoder.parameters())
            steps = len(setup.words) // config.batch_size
            print(
                f"# {config.model.kind} on {backbone.name}: {count / 1e6:.2f} M parameters, "
                f"{len(setup.vocabulary)} words; {len(setup.data.train):,} training images with "
                f"{len(setup.words):,} captions, {len(setup.data.val):,} validation and "
                f"{len(setup.data.test):,} test images; {steps:,} steps an epoch, "
                f"{config.epochs * steps:,} in all, on {fabric.device}"
            )
        return
    result = finetune(backbone, config, run, fabric, stop_after=begun.stop_after)
    if not fabric.is_global_zero:
        return
    metrics, split = result.metrics, result.metrics["scored"]
    meteor = f"METEOR {100 * metrics['METEOR']:.1f}   " if "METEOR" in metrics else ""
    print(f"""
{config.model.kind} from {backbone.name} ({backbone.fingerprint()}) on {result.data["name"]} \
({result.data["train"]:,} images, {metrics["epochs"]} epochs, {result.seconds / 60:.1f} min)
  BLEU-1 {100 * metrics["Bleu_1"]:.1f}   BLEU-4 {100 * metrics["Bleu_4"]:.1f}   {meteor}\
ROUGE-L {100 * metrics["ROUGE_L"]:.1f}   CIDEr {100 * metrics["CIDEr"]:.1f}
           of epoch {metrics["best_epoch"]}, on {result.data[split]:,} {split} images, \
{metrics["different_captions"]} different sentences""")
    for row in _examples(run.folder):
        print(f"           {row}")
    print(f"""  page     {run.folder}/captions.html
  all      {run.folder}/result.json, captions.json, captioner.pth

Your own pictures: python tools/caption.py --captioner {run.folder} --images DIR
Beside another backbone? Run this for it too, then: python tools/report.py {run.folder.parent}""")


def _examples(folder: Path, count: int = 3) -> list[str]:
    import json

    rows = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    step = max(1, len(rows) // count)
    return [f"image {row['image_id']}: {row['caption']}" for row in rows[::step][:count]]


if __name__ == "__main__":
    run_main(main)
