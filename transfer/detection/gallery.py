"""A gallery of mixing for detectors: what becomes of the objects of an image.

A row for each method, each image beside what it becomes. Of that image's own objects boxes are
blue, of others orange. Below a box that is not wholly seen stands how much of it is; one of which
too little is seen, and which is therefore no object any more, is dashed and red.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pretrain.errors import UsageError
from pretrain.files import save_figure
from pretrain.training import derive, seed_ambient
from transfer.detection.dataset import DetectionDataset
from transfer.detection.mixing import Method, Mixture
from transfer.detection.sample import Sample

_OWN, _OTHER, _DROPPED = "#33bbee", "#ee7733", "#ff1133"
_WHOLE = 0.995
"""Seen, a box is drawn without its share: 1.00."""

Pair = tuple[Sample, Mixture]


def make_pairs(
    samples: DetectionDataset, method: Method, indices: Sequence[int], seed: int
) -> list[Pair]:
    """Images by their numbers, each with its mixture; a function of the seed.

    Raises:
        UsageError: an image cannot be read, or no partner found that can be used.
    """
    pairs = []
    for index in indices:
        seed_ambient(derive(seed, "sample", 0, index))
        own, _ = samples.read(index, masks=method == "copy_paste")
        mixture = samples.mix(method, index, own)
        if mixture is None:
            raise UsageError(f"{method} finds no partner for {samples.records[index].path}.")
        pairs.append((own, mixture))
    return pairs


def count_objects(pairs: Sequence[Pair], min_visible: float) -> tuple[int, int, int]:
    """Objects of mixtures that are whole, cut, and dropped; of which nothing is seen, too."""
    visible = [float(share) for _, mixture in pairs for share in mixture.visible]
    whole = sum(share >= _WHOLE for share in visible)
    dropped = sum(share < min_visible for share in visible)
    return whole, len(visible) - whole - dropped, dropped


def draw_gallery(rows: dict[str, list[Pair]], min_visible: float, path: Path) -> None:
    """Draw a row of pairs for each title."""
    count = max(map(len, rows.values()))
    figure = Figure(figsize=(4.4 * count, 2.2 * len(rows)), layout="constrained")
    bands = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for band, (title, pairs) in zip(bands, rows.items(), strict=True):
        band.suptitle(title, fontsize=11, x=0.01, ha="left")
        cells = band.subplots(1, 2 * count, squeeze=False)[0]
        for cell in cells:
            cell.set_axis_off()
        for number, (own, mixture) in enumerate(pairs):
            _draw_image(cells[2 * number], own.image)
            _draw_image(cells[2 * number + 1], mixture.sample.image)
            for box in own.boxes.tolist():
                _draw_box(cells[2 * number], box, _OWN)
            seen = zip(mixture.sample.boxes.tolist(), mixture.visible.tolist(), strict=True)
            for place, (box, share) in enumerate(seen):
                colour = _OWN if place < len(own.boxes) else _OTHER
                _draw_box(cells[2 * number + 1], box, colour, share, share < min_visible)
    save_figure(figure, path)


def _draw_image(axes: Any, image: Tensor) -> None:
    height, width = image.shape[1:]
    axes.imshow(image.permute(1, 2, 0).numpy(), extent=(0, width, height, 0))


def _draw_box(
    axes: Any, box: list[float], colour: str, share: float = 1.0, dropped: bool = False
) -> None:
    left, top, right, bottom = box
    if right <= left or bottom <= top or share <= 0:
        return
    colour, style = (_DROPPED, (0, (2, 1.5))) if dropped else (colour, "-")
    size = right - left, bottom - top
    axes.add_patch(Rectangle((left, top), *size, fill=False, ec=colour, ls=style, lw=1.3))
    if share < _WHOLE:
        label = {"facecolor": colour, "edgecolor": "none", "pad": 0.6}
        text = f"{100 * share:.0f} %"
        axes.text(left, bottom, text, fontsize=6, color="white", va="bottom", bbox=label)
