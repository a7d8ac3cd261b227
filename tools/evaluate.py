"""Score a backbone's own classifier: top-1, top-5, loss, and every class.

python tools/evaluate.py --backbone RUN/backbone.pth --data DIR
python tools/evaluate.py --backbone F --data imagenet --preprocess tensor --batch-size 256

Images go through the backbone's own preprocessing: resized by PIL, as the field's reference figures
are, or as tensors, which is faster and differs by up to two of 255 levels in a pixel.
"""

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from pretrain.run import Result, Run, environment, write_text
from tools.command import run_main


def main(argv: list[str] | None = None) -> None:
    """Open, score, print, write."""
    options = _options(argv)

    from pretrain.evaluation import evaluate_backbone
    from pretrain.training import make_fabric
    from transfer import hub

    backbone = hub.resolve(options.backbone)
    fabric = make_fabric(options.device, options.precision)
    part = "-".join(filter(None, [options.data.name, options.split, options.preprocess]))
    run = Run(options.out or Path("runs") / f"evaluate-{backbone.fingerprint()}-{part}")
    config = {
        "name": "evaluate",
        **{k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()},
    }
    run.refuse(config)
    scored = evaluate_backbone(
        backbone,
        options.data,
        fabric,
        split=options.split,
        labels=options.val_labels,
        by_pil=options.preprocess == "pil",
        batch_size=options.batch_size,
        workers=options.workers,
        max_corrupt=options.max_corrupt,
    )
    if not fabric.is_global_zero:
        return
    found, names = scored.evaluation, scored.classes
    rows = [
        (name, seen, 100 * right / seen, 100 * among / seen)
        for name, (seen, right, among) in zip(names, found.per_class.tolist(), strict=True)
        if seen
    ]
    run.start(config)
    write_text(run.folder / "per_class.csv", _csv(rows))
    run.finish(
        Result(
            task="evaluate",
            metric="top1",
            metrics={
                "top1": found.top1,
                "top5": found.top5,
                "val_loss": found.loss,
                "images_per_second": round(found.images_per_second, 1),
                "images_left_out": scored.left_out,
            },
            backbone=backbone.describe(),
            data={"name": options.data.name, "val": found.images, "classes": len(rows)},
            seed=0,
            config=config,
            seconds=round(found.images / found.images_per_second, 1),
            environment=environment(fabric.device),
        )
    )
    rows.sort(key=lambda row: row[2])
    worst = "\n".join(
        f"    {name:<24} {top1:6.2f} %   of {seen}" for name, seen, top1, _ in rows[:5]
    )
    print(f"""
{backbone.name} ({backbone.fingerprint()}) on {options.data}, {found.images:,} images
  classes    {scored.how}
  top-1      {found.top1:.3f} %
  top-5      {found.top5:.3f} %
  loss       {found.loss:.4f}
  speed      {found.images_per_second:.1f} images/s on {fabric.device}
  worst classes
{worst}
  every class   {run.folder}/per_class.csv
  all           {run.folder}/result.json""")


def _csv(rows: list[tuple[str, int, float, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "images", "top1", "top5"])
    writer.writerows((name, seen, f"{top1:.4f}", f"{top5:.4f}") for name, seen, top1, top5 in rows)
    return text.getvalue()


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--backbone", required=True, help="A backbone file, or a finished run.")
    parser.add_argument("--data", type=Path, required=True, help="Its validation images.")
    parser.add_argument("--split", help="Folder in DATA; without it val, test, or DATA itself.")
    parser.add_argument("--val-labels", help="Labels of a split without class folders.")
    parser.add_argument("--preprocess", choices=["pil", "tensor"], default="pil")
    add: dict[str, Any] = {"batch-size": 64, "workers": 2, "max-broken": 0}
    for name, default in add.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"Default: {default}.")
    parser.add_argument(
        "--out", type=Path, help="Folder for the result (default: runs/evaluate-...)."
    )
    parser.add_argument(
        "--precision", choices=["32-true", "bf16-mixed", "16-mixed"], default="32-true"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    options = parser.parse_args(argv)
    for name, least in (("batch_size", 1), ("workers", 0), ("max_corrupt", 0)):
        if getattr(options, name) < least:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is {getattr(options, name)}; it must be at least {least}")
    return options


if __name__ == "__main__":
    run_main(main)
