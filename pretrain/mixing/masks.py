"""Pasting and blending by masks, and filling boxes: what several methods do with what they drew.

G random draws (`MixPairs.group` says which row uses which), M rows, images of C x H x W.
"""

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.boxes import box_mask
from pretrain.mixing.mixed import Mixed, MixPairs, blend_labels, by_slices, to_device


def mix_by_masks(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    pairs: MixPairs,
    masks: Tensor,
    lam: np.ndarray,
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
    """
    weight = torch.from_numpy(pairs.spread(lam, 1).astype(np.float32))
    partner, group = torch.from_numpy(pairs.partner), torch.from_numpy(pairs.group)
    source = to_device(partner, images.device)
    targets = blend_labels(labels, num_classes, source, to_device(weight, images.device))
    mixed = own = images[: len(weight)]
    if (weight < 1).any():
        masks = masks * to_device(torch.from_numpy(pairs.mixed), images.device)[:, None, None]
        if by_slices(images):  # image by image: no gathered copy of the partners
            mixed = torch.empty_like(own)
            rows = zip(partner.tolist(), group.tolist(), strict=True)
            for index, (other, draw) in enumerate(rows):
                mixed[index] = _mix(own[index], images[other], masks[draw])
        else:
            masks = masks[to_device(group, images.device)] if len(masks) > 1 else masks
            mixed = _mix(own, images[source], masks[:, None])
    return Mixed(mixed, targets, weight, partner)


def _mix(own: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Paste or blend `other` by a mask that broadcasts to it."""
    if mask.dtype != torch.bool:
        blended = torch.lerp(own.float(), other.float(), mask.expand_as(own))
        return (blended if own.is_floating_point() else blended.round_()).to(own.dtype)
    if own.dtype == torch.uint8:  # `where` takes three times as long on a CPU
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
