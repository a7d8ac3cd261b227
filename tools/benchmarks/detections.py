"""Scoring detections: this project, detectron2's evaluator, pycocotools, faster-coco-eval.

python tools/bench.py detections --data VOC --split test --results detections.json [--rounds 3]

Ours scores both of Pascal VOC's metrics at ten thresholds; detectron2 scores one of them. A library
that is not installed is left out. Every side begins with its own form of the detections in memory
and ends with its figures; detectron2's reading of the XML files is part of its time, as it is of
the first of ours.
"""

import argparse
import contextlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tools.benchmarks._timing import hardware, table, take_turns


def main(argv: list[str]) -> None:
    """Measure, and compare the figures too."""
    options = _options(argv)
    import torch

    from transfer.detection.average_precision import evaluate
    from transfer.detection.voc import read_voc

    torch.set_num_threads(1)
    records = read_voc(options.data, options.split, images=False)
    rows = json.loads(options.results.read_text(encoding="utf-8"))
    read = partial(read_voc, options.data, options.split, images=False)
    sides: dict[str, Callable[[], Any]] = {
        "ours, XML files read": lambda: evaluate(read(cached=False), rows),
        "ours, XML files from the cache": lambda: evaluate(read(), rows),
        "ours, records at hand": lambda: evaluate(records, rows),
    }
    theirs = {
        "detectron2, one metric": _detectron2,
        "pycocotools": _pycocotools,
        "faster-coco-eval": _faster_coco_eval,
    }
    for name, make in theirs.items():
        try:
            sides[name] = make(options, records, rows)
        except ImportError as error:
            print(f"left out: {name} ({error})")
    best = take_turns(sides, options.rounds)
    print(f"`python tools/bench.py detections {' '.join(argv)}`: {hardware(1)}\n")
    print(f"{len(records):,} images, {len(records.classes)} classes, {len(rows):,} detections:\n")
    files, held = best["ours, XML files read"], best["ours, records at hand"]
    lines = [
        [name, f"{seconds:.3f}", f"{seconds / files:.1f}", f"{seconds / held:.0f}"]
        for name, seconds in best.items()
    ]
    print(table(["", "seconds", "in ours with files", "in ours with records"], lines))
    mean = sides["ours, records at hand"]().mean
    told = ", ".join(f"{metric} AP50 {values['AP50']:.4f}" for metric, values in mean.items())
    rounded = evaluate(records, rows, rounding=True).mean["voc07"]["AP50"]
    print(f"\nours: {told}; rounded as detectron2 does, voc07 AP50 {rounded:.4f}")
    if "detectron2, one metric" in sides:
        print(f"detectron2: voc07 {sides['detectron2, one metric']()['bbox']['AP50']:.4f}")


def _detectron2(options: argparse.Namespace, records: Any, rows: Sequence[Any]) -> Any:
    """Its evaluator's process and evaluate, on detections in its own structures."""
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.evaluation.pascal_voc_evaluation import parse_rec
    from detectron2.structures import Boxes, Instances

    logging.disable(logging.INFO)
    name = "bench_detections"
    MetadataCatalog.get(name).set(
        dirname=str(options.data),
        split=options.split,
        year=2007,
        thing_classes=list(records.classes),
    )
    label = {name: number for number, name in enumerate(records.classes)}
    of_image: dict[Any, list[Any]] = {record.image_id: [] for record in records.images}
    for row in rows:
        of_image[row["image_id"]].append(row)
    inputs, outputs = [], []
    for image, held in of_image.items():
        boxes = torch.tensor([row["bbox"] for row in held], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances((1, 1))
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.tensor([row["score"] for row in held])
        instances.pred_classes = torch.tensor([label[row["category"]] for row in held])
        inputs.append({"image_id": image})
        outputs.append({"instances": instances})

    def side() -> Any:
        parse_rec.cache_clear()
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.reset()
        evaluator.process(inputs, outputs)
        return evaluator.evaluate()

    return side


def _pycocotools(_: argparse.Namespace, records: Any, rows: Sequence[Any]) -> Any:
    from pycocotools.cocoeval import COCOeval

    from transfer.detection.coco_average_precision import ground_truth, results

    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = ground_truth(records), results(records, rows)
    return partial(_coco, truth, found, COCOeval)


def _faster_coco_eval(_: argparse.Namespace, records: Any, rows: Sequence[Any]) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    from transfer.detection.coco_average_precision import ground_truth, results

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(ground_truth(records).dataset)
    return partial(_coco, truth, results(records, rows), COCOeval_faster)


def _coco(truth: Any, found: Sequence[Any], evaluator: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluator(truth, truth.loadRes([dict(row) for row in found]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.py detections",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, required=True, help="A Pascal VOC tree.")
    parser.add_argument("--split", default="test")
    parser.add_argument("--results", type=Path, required=True, help="A COCO-style results list.")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args(argv)
