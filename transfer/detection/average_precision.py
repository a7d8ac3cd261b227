"""Average precision as Pascal VOC defines it, for all classes, thresholds and both metrics at once.

    voc07   mean of the best precision at recall >= 0, 0.1, ..., 1 (VOC 2007 to 2009)
    area    area under the precision envelope (VOC 2010 on)

Rules: detections in order of falling score (equal scores keep their order); each is compared with
the object of its class and image that it overlaps most, also a difficult or a taken one; a hit
needs an overlap strictly above the threshold; a second hit on an object is a false positive; a hit
on a difficult object counts neither way. Overlap (IoU) is of continuous boxes, which equals VOC's
inclusive pixels once xmin and ymin of the ground truth have moved by one.

Equal to detectron2's PascalVOCDetectionEvaluator to the last digit it prints on the tie-free
reference case (19,000 detections), except that scores and boxes are not rounded (`rounding=True`
does it), that equal scores are never sorted unstably, and that classes without objects to find are
left out of the mean, where detectron2 counts 0 or, with the area metric, turns the whole mean into
nan. On the realistic case, with ties, detectron2 gives 54.3594, the same rounding with a stable
sort 54.3608, and no rounding 54.3340.

D detections of a class, M objects of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from pretrain.errors import UsageError
from transfer.detection.records import Detections, Records

THRESHOLDS = tuple(f"{0.5 + 0.05 * step:.2f}" for step in range(10))
_RECALLS = np.arange(0, 1.1, 0.1)


@dataclass(frozen=True)
class VocScores:
    """Average precision in percent; None for a class without objects to find."""

    voc07: dict[str, dict[str, float | None]]
    """{threshold: {class: AP}}, thresholds "0.50" to "0.95"."""
    area: dict[str, dict[str, float | None]]
    mean: dict[str, dict[str, float | None]]
    """{metric: {"AP", "AP50", "AP75"}}: over classes; AP also over the ten thresholds; None where
    no class has an object to find."""
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
    """(D,) IoU; 0 where its image has no object of the class."""
    target: np.ndarray
    """(D,) which object; meaningless where the overlap is 0."""
    ignored: np.ndarray
    """(D,) bool: that object is difficult or a crowd."""
    objects: np.ndarray
    """(M,) numbers of the objects to find: neither difficult nor crowds."""

    def true_positives(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """(D,) true positives at an overlap above `threshold`, and which detections count."""
        over = self.overlap > threshold
        candidates = np.flatnonzero(over & ~self.ignored)
        hit = np.zeros(len(over), dtype=bool)
        hit[candidates[np.unique(self.target[candidates], return_index=True)[1]]] = True
        return hit, ~(over & self.ignored)

    def precision_recall(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall after each detection that counts."""
        hit, counted = self.true_positives(threshold)
        positives = np.cumsum(hit[counted])
        precision = positives / np.arange(1, len(positives) + 1)
        return precision, positives / max(len(self.objects), 1)


def evaluate(records: Records, detections: Detections, rounding: bool = False) -> VocScores:
    """Score detections.

    Args:
        records: the ground truth.
        detections: a COCO-style results list.
        rounding: as detectron2, scores to three digits and boxes to one before scoring.

    Raises:
        UsageError: an image or a category that the records do not have, or no number.
    """
    matches = match_detections(records, detections, rounding)
    voc07: dict[str, dict[str, float | None]] = {t: dict.fromkeys(matches) for t in THRESHOLDS}
    area: dict[str, dict[str, float | None]] = {t: dict.fromkeys(matches) for t in THRESHOLDS}
    for name, one in matches.items():
        for threshold in THRESHOLDS if len(one.objects) else ():
            curve = one.precision_recall(float(threshold))
            voc07[threshold][name] = average_precision(*curve, "voc07")
            area[threshold][name] = average_precision(*curve, "area")
    num_classes = sum(len(one.objects) > 0 for one in matches.values())
    return VocScores(voc07, area, {"voc07": _means(voc07), "area": _means(area)}, num_classes)


def match_detections(
    records: Records, detections: Detections, rounding: bool = False
) -> dict[str, ClassMatches]:
    """{class: its detections beside its objects}. Arguments and errors are those of `evaluate`."""
    image, label, boxes, score = _arrays(records, list(detections))
    if rounding:
        # It moves left and top by one before: a whole pixel, which changes no digit that is rounded
        boxes, score = _round_as_text(boxes, 1), _round_as_text(score, 3)
    images = records.images
    true_image = np.repeat(np.arange(len(images)), [len(r.labels) for r in images])
    true_boxes = np.concatenate([r.boxes for r in images])
    true_label = np.concatenate([r.labels for r in images])
    ignored = np.concatenate([r.difficult | r.crowd for r in images])
    matches = {}
    for number, name in enumerate(records.classes):
        rows, objects = np.flatnonzero(label == number), np.flatnonzero(true_label == number)
        rows = rows[np.argsort(-score[rows], kind="stable")]
        overlap, target = best_overlaps(
            boxes[rows], image[rows], true_boxes[objects], true_image[objects]
        )
        target = objects[target] if len(objects) else target
        on_ignored = ignored[target] if len(objects) else np.zeros(len(rows), bool)
        objects = objects[~ignored[objects]]
        matches[name] = ClassMatches(rows, overlap, target, on_ignored, objects)
    return matches


def _arrays(
    records: Records, rows: Detections
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(N,) image numbers, (N,) labels, (N, 4) left, top, right, bottom, (N,) scores."""
    image_of = {record.image_id: number for number, record in enumerate(records.images)}
    label_of = {name: label for label, name in enumerate(records.classes)}
    count = len(rows)
    try:
        image = np.fromiter((image_of[row["image_id"]] for row in rows), np.int64, count)
        label = np.fromiter((label_of[row["category"]] for row in rows), np.int64, count)
        score = np.fromiter(map(itemgetter("score"), rows), np.float64, count)
        lists = list(map(itemgetter("bbox"), rows))
        boxes = np.fromiter(chain.from_iterable(lists), np.float64).reshape(count, 4)
        valid = set(map(len, lists)) <= {4} and (boxes[:, 2:] >= 0).all()
        valid = valid and np.isfinite(score).all() and np.isfinite(boxes).all()
    except (KeyError, TypeError, ValueError):
        valid = False
    if not valid:
        raise UsageError(_describe_invalid(rows, image_of, label_of))
    boxes[:, 2:] += boxes[:, :2]
    return image, label, boxes, score


def _describe_invalid(
    rows: Sequence[Any], image_of: Mapping[Any, int], label_of: Mapping[str, int]
) -> str:
    """What is wrong with the first entry that is no detection of these records."""
    for number, row in enumerate(rows):
        start = f"number {number} of the detections"
        try:
            image, name = row["image_id"], row["category"]
            known_image, known_name = image in image_of, name in label_of
            values = np.array([row["score"], *row["bbox"]], np.float64)
            valid = len(values) == 5 and np.isfinite(values).all() and (values[3:] >= 0).all()
        except (KeyError, TypeError, ValueError):
            valid = False
        if not valid:
            return (
                f"{start} is {str(row)[:200]}; it must have image_id, category, bbox (x, y, width, "
                "height in pixels, not negative) and score."
            )
        if not known_image:
            return (
                f"{start} names image {image!r}, which is not among the {len(image_of):,} images "
                f"of the ground truth (such as {next(iter(image_of), 'none')!r})."
            )
        if not known_name:
            return (
                f"{start} names class {name!r}; there are {', '.join(label_of)}. If a detector has "
                "more classes than the split, name all of them: --classes."
            )
    raise AssertionError("every entry is a detection")


def _round_as_text(values: np.ndarray, digits: int) -> np.ndarray:
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
    pair = paired_iou(boxes[box_of], true_boxes[object_of])
    overlap[some] = np.maximum.reduceat(pair, starts)
    is_best = pair == np.repeat(overlap[some], count)
    position = np.where(is_best, np.arange(len(pair)), len(pair))
    target[some] = object_of[np.minimum.reduceat(position, starts)]
    return overlap, target


def paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(P,) intersection over union of boxes (P, 4), pair by pair."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.maximum(sides, 0).prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    union = areas - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def average_precision(precision: np.ndarray, recall: np.ndarray, metric: str) -> float:
    """In percent."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if metric == "area":
        return 100 * float((np.diff(recall, prepend=0) * envelope).sum())
    at = np.searchsorted(recall, _RECALLS, "left")
    return 100 * float(np.append(envelope, 0)[at].sum() / len(_RECALLS))


def _means(table: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """AP, AP50 and AP75 over the classes that have something to find; None where none has."""
    means: dict[str, float] = {}
    for threshold, values in table.items():
        if measured := [value for value in values.values() if value is not None]:
            means[threshold] = float(np.mean(measured))
    overall = float(np.mean(list(means.values()))) if means else None
    return {"AP": overall, "AP50": means.get("0.50"), "AP75": means.get("0.75")}
