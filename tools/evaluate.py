"""Score a backbone's own classifier: top-1, top-5, loss, and every class.

python tools/evaluate.py --backbone RUN/backbone.pth --data DIR
python tools/evaluate.py --backbone F --data imagenet --preprocess tensor --batch-size 256

Images go through the backbone's own preprocessing: resized by PIL, as published figures are, or as
tensors, which is faster and differs by up to two of 255 levels in a pixel.
"""

import csv
import io
import json
import sys
from pathlib import Path
from typing import get_args

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.config import Precision
from pretrain.errors import check_ranges
from pretrain.files import write_text
from pretrain.run import Result, Run, environment
from tools.support.backbone_options import add_overrides, load, overrides
from tools.support.command import Parser, run_main


def main(argv: list[str] | None = None) -> None:
    """Open, score, write, print."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--backbone", required=True, help="A backbone file, a finished run, a checkpoint.")
    add("--data", type=Path, required=True, help="Its validation images.")
    add("--split", help="Folder in DATA; without it val, test, or DATA itself.")
    add("--val-labels", help="Labels of a split without class folders.")
    add(
        "--class-order",
        choices=["alphabetical", "natural", "number"],
        help="Which class folder is output 0, 1, ..., where the backbone's file does not name its "
        "classes: as torchvision sorts folders, as timm does, or the folder's name itself.",
    )
    add("--preprocess", choices=["pil", "tensor"], default="pil")
    add("--batch-size", type=int, default=64)
    add("--workers", type=int, default=2, help="Loader processes.")
    add("--max-corrupt", type=int, default=0, help="Images that may be left out.")
    add("--out", type=Path, help="The result (default: runs/evaluate-...).")
    add("--precision", choices=get_args(Precision), default="32-true")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    add_overrides(parser)
    options = parser.parse(argv)
    check_ranges("--", options, batch_size="[1, 65536]", workers="[0, 512]", max_corrupt=">= 0")

    from pretrain.backbone_evaluation import evaluate_backbone
    from pretrain.training import make_fabric

    backbone = load(options.backbone, overrides(options), trust=options.trust)
    fabric = make_fabric(options.device, options.precision)
    parts = ["evaluate", backbone.fingerprint(), options.data.name, options.split]
    name = "-".join(filter(None, [*parts, options.preprocess, options.class_order]))
    run = Run(options.out or Path("runs", name))
    config = {"name": "evaluate", **json.loads(json.dumps(vars(options), default=str))}
    run.refuse(config)
    evaluation = evaluate_backbone(
        backbone,
        options.data,
        fabric,
        split=options.split,
        labels=options.val_labels,
        class_order=options.class_order,
        by_pil=options.preprocess == "pil",
        batch_size=options.batch_size,
        workers=options.workers,
        max_corrupt=options.max_corrupt,
    )
    if not fabric.is_global_zero:
        return
    scores, figures = evaluation.scores, io.StringIO()
    writer = csv.writer(figures, lineterminator="\n")
    writer.writerow(["class", "images", "top1", "top5"])
    accuracies = []
    for label, counts in zip(evaluation.classes, scores.per_class.tolist(), strict=True):
        if images := counts[0]:
            top1, top5 = (100 * hits / images for hits in counts[1:])
            accuracies.append((top1, images, label))
            writer.writerow([label, images, f"{top1:.4f}", f"{top5:.4f}"])
    run.start(config)
    write_text(run.folder / "per_class.csv", figures.getvalue())
    run.finish(
        Result(
            task="evaluate",
            metric="top1",
            metrics={
                "top1": scores.top1,
                "top5": scores.top5,
                "val_loss": scores.loss,
                "images_per_second": round(scores.images_per_second, 1),
                "images_left_out": evaluation.num_corrupt,
            },
            backbone=backbone.describe(),
            data={
                "name": options.data.name,
                "val": scores.images,
                "classes": len(accuracies),
                "notes": list(evaluation.notes),
            },
            seed=0,
            config=config,
            seconds=round(scores.images / scores.images_per_second, 1),
            environment=environment(fabric.device),
        )
    )
    accuracies.sort(key=lambda row: row[0])
    worst = "\n".join(f"    {n:<24} {top1:6.2f} %   of {m}" for top1, m, n in accuracies[:5])
    print(f"""
{backbone.name} ({backbone.fingerprint()}) on {options.data}, {scores.images:,} images
  classes    {evaluation.matching}
  top-1      {scores.top1:.3f} %
  top-5      {scores.top5:.3f} %
  loss       {scores.loss:.4f}
  speed      {scores.images_per_second:.1f} images/s on {fabric.device}
  worst classes
{worst}
  every class   {run.folder}/per_class.csv
  all           {run.folder}/result.json""")


if __name__ == "__main__":
    run_main(main)
