"""CutMix (Yun et al., ICCV 2019, arXiv 1905.04899, section 3.1 and algorithm A1).

A box of the partner is pasted into the image at its own place; the label weight is the share of
pixels that each image owns in the result. Boxes are (N, 4) integers: top, left, bottom, right,
half-open. Two rules for the box, both with centre uniform over the image and clipped to it:

    paper      continuous edges at centre +- W sqrt(1 - lam) / 2, each rounded to the nearest pixel:
               the mean area is exact (mean lam 0.679 at alpha 1)
    official   clovaai's train.py (and torchvision's): integer centre, half sides rounded down,
               so small images lose area (mean lam 0.701 at 32 pixels, 0.682 at 224)
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UserError
from pretrain.mixing.mixed import Mixed, blend, numpy_generator, soft, unmixed


@dataclass(frozen=True, kw_only=True)
class CutMix:
    """CutMix with one box for the batch (the paper's) or one for each sample."""

    alpha: float = 1.0
    """lam ~ Beta(alpha, alpha)."""
    probability: float = 1.0
    """Chance that a batch is mixed at all."""
    box: Literal["paper", "official"] = "paper"
    granularity: Literal["batch", "sample"] = "batch"

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        check_alpha_and_probability(self.alpha, self.probability)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Partners are a permutation of the batch (an image may meet itself)."""
        draw = numpy_generator(generator)
        if draw.random() >= self.probability:
            return unmixed(images, labels, num_classes)
        count, _, height, width = images.shape
        boxes_drawn = 1 if self.granularity == "batch" else count
        lam = draw.beta(self.alpha, self.alpha, boxes_drawn)
        rule = paper_boxes if self.box == "paper" else official_boxes
        boxes = np.broadcast_to(rule(lam, height, width, draw), (count, 4))
        partner = torch.from_numpy(draw.permutation(count))
        return paste(images, labels, num_classes, boxes, partner)


def check_alpha_and_probability(alpha: float, probability: float) -> None:
    """Raise UserError outside alpha > 0 and 0 <= probability <= 1."""
    if not alpha > 0:
        raise UserError(f"mixing.alpha is {alpha}; it must be above 0")
    if not 0 <= probability <= 1:
        raise UserError(f"mixing.probability is {probability}; it must lie in [0, 1]")


def paper_boxes(lam: np.ndarray, height: int, width: int, draw: np.random.Generator) -> np.ndarray:
    """Boxes (N, 4) of the paper for lam (N,)."""
    side = np.sqrt(1 - lam)
    centre = draw.random((2, len(lam)))
    low = np.clip(centre - side / 2, 0, 1)
    high = np.clip(centre + side / 2, 0, 1)
    edges = np.concatenate([low, high]) * np.array([[height], [width], [height], [width]])
    return np.rint(edges).astype(np.int64).T


def official_boxes(
    lam: np.ndarray, height: int, width: int, draw: np.random.Generator
) -> np.ndarray:
    """Boxes (N, 4) of the official code (train.py, rand_bbox) for lam (N,)."""
    size = np.array([[height], [width]])
    half = (size * np.sqrt(1 - lam)).astype(np.int64) // 2
    centre = draw.integers(0, size, (2, len(lam)))
    return np.concatenate([np.clip(centre - half, 0, size), np.clip(centre + half, 0, size)]).T


def paste(
    images: Tensor, labels: Tensor, num_classes: int, boxes: np.ndarray, partner: Tensor
) -> Mixed:
    """Paste box `boxes[i]` (top, left, bottom, right) of image `partner[i]` into image i.

    The label weight is the share of pixels, whatever lam the box was drawn from (equation 1 with
    the correction of algorithm A1).
    """
    height, width = images.shape[-2:]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    lam = torch.from_numpy((1 - area / (height * width)).astype(np.float32))
    mixed = images.clone()
    if (boxes == boxes[:1]).all():  # one box: a slice copy, on any device
        top, left, bottom, right = boxes[0].tolist()
        source = partner.to(images.device, non_blocking=True)
        mixed[:, :, top:bottom, left:right] = images[source, :, top:bottom, left:right]
    elif images.device.type == "cpu":
        rows = zip(boxes.tolist(), partner.tolist(), strict=True)
        for index, ((top, left, bottom, right), other) in enumerate(rows):
            mixed[index, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
    else:
        mixed = _paste_by_mask(images, boxes, partner)
    return Mixed(mixed, blend(soft(labels, num_classes), partner, lam), lam, partner)


def _paste_by_mask(images: Tensor, boxes: np.ndarray, partner: Tensor) -> Tensor:
    """As the loop over samples, without one launch per sample."""
    height, width = images.shape[-2:]
    edges = torch.from_numpy(np.ascontiguousarray(boxes)).to(images.device, non_blocking=True)
    top, left, bottom, right = edges.T[:, :, None]
    row = torch.arange(height, device=images.device)
    column = torch.arange(width, device=images.device)
    inside_rows = (row >= top) & (row < bottom)
    inside_columns = (column >= left) & (column < right)
    inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
    return torch.where(inside, images[partner.to(images.device, non_blocking=True)], images)
