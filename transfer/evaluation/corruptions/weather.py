"""Weather of ImageNet-C: snow, frost and fog.

Frost lays one of five photographs over the image. They are the authors', and are not part of this
project: the package imagecorruptions on PyPI has them, as github.com/hendrycks/robustness does.
"""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pretrain.errors import UsageError
from transfer.evaluation.corruptions.blur import along_line, zoom_in
from transfer.evaluation.corruptions.constants import FROST_SCALE, constant_set
from transfer.evaluation.corruptions.pixels import truncate

FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The photographs; there is a frost6.jpg, which the authors' code never draws."""


def snow(
    images: Tensor,
    noise: Tensor,
    angles: Sequence[float],
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    kept: float,
) -> Tensor:
    """Whiten the image, and lay streaks over it, once as they are and once turned by 180 degrees.

    Args:
        images: uint8 (B, 3, H, W).
        noise: (B, H, W), standard normal.
        angles: of the streaks, B, degrees.
        mean: of the flakes.
        deviation: of the flakes.
        zoom: how large the flakes are.
        threshold: below it there is no flake.
        radius: of the motion blur.
        sigma: of the motion blur.
        kept: of the image that is not whitened.
    """
    flakes = zoom_in((mean + deviation * noise)[:, None], zoom)
    flakes = truncate(torch.where(flakes < threshold, 0, 255 * flakes))
    streaks = truncate(along_line(flakes.float(), angles, radius, sigma)).float()
    pixels = images.float()
    red, green, blue = pixels.split(1, 1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    whitened = torch.maximum(pixels, grey * 1.5 + 0.5 * 255)
    return truncate(kept * pixels + (1 - kept) * whitened + streaks + streaks.rot90(2, (2, 3)))


def frost(images: Tensor, photographs: Tensor, kept: float, weight: float) -> Tensor:
    """Weigh the image by `kept` and add `photographs`, uint8 (B, 3, H, W), by `weight`."""
    return truncate(kept * images + weight * photographs)


def fog(images: Tensor, draws: Tensor, amount: float, decay: float) -> Tensor:
    """Add a cloud, and scale so that the brightest value stays about what it was.

    Args:
        images: uint8 (B, 3, H, W).
        draws: of the cloud, (B, S * S - 1), for `plasma`.
        amount: how bright the cloud is at its thickest.
        decay: of its roughness from one scale to the next.
    """
    _, _, height, width = images.shape
    cloud = plasma(draws, decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True).float()
    return truncate((images + 255 * amount * cloud) * (brightest / (brightest + 255 * amount)))


def plasma(draws: Tensor, decay: float) -> Tensor:
    """Clouds in [0, 1] by the diamond-square algorithm on a torus.

    Args:
        draws: in [0, 1), (B, S * S - 1) for a power of two S; as the authors use them, from the
            coarsest scale to the finest.
        decay: what the draws' range is divided by from one scale to the next.

    Returns:
        (B, S, S).
    """
    size = math.isqrt(draws.shape[1] + 1)
    steps = [size >> level for level in range(size.bit_length() - 1)]
    parts = iter(draws.split([(size // step) ** 2 for step in steps for _ in range(3)], 1))
    grid = draws.new_zeros(len(draws), size, size)
    wibble = 100.0
    for step in steps:
        half, count = step // 2, size // step

        def middle(total: Tensor, wibble: float = wibble, count: int = count) -> Tensor:
            shift = wibble * wibble * (2 * next(parts) - 1)
            return total / 4 + shift.view(-1, count, count)

        corners = grid[:, ::step, ::step]
        rows = corners + corners.roll(-1, 1)
        grid[:, half::step, half::step] = middle(rows + rows.roll(-1, 2))
        centres = grid[:, half::step, half::step]
        pairs = centres + centres.roll(1, 1)
        grid[:, ::step, half::step] = middle(pairs + corners + corners.roll(-1, 2))
        pairs = centres + centres.roll(1, 2)
        grid[:, half::step, ::step] = middle(pairs + corners + corners.roll(-1, 1))
        wibble /= decay
    grid = grid - grid.amin((1, 2), keepdim=True)
    return grid / grid.amax((1, 2), keepdim=True)


def cloud_size(height: int, width: int) -> int:
    """The next power of two."""
    return 1 << (max(height, width) - 1).bit_length()


def find_frost(folder: str | None, option: str = "--robustness.frost") -> list[Path]:
    """The photographs of a folder, or without one of an installed imagecorruptions, if it is.

    Raises:
        UsageError: the folder lacks one of them.
    """
    if folder is None:
        package = find_spec("imagecorruptions")  # is not imported: it needs OpenCV and old NumPy
        if package is None or package.origin is None:
            return []
        folder = str(Path(package.origin).parent / "frost")
    paths = [Path(folder, name) for name in FROST_FILES]
    if missing := [path for path in paths if not path.is_file()]:
        raise UsageError(
            f"{option}: there is no {missing[0]}; the folder must have {', '.join(FROST_FILES)}, "
            "as ImageNet-C/create_c of github.com/hendrycks/robustness has."
        )
    return paths


def read_frost(paths: Sequence[Path], height: int, width: int) -> tuple[Tensor, ...]:
    """Photographs, uint8 (3, h, w), for images of a size.

    They are as they are for images near 224 pixels, and smaller for those near 64 and 32, as the
    authors' scripts have it; what is not larger than the image is enlarged until it is.
    """
    scale = FROST_SCALE[constant_set(height, width)]
    read = []
    for path in paths:
        with Image.open(path) as file:
            pixels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
        needed = max((height + 1.5) / pixels.shape[1], (width + 1.5) / pixels.shape[2])
        if (factor := max(scale, needed)) != 1:
            resized = functional.interpolate(
                pixels[None].float(), scale_factor=factor, mode="bilinear"
            )
            pixels = resized[0].round().to(torch.uint8)
        read.append(pixels)
    return tuple(read)


def draw_snow(rng: Generator, height: int, width: int, *constants: float) -> tuple:
    """Noise and the direction of an image's snow."""
    return rng.standard_normal((height, width), np.float32), float(rng.uniform(-135, -45))


def draw_fog(rng: Generator, height: int, width: int, *constants: float) -> tuple[np.ndarray]:
    """Draws of an image's cloud."""
    size = cloud_size(height, width)
    return (rng.random(size * size - 1, np.float32),)


def draw_frost(
    rng: Generator, height: int, width: int, photographs: Sequence[Tensor]
) -> tuple[np.ndarray]:
    """A part of one of the photographs."""
    photograph = photographs[int(rng.integers(len(photographs)))]
    top = rng.integers(photograph.shape[1] - height)
    left = rng.integers(photograph.shape[2] - width)
    return (photograph[:, top : top + height, left : left + width].numpy(),)
