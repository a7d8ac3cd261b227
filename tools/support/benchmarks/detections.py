"""Scoring detections: this project, detectron2's evaluator, pycocotools, faster-coco-eval.

python tools/bench.py detections --data VOC --split test --results detections.json [--rounds 3]

Ours scores both of Pascal VOC's metrics at ten thresholds; detectron2 scores one of them. A library
that is not installed is left out. Every side begins with its own form of the detections in memory
and ends with its figures; detectron2's reading of the XML files is part of its time, as it is of
the first of ours.
"""

import contextlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tools.support.benchmarks._timing import heading, make_available, table, take_turns
from tools.support.command import Parser


def main(argv: list[str]) -> None:
    """Measure, and compare the figures too."""
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="A Pascal VOC tree.")
    parser.add_argument("--split", default="test")
    parser.add_argument("--results", type=Path, required=True, help="A COCO-style results list.")
    parser.add_argument("--rounds", type=int, default=3)
    options: Any = parser.parse(argv)

    import torch

    from transfer.detection.average_precision import evaluate
    from transfer.detection.voc import read_voc

    torch.set_num_threads(1)
    read = partial(read_voc, options.data, options.split, images=False)
    records = read()
    rows = json.loads(options.results.read_text(encoding="utf-8"))
    sides: dict[str, Callable[[], Any]] = {
        "ours, XML files read": lambda: evaluate(read(cached=False), rows),
        "ours, XML files from the cache": lambda: evaluate(read(), rows),
        "ours, records at hand": lambda: evaluate(records, rows),
    }
    peers = {"detectron2, one metric": _detectron2, "pycocotools": _coco, "faster-coco-eval": _coco}
    sides |= make_available(lambda name: peers[name](name, options, records, rows), peers)
    best = take_turns(sides, options.rounds)
    print(heading("detections", argv) + "\n")
    print(f"{len(records):,} images, {len(records.classes)} classes, {len(rows):,} detections:\n")
    with_files, at_hand = best["ours, XML files read"], best["ours, records at hand"]
    lines = [
        [name, f"{seconds:.3f}", f"{seconds / with_files:.1f}", f"{seconds / at_hand:.0f}"]
        for name, seconds in best.items()
    ]
    print(table(["", "seconds", "in ours with files", "in ours with records"], lines))
    means = evaluate(records, rows).mean.items()
    ap50 = ", ".join(f"{metric} AP50 {values['AP50']:.4f}" for metric, values in means)
    rounded = evaluate(records, rows, rounding=True).mean["voc07"]["AP50"]
    print(f"\nours: {ap50}; rounded as detectron2 does, voc07 AP50 {rounded:.4f}")
    if "detectron2, one metric" in sides:
        print(f"detectron2: voc07 {sides['detectron2, one metric']()['bbox']['AP50']:.4f}")


def _detectron2(_: str, options: Any, records: Any, rows: Sequence[Any]) -> Any:
    """Its evaluator's process and evaluate, on detections in its own structures."""
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.evaluation.pascal_voc_evaluation import parse_rec
    from detectron2.structures import Boxes, Instances

    logging.disable(logging.INFO)
    name = "bench_detections"
    classes = list(records.classes)
    data = {"dirname": str(options.data), "split": options.split, "year": 2007}
    MetadataCatalog.get(name).set(**data, thing_classes=classes)
    rows_of: dict[Any, list[Any]] = {record.image_id: [] for record in records.images}
    for row in rows:
        rows_of[row["image_id"]].append(row)
    inputs, outputs = [{"image_id": image} for image in rows_of], []
    for listed in rows_of.values():
        instances = Instances((1, 1))
        boxes = torch.tensor([row["bbox"] for row in listed], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.tensor([row["score"] for row in listed])
        instances.pred_classes = torch.tensor([classes.index(row["category"]) for row in listed])
        outputs.append({"instances": instances})

    def side() -> Any:
        parse_rec.cache_clear()
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.reset()
        evaluator.process(inputs, outputs)
        return evaluator.evaluate()

    return side


def _coco(name: str, _: Any, records: Any, rows: Sequence[Any]) -> Callable[[], None]:
    """The evaluation of either package: faster-coco-eval has the interface of pycocotools."""
    from transfer.detection.coco_average_precision import to_coco, to_coco_results

    with contextlib.redirect_stdout(io.StringIO()):
        truth, results = to_coco(records), to_coco_results(records, rows)
        if name == "pycocotools":
            from pycocotools.cocoeval import COCOeval
        else:
            from faster_coco_eval import COCO
            from faster_coco_eval import COCOeval_faster as COCOeval

            truth = COCO(truth.dataset)

    def side() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(truth, truth.loadRes([dict(row) for row in results]), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()

    return side
