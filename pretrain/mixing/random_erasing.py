"""Random Erasing (Zhong et al., AAAI 2020, arXiv 1708.04896): a box of each image is filled.

Its area, aspect ratio and place are drawn (algorithm 1). Label rule: the label stays whole. The
network makes no further pass.

As timm's RandomErasing with one box, and torchvision's: the same boxes from the same draws, and the
same fill on normalised images. Ours takes the paper's area (timm and torchvision stop at a third).
All three draw the aspect ratio log-uniformly, the paper uniformly from 0.3 to 3.3, which makes most
boxes tall. With `pixel` the boxes of a batch show their part of one image of noise: all of it is
drawn on the host, so that every device has the same.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import check_ranges
from pretrain.mixing.boxes import check_interval
from pretrain.mixing.masks import fill_boxes
from pretrain.mixing.mixed import Mixed, numpy_generator, to_device, unmixed

ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """One box for each image.

    Random fill is Gaussian, as normalised images are; for bytes it is uniform from 0 to 255, as in
    the paper.
    """

    on_bytes: ClassVar[bool] = False  # noise and zero are those of normalised images
    area: tuple[float, float] = (0.02, 0.4)
    """Range of the box's share of the image."""
    aspect: tuple[float, float] = (0.3, 10 / 3)
    """Range of its height / width."""
    fill: Literal["const", "rand", "pixel"] = "pixel"
    """timm's modes: 0, a random colour for each box, or a random colour for each pixel."""
    probability: float = 1.0
    """Chance that an image is erased; the paper has 0.5."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        check_ranges("mixing", self, probability="[0, 1]")
        check_interval("area", self.area, 1)
        check_interval("aspect", self.aspect, 100)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Every lam is 1 and every image its own partner."""
        rng = numpy_generator(generator)
        count, channels, height, width = images.shape
        area = rng.uniform(*self.area, (ATTEMPTS, count))
        low, high = np.log(self.aspect)
        aspect = np.exp(rng.uniform(low, high, (ATTEMPTS, count)))
        boxes = erasing_boxes(area, aspect, rng.random((2, count)), height, width)
        boxes[rng.random(count) >= self.probability] = 0
        shape = {
            "const": (1, 1, 1, 1),
            "rand": (count, channels, 1, 1),
            "pixel": (1, channels, height, width),
        }[self.fill]
        if self.fill == "const":
            fill = torch.zeros(shape)
        elif images.is_floating_point():
            fill = torch.from_numpy(rng.standard_normal(shape, np.float32))
        else:
            fill = torch.from_numpy(rng.integers(0, 256, shape))
        fill = to_device(fill.to(images.dtype), images.device)
        erased = fill_boxes(images, boxes, fill)
        return replace(unmixed(images, labels, num_classes), images=erased)


def erasing_boxes(
    area: np.ndarray, aspect: np.ndarray, place: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Boxes (N, 4), each of the first attempt that is smaller than the image; empty without one.

    Args:
        area: (attempts, N) shares of the image.
        aspect: (attempts, N) height / width.
        place: (2, N) in [0, 1): top and left among the places where the box fits.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    sides = np.rint(np.sqrt(area * height * width * np.stack([aspect, 1 / aspect]))).astype(int)
    size = np.array([[height], [width]])
    fits = (sides < size[:, :, None]).all(0)
    side = sides[:, fits.argmax(0), np.arange(area.shape[1])] * fits.any(0)
    low = (place * (size - side + 1)).astype(int)
    return np.concatenate([low, low + side]).T
