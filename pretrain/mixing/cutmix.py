"""CutMix (Yun et al., ICCV 2019, arXiv 1905.04899, section 3.1 and algorithm A1).

A box of the partner is pasted into the image at its own place; the label weight is the share of
pixels that each image owns in the result. Boxes are (M, 4) integers: top, left, bottom, right,
half-open; `boxes` has the two rules for drawing them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.mixing.boxes import box_mask, official_boxes, paper_boxes
from pretrain.mixing.mixed import (
    Mixed,
    PairedMix,
    blend_labels,
    by_slices,
    numpy_generator,
    to_device,
)


@dataclass(frozen=True, kw_only=True)
class CutMix(PairedMix):
    """CutMix; one box for the batch is the paper's."""

    box: Literal["paper", "official"] = "paper"
    """How the box is drawn: see `boxes`."""

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix."""
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        draw_boxes = paper_boxes if self.box == "paper" else official_boxes
        boxes = pairs.spread(draw_boxes(pairs.lam, images.shape[-2], images.shape[-1], rng), 0)
        return paste(images, labels, num_classes, boxes, torch.from_numpy(pairs.partner))


def paste(
    images: Tensor, labels: Tensor, num_classes: int, boxes: np.ndarray, partner: Tensor
) -> Mixed:
    """Paste box `boxes[i]` (top, left, bottom, right) of image `partner[i]` into image i.

    The label weight is the share of pixels, whatever lam the box was drawn from (equation 1 with
    the correction of algorithm A1). Boxes and partners may be fewer than images: the rest of the
    batch only lends.
    """
    height, width = images.shape[-2:]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    lam = torch.from_numpy((1 - area / (height * width)).astype(np.float32))
    source, weight = to_device(partner, images.device), to_device(lam, images.device)
    targets = blend_labels(labels, num_classes, source, weight)
    mixed = own = images[: len(boxes)]
    if area.any():
        if by_slices(images):  # slices copy nothing but the box
            mixed = own.clone()
            rows = zip(boxes.tolist(), partner.tolist(), strict=True)
            for index, ((top, left, bottom, right), other) in enumerate(rows):
                mixed[index, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
        elif (boxes == boxes[:1]).all():  # one launch for one box
            mixed = own.clone()
            top, left, bottom, right = boxes[0].tolist()
            mixed[:, :, top:bottom, left:right] = images[source, :, top:bottom, left:right]
        else:
            mixed = _paste_by_mask(images, boxes, source)
    return Mixed(mixed, targets, lam, partner)


def _paste_by_mask(images: Tensor, boxes: np.ndarray, partner: Tensor) -> Tensor:
    """As the loop over samples, without one launch per sample."""
    return torch.where(box_mask(boxes, images), images[partner], images[: len(boxes)])
