"""MS-COCO's average precision of the same records and detections, by pycocotools.

Another measure than Pascal VOC's: overlaps of at least the threshold count, each detection takes
the best object that is still free, precision is read at 101 recalls. Objects marked difficult are
crowds here, the only way to leave an object out; that lifts AP50 by 2.5 points on the reference
case.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from pretrain.errors import UsageError
from transfer.detection.records import Detections, Records

_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def evaluate_coco(records: Records, detections: Detections) -> dict[str, float | None]:
    """AP, AP50, AP75 and AP by size, in percent; None where there is no object of a size.

    Arguments are those of `average_precision.evaluate`, which finds what is wrong with them.

    Raises:
        UsageError: pycocotools is not installed.
    """
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UsageError("MS-COCO's AP needs pycocotools: pip install pycocotools.") from error
    if not detections:
        return dict.fromkeys(_NAMES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its own progress
        truth = to_coco(records)
        evaluation = COCOeval(truth, truth.loadRes(to_coco_results(records, detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = evaluation.stats[: len(_NAMES)].tolist()
    return {n: None if value < 0 else 100 * value for n, value in zip(_NAMES, values, strict=True)}


def to_coco(records: Records) -> Any:
    """The records as pycocotools' COCO object; images are numbered from 1."""
    from pycocotools.coco import COCO

    ids = category_ids(records)
    images: list[dict[str, int]] = []
    annotations: list[dict[str, Any]] = []
    for image, record in enumerate(records.images, 1):
        images.append({"id": image, "width": record.width, "height": record.height})
        ignored = record.difficult | record.crowd
        objects = zip(record.boxes.tolist(), record.labels, ignored, strict=True)
        for (left, top, right, bottom), label, crowd in objects:
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": ids[label],
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": int(crowd),
            })  # fmt: skip
    categories = [{"id": k, "name": n} for k, n in zip(ids, records.classes, strict=True)]
    truth = COCO()
    truth.dataset = {"info": {}, "images": images, "categories": categories}
    truth.dataset["annotations"] = annotations
    truth.createIndex()
    return truth


def to_coco_results(records: Records, detections: Detections) -> list[dict[str, Any]]:
    """Detections with the numbers that `to_coco` gives to images and categories."""
    images = {record.image_id: number for number, record in enumerate(records.images, 1)}
    categories = dict(zip(records.classes, category_ids(records), strict=True))
    return [
        {
            "image_id": images[row["image_id"]],
            "category_id": categories[row["category"]],
            "bbox": list(map(float, row["bbox"])),
            "score": float(row["score"]),
        }
        for row in detections
    ]


def category_ids(records: Records) -> Sequence[int]:
    """MS-COCO's own numbers, or 1, 2, ..."""
    return records.category_ids or range(1, len(records.classes) + 1)
