"""A gallery of mixing: a row for each method, its label weights, and the histogram of its lam."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pretrain.config import MixingConfig
from pretrain.data.crops import Square
from pretrain.errors import UsageError
from pretrain.files import save_figure
from pretrain.images import decode, list_images
from pretrain.mixing import Mixed, mix_at
from pretrain.pictures import draw_image
from pretrain.spec import IMAGENET_MEAN

_DRAWS, _AT_ONCE = 20_000, 200
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


def draw_gallery(
    recipes: Mapping[str, MixingConfig], batch: LabelledImages, seed: int, path: Path
) -> dict[str, np.ndarray]:
    """Draw a batch as each recipe mixes it, and the histogram of its lam.

    Args:
        recipes: by title.
        batch: what is mixed.
        seed: of the mixing.
        path: the picture.

    Returns:
        title -> lam of many draws, at the size of the images: rounding to pixels is part of it.
    """
    images, labels, classes = batch
    results = {title: _mix(recipe, images, labels, seed) for title, recipe in recipes.items()}
    columns = max(len(mixed.images) for mixed, _ in results.values())
    size = (1.55 * columns + 3.2, 2.3 * len(results) + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subfigures(len(results), 1, squeeze=False)[:, 0]
    for row, (title, (mixed, lam)) in zip(rows, results.items(), strict=True):
        row.suptitle(title, fontsize=10, x=0.01, ha="left")
        *cells, histogram = row.subplots(1, columns + 1, width_ratios=[1.0] * columns + [1.9])
        for cell in cells:
            cell.set_axis_off()
        for cell, pixels, target in zip(cells, mixed.images, mixed.targets, strict=False):
            draw_image(cell, pixels, target, classes, fontsize=7.5, y=-0.08)
        histogram.hist(lam, bins=np.linspace(0, 1, 41).tolist(), color="#4477aa")
        histogram.axvline(lam.mean(), color="#cc3311", lw=1.2)
        histogram.set_title(f"lam, mean {lam.mean():.3f}", fontsize=8)
        histogram.set(yticks=[], xlim=(0, 1))
        histogram.tick_params(labelsize=7)
    save_figure(figure, path)
    return {title: lam for title, (_, lam) in results.items()}


def _mix(
    recipe: MixingConfig, images: Tensor, labels: Tensor, seed: int
) -> tuple[Mixed, np.ndarray]:
    """Mix `images` once to show, and thin ones of their size for the histogram of lam.

    As in training, zero is the mean colour. The draws of lam are the same whoever shares them, so
    for the histogram each image has its own.
    """
    draws = torch.Generator().manual_seed(seed)
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    mixed = mix_at(recipe, 0)(images - mean, labels, int(labels.max()) + 1, draws)
    one_each = mix_at(replace(recipe, granularity="sample"), 0)
    thin = images.new_zeros(1, 1, *images.shape[-2:]).expand(_AT_ONCE, -1, -1, -1)
    zeros = torch.zeros(_AT_ONCE, dtype=torch.int64)
    lam = [one_each(thin, zeros, 1, draws).lam for _ in range(_DRAWS // _AT_ONCE)]
    return replace(mixed, images=mixed.images + mean), torch.cat(lam).numpy()
