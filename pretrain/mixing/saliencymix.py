"""SaliencyMix (Uddin et al., ICLR 2021, arXiv 2006.01791, section 3.2).

CutMix whose box has its centre on the most salient pixel of the partner, and is pasted at its own
place. Label rule: the share of pixels, as CutMix. No pass of a network: the saliency is computed
from the pixels (Montabone and Soto, 2010, as in OpenCV), on the device and without waiting for it.

How the reference code (afm-shahab-uddin/SaliencyMix, and openmixup, its copy) differs:
- it takes the peak of one image of the batch for all of them: `peak="first"`. Here each row has the
  peak of its own partner.
- it hands normalised floats to OpenCV, which reads the bytes of floats as if they were pixels: its
  peak says nothing of the image. Here bytes are taken as they are, and floats are brought to the
  range of bytes, each image by its own smallest and largest value.
- its sides, rounded down to even pixels, are `box="official"`; the mean area of "paper" is exact.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pretrain.mixing.boxes import box_mask
from pretrain.mixing.cutmix import paste
from pretrain.mixing.mixed import (
    Mixed,
    PairedMix,
    blend_labels,
    by_slices,
    numpy_generator,
    to_device,
)

_NEIGHBOURHOODS = (12, 24, 28, 48, 56, 112)
_GREY = (9798, 19235, 3735)  # shares of red, green and blue, of 2^15


@dataclass(frozen=True, kw_only=True)
class SaliencyMix(PairedMix):
    """SaliencyMix; one lam for the batch is the reference's."""

    box: Literal["paper", "official"] = "paper"
    """How the sides are rounded: to the nearest pixel, or down as the authors do."""
    peak: Literal["own", "first"] = "own"
    """Whose peak: each row's own partner's, or that of the first row that shares the draw."""

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix."""
        pairs = self.draw_pairs(len(images), numpy_generator(generator))
        partner = torch.from_numpy(pairs.partner)
        if not pairs.mixed.any():
            return paste(images, labels, num_classes, np.zeros((len(partner), 4)), partner)
        sides = np.sqrt(1 - pairs.spread(pairs.lam, 1))[:, None] * images.shape[-2:]
        half = sides / 2 if self.box == "paper" else np.trunc(sides) // 2
        source = to_device(partner, images.device)
        if self.peak == "own":
            peaks = saliency_peaks(images[source])
        else:
            first = np.unique(pairs.group, return_index=True)[1]
            looked_at = to_device(partner[first], images.device)
            of_row = to_device(torch.from_numpy(pairs.group), images.device)
            peaks = saliency_peaks(images[looked_at])[of_row]
        boxes = _boxes(peaks, half, images, 0.5 if self.box == "paper" else 0.0)
        if by_slices(images):
            return paste(images, labels, num_classes, boxes.numpy(), partner)
        mask = box_mask(boxes, images)
        lam = 1 - mask.mean((1, 2, 3), dtype=torch.float32)
        targets = blend_labels(labels, num_classes, source, lam)
        mixed = torch.where(mask, images[source], images[: len(partner)])
        return Mixed(mixed, targets, lam, partner)


def saliency_peaks(images: Tensor) -> Tensor:
    """Row and column (N, 2) of the most salient pixel of each image; the first of equals."""
    parts = images.split(4) if by_slices(images) else [images]  # few stay in a CPU's cache
    peak = torch.cat([fine_grained_saliency(part).flatten(1).argmax(1) for part in parts])
    width = images.shape[-1]
    return torch.stack([peak // width, peak % width], 1)


def fine_grained_saliency(images: Tensor) -> Tensor:
    """Saliency (N, H, W) of images (N, C, H, W), on their device: int32 from 0 to 510.

    How far a pixel of the smoothed grey image is above the mean around it, and how far below, each
    summed over six neighbourhoods and scaled to 255 in each image, and then added. As OpenCV's
    StaticSaliencyFineGrained to the bit (4.11 and 5.0; up to 256 x 256 pixels, where its float sums
    are exact), with its roundings: grey and blur to the nearest byte, differences and scaled sums
    towards zero. But it keeps the last sum in a byte, so that what is most salient in some images,
    being above 255, comes out as the least.

    Args:
        images: RGB (other numbers of channels are averaged); floats are stretched to bytes.
    """
    grey = _blurred(_blurred(_grey(images)))
    height, width = grey.shape[1:]
    # only differences of these sums matter, and they are right though the sums may wrap round
    sums = grey.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
    sums = functional.pad(sums, (1, 0, 1, 0))
    above, below = torch.zeros_like(grey), torch.zeros_like(grey)
    for reach in _NEIGHBOURHOODS:
        (top, bottom), (left, right) = (
            [(index + 1 + by).clamp(0, len(index)) for by in (-reach, reach)]
            for index in (torch.arange(n, device=grey.device) for n in (height, width))
        )
        bands = sums.index_select(1, bottom) - sums.index_select(1, top)
        inside = bands.index_select(2, right) - bands.index_select(2, left)
        others = (bottom - top)[:, None] * (right - left) - 1
        difference = grey - (inside - grey).float() / others.clamp(min=1)
        above += difference.clamp(min=0).int()
        below += difference.neg().clamp(min=0).int()
    return _scaled(above) + _scaled(below)


def _grey(images: Tensor) -> Tensor:
    """Int32 (N, H, W) from 0 to 255."""
    if images.is_floating_point():
        floats = images.float()
        low, high = (edge((1, 2, 3), keepdim=True) for edge in (floats.amin, floats.amax))
        images = ((floats - low) / (high - low).clamp(min=1e-12) * 255).round()
    channels = images.int().unbind(1)
    if len(channels) != len(_GREY):
        return torch.stack(channels).sum(0, dtype=torch.int32) // len(channels)
    weighted = [weight * channel for weight, channel in zip(_GREY, channels, strict=True)]
    return (weighted[0] + weighted[1] + weighted[2] + (1 << 14)) >> 15


def _blurred(grey: Tensor) -> Tensor:
    """Weights 1, 2, 1 in both directions; beyond the border lie the rows inside it, mirrored."""
    for dim in (1, 2):
        last = grey.shape[dim] - 1
        index = torch.arange(last + 1, device=grey.device)
        before = (index - 1).abs().clamp(max=last)
        after = (last - (last - 1 - index).abs()).clamp(min=0)
        grey = grey.index_select(dim, before) + 2 * grey + grey.index_select(dim, after)
    return (grey + 8) >> 4


def _scaled(sums: Tensor) -> Tensor:
    """To 0 to 255 in each image; float32 gives what OpenCV's double does for all that can be."""
    share = sums.float() / sums.amax((1, 2), keepdim=True).clamp(min=1)
    return (share * 255).int()


def _boxes(peaks: Tensor, half: np.ndarray, images: Tensor, middle: float) -> Tensor:
    """Boxes (M, 4) of half sides (M, 2) around `peaks` (M, 2), on the device."""
    reach = to_device(torch.from_numpy(half.astype(np.float32)), images.device)
    edges = torch.stack([peaks + middle - reach, peaks + middle + reach], 1).round().long()
    edges = torch.stack([edges[..., d].clamp(0, images.shape[2 + d]) for d in (0, 1)], 2)
    return edges.flatten(1)
