"""Average precision as Pascal VOC defines it, for all classes, thresholds and both metrics at once.

    voc07   mean of the best precision at recall >= 0, 0.1, ..., 1 (VOC 2007 to 2009)
    area    area under the precision envelope (VOC 2010 on)

Rules: detections in order of falling score (equal scores keep their order); each is compared with
the object of its class and image that it overlaps most, also a difficult or a taken one; a hit
needs an overlap strictly above the threshold; a second hit on an object is a false positive; a hit
on a difficult object counts neither way. Overlap is of continuous boxes, which equals VOC's
inclusive pixels once xmin and ymin of the ground truth have moved by one.

Equal to detectron2's PascalVOCDetectionEvaluator except that scores and boxes are not rounded
(`rounding=True` does it) and that classes without objects to find are left out of the mean, where
detectron2 counts 0 or, with the area metric, turns the whole mean into nan.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pretrain.errors import UserError
from transfer.detection.voc import Records

THRESHOLDS = tuple(f"{0.5 + 0.05 * step:.2f}" for step in range(10))
METRICS = ("voc07", "area")


@dataclass(frozen=True)
class VocScores:
    """Average precision in percent; None for a class without objects to find."""

    voc07: dict[str, dict[str, float | None]]
    """{threshold: {class: AP}}, thresholds "0.50" to "0.95"."""
    area: dict[str, dict[str, float | None]]
    mean: dict[str, dict[str, float]]
    """{metric: {"AP", "AP50", "AP75"}}: over classes; AP also over the ten thresholds."""
    num_classes: int
    """Classes in the mean: those with at least one object that is not difficult."""


def evaluate(
    records: Records, detections: Iterable[Mapping[str, Any]], rounding: bool = False
) -> VocScores:
    """Score detections.

    Args:
        records: the ground truth.
        detections: {"image_id", "category" (a name), "bbox" (x, y, width, height: continuous,
            0-based), "score"}, as in COCO results lists.
        rounding: as detectron2, scores to three digits and boxes to one before scoring.

    Raises:
        UserError: an image or a category that the records do not have.
    """
    image_of = {record.image_id: number for number, record in enumerate(records.images)}
    label_of = {name: label for label, name in enumerate(records.classes)}
    rows = list(detections)
    for row in rows:
        if row["image_id"] not in image_of or row["category"] not in label_of:
            raise UserError(
                f"a detection names image {row['image_id']!r} and class "
                f"{row['category']!r}; one of them is not in the ground truth."
            )
    image = np.array([image_of[row["image_id"]] for row in rows], dtype=np.int64)
    label = np.array([label_of[row["category"]] for row in rows], dtype=np.int64)
    boxes = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    score = np.array([row["score"] for row in rows], dtype=np.float64)
    if rounding:  # detectron2 rounds after moving left and top to VOC's 1-based pixels
        moved = np.array([1, 1, 0, 0])
        boxes = np.round(boxes + moved, 1) - moved
        score = np.round(score, 3)

    true_image = np.repeat(np.arange(len(records)), [len(r.labels) for r in records.images])
    true_boxes = np.concatenate([r.boxes for r in records.images] or [np.zeros((0, 4))])
    true_label = np.concatenate([r.labels for r in records.images] or [np.zeros(0, np.int64)])
    difficult = np.concatenate([r.difficult for r in records.images] or [np.zeros(0, bool)])

    table: dict[str, dict[str, dict[str, float | None]]] = {
        metric: {threshold: {} for threshold in THRESHOLDS} for metric in METRICS
    }
    for name, number in label_of.items():
        found, true = np.flatnonzero(label == number), np.flatnonzero(true_label == number)
        found = found[np.argsort(-score[found], kind="stable")]
        overlap, target = best_overlaps(
            boxes[found], image[found], true_boxes[true], true_image[true]
        )
        to_find = int((~difficult[true]).sum())
        for threshold in THRESHOLDS:
            hit, counted = _hits(overlap > float(threshold), target, difficult[true])
            for metric in METRICS:
                value = _average_precision(hit, counted, to_find, metric) if to_find else None
                table[metric][threshold][name] = value
    mean = {metric: _means(table[metric]) for metric in METRICS}
    num_classes = sum(value is not None for value in table["area"]["0.50"].values())
    return VocScores(table["voc07"], table["area"], mean, num_classes)


def best_overlaps(
    boxes: np.ndarray, image: np.ndarray, true_boxes: np.ndarray, true_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each of N boxes the largest overlap (IoU) with an object of its image, and which it is.

    Args:
        boxes: (N, 4) left, top, right, bottom.
        image: (N,) image numbers.
        true_boxes: (M, 4) of one class.
        true_image: (M,) image numbers, ascending.

    Returns:
        (N,) overlaps, 0 where the image has no object; (N,) numbers in 0..M-1, the first of equals.
    """
    first = np.searchsorted(true_image, image, "left")
    count = np.searchsorted(true_image, image, "right") - first
    overlap, target = np.zeros(len(boxes)), np.zeros(len(boxes), dtype=np.int64)
    some = np.flatnonzero(count)
    if not len(some):
        return overlap, target
    # all pairs of a box and an object of its image, box by box
    count, starts = count[some], np.cumsum(count[some]) - count[some]
    box_of = np.repeat(some, count)
    object_of = np.arange(len(box_of)) - np.repeat(starts - first[some], count)
    a, b = boxes[box_of], true_boxes[object_of]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.maximum(sides, 0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    pair = shared / union
    overlap[some] = np.maximum.reduceat(pair, starts)
    is_best = pair == np.repeat(overlap[some], count)
    place = np.where(is_best, np.arange(len(pair)), len(pair))
    target[some] = object_of[np.minimum.reduceat(place, starts)]
    return overlap, target


def _hits(
    over: np.ndarray, target: np.ndarray, difficult: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) true positives, and which detections count at all, in order of falling score."""
    ignored = over & difficult[target] if len(difficult) else np.zeros(len(over), dtype=bool)
    claiming = np.flatnonzero(over & ~ignored)
    hit = np.zeros(len(over), dtype=bool)
    hit[claiming[np.unique(target[claiming], return_index=True)[1]]] = True
    return hit, ~ignored


def _average_precision(hit: np.ndarray, counted: np.ndarray, to_find: int, metric: str) -> float:
    """In percent, from hits in order of falling score."""
    found = np.cumsum(hit[counted])
    recall = found / to_find
    precision = found / np.arange(1, len(found) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if metric == "area":
        return 100 * float((np.diff(recall, prepend=0) * envelope).sum())
    at = np.searchsorted(recall, np.arange(0, 1.1, 0.1), "left")
    return 100 * float(np.append(envelope, 0)[at].sum() / 11)


def _means(table: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """AP, AP50 and AP75 over the classes that have something to find; 0 where none has."""
    by_threshold = {
        threshold: float(np.mean([v for v in values.values() if v is not None] or [0.0]))
        for threshold, values in table.items()
    }
    return {
        "AP": float(np.mean(list(by_threshold.values()))),
        "AP50": by_threshold["0.50"],
        "AP75": by_threshold["0.75"],
    }
