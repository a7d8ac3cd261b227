"""Pasting and blending by masks, and filling boxes: what several methods do with what they drew.

G random draws (`MixPairs.group` says which row uses which), M rows, images of C x H x W.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.boxes import box_mask
from pretrain.mixing.mixed import (
    Mixed,
    MixPairs,
    Read,
    blend_labels,
    by_slices,
    mix_rows,
    to_device,
)
from pretrain.mixing.mixup import blend


def mix_by_masks(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    pairs: MixPairs,
    masks: Tensor,
    lam: np.ndarray,
    read: Read | None = None,
) -> Mixed:
    """Show the partner where a mask says so; draws that do not mix leave their images.

    Args:
        images: see Mix.
        labels: see Mix.
        num_classes: see Mix.
        pairs: who is mixed with whom, by which draw.
        masks: (G, H, W) on the device of the images: bool, where the partner is pasted, or float32,
            the partner's weight.
        lam: (G,) the mean weight of the image itself: 1 - the mean of its mask.
        read: see Read; of bytes, for bool masks alone.
    """
    weight = torch.from_numpy(pairs.spread(lam, 1).astype(np.float32))
    partner, group = torch.from_numpy(pairs.partner), torch.from_numpy(pairs.group)
    source = to_device(partner, images.device)
    targets = blend_labels(labels, num_classes, source, to_device(weight, images.device))
    mixed = own = images[: len(weight)]
    if read or (weight < 1).any():
        masks = masks * to_device(torch.from_numpy(pairs.mixed), images.device)[:, None, None]
        if by_slices(images):
            mixed = mix_rows(images, partner.tolist(), _writer(masks, group.tolist()), read)
        else:
            masks = masks[to_device(group, images.device)] if len(masks) > 1 else masks
            mixed = _mix(own, images[source], masks[:, None])
    return Mixed(mixed, targets, weight, partner)


def _writer(masks: Tensor, group: list[int]) -> Callable[[int, Any, Any, Any], None]:
    """What `mix_rows` takes, for masks (G, H, W) and which of them a row uses."""
    whole: dict[int, Any] = {}

    def write(row: int, target: Any, own: Any, theirs: Any) -> None:
        draw = group[row]
        if isinstance(target, Tensor) or masks.dtype != torch.bool:
            pair = torch.as_tensor(own), torch.as_tensor(theirs)
            torch.as_tensor(target).copy_(_mix(*pair, masks[draw]))
            return
        if draw not in whole:  # the last one is kept: rows that share it meet
            whole.clear()
            whole[draw] = _spread(masks[draw].to(torch.uint8).neg().numpy(), own)
        np.bitwise_xor(own, theirs, out=target)
        target &= whole[draw]
        target ^= own

    return write


def _spread(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A mask (H, W) for the channels of an image (C, H, W) that it meets in its order in memory."""
    if image.strides[0] != image.itemsize:
        return np.broadcast_to(mask, image.shape)
    return mask.repeat(len(image), axis=1).reshape(*mask.shape, -1).transpose(2, 0, 1)


def _mix(own: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Paste or blend `other` by a mask that broadcasts to it."""
    if mask.dtype != torch.bool:
        return blend(other, own, mask.expand_as(own))
    if own.dtype == torch.uint8 and by_slices(own):  # `where` takes three times as long on a CPU
        return own ^ ((own ^ other) & mask.to(torch.uint8).neg())
    return torch.where(mask, other, own)


def fill_boxes(images: Tensor, boxes: np.ndarray, fill: Tensor) -> Tensor:
    """Images (N, C, H, W) with boxes (N, 4) that show `fill`, which broadcasts to the images."""
    if not by_slices(images):
        return torch.where(box_mask(boxes, images), fill, images)
    filled, shown = images.clone(), fill.expand_as(images)
    for index, (top, left, bottom, right) in enumerate(boxes.tolist()):
        filled[index, :, top:bottom, left:right] = shown[index, :, top:bottom, left:right]
    return filled
