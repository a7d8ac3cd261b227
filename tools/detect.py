"""Find objects in images with a trained detector.

python tools/detect.py --detector RUN --images DIR [--out DIR] [--least-score 0.5]

Writes detections.json (a COCO-style results list: image_id is the file's name without its ending,
category, bbox x, y, width, height, score) and one picture for each image with something found.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from pretrain.run import write_text
from tools.command import run_main


def main(argv: list[str] | None = None) -> None:
    """Load, look, write."""
    options = _options(argv)
    if not 0 <= options.least_score <= 1:
        raise UsageError(f"--least-score is {options.least_score}; it must lie in [0, 1]")

    from pretrain.training import make_fabric
    from transfer.detection.inference import detect, load_detector, records_of_images
    from transfer.detection.pictures import draw_found

    detector = load_detector(options.detector)
    records = records_of_images(options.images)
    fabric = make_fabric(options.device)
    model = fabric.setup(detector.model)
    rows = detect(
        model,
        records,
        detector.classes,
        detector.images,
        fabric,
        workers=options.workers,
        max_corrupt=len(records),
    )
    kept = [row for row in rows if row["score"] >= options.least_score]
    write_text(options.out / "detections.json", json.dumps(rows, indent=0) + "\n")
    held: dict[str | int, list[dict[str, Any]]] = {record.image_id: [] for record in records}
    for row in kept:
        held[row["image_id"]].append(row)
    if not options.no_pictures:
        for record in records:
            if held[record.image_id]:
                picture = options.out / "pictures" / f"{record.image_id}.png"
                draw_found(record, held[record.image_id], detector.classes, picture)
    found = sum(bool(one) for one in held.values())
    print(
        f"{len(records):,} images: {len(rows):,} detections, {len(kept):,} of them with a score of "
        f"at least {options.least_score} in {found:,} images\n"
        f"  all        {options.out}/detections.json"
        + (f"\n  pictures   {options.out}/pictures/" if kept and not options.no_pictures else "")
    )


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--detector",
        type=Path,
        required=True,
        metavar="RUN",
        help="The folder of a finished run, or its detector.pth.",
    )
    parser.add_argument("--images", type=Path, required=True, help="A folder, or one image.")
    parser.add_argument("--out", type=Path, default=Path("runs/detect"))
    parser.add_argument("--least-score", type=float, default=0.5, help="Of what is drawn.")
    parser.add_argument("--no-pictures", action="store_true", help="Write detections.json alone.")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--workers", type=int, default=0, help="Loader processes.")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_main(main)
