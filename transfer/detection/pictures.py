"""Pictures of a detection run: detections beside the ground truth, and the losses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pretrain.images import decode
from pretrain.run import atomic
from transfer.detection.voc import Records

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
    colour = {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(records.classes)}
    for number, place in enumerate(places):
        record = records.images[place]
        image = decode(record.path).permute(1, 2, 0).numpy()
        row, column = divmod(number, columns)
        truth, found = grid[row, 2 * column], grid[row, 2 * column + 1]
        for axes in (truth, found):
            axes.imshow(image)
        truth.set_title(record.image_id, fontsize=7)
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
            _box(truth, box, records.classes[label], colour[records.classes[label]])
        for row_found in detections:
            if row_found["image_id"] == record.image_id and row_found["score"] >= least_score:
                left, top, width, height = row_found["bbox"]
                text = f"{row_found['category']} {row_found['score']:.2f}"
                box = [left, top, left + width, top + height]
                _box(found, box, text, colour[row_found["category"]])
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _box(axes: Axes, box: Sequence[float], text: str, colour: str) -> None:
    left, top, right, bottom = box
    axes.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5), right - left, bottom - top, fill=False, ec=colour, lw=1.4
        )
    )
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


def draw_curve(log: Sequence[Mapping[str, Any]], losses: Sequence[str], path: Path) -> None:
    """The parts of the loss over the epochs."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name in ("loss", *losses):
        epochs = [record["epoch"] for record in log]
        axes.plot(epochs, [record[name] for record in log], ".-", label=name)
    axes.set_xlabel("epoch")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
