"""Pictures of a detection run: detections beside the truth, precision and recall, the losses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pretrain.images import decode
from pretrain.run import Run, save_figure
from transfer.detection.average_precision import average_precision, match_detections
from transfer.detection.error_types import false_negatives, false_positives
from transfer.detection.records import Record, Records

# fmt: off
_COLOURS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4",
    "#00a0a0", "#f032e6", "#808000", "#9a6324", "#000075",
)
# fmt: on


def draw_all(
    records: Records, detections: Sequence[Mapping[str, Any]], run: Run, losses: Sequence[str]
) -> None:
    """Every picture of a finished run."""
    draw_detections(records, detections, run.picture("detections.png"))
    draw_precision_recall(records, detections, run.picture("precision_recall.png"))
    draw_errors(records, detections, run.picture("mistakes.png"))
    draw_curve(run.read_log(), losses, run.picture("curve.png"))


def draw_detections(
    records: Records,
    detections: Sequence[Mapping[str, Any]],
    path: Path,
    num_images: int = 8,
    min_score: float = 0.5,
) -> None:
    """Ground truth (left) and detections from `min_score` on (right) of images spread evenly."""
    shown = min(num_images, len(records))
    rows = -(-shown // 2)
    title = f"ground truth (left) and detections with score >= {min_score} (right)"
    figure, grid = _grid(rows, 4, (10.8, 2.75 * rows + 0.4), title)
    colours = _colours(records.classes)
    for number, (left, right) in enumerate(grid.reshape(-1, 2)[:shown]):
        record = records.images[number * len(records) // shown]
        image = decode(record.path).permute(1, 2, 0).numpy()
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


def draw_image(
    record: Record, rows: Sequence[Mapping[str, Any]], classes: Sequence[str], path: Path
) -> None:
    """One image with its detections, in its own size."""
    figure = Figure(figsize=(record.width / 100, record.height / 100), dpi=200)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.imshow(decode(record.path).permute(1, 2, 0).numpy())
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


def draw_precision_recall(
    records: Records, detections: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Precision over recall of each class at an overlap of 0.5, with the area below in percent."""
    matches = match_detections(records, detections)
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, one) in enumerate(matches.items()):
        if len(one.objects):
            precision, recall = one.precision_recall(0.5)
            area = average_precision(precision, recall, "area")
            style = ("-", "--", ":")[number // len(_COLOURS) % 3]
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(recall, precision, style, color=colour, lw=1.3, label=f"{name} {area:.1f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title("overlap above 0.5; area in percent", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6.5, ncols=1 + (len(matches) > 12))
    save_figure(figure, path)


def draw_errors(
    records: Records, detections: Sequence[Mapping[str, Any]], path: Path, count: int = 8
) -> None:
    """False positives above, false negatives below, in their surroundings; truth is dashed."""
    title = (
        "false positives of highest confidence (above) and largest false negatives (below); "
        "ground truth dashed"
    )
    figure, grid = _grid(2, count, (1.9 * count, 4.6), title)
    kinds = ((false_positives, "#e6194b"), (false_negatives, "#f58231"))
    for line, (find, colour) in zip(grid, kinds, strict=True):
        for axes, error in zip(line, find(records, detections, count), strict=False):
            record = records.images[error.image]
            axes.imshow(decode(record.path).permute(1, 2, 0).numpy())
            for box in record.boxes.tolist():
                _draw_box(axes, box, "#ffffff", style="--")
            _draw_box(axes, error.box, colour)
            left, top, right, bottom = error.box
            side = max(right - left, bottom - top, 0.2 * min(record.width, record.height))
            x, y = (left + right) / 2, (top + bottom) / 2
            axes.set_xlim(max(x - side, 0), min(x + side, record.width))
            axes.set_ylim(min(y + side, record.height), max(y - side, 0))
            axes.set_title(f"{error.text}\n{record.image_id}", fontsize=6.5)
    save_figure(figure, path)


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
