"""A gallery of mixing: a row for each method, its label weights, and the histogram of its lam."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from pretrain.backbone import Backbone
from pretrain.config import MixingConfig
from pretrain.data.crops import Square
from pretrain.errors import UsageError, first_line
from pretrain.files import save_figure
from pretrain.images import decode, list_images
from pretrain.mixing import Mixed, forward, mix_at, network_parts
from pretrain.mixing.levels import Grid, LevelChange
from pretrain.pictures import LEAST_SHOWN, MOST_LABELS, draw_image
from pretrain.progress import log
from pretrain.spec import IMAGENET_MEAN, IMAGENET_STD

_AT_ONCE, _ROUNDS = 200, 10
MOST_SHOWN = 16
LabelledImages = tuple[Tensor, Tensor, tuple[str, ...]]
"""Images (N, 3, H, W) in [0, 1], labels (N,), and the names of the classes."""


def read_images(folder: Path, count: int, size: int, seed: int) -> LabelledImages:
    """`count` images (count, 3, size, size) in [0, 1] from a folder or its class folders.

    The label of an image is its class folder; in a folder without class folders it is its file.

    Raises:
        UsageError: no such folder, too few images.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}.")
    listed = [Path(path).relative_to(folder) for path in list_images(folder)[0]]
    nested = [path for path in listed if len(path.parts) > 1]
    paths = nested or listed
    if len(paths) < count:
        raise UsageError(
            f"{folder} holds {len(paths)} images, {count} are needed. Give a folder of images or "
            "of class folders, or a smaller --count."
        )
    chosen = random.Random(seed).sample(paths, count)
    names = [path.parts[0] if nested else path.stem for path in chosen]
    classes = tuple(sorted(set(names)))
    images = torch.stack([Square(size)(decode(folder / path)) for path in chosen]) / 255
    return images, torch.tensor([classes.index(name) for name in names]), classes


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Normalises images as a network wants them; mixes them with it and shows the result."""

    mean: Sequence[float] = IMAGENET_MEAN
    """RGB, of pixels in [0, 1]."""
    std: Sequence[float] = IMAGENET_STD
    network: nn.Module | None = None
    """In evaluation mode, for the methods that need one."""
    untrained: bool = False
    """Whether the network's classifier is new."""

    def mix(self, recipe: MixingConfig, batch: LabelledImages, seed: int) -> "Row":
        """A batch as a recipe mixes it, and its lam over many draws.

        As in training, zero is the mean colour. The draws of lam are the same whoever shares them,
        so for the histogram each image has its own. Features are mixed at one of the first two
        stages, where `at` names no levels: the image itself is what other methods show.
        """
        images, labels, classes = batch
        mean, std = (torch.tensor(some)[:, None, None] for some in (self.mean, self.std))
        normal, draws = (images - mean) / std, torch.Generator().manual_seed(seed)
        parts = {} if self.network is None else network_parts(recipe, self.network)
        if "levels" in parts and not recipe.args.get("at"):
            at = list(parts["levels"].stages[:2])
            recipe = replace(recipe, args={**recipe.args, "at": at})
        mixed = mix_at(recipe, 0, parts=parts)(normal, labels, len(classes), draws)
        note = mixed.note and f"level {mixed.note}"
        if isinstance(mixed.inside, LevelChange):
            shown, grid = _changed_cells(mixed.images, mixed.inside)
            note += f", drawn as pixels of its {grid.rows} x {grid.columns} cells"
            mixed = replace(mixed, images=shown)
        elif mixed.inside is not None:
            assert self.network is not None
            with torch.no_grad():
                _, targets = forward(self.network, mixed)
            mixed = replace(mixed, targets=targets)
        if self.untrained and "network" in parts:
            note = "looks through a classifier that is new and untrained"
        lam = _draw_lam(replace(recipe, granularity="sample"), parts, normal, labels, draws)
        return Row(mixed=replace(mixed, images=mixed.images * std + mean), lam=lam, note=note)


def view_through(backbone: Backbone, batch: LabelledImages) -> tuple[Viewer, LabelledImages]:
    """A backbone as a viewer, and the batch with its outputs as classes, where it knows them.

    Raises:
        UsageError: it does not take images of this size.
    """
    images, labels, classes = batch
    names, spec = backbone.output_names, backbone.spec
    untrained = not set(classes) <= set(names)
    if not untrained:
        network, number = backbone.build(), {name: index for index, name in enumerate(names)}
        labels, classes = torch.tensor([number[classes[label]] for label in labels]), names
    else:
        network = backbone.build(len(classes))
        log("note: the network knows other classes; its classifier is a new, untrained one")
    try:
        with torch.no_grad():
            network.eval()(images[:1])
    except (AssertionError, RuntimeError, ValueError) as error:
        size = " x ".join(map(str, images.shape[-2:]))
        raise UsageError(
            f"{spec.arch} takes no images of {size} pixels ({first_line(error)}). Give --size "
            f"{spec.input_size[1]}, or leave it out."
        ) from error
    viewer = Viewer(mean=spec.mean, std=spec.std, network=network, untrained=untrained)
    return viewer, (images, labels, classes)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Of a gallery."""

    mixed: Mixed
    """Images in [0, 1]; targets after the pass of the network."""
    lam: np.ndarray
    """Of many draws, at the size of the images: rounding to pixels is part of it; () where the
    method keeps all labels as they are."""
    note: str
    """What the images do not show."""


def draw_gallery(rows: dict[str, Row], classes: Sequence[str], path: Path) -> None:
    """Draw the first images of each row, by title, and the histogram of its lam."""
    shown = min(MOST_SHOWN, max(len(row.mixed.images) for row in rows.values()))
    lines = [_most_labels(row.mixed.targets) for row in rows.values()]
    heights = [1.98 + 0.16 * count for count in lines]
    figure = Figure(figsize=(1.55 * shown + 3.2, sum(heights) + 0.2), layout="constrained")
    bands = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for band, (title, row) in zip(bands, rows.items(), strict=True):
        note = row.note and f": {row.note}"
        band.suptitle(title + note, fontsize=10, x=0.01, ha="left")
        *cells, last = band.subplots(1, shown + 1, width_ratios=[1.0] * shown + [1.9])
        for axes in (*cells, last):
            axes.set_axis_off()
        for cell, pixels, target in zip(cells, row.mixed.images, row.mixed.targets, strict=False):
            draw_image(cell, pixels, target, classes, fontsize=7.5, y=-0.08)
        if row.lam.size:
            _draw_histogram(last, row.lam)
    save_figure(figure, path)


def _most_labels(targets: Tensor) -> int:
    return min(MOST_LABELS, int((targets >= LEAST_SHOWN).sum(1).max()))


def _draw_histogram(axes: Any, lam: np.ndarray) -> None:
    axes.set_axis_on()
    axes.hist(lam, bins=np.linspace(0, 1, 41).tolist(), color="#4477aa")
    axes.axvline(lam.mean(), color="#cc3311", lw=1.2)
    axes.set_title(f"lam, mean {lam.mean():.3f} of {len(lam):,} draws", fontsize=8)
    axes.set(yticks=[], xlim=(0, 1))
    axes.tick_params(labelsize=7)


def _draw_lam(
    recipe: MixingConfig, parts: dict[str, Any], images: Tensor, labels: Tensor, draws: Any
) -> np.ndarray:
    """Lam of many draws: of blank images, which is quick, where it does not depend on images."""
    mix = mix_at(recipe, 0, parts=parts)
    outputs = int(labels.max()) + 1

    if not parts and _same_for_blank(mix, images, labels, outputs):
        images = images.new_zeros(1, 1, *images.shape[-2:]).expand(_AT_ONCE, -1, -1, -1)
        labels = labels[:1].expand(_AT_ONCE)
    lam = torch.cat([mix(images, labels, outputs, draws).lam for _ in range(_ROUNDS)]).numpy()
    return lam if (lam < 1).any() else lam[:0]


def _same_for_blank(mix: Any, images: Tensor, labels: Tensor, outputs: int) -> bool:
    """Whether a method draws the same lam for images that show nothing."""
    one, other = (
        mix(some, labels, outputs, torch.Generator().manual_seed(0)).lam
        for some in (images, torch.zeros_like(images))
    )
    return torch.equal(one, other)


def _changed_cells(images: Tensor, inside: LevelChange) -> tuple[Tensor, Grid]:
    """What happens to the features of a level, done to the means of the pixels of its cells.

    It shows where and how much is mixed; what the features themselves are, pixels cannot show.
    """
    grid = inside.levels.grid(inside.level, images)
    cells = functional.adaptive_avg_pool2d(images, (grid.rows, grid.columns))
    changed = inside.change(grid.place(cells))
    if grid.layout == "NLC":
        changed = changed[:, grid.prefix :].movedim(2, 1).unflatten(2, (grid.rows, grid.columns))
    elif grid.layout == "NHWC":
        changed = changed.movedim(3, 1)
    return functional.interpolate(changed, images.shape[-2:]), grid
