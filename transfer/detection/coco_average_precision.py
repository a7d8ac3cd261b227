"""MS-COCO's average precision of the same records and detections, by pycocotools.

Another measure than Pascal VOC's: overlaps of at least the threshold count, each detection takes
the best object that is still free, precision is read at 101 recalls. Objects marked difficult are
crowds here, the only way to leave an object out; the figures lie some points above VOC's.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from pretrain.errors import UsageError
from transfer.detection.records import Records

_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def evaluate_coco(
    records: Records, detections: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """AP, AP50, AP75 and AP by size, in percent; None where there is no object of a size.

    Arguments are those of `average_precision.evaluate`, which finds what is wrong with them.

    Raises:
        UsageError: pycocotools is not installed.
    """
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UsageError("MS-COCO's AP needs pycocotools: pip install pycocotools.") from error
    with redirect_stdout(io.StringIO()):  # it reports its own progress
        truth = ground_truth(records)
        if not detections:
            return dict.fromkeys(_NAMES, 0.0)
        found = truth.loadRes(results(records, detections))
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = evaluation.stats[: len(_NAMES)].tolist()
    return {
        name: None if value < 0 else 100 * value for name, value in zip(_NAMES, values, strict=True)
    }


def ground_truth(records: Records) -> Any:
    """The records as pycocotools' COCO object; images are numbered from 1."""
    from pycocotools.coco import COCO

    things = [
        (number, box, label, bool(ignored))
        for number, record in enumerate(records.images, 1)
        for box, label, ignored in zip(
            record.boxes, record.labels, record.difficult | record.crowd, strict=True
        )
    ]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [
            {"id": number, "width": record.width, "height": record.height}
            for number, record in enumerate(records.images, 1)
        ],
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(records.category_ids, records.classes, strict=True)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": records.category_ids[label],
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "area": float(np.prod(box[2:] - box[:2])),
                "iscrowd": int(ignored),
            }
            for number, (image, box, label, ignored) in enumerate(things, 1)
        ],
    }
    truth.createIndex()
    return truth


def results(records: Records, detections: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Detections with the numbers that `ground_truth` gives to images and categories."""
    image = {record.image_id: number for number, record in enumerate(records.images, 1)}
    category = dict(zip(records.classes, records.category_ids, strict=True))
    return [
        {
            "image_id": image[row["image_id"]],
            "category_id": category[row["category"]],
            "bbox": list(map(float, row["bbox"])),
            "score": float(row["score"]),
        }
        for row in detections
    ]
