"""Decoding: one way from a file to pixels for every task.

    JPEG, PNG, WebP, GIF    by `torchvision.io.decode_image`, which equals Pillow bit for bit on
                            JPEG of all kinds and PNG (measured on ImageNet photographs, some of
                            which are PNG by content: `decode_jpeg` would fail on them)
    BMP, TIFF, PNM, AVIF    by Pillow

The content decides, not the name. Transparency is dropped, grey and palettes become RGB, of an
animation or a file of several pages the first picture is taken. More than 8 bits a channel are
refused: which part of their range is meant, the file does not say.

Pixels come as they are stored. A photo's EXIF orientation says how they are to be turned for
display; published benchmarks ignore it, and so does `decode` unless asked.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from pretrain.errors import UsageError, first_line

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif"),
    *(".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"),
)
"""What the name of an image ends in, in any case."""
_BY_TORCHVISION = ("JPEG", "MPO", "PNG", "WEBP", "GIF")  # MPO: a JPEG with further pictures
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_SWAPS_SIDES = (5, 6, 7, 8)


class ImageHeader(NamedTuple):
    """What the head of an image file says."""

    size: tuple[int, int]
    """Width and height of the stored pixels."""
    orientation: int
    """EXIF's: 1 as stored, 2 mirrored, 3 upside down, 4 both, 5 to 8 with sides swapped."""

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Width and height once turned."""
        width, height = self.size
        return (height, width) if self.orientation in _SWAPS_SIDES else (width, height)


def decode(path: Path, apply_exif: bool = False) -> Tensor:
    """Read an image file as RGB uint8 (3, H, W).

    Args:
        path: the file.
        apply_exif: turn the pixels as the EXIF orientation says.

    Raises:
        UsageError: missing, broken, cut short, more than 8 bits a channel, no supported format.
    """
    try:
        image = decode_image(str(path), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        if not path.exists():
            raise UsageError(f"there is no image {path}.") from error
        image = _decode_with_pillow(path, error)
    if image.ndim == 4:  # an animation: its first picture, as Pillow takes it
        image = image[0]
    if image.dtype != torch.uint8:
        raise UsageError(f"image {path} has 16 bits a channel; convert it to 8.")
    header = read_header(path) if apply_exif else None
    return image if header is None else turn(image, header.orientation)


def read_header(path: Path) -> ImageHeader | None:
    """Size and orientation of an image; None where it is no image, or cut short in its head."""
    try:
        with Image.open(path) as image:
            return _header(image)
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError):
        return None


def turn(image: Tensor, orientation: int) -> Tensor:
    """Stored pixels (..., H, W) as they are displayed; EXIF 2.32, tag 0x0112."""
    if orientation in _SWAPS_SIDES:
        image = image.transpose(-1, -2)
    mirrored = {2: [-1], 3: [-2, -1], 4: [-2], 6: [-1], 7: [-2, -1], 8: [-2]}.get(orientation)
    return image.flip(mirrored) if mirrored else image.contiguous()


def list_images(folder: Path) -> tuple[list[str], list[str]]:
    """Paths of the images in a folder and in folders below it, and of all other files; sorted.

    What is hidden, file or folder, is in neither: `._a.jpg` is no image but a companion file.
    """
    images, others = [], []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]
        for name in files:
            if name[0] != ".":
                is_image = name.lower().endswith(SUFFIXES)
                (images if is_image else others).append(os.path.join(parent, name))
    return sorted(images), sorted(others)


def _decode_with_pillow(path: Path, reason: RuntimeError) -> Tensor:
    """The stored pixels (3, H, W) of what torchvision does not know."""
    text = first_line(reason)
    try:
        with Image.open(path) as image:
            if not _has_eight_bits(image):
                text = f"its mode is {image.mode}: more than 8 bits a channel; convert it to 8"
            elif image.format not in _BY_TORCHVISION:
                header = _header(image)
                pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
                # Pillow turns TIFF, and TIFF alone, when it loads the pixels: back to the stored
                back = {6: 8, 8: 6}.get(header.orientation, header.orientation)
                return turn(pixels, back if image.format == "TIFF" else 1)
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        text = first_line(error) if isinstance(error, Image.DecompressionBombError) else text
    raise UsageError(
        f"image {path} cannot be decoded ({text.rstrip('.')}). It may be cut short or no image; "
        f"supported are {', '.join(SUFFIXES)}. Replace or remove it."
    ) from reason


def _header(image: Image.Image) -> ImageHeader:
    """Before the pixels are loaded."""
    # a PNG's tag may stand behind its pixels, and Pillow would decode all of them to look for it
    has_tag = image.format != "PNG" or "exif" in image.info
    tag = image.getexif().get(ExifTags.Base.Orientation, 1) if has_tag else 1
    orientation = tag if tag in range(1, 9) else 1
    width, height = image.size
    if image.format == "TIFF" and orientation in _SWAPS_SIDES:  # Pillow gives the displayed size
        width, height = height, width
    return ImageHeader((width, height), int(orientation))


def _has_eight_bits(image: Image.Image) -> bool:
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, 8)  # 16-bit TIFF is cut
    return image.mode in _EIGHT_BITS and max(bits if isinstance(bits, tuple) else (bits,)) <= 8
