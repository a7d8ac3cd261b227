"""SnapMix (Huang et al., AAAI 2021, arXiv 2012.04846, equations 1-6).

A box of the partner is resized into a box of the image, each drawn with its own lam. The class
activation map of an image (CAM: the last features, weighted by the classifier's weights of its
class) says how much of its class lies where. Label rule: the own label has the share of its map
outside the own box, the partner's the share of its map inside the partner's box; they do NOT sum to
one. One further pass of the network over the batch, in evaluation mode and without gradients.

How the reference code (Shaoli-Huang/SnapMix) differs:
- its further pass is in training mode: batch statistics in place of averages, which it also moves,
  so that they count every image twice.
- it does not mix a batch whose one box is empty, here this is for each draw.
As there, and not in the paper: where both images are of one class, EACH of the two labels gets the
sum of both weights, so that such a pair counts twice (`same_class="once"` does not); and a map that
is flat gives the shares of pixels. The paper has alpha 5.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.mixing.boxes import box_mask, official_boxes, own_share, paper_boxes
from pretrain.mixing.cutmix import paste
from pretrain.mixing.mixed import (
    Mixed,
    PairedMix,
    by_slices,
    numpy_generator,
    soft_labels,
    to_device,
)
from pretrain.mixing.network import feature_map


@dataclass(frozen=True, kw_only=True)
class SnapMix(PairedMix):
    """SnapMix; one pair of boxes for the batch is the reference's."""

    on_bytes: ClassVar[bool] = False
    network: nn.Module
    """The timm network that is trained: mean over the image, then one linear classifier."""
    box: Literal["paper", "official"] = "paper"
    """How both boxes are rounded, as of CutMix; the reference has the official."""
    same_class: Literal["twice", "once"] = "twice"
    """How often a pair of one class counts."""

    def __post_init__(self) -> None:
        """Refuse networks whose features the classifier's weights say nothing about."""
        super().__post_init__()
        classifier: Any = getattr(self.network, "get_classifier", lambda: "no get_classifier")()
        features = getattr(self.network, "num_features", "?")
        if not isinstance(classifier, nn.Linear) or classifier.in_features != features:
            raise UsageError(
                f"snapmix needs a linear classifier of the network's {features} pooled features; "
                f"{type(self.network).__name__} has {classifier}. Take a network of timm's such as "
                "resnet50, itself and not what DistributedDataParallel makes of it"
            )

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Normalised floats."""
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        partner = torch.from_numpy(pairs.partner)
        if not pairs.mixed.any():
            return paste(images, labels, num_classes, np.zeros((len(partner), 4)), partner)
        draw = paper_boxes if self.box == "paper" else official_boxes
        second = rng.beta(self.alpha, self.alpha, len(pairs.lam))
        boxes, sources = (
            pairs.spread(draw(lam, images.shape[-2], images.shape[-1], rng), 0)
            for lam in (pairs.lam, second)
        )
        targets = soft_labels(labels, num_classes)
        maps = activation_maps(self.network, images, labels)
        times = 2 if self.same_class == "twice" else 1
        return paste_by_maps(images, targets, boxes, sources, partner, maps, times)


@torch.no_grad()
def activation_maps(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Class activation maps (N, H, W) of the classes of the images, each at least 0.

    Without the classifier's bias, which raises a map by the same everywhere.
    """
    features = feature_map(network, images).relu()
    weight = network.get_classifier().weight.float()  # type: ignore[operator, union-attr]
    of_class = (labels.float() @ weight).float() if labels.ndim == 2 else weight[labels.long()]
    maps = (features * of_class[:, :, None, None]).sum(1, keepdim=True)
    maps = maps - maps.amin((2, 3), keepdim=True)  # so that no rounding makes a flat map uneven
    maps = functional.interpolate(maps, images.shape[-2:], mode="bilinear")[:, 0]
    return maps - maps.amin((1, 2), keepdim=True)


def paste_by_maps(
    images: Tensor,
    targets: Tensor,
    boxes: np.ndarray,
    sources: np.ndarray,
    partner: Tensor,
    maps: Tensor,
    times: int = 2,
) -> Mixed:
    """Resize box `sources[i]` of image `partner[i]` into box `boxes[i]` of image i.

    Args:
        images: (N, C, H, W).
        targets: (N, K).
        boxes: (M, 4), see `boxes`; where one of the two is empty nothing is pasted.
        sources: (M, 4).
        partner: (M,), on the CPU.
        maps: (N, H, W), at least 0.
        times: the weight of a pair whose targets are equal.
    """
    shares = [own_share(some, *images.shape[-2:]) for some in (boxes, sources)]
    empty = np.maximum(*shares) == 1
    boxes, sources = (np.where(empty[:, None], 0, some) for some in (boxes, sources))
    source = to_device(partner, images.device)
    area = np.where(empty, 0, 1 - shares[0]).astype(np.float32)
    pasted, some = (to_device(torch.from_numpy(host), images.device) for host in (area, ~empty))
    own, other = targets[: len(boxes)], targets[source]
    lam = 1 - _share_inside(maps[: len(boxes)], boxes)
    gained = _share_inside(maps[source], sources)
    if times == 2:
        same = some & (own == other).all(1)
        lam, gained = torch.where(same, lam + gained, torch.stack([lam, gained]))
    lam = torch.where(lam.isnan(), 1 - pasted, lam)
    gained = torch.where(gained.isnan(), pasted, gained)
    blended = lam[:, None] * own + gained[:, None] * other
    return Mixed(paste_boxes(images, boxes, sources, partner), blended, lam, partner)


def paste_boxes(images: Tensor, boxes: np.ndarray, sources: np.ndarray, partner: Tensor) -> Tensor:
    """The images of `paste_by_maps`: bilinear, corners on corners, in float32."""
    row, column = (
        torch.from_numpy(_positions(boxes[:, dim::2], sources[:, dim::2], images.shape[2 + dim]))
        for dim in (0, 1)
    )
    if by_slices(images):
        mixed = images[: len(boxes)].clone()
        for index, (top, left, bottom, right) in enumerate(boxes.tolist()):
            rows, columns = row[index, None, top:bottom], column[index, None, left:right]
            pasted = _sampled(images[int(partner[index]), None], rows, columns)
            mixed[index, :, top:bottom, left:right] = pasted[0]
        return mixed
    row, column, source = (to_device(host, images.device) for host in (row, column, partner))
    pasted = _sampled(images[source], row, column)
    return torch.where(box_mask(boxes, images), pasted, images[: len(boxes)])


def _share_inside(maps: Tensor, boxes: np.ndarray) -> Tensor:
    """Share (M,) of each map (M, H, W) that lies inside its box; NaN where the map is flat."""
    inside = maps * box_mask(boxes, maps[:, None])[:, 0]
    return inside.sum((1, 2)) / maps.sum((1, 2))


def _positions(low_high: np.ndarray, source: np.ndarray, size: int) -> np.ndarray:
    """Where each of `size` pixels of an image lies in its partner, (M, size) in its pixels."""
    (low, high), (first, end) = low_high.T[:, :, None], source.T[:, :, None]
    last = np.maximum(end - 1, first)
    step = (last - first) / np.maximum(high - low - 1, 1)
    position = np.clip(first + (np.arange(size) - low) * step, first, last)
    return position.astype(np.float32)


def _sampled(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Images (M, C, H, W) at rows (M, h) and columns (M, w): (M, C, h, w)."""
    sampled = images
    for dim, position in ((2, row), (3, column)):
        shape = (len(images), 1, -1, 1) if dim == 2 else (len(images), 1, 1, -1)
        low = position.floor()
        share = (position - low).view(shape)
        last = images.shape[dim] - 1
        wanted = [*sampled.shape]
        wanted[dim] = position.shape[1]
        before, after = (
            sampled.gather(dim, index.clamp(max=last).view(shape).expand(wanted)).float()
            for index in (low.long(), low.long() + 1)
        )
        sampled = before.lerp(after, share)
    return sampled.to(images.dtype)
