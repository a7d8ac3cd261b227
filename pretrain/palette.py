"""The colours in which masks are shown, here and by everybody else."""

import numpy as np


def colour_map() -> np.ndarray:
    """Pascal VOC's colours of the values 0 to 255: uint8 (256, 3).

    The devkit's VOClabelcolormap: the bits of the value, three at a time, become the highest bits
    of red, green and blue. 0 is black, 255 (void) a pale yellow.
    """
    bits = np.arange(256)[:, None] >> np.arange(9) & 1
    colours = (bits.reshape(256, 3, 3) * [[128], [64], [32]]).sum(1)
    return colours.astype(np.uint8)
