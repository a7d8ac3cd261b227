"""Are boxes x, y, width, height in pixels of their images, or something else?

A file does not say. Corners (x1, y1, x2, y2) taken for x, y, width, height reach beyond the image,
while as corners they fit; fractions of the image are all between 0 and 1.
"""

from collections.abc import Callable

import numpy as np

from pretrain.errors import UsageError

_MOST = 0.25  # of the boxes may reach beyond their image, where all would fit as corners
_MOST_OF_DETECTIONS = 0.5  # of those of a detector that does not cut at the edge


def check_box_form(
    boxes: np.ndarray,
    sizes: np.ndarray,
    source: str,
    name: Callable[[int], str],
    *,
    detections: bool = False,
) -> None:
    """Raise where boxes are no x, y, width, height in pixels of their images.

    Args:
        boxes: (N, 4), as they are written.
        sizes: (N, 2) width and height of the image of each; 0 where unknown.
        source: the file, for the message.
        name: the place of a box by its number.
        detections: of a detector, which may have seen the image in another size.

    Raises:
        UsageError: with how many boxes show it, the first of them, and what to do.
    """
    if not len(boxes):
        return
    x, y, width, height = boxes.T
    edge = sizes * 1.01 + 1  # as far as boxes reach by rounding
    if (
        boxes.min() >= 0
        and boxes.max() <= 1 + 1e-9
        and sizes.max() != 1
        and (width * height > 0).any()
    ):
        raise UsageError(
            f"{source}: bbox is in fractions of the image, it seems: all {len(boxes):,} boxes lie "
            f"between 0 and 1, such as {name(0)}: {_text(boxes[0])}. Multiply x and width by the "
            "image's width, y and height by its height."
        )
    known = (sizes > 0).all(1)
    over = known & ((x + width > edge[:, 0]) | (y + height > edge[:, 1]))
    if not over.any():
        return
    fit = (width > x) & (height > y) & (width <= edge[:, 0]) & (height <= edge[:, 1])
    first = int(over.argmax())
    example = f"{name(first)}: {_text(boxes[first])} of {sizes[first, 0]:g} x {sizes[first, 1]:g}"
    count = f"{over.sum():,} of {known.sum():,} boxes reach beyond their image, such as {example}"
    if fit[known].mean() >= 0.99 and over[known].mean() > _MOST:
        raise UsageError(
            f"{source}: bbox is x1, y1, x2, y2, it seems, not x, y, width, height: {count}; as "
            "corners all of them fit. Write x2 - x1 and y2 - y1 for width and height."
        )
    if detections and over[known].mean() > _MOST_OF_DETECTIONS:
        raise UsageError(
            f"{source}: {count}. Are they in pixels of a resized image? Give them in pixels of the "
            "image on disk."
        )


def _text(box: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in box)
