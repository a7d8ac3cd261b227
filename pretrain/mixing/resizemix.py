"""ResizeMix (Qin et al., 2020, arXiv 2012.11101, section 3.3).

The whole partner is made smaller, to a share tau ~ U(0.1, 0.8) of both sides, and pasted at a
random place: the object whose label it brings is in the picture.
Label rule: the share of pixels. The network makes no further pass.

What others do; their mean weight of the own label at 224 pixels, ours is 0.757:

    JayQine/ResizeMix   the authors': one tau for a batch but a place for each image, a centre that
                        is then moved inside (`place: official`); 0.757
    openmixup           a random centre, and the patch is squeezed into what the border leaves of
                        its box (`place: clipped`); 0.827
    mmpretrain          clipped too, and what is drawn, by Beta within [0.1, 0.8], is the own share:
                        sides of 0.45 to 0.95, and clipped (`draws: share`); 0.647

All take the nearest pixel but mmpretrain, which is bilinear; none smoothes first.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pretrain.mixing.boxes import (
    box_mask,
    check_interval,
    inside_boxes,
    official_boxes,
    own_share,
)
from pretrain.mixing.mixed import (
    Mixed,
    PairedMix,
    as_array,
    blend_labels,
    by_slices,
    numpy_generator,
    to_device,
)

Interpolation = Literal["nearest", "bilinear"]


@dataclass(frozen=True, kw_only=True)
class ResizeMix(PairedMix):
    """ResizeMix."""

    scale: tuple[float, float] = (0.1, 0.8)
    """Range of what is drawn."""
    draws: Literal["side", "share"] = "side"
    """The side of the patch, uniformly, or the share of the image that it leaves, by Beta(alpha,
    alpha) mapped to the range."""
    place: Literal["inside", "official", "clipped"] = "inside"
    """Uniform among the places inside the image; a random centre, moved inside; or not moved, the
    patch fitted into what the border leaves."""
    interpolation: Interpolation = "nearest"
    """Of the smaller picture."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        super().__post_init__()
        check_interval("scale", self.scale, 1)

    @property
    def on_bytes(self) -> bool:  # type: ignore[override]
        """The nearest pixel is moved; between pixels a byte is rounded."""
        return self.interpolation == "nearest"

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix."""
        rng = numpy_generator(generator)
        height, width = images.shape[-2:]
        pairs = self.draw_pairs(len(images), rng)
        boxes = pairs.spread(self.draw_boxes(pairs.lam, height, width, rng), 0)
        partner = torch.from_numpy(pairs.partner)
        lam = torch.from_numpy(own_share(boxes, height, width).astype(np.float32))
        source, weight = to_device(partner, images.device), to_device(lam, images.device)
        mixed = paste_resized(images, boxes[None], pairs.partner[:, None], self.interpolation)
        return Mixed(mixed, blend_labels(labels, num_classes, source, weight), lam, partner)

    def draw_boxes(
        self, lam: np.ndarray, height: int, width: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Boxes (N, 4) of the patches for the drawn lam (N,)."""
        low, high = self.scale
        if self.draws == "side":
            side = rng.uniform(low, high, len(lam))
        else:
            side = np.sqrt(1 - low - (high - low) * lam)
        if self.place == "inside":
            return inside_boxes(side, height, width, rng)
        if self.place == "clipped":
            return official_boxes(1 - side**2, height, width, rng)
        whole = np.array([[height], [width]])
        size = np.rint(whole * side).astype(np.int64)
        start = np.clip(rng.integers(0, whole, size.shape) - size // 2, 0, whole - size)
        return np.concatenate([start, start + size]).T


def paste_resized(
    images: Tensor, boxes: np.ndarray, partner: np.ndarray, interpolation: Interpolation
) -> Tensor:
    """Images (M, C, H, W) with the whole of image `partner[i, p]` in box `boxes[p, i]`.

    Pixel for pixel as `torch.nn.functional.interpolate` to the size of the box; one p after the
    other.

    Args:
        images: (N, C, H, W).
        boxes: (P, M, 4).
        partner: (M, P) rows of `images`.
        interpolation: of the smaller picture.
    """
    mixed = images[: len(partner)]
    if not by_slices(images):
        for box, others in zip(
            boxes, to_device(torch.from_numpy(partner), images.device).T, strict=True
        ):
            patches = _patches(images, box, others, interpolation)
            mixed = torch.where(box_mask(box, images), patches, mixed)
        return mixed
    mixed = mixed.clone()
    target, source = as_array(mixed), as_array(images)
    for box, others in zip(boxes.tolist(), partner.T.tolist(), strict=True):
        for row, ((top, left, bottom, right), other) in enumerate(zip(box, others, strict=True)):
            size = (bottom - top, right - left)
            if 0 in size:
                continue
            if interpolation == "nearest":
                target[row, :, top:bottom, left:right] = _nearest(source[other], size)
            else:
                floats = images[other : other + 1].float()
                patch = functional.interpolate(floats, size, mode="bilinear")[0]
                mixed[row, :, top:bottom, left:right] = _as_pixels(patch, images.dtype)
    return mixed


def _nearest(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As `interpolate`, in a third of its time: rows first, whole pixels if channels are last."""
    rows, columns = (
        (np.arange(side, dtype=np.float32) * np.float32(whole / side)).astype(np.int64)
        for side, whole in zip(size, image.shape[-2:], strict=True)
    )
    if image.strides[0] == image.itemsize:
        return image.transpose(1, 2, 0).take(rows, 0).take(columns, 1).transpose(2, 0, 1)
    return image.take(rows, 1).take(columns, 2)


def _patches(
    images: Tensor, boxes: np.ndarray, source: Tensor, interpolation: Interpolation
) -> Tensor:
    """Images (M, C, H, W) that show in box i the whole of image `source[i]`, elsewhere anything."""
    whole = np.array(images.shape[-2:], dtype=np.float32)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1).astype(np.float32)
    table = torch.from_numpy(np.hstack([boxes[:, :2].astype(np.float32), whole / size]))
    top, left, row_step, column_step = to_device(table, images.device).T[:, :, None]
    last_row, last_column = (side - 1 for side in images.shape[-2:])
    row = torch.arange(last_row + 1, device=images.device) - top
    column = torch.arange(last_column + 1, device=images.device) - left
    channel = torch.arange(images.shape[1], device=images.device)[:, None, None]

    def pixels(rows: Tensor, columns: Tensor) -> Tensor:
        return images[
            source[:, None, None, None], channel, rows[:, None, :, None], columns[:, None, None]
        ]

    if interpolation == "nearest":
        rows = (row * row_step).clamp(0, last_row).long()
        return pixels(rows, (column * column_step).clamp(0, last_column).long())
    row = ((row + 0.5) * row_step - 0.5).clamp(0, last_row)
    column = ((column + 0.5) * column_step - 0.5).clamp(0, last_column)
    above, before = row.long(), column.long()
    below, after = (above + 1).clamp(max=last_row), (before + 1).clamp(max=last_column)
    across, down = (column - before)[:, None, None], (row - above)[:, None, :, None]
    upper = torch.lerp(pixels(above, before).float(), pixels(above, after).float(), across)
    lower = torch.lerp(pixels(below, before).float(), pixels(below, after).float(), across)
    return _as_pixels(torch.lerp(upper, lower, down), images.dtype)


def _as_pixels(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values as images of a dtype have them: bytes rounded to the nearest."""
    return (values if dtype.is_floating_point else values.round()).to(dtype)
