"""Pictures of a detection run: detections beside the truth, precision and recall, what is wrong.

The causes of false positives are TIDE's (Bolya et al. 2020) at an overlap of 0.5: a duplicate of a
found object, the right place but another class, too little overlap, or background.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pretrain.files import save_figure
from pretrain.images import decode
from pretrain.run import Run
from transfer.detection.average_precision import average_precision, match_detections, paired_iou
from transfer.detection.records import Box, Detections, Record, Records

# fmt: off
_COLOURS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4",
    "#00a0a0", "#f032e6", "#808000", "#9a6324", "#000075",
)
# fmt: on
_THRESHOLD = 0.5
_BACKGROUND = 0.1
# a wrong detection, or an object that was not found: position in the records, box, text
Error = tuple[int, Box, str]


def draw_all(records: Records, detections: Detections, run: Run, losses: Sequence[str]) -> None:
    """Every picture of a finished run."""
    draw_detections(records, detections, run.picture("detections.png"))
    draw_precision_recall(records, detections, run.picture("precision_recall.png"))
    draw_errors(records, detections, run.picture("mistakes.png"))
    draw_curve(run.read_log(), losses, run.picture("curve.png"))


def draw_detections(records: Records, detections: Detections, path: Path) -> None:
    """Ground truth (left) and confident detections (right) of eight images, spread evenly."""
    shown, min_score = min(8, len(records)), 0.5
    rows = -(-shown // 2)
    title = f"ground truth (left) and detections with score >= {min_score} (right)"
    figure, grid = _grid(rows, 4, (10.8, 2.75 * rows + 0.4), title)
    colours = _colours(records.classes)
    for number, (left, right) in enumerate(grid.reshape(-1, 2)[:shown]):
        record = records.images[number * len(records) // shown]
        image = decode(record.path, record.apply_exif).permute(1, 2, 0).numpy()
        left.imshow(image)
        right.imshow(image)
        left.set_title(str(record.image_id), fontsize=7)
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
            name = records.classes[label]
            _draw_box(left, box, colours[name], name)
        for row in detections:
            if row["image_id"] == record.image_id and row["score"] >= min_score:
                _draw_detection(right, row, colours)
    save_figure(figure, path)


def draw_image(record: Record, rows: Detections, classes: Sequence[str], path: Path) -> None:
    """One image with its detections, in its own size."""
    figure = Figure(figsize=(record.width / 100, record.height / 100), dpi=200)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.imshow(decode(record.path, record.apply_exif).permute(1, 2, 0).numpy())
    colours = _colours(classes)
    for row in rows:
        _draw_detection(axes, row, colours)
    save_figure(figure, path, dpi=200)


def _colours(classes: Sequence[str]) -> dict[str, str]:
    return {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(classes)}


def _grid(rows: int, columns: int, size: tuple[float, float], title: str) -> tuple[Figure, Any]:
    """A figure and its (rows, columns) axes for images."""
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def _draw_detection(axes: Axes, row: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    left, top, width, height = row["bbox"]
    text = f"{row['category']} {row['score']:.2f}"
    _draw_box(axes, [left, top, left + width, top + height], colours[row["category"]], text)


def _draw_box(
    axes: Axes, box: Sequence[float], colour: str, text: str = "", style: str = "-"
) -> None:
    """A box (left, top, right, bottom) in the coordinates of `imshow`: pixels round 0, 1, ..."""
    x, y, right, bottom = box
    corner, size = (x - 0.5, y - 0.5), (right - x, bottom - y)
    axes.add_patch(Rectangle(corner, *size, fill=False, ec=colour, ls=style, lw=1.4))
    if text:
        label = {"facecolor": colour, "edgecolor": "none", "pad": 0.8}
        axes.text(x, y, text, fontsize=5.5, color="white", va="bottom", clip_on=True, bbox=label)


def draw_precision_recall(records: Records, detections: Detections, path: Path) -> None:
    """Precision over recall of each class at an overlap of 0.5, with the area below in percent."""
    matches = match_detections(records, detections)
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, one) in enumerate(matches.items()):
        if len(one.objects):
            precision, recall = one.precision_recall(_THRESHOLD)
            area = average_precision(precision, recall, "area")
            style = ("-", "--", ":")[number // len(_COLOURS) % 3]
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(recall, precision, style, color=colour, lw=1.3, label=f"{name} {area:.1f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title("overlap above 0.5; area in percent", fontsize=9)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=6.5, ncols=1 + (len(matches) > 12))
    save_figure(figure, path)


def draw_errors(records: Records, detections: Detections, path: Path, count: int = 8) -> None:
    """False positives above, false negatives below, in their surroundings; truth is dashed."""
    title = (
        "false positives of highest confidence (above) and largest false negatives (below); "
        "ground truth dashed"
    )
    figure, grid = _grid(2, count, (1.9 * count, 4.6), title)
    kinds = ((false_positives, "#e6194b"), (false_negatives, "#f58231"))
    for line, (find, colour) in zip(grid, kinds, strict=True):
        errors = find(records, detections, count)
        for axes, (image, error, text) in zip(line, errors, strict=False):
            record = records.images[image]
            axes.imshow(decode(record.path, record.apply_exif).permute(1, 2, 0).numpy())
            for box in record.boxes.tolist():
                _draw_box(axes, box, "#ffffff", style="--")
            _draw_box(axes, error, colour)
            left, top, right, bottom = error
            side = max(right - left, bottom - top, 0.2 * min(record.width, record.height))
            x, y = (left + right) / 2, (top + bottom) / 2
            axes.set_xlim(max(x - side, 0), min(x + side, record.width))
            axes.set_ylim(min(y + side, record.height), max(y - side, 0))
            axes.set_title(f"{text}\n{record.image_id}", fontsize=6.5)
    save_figure(figure, path)


def false_positives(records: Records, detections: Detections, count: int) -> list[Error]:
    """The `count` false positives of highest confidence, each with its cause."""
    position = {record.image_id: number for number, record in enumerate(records.images)}
    scored: list[tuple[float, Error]] = []
    for name, matches in match_detections(records, detections).items():
        hit, counted = matches.true_positives(_THRESHOLD)
        for number in np.flatnonzero(counted & ~hit)[:count]:
            row = detections[matches.rows[number]]
            left, top, width, height = row["bbox"]
            box = (left, top, left + width, top + height)
            image = position[row["image_id"]]
            cause = _cause(records, image, box, name, float(matches.overlap[number]))
            scored.append((row["score"], (image, box, f"{name} {row['score']:.2f}: {cause}")))
    scored.sort(key=lambda pair: -pair[0])
    return [error for _, error in scored[:count]]


def _cause(records: Records, image: int, box: Box, name: str, overlap: float) -> str:
    if overlap > _THRESHOLD:
        return "duplicate"
    record = records.images[image]
    if len(record.boxes):
        iou = paired_iou(np.array([box]), record.boxes)
        best = int(iou.argmax())
        other = records.classes[record.labels[best]]
        if iou[best] > _THRESHOLD and other != name:
            return f"is a {other}"
    return f"overlap {overlap:.2f}" if overlap > _BACKGROUND else "background"


def false_negatives(records: Records, detections: Detections, count: int) -> list[Error]:
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
        (int(image[number]), tuple(boxes[number].tolist()), f"missed {name}")
        for number, name in missed[:count]
    ]


def draw_curve(history: Sequence[Mapping[str, Any]], losses: Sequence[str], path: Path) -> None:
    """The terms of the loss over the epochs, and the score where it was measured."""
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    axes = figure.subplots()
    epochs = [record["epoch"] for record in history]
    for name in ("loss", *losses):
        axes.plot(epochs, [record[name] for record in history], ".-", label=name)
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    scores = {record["epoch"]: record["AP50"] for record in history if "AP50" in record}
    if len(scores) > 1:
        right = axes.twinx()
        right.plot(list(scores), list(scores.values()), "k.--", label="AP50")
        right.set(ylabel="AP50 (VOC07, test)", ylim=(0, 100))
        right.legend(fontsize=8, loc="lower right")
    axes.legend(fontsize=8, loc="upper right")
    save_figure(figure, path)
