"""Train a captioner on a backbone, and score its captions.

python tools/finetune_cap.py --backbone FILE               synthetic shapes, 3 minutes on a CPU
python tools/finetune_cap.py --backbone FILE --data DIR    MS-COCO, Karpathy's split, Flickr8k, or a
                                                           folder of images with captions.json
python tools/finetune_cap.py --backbone FILE --config configs/captioning/X.yaml
python tools/finetune_cap.py --backbone FILE --start_from RUN --objective self_critical
                               --optimizer.lr 5e-5         from that run on CIDEr-D as the reward
torchrun --nproc_per_node 8 tools/finetune_cap.py ...      on 8 GPUs
"""

import json
import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.run import Result, Run
from tools.support.command import run_main
from tools.support.training import run_task, steps_in_words


def main(argv: list[str] | None = None) -> None:
    """Parse, train, score."""
    run_task("captioning", __doc__, argv, describe, summarize)


def describe(setup: Any, config: Any) -> str:
    """What --dry-run shows of data and network."""
    data, num_captions = setup.data, len(setup.words)
    count = sum(parameter.numel() for parameter in setup.decoder.parameters())
    notes = "".join(f"# {note}\n" for note in setup.notes)
    train, val = setup.unknown_words("train"), setup.unknown_words("val")
    return (
        f"{notes}# {config.model.kind} on {setup.backbone.name}: {count / 1e6:.2f} M parameters, "
        f"{len(setup.vocabulary)} words; {len(data.train):,} training images with "
        f"{num_captions:,} captions, {len(data.val):,} validation and {len(data.test):,} test "
        f"images; unknown words (seen fewer than {config.dataset.min_count} times): {train:.1%} in "
        f"the training and {val:.1%} in the validation captions; "
        f"{steps_in_words(setup.steps_per_epoch, config)}"
    )


def summarize(result: Result, run: Run, num_examples: int = 3) -> str:
    """The scores, a few captions, and where everything lies."""
    metrics, split = result.metrics, result.metrics["scored"]
    begun = ""
    if "val_CIDEr_start" in metrics:
        one, two = 100 * metrics["val_CIDEr_start"], 100 * metrics["val_CIDEr_best"]
        begun = f"\n           CIDEr on val, beam 1: {one:.1f} at the start, {two:.1f} at best"
    meteor = f"METEOR {100 * metrics['METEOR']:.1f}   " if "METEOR" in metrics else ""
    rows = json.loads((run.folder / "captions.json").read_text(encoding="utf-8"))
    examples = "\n".join(
        f"           image {row['image_id']}: {row['caption']}"
        for row in rows[:: max(1, len(rows) // num_examples)][:num_examples]
    )
    return f"""
{result.config["model"]["kind"]} from {result.backbone["name"]} \
({result.backbone["fingerprint"]}) on {result.data["name"]} \
({result.data["train"]:,} images, {metrics["epochs"]} epochs, {result.seconds / 60:.1f} min)
  BLEU-1 {100 * metrics["Bleu_1"]:.1f}   BLEU-4 {100 * metrics["Bleu_4"]:.1f}   {meteor}\
ROUGE-L {100 * metrics["ROUGE_L"]:.1f}   CIDEr {100 * metrics["CIDEr"]:.1f}
           of epoch {metrics["best_epoch"]}, on {result.data[split]:,} {split} images, \
{metrics["different_captions"]} different captions{begun}
{examples}
  page     {run.folder}/captions.html
  all      {run.folder}/result.json, captions.json, captioner.pth

Your own images: python tools/caption.py --captioner {run.folder} --images DIR
Beside another backbone? Run this for it too, then: python tools/report.py {run.folder.parent}"""


if __name__ == "__main__":
    run_main(main)
