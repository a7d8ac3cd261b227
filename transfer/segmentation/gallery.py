"""A gallery of mixing for segmenters: images and masks beside what a batch becomes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pretrain.files import save_figure
from pretrain.palette import colour_map
from pretrain.training import derive, generator, seed_ambient
from transfer.segmentation.config import MixingConfig
from transfer.segmentation.dataset import SegmentationDataset
from transfer.segmentation.mixing import mix


class Row(NamedTuple):
    """A batch (N, C, S, S) with its masks (N, S, S), before and after."""

    images: Tensor
    masks: Tensor
    mixed: Tensor
    mixed_masks: Tensor
    pasted: float
    """Share of the pixels that are those of another image."""


def read_batch(
    samples: SegmentationDataset, indices: Sequence[int], seed: int
) -> tuple[Tensor, Tensor]:
    """Training samples by their numbers, a function of the seed; UsageError if unreadable."""
    read = []
    for index in indices:
        seed_ambient(derive(seed, "sample", 0, index))
        read.append(samples[index])
    images, masks = zip(*read, strict=True)
    return torch.stack(images), torch.stack(masks)


def make_row(images: Tensor, masks: Tensor, config: MixingConfig, seed: int) -> Row:
    """A batch as it is trained on."""
    mixed, mixed_masks = mix(images, masks, config, generator(seed, "mixing", 0, 0))
    own = torch.arange(len(images)).view(-1, 1, 1, 1).expand(-1, 1, *images.shape[2:])
    source, _ = mix(own, masks, config, generator(seed, "mixing", 0, 0))  # by the same draws
    return Row(images, masks, mixed, mixed_masks, float((source != own).double().mean()))


def draw_gallery(rows: dict[str, Row], path: Path) -> None:
    """For each title images above their masks, each beside what it becomes."""
    count = max(len(row.images) for row in rows.values())
    figure = Figure(figsize=(3.4 * count, 3.7 * len(rows)), layout="constrained")
    bands = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for band, (title, row) in zip(bands, rows.items(), strict=True):
        band.suptitle(title, fontsize=11, x=0.01, ha="left")
        above, below = band.subplots(2, 2 * count, squeeze=False)
        for cell in (*above, *below):
            cell.set_axis_off()
        for number in range(len(row.images)):
            pairs = ((row.images, row.masks), (row.mixed, row.mixed_masks))
            for place, (images, masks) in enumerate(pairs, 2 * number):
                above[place].imshow(_pixels(images[number], row.images))
                below[place].imshow(colour_map()[masks[number].numpy()], interpolation="nearest")
    save_figure(figure, path)


def _pixels(image: Tensor, batch: Tensor) -> np.ndarray:
    """(S, S, 3) uint8; of slices grey between the lowest and the highest value of the batch."""
    if image.dtype != torch.uint8:
        low, high = batch.min(), batch.max()
        image = ((image - low) / (high - low).clamp(min=1e-6) * 255).byte().expand(3, -1, -1)
    return np.asarray(image.permute(1, 2, 0).numpy())
