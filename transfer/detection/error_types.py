"""What a detector gets wrong: false positives by their cause, and false negatives.

The causes are TIDE's (Bolya et al. 2020) at an overlap of 0.5: a duplicate of a found object, the
right place but another class, too little overlap, or background.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.detection.average_precision import match_detections, paired_iou
from transfer.detection.records import Box, Records

_THRESHOLD = 0.5
_BACKGROUND = 0.1


@dataclass(frozen=True)
class ErrorExample:
    """A wrong detection, or an object that was not found."""

    image: int
    """Position in the records."""
    box: Box
    """Left, top, right, bottom."""
    text: str


def false_positives(
    records: Records, detections: Sequence[Mapping[str, Any]], count: int
) -> list[ErrorExample]:
    """The `count` false positives of highest confidence, each with its cause."""
    position = {record.image_id: number for number, record in enumerate(records.images)}
    scored: list[tuple[float, ErrorExample]] = []
    for name, matches in match_detections(records, detections).items():
        hit, counted = matches.true_positives(_THRESHOLD)
        for number in np.flatnonzero(counted & ~hit)[:count]:
            row = detections[matches.rows[number]]
            left, top, width, height = row["bbox"]
            box = (left, top, left + width, top + height)
            image = position[row["image_id"]]
            cause = _cause(records, image, box, name, float(matches.overlap[number]))
            text = f"{name} {row['score']:.2f}: {cause}"
            scored.append((row["score"], ErrorExample(image, box, text)))
    scored.sort(key=lambda pair: -pair[0])
    return [error for _, error in scored[:count]]


def _cause(records: Records, image: int, box: Box, name: str, overlap: float) -> str:
    if overlap > _THRESHOLD:
        return "duplicate"
    record = records.images[image]
    if len(record.boxes):
        iou = paired_iou(np.array([box]).repeat(len(record.boxes), 0), record.boxes)
        best = int(iou.argmax())
        other = records.classes[record.labels[best]]
        if iou[best] > _THRESHOLD and other != name:
            return f"is a {other}"
    return f"overlap {overlap:.2f}" if overlap > _BACKGROUND else "background"


def false_negatives(
    records: Records, detections: Sequence[Mapping[str, Any]], count: int
) -> list[ErrorExample]:
    """The `count` largest objects that no detection hits; difficult ones are left out."""
    image = np.repeat(np.arange(len(records)), [len(r.labels) for r in records.images])
    boxes = np.concatenate([r.boxes for r in records.images])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    missed: list[tuple[int, str]] = []
    for name, matches in match_detections(records, detections).items():
        hit, _ = matches.true_positives(_THRESHOLD)
        missed += [(n, name) for n in np.setdiff1d(matches.objects, matches.target[hit]).tolist()]
    missed.sort(key=lambda pair: -area[pair[0]])
    return [
        ErrorExample(int(image[number]), tuple(boxes[number].tolist()), f"missed {name}")
        for number, name in missed[:count]
    ]
