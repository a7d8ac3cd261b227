"""Label maps as files and as colours: palette PNG, as Pascal VOC has them."""

from pathlib import Path

import numpy as np
from PIL import Image

from pretrain.files import atomic
from pretrain.palette import colour_map


def write_label_map(path: Path, label_map: np.ndarray) -> None:
    """Write uint8 (H, W) as a palette PNG whose indices are the values, whole or not at all."""
    image = Image.fromarray(np.ascontiguousarray(label_map))
    image.putpalette(colour_map().tobytes())
    with atomic(path) as temporary:
        image.save(temporary, format="PNG")


def draw_overlay(path: Path, image: np.ndarray, label_map: np.ndarray, plain: int | None) -> None:
    """Write an image uint8 (H, W, 3) with half of its classes' colours over it, as PNG.

    Args:
        path: of the picture.
        image: RGB.
        label_map: uint8 (H, W).
        plain: the class whose pixels are left as they are, such as the background's; None of none.
    """
    shown = (image // 2) + (colour_map() // 2)[label_map]
    if plain is not None:
        shown = np.where((label_map == plain)[:, :, None], image, shown)
    with atomic(path) as temporary:
        Image.fromarray(shown).save(temporary, format="PNG")
