"""Manifold Mixup (Verma et al., ICML 2019, arXiv 1806.05236, section 2): Mixup of hidden states.

    k drawn from the eligible layers S for each batch, lam ~ Beta(alpha, alpha)
    g_k = lam g_k(x) + (1 - lam) g_k(x'), and from there on through the network

Label rule: lam, as the features (equation 2). Further passes of the network: none, but for one of
one image in evaluation mode when a size of images is first seen.

The authors' code (github.com/vikasverma1077/manifold_mixup, supervised/models/preresnet.py) draws
one of three layers: the image, after layer1, after layer2. Ours takes the image and the first two
stages of any timm network, or the levels that are named. It has granularities and partners as
Mixup; in float16 and bfloat16 features are blended in float32.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.levels import IMAGE, FeatureLevels, LevelChange
from pretrain.mixing.mixed import Mixed, blend_labels, numpy_generator, to_device
from pretrain.mixing.mixup import Mixup, blend


@dataclass(frozen=True, kw_only=True)
class ManifoldMixup(Mixup):
    """Mixup at one level of the network, drawn for each batch.

    Where features are mixed, `images` of the result are all those of the input, at granularity
    "half" too: the network halves the batch.
    """

    reads: ClassVar[bool] = False  # the network takes the batch as a whole

    levels: FeatureLevels
    at: tuple[str | int, ...] = ()
    """Levels to draw from, by name or number (0 is the image); () takes the image and the first two
    stages."""

    def __post_init__(self) -> None:
        """Refuse levels that the network lacks."""
        super().__post_init__()
        self.levels.named(self.at)

    def __call__(  # type: ignore[override]
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Floating images, unless the level is the image."""
        rng = numpy_generator(generator)
        names = self.levels.named(self.at) or (IMAGE, *self.levels.stages[:2])
        level = names[rng.integers(len(names))]
        if level == IMAGE:
            return replace(super().__call__(images, labels, num_classes, generator), note=level)
        self.levels.shape(level, images)  # refuses what cannot be mixed
        pairs = self.draw_pairs(len(images), rng)
        images = self.cut(images, rng)
        lam = torch.from_numpy(pairs.spread(pairs.lam, 1).astype(np.float32))
        partner = torch.from_numpy(pairs.partner)
        source, weight = to_device(partner, images.device), to_device(lam, images.device)
        targets = blend_labels(labels, num_classes, source, weight)
        if not pairs.mixed.any():
            return Mixed(images[: len(lam)], targets, lam, partner, note=level)
        inside = LevelChange(self.levels, level, FeatureBlend(source, weight))
        return Mixed(images, targets, lam, partner, inside, note=level)


@dataclass(frozen=True)
class FeatureBlend:
    """Features (N, ...) to (M, ...): lam of the own, 1 - lam of the partner's."""

    partner: Tensor
    """(M,)."""
    lam: Tensor
    """(M,) float32."""

    def __call__(self, features: Tensor) -> Tensor:
        """See the class."""
        weight = self.lam.view(-1, *[1] * (features.ndim - 1))
        return blend(features[: len(self.lam)], features[self.partner], weight)
