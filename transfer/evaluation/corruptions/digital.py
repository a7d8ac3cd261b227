"""Digital corruptions of ImageNet-C: brightness, contrast, elastic transform, pixelate, JPEG."""

import io
from functools import lru_cache

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor
from torch.nn import functional

from transfer.evaluation.corruptions.pixels import gaussian_filter, truncate


def brightness(images: Tensor, amount: float) -> Tensor:
    """Raise V of HSV by `amount` of the range.

    With hue and saturation kept, that multiplies a pixel's three values by one factor; black
    becomes grey. So there is no way to HSV and back.
    """
    pixels = images.float()
    value = pixels.amax(1, keepdim=True)
    raised = (value + 255 * amount).clamp_(max=255)
    return truncate(torch.where(value > 0, pixels * (raised / value.clamp(min=1)), raised))


def contrast(images: Tensor, amount: float) -> Tensor:
    """Keep `amount` of each value's distance to the mean of its channel."""
    _, _, height, width = images.shape
    means = images.sum((2, 3), keepdim=True) / (height * width)
    return truncate((images - means) * amount + means)


def elastic_transform(
    images: Tensor,
    corners: Tensor,
    fields: Tensor,
    strength: float,
    sigma: float,
    jitter: float,
) -> Tensor:
    """Bend: an affine map that moves three points, then a smooth field of displacements.

    Both interpolate, as the authors' do. They pass the three points as (row, column) to OpenCV,
    which takes (x, y): in an image that is not square the points lie elsewhere than meant.

    Args:
        images: uint8 (B, 3, H, W).
        corners: (B, 3, 2) in [-1, 1]: moves of the three points, in units of `jitter`.
        fields: (B, 2, H, W) in [-1, 1]: displacements to the right and down, before smoothing.
        strength: pixels of displacement where the smoothed field is 1.
        sigma: of the field's Gaussian, whose border mirrors.
        jitter: pixels.
    """
    _, _, height, width = images.shape
    y = torch.arange(height, device=images.device, dtype=torch.float32)[:, None]
    x = torch.arange(width, device=images.device, dtype=torch.float32)
    middle = torch.tensor([height // 2, width // 2], dtype=torch.float32, device=images.device)
    reach = min(height, width) // 3
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], device=images.device)
    points = middle + reach * signs
    inverse = _affine(points + jitter * corners, points.expand_as(corners))[..., None, None]
    where = inverse[:, 0] * x + inverse[:, 1] * y + inverse[:, 2]
    pixels = _sample(images.float(), where, corners_aligned=True)
    moves = strength * gaussian_filter(fields, sigma, "reflect", 3)
    where = torch.stack([x + moves[:, 0], y + moves[:, 1]], 1)
    return truncate(_sample(pixels, where, corners_aligned=False))


def pixelate(images: Tensor, scale: float) -> Tensor:
    """Shrink by Pillow's box filter, rounding after each axis as Pillow does, and enlarge."""
    _, _, height, width = images.shape
    rows, row = _box(height, scale, images.device)
    columns, column = _box(width, scale, images.device)
    small = (images.float() @ columns.T).add_(0.5).floor_()
    small = torch.matmul(rows, small).add_(0.5).to(torch.uint8)
    return small[:, :, row[:, None], column]


def jpeg_compression(images: Tensor, quality: int) -> Tensor:
    """Write and read as JPEG, by Pillow, as the authors do; on the CPU."""
    return torch.stack([_jpeg(image, quality) for image in images.cpu()]).to(images.device)


def draw_elastic(rng: Generator, height: int, width: int, *constants: float) -> tuple:
    """Moves of the points and fields of an image."""
    corners = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
    return corners, 2 * rng.random((2, height, width), np.float32) - 1


def _affine(given: Tensor, wanted: Tensor) -> Tensor:
    """The maps of three points (B, 3, 2) to three others: for x, y and 1, (B, 3, 2)."""
    ones = given.new_ones(len(given), 3, 1)
    solved = torch.linalg.solve(torch.cat([given, ones], 2).double(), wanted.double())
    return solved.float()


def _sample(images: Tensor, where: Tensor, corners_aligned: bool) -> Tensor:
    """Images (B, C, H, W) between their pixels, at `where` (B, 2, H, W): x and y.

    The border mirrors: without repeating the edge (OpenCV's reflect 101) for `corners_aligned`,
    else with it (SciPy's reflect).
    """
    height, width = images.shape[-2:]
    size = torch.tensor([width, height], device=images.device)[:, None, None]
    grid = where * (2 / (size - 1)) - 1 if corners_aligned else (2 * where + 1) / size - 1
    return functional.grid_sample(
        images, grid.permute(0, 2, 3, 1), "bilinear", "reflection", corners_aligned
    )


def _jpeg(image: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


@lru_cache(16)
def _box(side: int, scale: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pillow's box filter of an axis as a matrix, and which of its pixels each pixel shows."""
    small = max(1, int(side * scale))
    identity = Image.fromarray(np.eye(side, dtype=np.float32))
    matrix = np.array(identity.resize((side, small), Image.Resampling.BOX))
    numbers = Image.fromarray(np.arange(small, dtype=np.float32)[None])
    index = np.array(numbers.resize((side, 1), Image.Resampling.BOX))[0]
    return torch.from_numpy(matrix).to(device), torch.from_numpy(index).long().to(device)
