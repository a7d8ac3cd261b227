"""Pictures of a detection run: detections beside the truth, precision and recall, the losses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pretrain.images import decode
from pretrain.run import Run, save_figure
from transfer.detection.average_precision import average_precision, compare, curve
from transfer.detection.error_types import draw_errors, rectangle
from transfer.detection.records import Record, Records

_COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#00a0a0",
    "#f032e6",
    "#808000",
    "#9a6324",
    "#000075",
)


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
    least_score: float = 0.5,
) -> None:
    """Ground truth (left) and detections above `least_score` (right) of images spread evenly."""
    shown = min(num_images, len(records))
    places = [number * len(records) // shown for number in range(shown)]
    columns = 2
    rows = -(-shown // columns)
    figure = Figure(figsize=(5.4 * columns, 2.75 * rows + 0.4), layout="constrained")
    figure.suptitle(
        f"ground truth (left) and detections with score >= {least_score} (right)", fontsize=11
    )
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    colour = _colours(records.classes)
    for number, place in enumerate(places):
        record = records.images[place]
        image = decode(record.path).permute(1, 2, 0).numpy()
        row, column = divmod(number, columns)
        truth, found = grid[row, 2 * column], grid[row, 2 * column + 1]
        for axes in (truth, found):
            axes.imshow(image)
        truth.set_title(str(record.image_id), fontsize=7)
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
            _box(truth, box, records.classes[label], colour[records.classes[label]])
        for row_found in detections:
            if row_found["image_id"] == record.image_id and row_found["score"] >= least_score:
                _detection(found, row_found, colour)
    save_figure(figure, path)


def draw_found(
    record: Record, rows: Sequence[Mapping[str, Any]], classes: Sequence[str], path: Path
) -> None:
    """One image with its detections, in its own size."""
    figure = Figure(figsize=(record.width / 100, record.height / 100), dpi=200)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.imshow(decode(record.path).permute(1, 2, 0).numpy())
    colour = _colours(classes)
    for row in rows:
        _detection(axes, row, colour)
    save_figure(figure, path, dpi=200)


def _colours(classes: Sequence[str]) -> dict[str, str]:
    return {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(classes)}


def _detection(axes: Axes, row: Mapping[str, Any], colour: Mapping[str, str]) -> None:
    left, top, width, height = row["bbox"]
    text = f"{row['category']} {row['score']:.2f}"
    _box(axes, [left, top, left + width, top + height], text, colour[row["category"]])


def _box(axes: Axes, box: Sequence[float], text: str, colour: str) -> None:
    left, top, *_ = box
    axes.add_patch(rectangle(box, colour))
    axes.text(
        left,
        top,
        text,
        fontsize=5.5,
        color="white",
        va="bottom",
        clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
    )


def draw_precision_recall(
    records: Records, detections: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Precision over recall of each class at an overlap of 0.5, with the area below in percent."""
    compared, ignored = compare(records, detections)
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, one) in enumerate(compared.items()):
        if not one.to_find:
            continue
        hit, counted = one.hits(0.5, ignored)
        recall, precision = curve(hit[counted], one.to_find)
        area = average_precision(recall, precision, "area")
        style = ("-", "--", ":")[number // len(_COLOURS) % 3]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(recall, precision, style, color=colour, lw=1.3, label=f"{name} {area:.1f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title("overlap above 0.5; area in percent", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6.5, ncols=1 + (len(compared) > 12))
    save_figure(figure, path)


def draw_curve(log: Sequence[Mapping[str, Any]], losses: Sequence[str], path: Path) -> None:
    """The parts of the loss over the epochs, and the score where it was measured."""
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    axes = figure.subplots()
    epochs = [record["epoch"] for record in log]
    for name in ("loss", *losses):
        axes.plot(epochs, [record[name] for record in log], ".-", label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    scored = [record for record in log if "AP50" in record]
    if len(scored) > 1:
        score = axes.twinx()
        places = [record["epoch"] for record in scored]
        score.plot(places, [record["AP50"] for record in scored], "k.--", label="AP50")
        score.set_ylabel("AP50 (VOC07, test)")
        score.set_ylim(0, 100)
        score.legend(fontsize=8, loc="lower right")
    axes.legend(fontsize=8, loc="upper right")
    save_figure(figure, path)
