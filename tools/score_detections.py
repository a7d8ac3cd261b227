"""Score detections of any program by Pascal VOC's average precision, and by MS-COCO's beside it.

python tools/score_detections.py --data VOC2007 --split test --results detections.json
    [--out scores.json] [--rounding detectron2]

--results is a COCO-style list: image_id (VOC's image name), category (a name) or category_id, bbox
(x, y, width, height in pixels from 0), score. Difficult objects count neither as found nor as
missed; classes without any other object stay out of the means. Whether boxes of a Pascal VOC tree
are counted from 1 or from 0, no file says: --first-pixel.
"""

import json
import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.progress import log
from tools.support.command import Parser, run_main


def main(argv: list[str] | None = None) -> None:
    """Read, score, print."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="A Pascal VOC or MS-COCO tree.")
    add("--split", required=True, help="Such as test, or VOC2007/test.")
    add("--results", type=Path, required=True, help="The detections, JSON.")
    add("--out", type=Path, help="A JSON file for every class and threshold.")
    add("--classes", help="Comma-separated; otherwise those of the split.")
    add("--categories", type=Path, help='{"1": "cat"} for detections by number.')
    add("--max-corrupt", type=int, default=0, help="Images that may be left out.")
    text = "The first pixel of VOC's boxes."
    add("--first-pixel", type=int, choices=[0, 1], default=1, help=text)
    for name, choices, text in (
        ("--rounding", ["none", "detectron2"], "As its evaluator does."),
        ("--other-classes", ["refuse", "drop"], "Beside --classes."),
        ("--similar-names", ["refuse", "join"], "Such as car and Car."),
        ("--no-annotation", ["refuse", "empty"], "Images without an XML file."),
    ):
        add(name, choices=choices, default=choices[0], help=text)
    options: Any = parser.parse(argv)

    from transfer.detection.average_precision import evaluate
    from transfer.detection.coco_average_precision import evaluate_coco
    from transfer.detection.config import DatasetConfig
    from transfer.detection.data import reader_of
    from transfer.detection.detections_file import read_detections, read_names
    from transfer.detection.records import raise_for_issues, summarize_issues

    fields = ("max_corrupt", "other_classes", "first_pixel", "similar_names", "no_annotation")
    config = DatasetConfig(**{name: options[name] for name in fields})
    classes = options.classes.split(",") if options.classes else None
    read = reader_of(options.data)
    records = read(options.data, options.split, classes, config, images=False, check=False)
    source = f"{options.data}, split {options.split},"
    raise_for_issues(records.issues, source, config, option="--")
    if not records.images:
        raise UsageError(f"{source} has no image that can be used.")
    for note in summarize_issues(records.issues, option="--"):
        log(f"note: {note}")
    names = None if options.categories is None else read_names(options.categories)
    join = config.similar_names == "join"
    rows = read_detections(options.results, records, names, join)
    scores = evaluate(records, rows, rounding=options.rounding == "detectron2")
    coco = None
    try:
        coco = evaluate_coco(records, rows)
    except UsageError as error:
        log(f"note: {error}")
    if options.out is not None:
        content = {"voc07": scores.voc07, "area": scores.area, "mean": scores.mean, "coco": coco}
        write_text(options.out, json.dumps(content, indent=1) + "\n")

    def line(name: str, values: Any) -> str:
        figures = ["      -" if value is None else f"{value:7.2f}" for value in values]
        return f"{name:<16}{' '.join(figures)}"

    print(
        f"{len(rows):,} detections in {len(records):,} images, {records.num_objects:,} objects; "
        f"means over {scores.num_classes} of {len(records.classes)} classes\n"
        f"{'':<16}{'VOC07':>7} {'area':>7}"
    )
    for key in ("AP50", "AP75", "AP"):
        print(line(key, (scores.mean[metric][key] for metric in ("voc07", "area"))))
    if not scores.num_classes:
        print("no mean: no class has an object to find that is not difficult")
    print("AP50 of each class")
    for name in records.classes:
        print(line(f"  {name}", (table["0.50"][name] for table in (scores.voc07, scores.area))))
    if coco is not None:
        values = ", ".join(f"{key} {value:.2f}" for key, value in coco.items() if value is not None)
        print(f"MS-COCO's measure (another one): {values or '-'}")


if __name__ == "__main__":
    run_main(main)
