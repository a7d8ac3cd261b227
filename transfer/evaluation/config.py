"""The options of the suites: --SUITE.FIELD on the command line of tools/evaluate.py.

Each refuses values outside their ranges by UsageError, before any data are opened.
"""

import math
import sys
from dataclasses import dataclass, field
from typing import Literal

from pretrain.errors import UsageError, check_ranges

RobustnessPart = Literal["attacks", "occlusion", "between", "corruptions"]


@dataclass(frozen=True)
class RobustnessConfig:
    """Attacks, occlusion, samples in between, corruptions."""

    parts: list[RobustnessPart] = field(
        default_factory=lambda: ["attacks", "occlusion", "between", "corruptions"]
    )
    """What is measured."""
    eps: float = 8 / 255
    """Attacks: the largest change of a value, of pixels in [0, 1] and of normalised ones."""
    pgd_steps: int = 10
    pgd_step_size: float = 2 / 255
    """Of pixels in [0, 1]."""
    sizes: int = 14
    """Sizes of the hole from 0 to the whole image, but for 0: at 224 pixels every 16."""
    fill: Literal["mean", "black"] = "mean"
    """What is occluded: zeros of the normalised image, the mean colour, or of its pixels."""
    seed: int = 0
    """Of PGD's start, of the pairs in between, and of the corruptions."""
    frost: str | None = None
    """A folder with ImageNet-C's photographs of frost; without it those of imagecorruptions, where
    that is installed; else this corruption is left out."""

    def __post_init__(self) -> None:
        check_ranges(
            "--robustness", self, eps="(0, 1]", pgd_steps="[1, 1000]", pgd_step_size="(0, 1]",
            sizes="[1, 1000]", seed=">= 0",
        )  # fmt: skip
        if not self.parts:
            raise UsageError("--robustness.parts is empty; leave it off to measure all parts.")


@dataclass(frozen=True)
class OodConfig:
    """Detection of images of no known class."""

    foreign: list[str] = field(default_factory=list)
    """Folders of foreign images, at any depth, or CIFAR's pickles (test images): DIR, called as the
    folder is, or NAME=DIR."""
    noise: int | None = None
    """Images of uniform and as many of Gaussian noise; None: as many as known ones; 0: no noise."""
    seed: int = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        check_ranges("--ood", self, noise="[0, 10000000]", seed=">= 0")


@dataclass(frozen=True)
class LocalisationConfig:
    """Boxes from class activation maps."""

    methods: list[Literal["cam", "grad-cam"]] = field(default_factory=lambda: ["cam", "grad-cam"])
    """Of the maps; cam needs a mean over the last feature map and one linear layer behind it."""
    threshold: float = 0.15
    """Of the map's maximum: what is as high or higher belongs to the object."""
    last_stage: Literal["dilated", "stride", "own"] = "dilated"
    """The last convolutions that halve the resolution no longer do. dilated: what follows keeps its
    reach, and the classifier its accuracy; stride: nothing else changes, as the paper's networks
    are built and trained on; own: the network as it is."""
    geometry: Literal["crop", "whole"] = "crop"
    """What the network sees: the backbone's own crop, or the whole image without its aspect."""
    size: int | None = None
    """Side of what it sees in pixels; None: that of its training. Larger ones give finer maps."""
    first_pixel: Literal[0, 1] = 1
    """Pascal VOC: the number of an image's first pixel, as in detection's --dataset.first_pixel."""
    seed: int = 0
    """Of the images of the picture."""

    def __post_init__(self) -> None:
        check_ranges("--localisation", self, threshold="(0, 1]", seed=">= 0", size="[8, 4096]")
        if not self.methods:
            raise UsageError("--localisation.methods is empty; there are cam and grad-cam.")


@dataclass(frozen=True)
class VariantsConfig:
    """ImageNet's variants."""


@dataclass(frozen=True)
class CalibrationConfig:
    """Confidence against accuracy."""

    bins: int = 15
    """Of equal width, and of equally many images."""
    held_out: float = 0.2
    """Share of the images that the temperature is fitted on, 5,000 at most, and nothing else."""

    def __post_init__(self) -> None:
        check_ranges("--calibration", self, bins="[1, 1000]", held_out="(0, 1)")


@dataclass(frozen=True)
class OmniConfig:
    """Linear probes on frozen features, one for each folder of a list."""

    penalties: tuple[float, ...] = (1e-5, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """lam of the authors' code, on the norm of the weights; one is chosen for each realm."""
    image_size: int | None = None
    """Side of the network's input in pixels; null takes the size the backbone was trained at."""
    cache: str = "runs/features"
    """Folder of the features, shared by runs."""

    def __post_init__(self) -> None:
        check_ranges("--omnibenchmark", self, image_size="[8, 8192]")
        normal = [sys.float_info.min <= lam < math.inf for lam in self.penalties]
        if not normal or not all(normal):
            raise UsageError(
                f"--omnibenchmark.penalties is {list(self.penalties)}; give one or more numbers, "
                "all above 0."
            )
