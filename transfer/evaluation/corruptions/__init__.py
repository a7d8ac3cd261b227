"""The 15 corruptions of ImageNet-C at 5 severities, computed from an image rather than downloaded.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019), by the authors' code, github.com/hendrycks/robustness.

    noise       Gaussian, shot, impulse
    blur        defocus, glass, motion, zoom
    weather     snow, frost, fog
    digital     brightness, contrast, elastic transform, pixelate, JPEG
    constants   how strong, for images near 224, 64 and 32 pixels

Each corruption is a function of images, of what was drawn for them, and of constants: uint8
(B, 3, H, W) -> the same, on the images' device. What is drawn depends on the seed, the image's
number, the corruption and the severity alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.mixed import to_device
from pretrain.training import derive
from transfer.evaluation.corruptions import blur, digital, noise, weather
from transfer.evaluation.corruptions.constants import constant_set, constants
from transfer.evaluation.corruptions.weather import find_frost, read_frost

__all__ = [
    "FUNCTIONS",
    "NAMES",
    "SEVERITIES",
    "constant_set",
    "constants",
    "corrupt",
    "find_frost",
    "read_frost",
]

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
"""Of images, of what was drawn for them, and of the constants of a severity."""
DRAWS: dict[str, Callable[..., tuple]] = {
    "gaussian_noise": noise.draw_normal,
    "shot_noise": noise.draw_16_bits,
    "impulse_noise": noise.draw_16_bits,
    "glass_blur": blur.draw_glass,
    "motion_blur": blur.draw_angle,
    "snow": weather.draw_snow,
    "fog": weather.draw_fog,
    "elastic_transform": digital.draw_elastic,
}
"""Of a NumPy generator, height, width and the constants: what is drawn for an image."""
NAMES = tuple(FUNCTIONS)
"""In the paper's order."""
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(
    name: str,
    severity: int,
    images: Tensor,
    seed: int,
    numbers: Sequence[int],
    frost: Sequence[Tensor] = (),
) -> Tensor:
    """Corrupt images, each by its own draws.

    Args:
        name: of `NAMES`.
        severity: 1 to 5.
        images: uint8 (B, 3, H, W) on any device; they are left as they are.
        seed: of all draws.
        numbers: of the images in their data set, B.
        frost: photographs from `read_frost`, which the corruption frost needs.

    Returns:
        uint8 (B, 3, H, W) on the device of the images. On the CPU they are made one by one, which
        is faster (they stay in the cache) and gives the same bits for any batch size.
    """
    if images.device.type == "cpu":
        made = [
            corrupt_batch(name, severity, image[None], seed, [number], frost)
            for image, number in zip(images, numbers, strict=True)
        ]
        return torch.cat(made)
    return corrupt_batch(name, severity, images, seed, numbers, frost)


def corrupt_batch(
    name: str,
    severity: int,
    images: Tensor,
    seed: int,
    numbers: Sequence[int],
    frost: Sequence[Tensor],
) -> Tensor:
    """As `corrupt`, all images at once, as it has it where they are not on the CPU."""
    height, width = images.shape[2:]
    given = constants(name, severity, height, width)
    place = NAMES.index(name), severity
    drawn = []
    for number in numbers:
        rng = np.random.default_rng(derive(seed, "pixels", number, *place))
        if name == "frost":
            drawn.append(weather.draw_frost(rng, height, width, frost))
        elif name in DRAWS:
            drawn.append(DRAWS[name](rng, height, width, *given))
    draws = [_stack(values, images.device) for values in zip(*drawn, strict=True)]
    with torch.autocast(images.device.type, enabled=False):
        return FUNCTIONS[name](images, *draws, *given)


def _stack(values: tuple, device: torch.device) -> Tensor | tuple:
    """Arrays of images as one tensor on the device; plain numbers stay, they place slices."""
    if not isinstance(values[0], np.ndarray):
        return values
    return to_device(torch.from_numpy(np.stack(values)), device)
