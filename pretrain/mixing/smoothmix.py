"""SmoothMix (Lee et al., CVPR workshops 2020): blended by a mask without hard edges.

    circle    a Gaussian bump, 1 at its centre: the centre is uniform over the image, sigma uniform
              over a quarter to half of the side; nothing is drawn from Beta, so alpha has no effect
    square    CutMix's box of lam ~ Beta(alpha, alpha) with blurred edges. The paper has squares
              too, but published no code; the shape of the edges is ours

Label rule: the partner's weight is the mean of the mask, as in the paper. The network makes no
further pass. openmixup (smoothmix.py) draws the same circles and gives the mean of the mask to the
image itself, the two labels exchanged; ours takes images that are not square, where the side is the
shorter one.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import check_ranges
from pretrain.mixing.boxes import check_interval
from pretrain.mixing.masks import mix_by_masks
from pretrain.mixing.mixed import Mixed, PairedMix, numpy_generator, to_device


@dataclass(frozen=True, kw_only=True)
class SmoothMix(PairedMix):
    """SmoothMix; one mask for the batch, as openmixup."""

    on_bytes: ClassVar[bool] = False
    shape: Literal["circle", "square"] = "circle"
    """Of the mask."""
    sigma: tuple[float, float] = (0.25, 0.5)
    """Range of a circle's standard deviation, as shares of the shorter side."""
    edge: float = 0.05
    """Standard deviation of a square's edge, as a share of the shorter side."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        super().__post_init__()
        check_ranges("mixing.args", self, edge="(0, 1]")
        check_interval("sigma", self.sigma, 10)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix."""
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        height, width = images.shape[-2:]
        centre = rng.random((2, len(pairs.lam)))
        sigma = rng.uniform(*self.sigma, len(pairs.lam)) * min(height, width)
        profiles = []
        for size, middle in zip((height, width), centre, strict=True):
            if self.shape == "circle":
                profiles.append(bump(size, middle * size, sigma))
            else:
                half, blur = np.sqrt(1 - pairs.lam) * size / 2, self.edge * min(height, width)
                profiles.append(soft_box(size, middle * size, half, blur))
        lam = 1 - profiles[0].mean(1) * profiles[1].mean(1)
        sent = torch.from_numpy(np.concatenate(profiles, axis=1).astype(np.float32))
        rows, columns = to_device(sent, images.device).split([height, width], dim=1)
        masks = rows[:, :, None] * columns[:, None]
        return mix_by_masks(images, labels, num_classes, pairs, masks, lam)


def bump(size: int, centre: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """One axis (G, size) of Gaussians with maximum 1, for centres and deviations (G,) in pixels.

    Pixel i lies at i + 1/2.
    """
    distance = np.arange(size) + 0.5 - centre[:, None]
    profile: np.ndarray = np.exp(-((distance / sigma[:, None]) ** 2) / 2)
    return profile


def soft_box(size: int, centre: np.ndarray, half: np.ndarray, blur: float) -> np.ndarray:
    """One axis (G, size) of boxes [centre - half, centre + half] (G,) under a Gaussian blur."""
    distance = torch.from_numpy(np.arange(size) + 0.5 - centre[:, None])
    ends = torch.from_numpy(half)[:, None]
    profile = torch.special.ndtr((distance + ends) / blur)
    profile -= torch.special.ndtr((distance - ends) / blur)
    return profile.numpy()
