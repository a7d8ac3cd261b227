"""Pictures of a segmentation run: image, truth, prediction, errors; the learning curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning_fabric import Fabric
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from PIL import Image
from torch import nn

from pretrain.errors import UsageError
from pretrain.files import save_figure
from pretrain.palette import colour_map
from pretrain.run import Run
from transfer.segmentation.config import VOID, DatasetConfig, SegmentationConfig
from transfer.segmentation.inference import predict
from transfer.segmentation.records import Record
from transfer.segmentation.scores import SegmentationScores
from transfer.segmentation.setup import SegmentationSetup

_MOST_NAMED = 37  # classes in a legend
_LONGEST = 400  # pixels of a side that is shown
_WRONG = (230, 25, 75)


def draw_all(
    model: nn.Module,
    setup: SegmentationSetup,
    config: SegmentationConfig,
    run: Run,
    fabric: Fabric,
    scores: SegmentationScores,
) -> None:
    """Every picture of a finished run."""
    chosen = choose_records(setup.data.val)
    label_maps = [_label_map(model, record, config.dataset, fabric) for record in chosen]
    shown = [(r, m) for r, m in zip(chosen, label_maps, strict=True) if m is not None]
    draw_segmentations(shown, setup.data.classes, run.picture("segmentations.png"))
    draw_classes(scores, run.picture("classes.png"))
    draw_curve(run.read_log(), run.picture("curve.png"))


def _label_map(
    model: nn.Module, record: Record, dataset: DatasetConfig, fabric: Fabric
) -> np.ndarray | None:
    """uint8 (H, W); None where the record cannot be read."""
    try:
        return predict(model, record, dataset, fabric)
    except UsageError:
        return None


def choose_records(records: Sequence[Record], count: int = 8) -> list[Record]:
    """Some records, spread evenly; of volumes two slices each, at a third and two thirds."""
    slices: dict[str, list[Record]] = {}
    for record in records:
        slices.setdefault(record.case, []).append(record)
    if list(slices) == [""]:
        return _spread(records, count)
    third = (1 / 3, 2 / 3)
    volumes = _spread(list(slices.values()), count // 2)
    return [of[int(len(of) * share)] for of in volumes for share in third]


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def draw_segmentations(
    shown: Sequence[tuple[Record, np.ndarray]], classes: Sequence[str], path: Path
) -> None:
    """Image, truth, prediction and errors of records, with their label maps uint8 (H, W)."""
    lines = [_panels(record, label_map) for record, label_map in shown]
    pairs = [lines[place : place + 2] for place in range(0, len(lines), 2)] or [[]]
    heights = [max((panels.height for panels in pair), default=1.0) for pair in pairs]
    size = (12, 1.42 * sum(heights) + 0.25 * len(pairs) + 0.75)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.05, w_pad=0.02))
    grid = figure.subplots(len(pairs), 2, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    for panels, axes in zip(lines, grid.flat, strict=False):
        axes.imshow(panels.image, aspect=panels.aspect, interpolation="nearest")
        for place, title in enumerate(panels.titles):
            where, text = (place + 0.5) / len(panels.titles), {"ha": "center", "va": "bottom"}
            axes.text(where, 1.03, title, fontsize=6.5, transform=axes.transAxes, **text)
    present = set[int]().union(*(panels.values for panels in lines))
    handles = _legend(classes, present)
    figure.legend(handles=handles, loc="outside lower center", ncols=8, fontsize=7)
    save_figure(figure, path)


class _Panels(NamedTuple):
    """What is shown of a record, small enough to be held."""

    image: np.ndarray
    """All of it side by side."""
    titles: tuple[str, ...]
    values: set[int]
    aspect: float
    """Height of a pixel over its width."""
    height: float
    """Of one panel over its width, in bounds."""


def _panels(record: Record, label_map: np.ndarray) -> _Panels:
    image, truth = to_rgb(record), record.read_mask().numpy()
    step = max(1, max(truth.shape) // _LONGEST)
    image = np.asarray(Image.fromarray(image).reduce(step))
    truth, label_map = truth[::step, ::step], label_map[::step, ::step]
    aspect = record.spacing[0] / record.spacing[1] if record.spacing else 1.0
    height = aspect * truth.shape[0] / truth.shape[1]
    name = record.image_id if len(record.image_id) <= 26 else f"…{record.image_id[-25:]}"
    panels = [image, colour_map()[truth], colour_map()[label_map], _errors(image, label_map, truth)]
    gap = np.full((len(image), max(1, image.shape[1] // 40), 3), 255, np.uint8)
    return _Panels(
        np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1),
        (name, "truth", "prediction", "errors"),
        {*np.unique(truth).tolist(), *np.unique(label_map).tolist()},
        aspect,
        min(max(height, 0.25), 1.4),
    )


def to_rgb(record: Record) -> np.ndarray:
    """uint8 (H, W, 3) to look at; of a slice the range without its lowest and highest percent."""
    image = record.read_image().numpy()
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image.transpose(1, 2, 0))
    low, high = np.percentile(image, (1, 99))
    grey = np.clip((image[0] - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _errors(image: np.ndarray, label_map: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The image in pale grey, wrong pixels red, void ones in their colour."""
    panel = (np.repeat(image.mean(2, keepdims=True), 3, axis=2) / 2 + 127).astype(np.uint8)
    panel[label_map != truth] = _WRONG
    panel[truth == VOID] = colour_map()[VOID]
    return panel


def _legend(classes: Sequence[str], present: set[int]) -> list[Patch]:
    """A patch for each class that is seen, and for void."""
    colours = colour_map() / 255
    seen = [number for number in range(len(classes)) if number in present]
    names = [name if len(name) <= 16 else f"{name[:15]}…" for name in classes]
    patches = [Patch(fc=colours[k], ec="grey", label=names[k]) for k in seen[:_MOST_NAMED]]
    if len(seen) > _MOST_NAMED:
        patches.append(Patch(fc="none", ec="none", label=f"and {len(seen) - _MOST_NAMED} more"))
    if VOID in present:
        patches.append(Patch(fc=colours[VOID], ec="grey", label="void"))
    return [*patches, Patch(fc=np.array(_WRONG) / 255, label="wrong")]


def draw_classes(scores: SegmentationScores, path: Path) -> None:
    """IoU and Dice of each class as bars, and which classes do not occur."""
    names, places = list(scores.iou), np.arange(len(scores.iou))
    figure = Figure(figsize=(6.2, 1.2 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots()
    measures = (("IoU", scores.iou, scores.mean_iou), ("Dice", scores.dice, scores.mean_dice))
    for shift, (label, by_class, mean) in zip((-0.2, 0.2), measures, strict=True):
        label += "" if mean is None else f", mean {mean:.1f}"
        axes.barh(places + shift, [by_class.get(name) or 0.0 for name in names], 0.38, label=label)
    for place, name in enumerate(names):
        if scores.iou[name] is None:
            axes.text(1, place, "does not occur", fontsize=6, va="center", color="grey")
    axes.set_yticks(places, [n if len(n) <= 30 else f"{n[:29]}…" for n in names], fontsize=7)
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6), xlabel="percent")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    save_figure(figure, path)


def draw_curve(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The loss over the epochs, and mIoU and Dice where they were measured."""
    figure = Figure(figsize=(6.2, 3.6), layout="constrained")
    axes: Axes = figure.subplots()
    axes.plot([r["epoch"] for r in history], [r["loss"] for r in history], ".-", label="loss")
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    right = axes.twinx()
    for name, style in (("mIoU", "k.--"), ("Dice", "k.:"), ("Dice_3D", "k.:")):
        scores = {record["epoch"]: record[name] for record in history if name in record}
        if len(scores) > 1:
            right.plot(list(scores), list(scores.values()), style, label=name)
    if right.lines:
        right.set(ylabel="percent", ylim=(0, 100))
        right.legend(fontsize=8, loc="lower right")
    else:
        right.set_axis_off()
    axes.legend(fontsize=8, loc="upper right")
    save_figure(figure, path)
