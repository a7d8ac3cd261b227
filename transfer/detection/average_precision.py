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

D detections of a class, M objects of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from pretrain.errors import UsageError
from transfer.detection.records import Records

THRESHOLDS = tuple(f"{0.5 + 0.05 * step:.2f}" for step in range(10))
METRICS = ("voc07", "area")
_RECALLS = np.arange(0, 1.1, 0.1)


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


@dataclass(frozen=True)
class ClassMatches:
    """A class's detections in order of falling score, each with the object that it overlaps most.

    Objects are numbered through all images of the records.
    """

    rows: np.ndarray
    """(D,) numbers in the list of detections."""
    overlap: np.ndarray
    """(D,) 0 where its image has no object of the class."""
    target: np.ndarray
    """(D,) which object; meaningless where the overlap is 0."""
    objects: np.ndarray
    """(M,) numbers of the class's objects."""
    to_find: int
    """Objects that are not difficult."""

    def hits(self, threshold: float, ignored_object: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(D,) true positives, and which detections count at all.

        Args:
            threshold: an overlap must exceed it.
            ignored_object: by number of the object, difficult or crowd.
        """
        over = self.overlap > threshold
        ignored = over & ignored_object[self.target] if len(ignored_object) else over
        claiming = np.flatnonzero(over & ~ignored)
        hit = np.zeros(len(over), dtype=bool)
        hit[claiming[np.unique(self.target[claiming], return_index=True)[1]]] = True
        return hit, ~ignored


def evaluate(
    records: Records, detections: Sequence[Mapping[str, Any]], rounding: bool = False
) -> VocScores:
    """Score detections.

    Args:
        records: the ground truth.
        detections: {"image_id", "category" (a name), "bbox" (x, y, width, height: continuous,
            0-based), "score"}, as in COCO results lists.
        rounding: as detectron2, scores to three digits and boxes to one before scoring.

    Raises:
        UsageError: an image or a category that the records do not have, or no number.
    """
    compared, ignored = compare(records, detections, rounding)
    table: dict[str, dict[str, dict[str, float | None]]] = {
        metric: {threshold: {} for threshold in THRESHOLDS} for metric in METRICS
    }
    for name, one in compared.items():
        for threshold in THRESHOLDS:
            hit, counted = one.hits(float(threshold), ignored)
            recall, precision = curve(hit[counted], one.to_find)
            for metric in METRICS:
                value = average_precision(recall, precision, metric) if one.to_find else None
                table[metric][threshold][name] = value
    mean = {metric: _means(table[metric]) for metric in METRICS}
    num_classes = sum(one.to_find > 0 for one in compared.values())
    return VocScores(table["voc07"], table["area"], mean, num_classes)


def compare(
    records: Records, detections: Sequence[Mapping[str, Any]], rounding: bool = False
) -> tuple[dict[str, ClassMatches], np.ndarray]:
    """{class: its detections beside its objects}, and for each object whether it is left out.

    Arguments and errors are those of `evaluate`.
    """
    image, label, boxes, score = _arrays(records, list(detections))
    if rounding:
        boxes, score = _rounded(boxes, score)
    true_image = np.repeat(np.arange(len(records)), [len(r.labels) for r in records.images])
    true_boxes = np.concatenate([r.boxes for r in records.images] or [np.zeros((0, 4))])
    true_label = np.concatenate([r.labels for r in records.images] or [np.zeros(0, np.int64)])
    ignored = np.concatenate(
        [r.difficult | r.crowd for r in records.images] or [np.zeros(0, dtype=bool)]
    )
    compared = {}
    for number, name in enumerate(records.classes):
        found, true = np.flatnonzero(label == number), np.flatnonzero(true_label == number)
        found = found[np.argsort(-score[found], kind="stable")]
        overlap, target = best_overlaps(
            boxes[found], image[found], true_boxes[true], true_image[true]
        )
        target = true[target] if len(true) else target
        compared[name] = ClassMatches(found, overlap, target, true, int((~ignored[true]).sum()))
    return compared, ignored


def _arrays(
    records: Records, rows: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(N,) image numbers, (N,) labels, (N, 4) left, top, right, bottom, (N,) scores."""
    image_of = {record.image_id: number for number, record in enumerate(records.images)}
    label_of = {name: label for label, name in enumerate(records.classes)}

    def numbers(key: str, table: Mapping[Any, int]) -> np.ndarray:
        found = map(table.__getitem__, map(itemgetter(key), rows))
        return np.fromiter(found, np.int64, len(rows))

    try:
        image, label = numbers("image_id", image_of), numbers("category", label_of)
        score = np.fromiter(map(itemgetter("score"), rows), np.float64, len(rows))
        held = list(map(itemgetter("bbox"), rows))
        if set(map(len, held)) - {4}:
            raise ValueError("a box of other than four numbers")
        flat = chain.from_iterable(held)
        boxes = np.fromiter(flat, np.float64).reshape(len(rows), 4)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(_complaint(rows, image_of, label_of)) from error
    if not (np.isfinite(score).all() and np.isfinite(boxes).all() and (boxes[:, 2:] >= 0).all()):
        raise UsageError(_complaint(rows, image_of, label_of))
    boxes[:, 2:] += boxes[:, :2]
    return image, label, boxes, score


def _complaint(
    rows: Sequence[Any], image_of: Mapping[Any, int], label_of: Mapping[str, int]
) -> str:
    """What is wrong with the first entry that is no detection of these records."""
    for number, row in enumerate(rows):
        try:
            box = [float(value) for value in row["bbox"]]
            good = len(box) == 4 and min(box[2:]) >= 0
            good = good and all(np.isfinite([*box, float(row["score"])]))
            image, name = row["image_id"], row["category"]
            hash((image, name))
        except (KeyError, TypeError, ValueError):
            good = False
        if not good:
            return (
                f"number {number} of the detections is {str(row)[:200]}; it must have image_id, "
                "category, bbox (x, y, width, height in pixels, not negative) and score."
            )
        if image not in image_of:
            near = next(iter(image_of), "none")
            return (
                f"number {number} of the detections names image {image!r}, which is not among the "
                f"{len(image_of):,} images of the ground truth (such as {near!r})."
            )
        if name not in label_of:
            allowed = ", ".join(label_of)
            return f"number {number} of the detections names class {name!r}; there are {allowed}."
    raise AssertionError("every entry is a detection")


def _rounded(boxes: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left after detectron2 has written them as text (%.3f, %.1f).

    It moves left and top by one before: a whole pixel, which changes no digit that is rounded.
    """
    return _written(boxes, 1), _written(score, 3)


def _written(values: np.ndarray, digits: int) -> np.ndarray:
    """Decimal rounding as printf does it, on the exact value; np.round scales first."""
    text = [f"{value:.{digits}f}" for value in values.ravel().tolist()]
    return np.array(text, dtype=np.float64).reshape(values.shape)


def best_overlaps(
    boxes: np.ndarray, image: np.ndarray, true_boxes: np.ndarray, true_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each of D boxes the largest overlap (IoU) with an object of its image, and which it is.

    Args:
        boxes: (D, 4) left, top, right, bottom.
        image: (D,) image numbers.
        true_boxes: (M, 4) of one class.
        true_image: (M,) image numbers, ascending.

    Returns:
        (D,) overlaps, 0 where the image has no object; (D,) numbers in 0..M-1, the first of equals.
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
    pair = overlaps(boxes[box_of], true_boxes[object_of])
    overlap[some] = np.maximum.reduceat(pair, starts)
    is_best = pair == np.repeat(overlap[some], count)
    place = np.where(is_best, np.arange(len(pair)), len(pair))
    target[some] = object_of[np.minimum.reduceat(place, starts)]
    return overlap, target


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(P,) intersection over union of boxes (P, 4), pair by pair."""
    across = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    down = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = np.maximum(across, 0) * np.maximum(down, 0)
    areas = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]) + (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    union = areas - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def curve(hit: np.ndarray, to_find: int) -> tuple[np.ndarray, np.ndarray]:
    """(D,) recall and precision after each counted detection, from hits by falling score."""
    found = np.cumsum(hit)
    return found / max(to_find, 1), found / np.arange(1, len(found) + 1)


def average_precision(recall: np.ndarray, precision: np.ndarray, metric: str) -> float:
    """In percent."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if metric == "area":
        return 100 * float((np.diff(recall, prepend=0) * envelope).sum())
    at = np.searchsorted(recall, _RECALLS, "left")
    return 100 * float(np.append(envelope, 0)[at].sum() / len(_RECALLS))


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
