"""Find objects in images with a trained detector.

python tools/detect.py --detector RUN --images DIR [--out DIR] [--least-score 0.5]

Writes detections.json (a COCO-style results list: image_id is the file's path in DIR without its
ending, category, bbox x, y, width, height, score) and one picture for each image with a detection.
Images in folders of DIR are taken too, hidden files are not. Photos are turned as their EXIF
orientation says, and boxes are those of the picture as it is displayed; --exif ignore takes the
pixels as they are stored.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import check_ranges
from pretrain.files import write_text
from tools.support.command import Parser, run_main


def main(argv: list[str] | None = None) -> None:
    """Load, detect, write."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--detector", type=Path, required=True, help="Folder of a finished run, or detector.pth.")
    add("--images", type=Path, required=True, help="A folder, or one image.")
    add("--out", type=Path, default=Path("runs/detect"))
    add("--least-score", type=float, default=0.5, help="Of what is drawn.")
    add("--exif", choices=["apply", "ignore"], default="apply", help="Photos' orientation.")
    add("--no-pictures", action="store_true", help="Write detections.json alone.")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    add("--workers", type=int, default=0, help="Loader processes.")
    options: Any = parser.parse(argv)
    check_ranges("--", options, least_score="[0, 1]", workers="[0, 512]")

    from pretrain.training import make_fabric
    from transfer.detection.inference import detect, find_images, load_detector, scoring_loader
    from transfer.detection.pictures import draw_image

    detector = load_detector(options.detector)
    records = find_images(options.images, options.exif)
    fabric = make_fabric(options.device)
    model, dataset = detector.model, replace(detector.dataset, max_corrupt=len(records))
    model, classes = fabric.setup(model), detector.classes
    loader = scoring_loader(records, dataset, fabric, workers=options.workers)
    rows = detect(model, loader, records, classes, fabric)
    write_text(options.out / "detections.json", json.dumps(rows, indent=0) + "\n")
    rows_of: dict[str | int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["score"] >= options.least_score:
            rows_of.setdefault(row["image_id"], []).append(row)
    drawn = [] if options.no_pictures else [r for r in records if r.image_id in rows_of]
    for record in drawn:
        picture = options.out / "pictures" / f"{record.image_id}.png"
        draw_image(record, rows_of[record.image_id], classes, picture)
    count = sum(map(len, rows_of.values()))
    print(
        f"{len(records):,} images: {len(rows):,} detections, {count:,} of them with a score of "
        f"at least {options.least_score} in {len(rows_of):,} images\n"
        f"  all        {options.out}/detections.json"
        + (f"\n  pictures   {options.out}/pictures/" if drawn else "")
    )


if __name__ == "__main__":
    run_main(main)
