"""Feature CutMix (Yun et al., ICCV 2019, arXiv 1905.04899, sections 4.1.1 and 4.1.3).

CutMix at one layer, drawn for each batch: 0 the image, 1 after the first convolution and BN, 2, 3,
4 after layer1, layer2, layer3 of a ResNet-50 (figure 3 has each alone; of them the image is best).
The box is drawn as CutMix draws it, in the cells of the layer's features.

Label rule: the share of cells of that level. Further passes of the network: none, but for one of
one image in evaluation mode when a size of images is first seen, for the number of its cells.

The authors published no code for it. Tokens in front of those of the image (class, registers) have
no place in it: they stay the image's own.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.boxes import box_mask, own_share
from pretrain.mixing.cutmix import CutMix, label_weights
from pretrain.mixing.levels import IMAGE, FeatureLevels, LevelChange
from pretrain.mixing.mixed import Mixed, blend_labels, numpy_generator, to_device


@dataclass(frozen=True, kw_only=True)
class FeatureCutMix(CutMix):
    """CutMix at one level of the network, drawn for each batch.

    Where features are mixed, `images` of the result are all those of the input, at granularity
    "half" too: the network halves the batch.
    """

    on_bytes: ClassVar[bool] = False  # features are of normalised images
    reads: ClassVar[bool] = False

    levels: FeatureLevels
    at: tuple[str | int, ...] = ()
    """Levels to draw from, by name or number (0 is the image); () takes the paper's: all but the
    last, or of a network of many equal blocks the image and the ends of its first three quarters.
    """

    def __post_init__(self) -> None:
        """Refuse levels that the network lacks."""
        super().__post_init__()
        self.levels.named(self.at)

    def __call__(  # type: ignore[override]
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Floating images, unless the level is the image."""
        rng = numpy_generator(generator)
        every = (IMAGE, *self.levels.stem, *self.levels.stages[:-1])
        names = self.levels.named(self.at) or every
        level = names[rng.integers(len(names))]
        if level == IMAGE:
            return replace(super().__call__(images, labels, num_classes, generator), note=level)
        grid = self.levels.grid(level, images)
        pairs = self.draw_pairs(len(images), rng)
        boxes = pairs.spread(self.draw_boxes(pairs.lam, grid.rows, grid.columns, rng), 0)
        share = own_share(boxes, grid.rows, grid.columns)
        lam = torch.from_numpy(label_weights(share, self.label).astype(np.float32))
        partner = torch.from_numpy(pairs.partner)
        source, weight = to_device(partner, images.device), to_device(lam, images.device)
        targets = blend_labels(labels, num_classes, source, weight)
        if (share == 1).all():
            return Mixed(images[: len(lam)], targets, lam, partner, note=level)
        cells = torch.empty(1, 1, grid.rows, grid.columns, device=images.device)
        change = FeaturePaste(source, grid.place(box_mask(boxes, cells)))
        return Mixed(
            images, targets, lam, partner, LevelChange(self.levels, level, change), note=level
        )


@dataclass(frozen=True)
class FeaturePaste:
    """Features (N, ...) to (M, ...): the partner's where the mask is true."""

    partner: Tensor
    """(M,)."""
    mask: Tensor
    """Of booleans, broadcast over the features."""

    def __call__(self, features: Tensor) -> Tensor:
        """See the class."""
        return torch.where(self.mask, features[self.partner], features[: len(self.partner)])
