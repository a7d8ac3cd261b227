"""Square holes at the centre of images, in which another image, or nothing, is seen."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Hole: TypeAlias = tuple[slice, slice]
"""Rows and columns."""


def centre_holes(height: int, width: int, sizes: int) -> list[Hole]:
    """Holes about the centre with sides 0, 1/sizes, ... 1 of the image's, rounded to pixels."""
    holes = []
    for number in range(sizes + 1):
        sides = [round(whole * number / sizes) for whole in (height, width)]
        starts = [(whole - side) // 2 for whole, side in zip((height, width), sides, strict=True)]
        rows, columns = (slice(a, a + b) for a, b in zip(starts, sides, strict=True))
        holes.append((rows, columns))
    return holes


def pasted(background: Tensor, image: Tensor, holes: Sequence[Hole]) -> Iterator[Tensor]:
    """`background` with `image` in each of the holes, which grow: one tensor, changed in place."""
    view = background.clone(memory_format=torch.channels_last)
    for rows, columns in holes:
        view[..., rows, columns] = image[..., rows, columns]
        yield view


def heights(holes: Sequence[Hole]) -> list[int]:
    """In pixels."""
    return [rows.stop - rows.start for rows, _ in holes]
