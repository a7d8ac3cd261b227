"""What a detector gets wrong: its surest false positives and the largest objects it misses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pretrain.images import decode
from pretrain.run import save_figure
from transfer.detection.average_precision import compare, overlaps
from transfer.detection.records import Records

_THRESHOLD = 0.5


@dataclass(frozen=True)
class DetectionError:
    """A box and why it is shown."""

    image: int
    """Number of the record."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom."""
    text: str


def false_positives(
    records: Records, detections: Sequence[Mapping[str, Any]], most: int
) -> list[DetectionError]:
    """The surest detections that are no hit at an overlap of 0.5, and what each of them is.

    A second box on a found object is told from one that overlaps too little, from one of another
    class, and from one on the background.
    """
    compared, ignored = compare(records, detections)
    number = {record.image_id: place for place, record in enumerate(records.images)}
    wrong: list[tuple[float, DetectionError]] = []
    for name, one in compared.items():
        hit, counted = one.hits(_THRESHOLD, ignored)
        for place in np.flatnonzero(counted & ~hit)[:most]:
            row = detections[one.rows[place]]
            left, top, width, height = row["bbox"]
            box = (left, top, left + width, top + height)
            image = number[row["image_id"]]
            why = _why(records, image, box, name, float(one.overlap[place]))
            text = f"{name} {row['score']:.2f}: {why}"
            wrong.append((row["score"], DetectionError(image, box, text)))
    wrong.sort(key=lambda pair: -pair[0])
    return [mistake for _, mistake in wrong[:most]]


def _why(records: Records, image: int, box: tuple[float, ...], name: str, overlap: float) -> str:
    if overlap > _THRESHOLD:
        return "found before"
    record = records.images[image]
    if len(record.boxes):
        every = overlaps(np.array([box]).repeat(len(record.boxes), 0), record.boxes)
        best = int(every.argmax())
        other = records.classes[record.labels[best]]
        if every[best] > _THRESHOLD and other != name:
            return f"is a {other}"
    return f"overlaps {overlap:.2f}" if overlap > 0.1 else "nothing there"


def false_negatives(
    records: Records, detections: Sequence[Mapping[str, Any]], most: int
) -> list[DetectionError]:
    """The largest objects that no detection hits at an overlap of 0.5; difficult ones left out."""
    compared, ignored = compare(records, detections)
    image = np.repeat(np.arange(len(records)), [len(r.labels) for r in records.images])
    boxes = np.concatenate([r.boxes for r in records.images])
    missed: list[tuple[float, DetectionError]] = []
    for name, one in compared.items():
        hit, _ = one.hits(_THRESHOLD, ignored)
        for thing in np.setdiff1d(one.objects[~ignored[one.objects]], one.target[hit]):
            left, top, right, bottom = boxes[thing].tolist()
            mistake = DetectionError(
                int(image[thing]), (left, top, right, bottom), f"missed {name}"
            )
            missed.append(((right - left) * (bottom - top), mistake))
    missed.sort(key=lambda pair: -pair[0])
    return [mistake for _, mistake in missed[:most]]


def draw_errors(
    records: Records, detections: Sequence[Mapping[str, Any]], path: Path, most: int = 8
) -> None:
    """False positives above, misses below, in their surroundings; the true boxes are dashed."""
    rows = (false_positives(records, detections, most), false_negatives(records, detections, most))
    figure = Figure(figsize=(1.9 * most, 4.6), layout="constrained")
    figure.suptitle(
        "surest false positives (above) and largest misses (below); ground truth dashed",
        fontsize=11,
    )
    grid = figure.subplots(2, most, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, mistakes, colour in zip(grid, rows, ("#e6194b", "#f58231"), strict=True):
        for axes, mistake in zip(line, mistakes, strict=False):
            record = records.images[mistake.image]
            axes.imshow(decode(record.path).permute(1, 2, 0).numpy())
            for box in record.boxes.tolist():
                axes.add_patch(rectangle(box, "#ffffff", "--"))
            axes.add_patch(rectangle(mistake.box, colour))
            left, top, right, bottom = mistake.box
            side = max(right - left, bottom - top, 0.2 * min(record.width, record.height))
            x, y = (left + right) / 2, (top + bottom) / 2
            axes.set_xlim(max(x - side, 0), min(x + side, record.width))
            axes.set_ylim(min(y + side, record.height), max(y - side, 0))
            axes.set_title(f"{mistake.text}\n{record.image_id}", fontsize=6.5)
    save_figure(figure, path)


def rectangle(box: Sequence[float], colour: str, style: str = "-") -> Rectangle:
    """A box (left, top, right, bottom) in the coordinates of `imshow`: pixels round 0, 1, ..."""
    left, top, right, bottom = box
    corner = (left - 0.5, top - 0.5)
    width, height = right - left, bottom - top
    return Rectangle(corner, width, height, fill=False, ec=colour, ls=style, lw=1.4)
