"""Image files and their masks: what the numbers of a mask mean, and one of them as a record.

    palette (PNG, GIF, BMP)   the index into the palette; with colours known, see `Coding.colors`
    grey of 8 and of 16 bits  the value; PNG of 2 and 4 bits too, whose values Pillow multiplies
    black and white (1 bit)   0 and 1
    three colours             their value where all three are equal, as in grey saved as RGB;
                              otherwise the class of the colour, where the tree says it

JPEG, WebP and AVIF change values to save space, so masks in them are refused.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pretrain.errors import UsageError, first_line, shorten
from pretrain.images import decode
from transfer.segmentation.config import VOID

Values = NDArray[Any]
Color = tuple[int, int, int]

_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")
_LARGEST = 2**16  # one above the largest value of a mask
_NO_CLASS = 256


@dataclass(frozen=True)
class Coding:
    """What the numbers, or the colours, of a mask mean."""

    values: tuple[int, ...]
    """Of each class."""
    void: tuple[int, ...] = (VOID,)
    """Of pixels without a class."""
    colors: tuple[tuple[Color, int], ...] = ()
    """Colour and class, or VOID. They count in masks of three colours, and in palettes all of
    whose used colours are among them."""


def read_mask(path: Path, coding: Coding) -> Tensor:
    """A mask as uint8 (H, W): classes from 0, and VOID.

    Raises:
        UsageError: missing, broken, lossy, or with a value or colour that no class has.
    """
    values, palette = _read(path)
    if coding.colors:
        if values.ndim == 2 and _has_colors(values, palette, coding.colors):
            values = palette[values]
        if values.ndim == 3:
            return _by_color(path, values, coding.colors)
    values = _one_channel(path, values)
    codes = _table(coding).take(values)
    if codes.max() == _NO_CLASS:
        raise UsageError(f"mask {path} {_unknown(values[codes == _NO_CLASS], coding)}")
    return torch.from_numpy(codes.astype(np.uint8))


def count_values(path: Path) -> dict[int, int]:
    """{value: number of pixels} of a mask; UsageError as `read_mask`."""
    counts = np.bincount(_one_channel(path, _read(path)[0]).ravel())
    return {value: int(counts[value]) for value in np.flatnonzero(counts).tolist()}


@dataclass(frozen=True)
class ImageRecord:
    """An image file and its mask: a Record."""

    image_id: str
    path: Path
    mask: Path
    coding: Coding
    apply_exif: bool = False
    """Turn the image as its EXIF orientation says."""
    case: str = ""
    spacing: tuple[float, float] | None = None

    def read_image(self) -> Tensor:
        """See Record."""
        return decode(self.path, self.apply_exif)

    def read_mask(self) -> Tensor:
        """See Record."""
        return read_mask(self.mask, self.coding)


def _read(path: Path) -> tuple[Values, Values]:
    """Values (H, W), or colours (H, W, 3); and the palette (P, 3), empty where there is none."""
    if not os.path.isfile(path):  # a pipe would block
        raise UsageError(f"there is no mask {path}.")
    none = np.zeros((0, 3), np.uint8)
    try:
        with Image.open(path) as image:
            if image.format in _LOSSY:
                raise UsageError(
                    f"mask {path} is a {image.format}, which changes the values at every edge to "
                    "save space: write masks as PNG from where they were drawn."
                )
            mode = image.mode
            if mode == "P":
                palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
                return np.asarray(image), palette
            if mode == "1":
                return np.asarray(image).astype(np.uint8), none
            if mode == "L":
                return np.asarray(image) // _gray_step(image, path), none
            if mode == "I" or mode.startswith("I;16"):
                values = np.asarray(image)
                if values.min() < 0 or values.max() >= _LARGEST:
                    raise UsageError(
                        f"mask {path} has values from {values.min()} to {values.max()}; they must "
                        f"lie between 0 and {_LARGEST - 1}."
                    )
                return values.astype(np.uint16), none
            if mode in ("LA", "RGB", "RGBA"):
                return np.asarray(image.convert("RGB")), none
    except UsageError:
        raise
    except Exception as error:  # of a broken file, whatever it is
        raise UsageError(
            f"mask {path} cannot be decoded ({first_line(error).rstrip('.')}). It may be cut "
            "short, or no image. Replace it."
        ) from error
    raise UsageError(f"mask {path} has the mode {mode}; write it as PNG with a palette, or grey.")


def _one_channel(path: Path, values: Values) -> Values:
    """Values (H, W) of what may have three equal ones."""
    if values.ndim == 3 and not (values == values[..., :1]).all():
        raise UsageError(
            f"mask {path} is in colour, and nothing says the classes of its colours. Add a file "
            "labelmap.txt beside the folder of masks, with a line NAME:R,G,B:: for each class in "
            "their order, or write masks with a number for each pixel."
        )
    return values if values.ndim == 2 else values[..., 0]


def _gray_step(image: Image.Image, path: Path) -> int:
    """What Pillow multiplies the values of a grey PNG of 2 or 4 bits with, to span 0 to 255."""
    if image.format != "PNG":
        return 1
    with open(path, "rb") as file:
        bits = file.read(25)[24]
    return {2: 85, 4: 17}.get(bits, 1)


@cache
def _table(coding: Coding) -> Values:
    """The class of each value, VOID, or _NO_CLASS."""
    table = np.full(_LARGEST, _NO_CLASS, np.uint16)
    for number, value in enumerate(coding.values):
        table[value] = number
    table[list(coding.void)] = VOID
    return table


def _unknown(values: Values, coding: Coding) -> str:
    """That these values have no class, and what can be done."""
    listed = _counted(map(str, values.tolist()))
    first, last = coding.values[0], coding.values[-1]
    is_range = coding.values == tuple(range(first, last + 1))
    classes = f"{first} to {last}" if is_range else ", ".join(map(str, coding.values))
    void = f", pixels without a class {' and '.join(map(str, coding.void))}" if coding.void else ""
    return (
        f"has values that no class has: {listed}; the classes have {classes}{void}. Name every "
        "class by --dataset.classes (and give --dataset.values where the masks' are not 0, 1, 2, "
        "...), or give the value of pixels without a class by --dataset.void."
    )


def _has_colors(values: Values, palette: Values, colors: Sequence[tuple[Color, int]]) -> bool:
    """Whether all colours that a mask with a palette uses are known."""
    used = np.flatnonzero(np.bincount(values.ravel()))
    known = {color for color, _ in colors}
    return used[-1] < len(palette) and all(tuple(one) in known for one in palette[used].tolist())


def _by_color(path: Path, colored: Values, colors: Sequence[tuple[Color, int]]) -> Tensor:
    """Classes of colours (H, W, 3)."""
    red, green, blue = np.moveaxis(colored.astype(np.int32), -1, 0)
    codes = (red << 16) | (green << 8) | blue
    known = np.array([(red << 16) | (green << 8) | blue for (red, green, blue), _ in colors])
    order = np.argsort(known)
    place = order[np.searchsorted(known[order], codes).clip(max=len(order) - 1)]
    if (wrong := known[place] != codes).any():
        listed = _counted(",".join(map(str, one)) for one in colored[wrong].tolist())
        raise UsageError(
            f"mask {path} has colours that labelmap.txt does not name: {listed}. Add a line "
            "NAME:R,G,B:: for each; void:R,G,B:: for pixels without a class."
        )
    return torch.from_numpy(np.array([number for _, number in colors], np.uint8)[place])


def _counted(texts: Iterable[str]) -> str:
    """Each text once, with its number of pixels, the most frequent first."""
    return shorten([f"{one} ({count:,} pixels)" for one, count in Counter(texts).most_common()])
