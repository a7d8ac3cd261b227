"""Two or four images and their objects as one: Mosaic, Mixup, CutMix, Copy-Paste.

Pixels and boxes of an image of H x W pixels are those of `Sample`. What is mixed are samples as
they would be trained on, so each was resized, flipped and augmented by draws of its own.

An object that is partly covered, or cut off, is kept if at least `min_visible` of its area is still
seen, and its box becomes that of what is seen. A box that loses a corner alone stays as it is: so
much of it is seen on each of its sides. In Copy-Paste areas are those of masks; the box of an
object that has none stands for it, and it is never pasted. Objects come in the order of their
images, the own first, and in each in their own order.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torchvision.ops import box_area

from transfer.detection.config import MixingConfig
from transfer.detection.sample import Sample

GREY = 114
"""Where a mosaic has no image, as in YOLOv4's code and ultralytics'."""
PARTNERS = {"mosaic": 3, "mixup": 1, "cutmix": 1, "copy_paste": 1}
"""Other images that each method takes."""
Method = Literal["mosaic", "mixup", "cutmix", "copy_paste"]


class Mixture(NamedTuple):
    """A mixed image with all objects of which something is seen, and some of which nothing is."""

    sample: Sample
    """Without masks; boxes are those of what is seen."""
    visible: Tensor
    """(K,): the share of an object's area that is seen."""

    def keep(self, min_visible: float) -> Sample:
        """The sample with the objects of which so much is seen."""
        width, height = (self.sample.boxes[:, 2:] - self.sample.boxes[:, :2]).unbind(1)
        return self.sample.select((self.visible >= min_visible) & (width > 0) & (height > 0))


def draw_method(config: MixingConfig, draws: Generator) -> Method | None:
    """One of the methods by its chance, or none; nothing is drawn where none has a chance."""
    chances = {name: chance for name, chance in config.chances.items() if chance > 0}
    if not chances:
        return None
    point = float(torch.rand((), generator=draws, dtype=torch.float64))
    for name, chance in chances.items():
        point -= chance
        if point < 0:
            return name  # type: ignore[return-value]
    return None


def mix(
    method: Method, own: Sample, others: Sequence[Sample], config: MixingConfig, draws: Generator
) -> Mixture | None:
    """An image with as many others as the method takes; None where nothing can be pasted."""
    if method == "mosaic":
        return mosaic([own, *others], draws)
    if method == "mixup":
        return mixup(own, others[0], config.mixup_alpha, draws)
    if method == "cutmix":
        return cutmix(own, others[0], config.cutmix_alpha, draws)
    return copy_paste(own, others[0], config.min_visible, draws)


def mosaic(samples: Sequence[Sample], draws: Generator) -> Mixture:
    """Four images that meet at a point, each at half its size, on a canvas of the first one's size.

    YOLOv4's (Bochkovskiy et al. 2020) as in ultralytics, without its random affine: there the
    canvas has twice the sides of the images and is then seen at half its size. The point lies in
    the middle half of height and width; the images are left above it, right above, left below and
    right below, cut at the edge of the canvas.
    """
    height, width = samples[0].size
    y, x = (
        int(torch.randint(side // 4, side - side // 4 + 1, (), generator=draws))
        for side in (height, width)
    )
    canvas = samples[0].image.new_full((3, height, width), GREY)
    boxes, visible = list[Tensor](), list[Tensor]()
    for place, sample in enumerate(samples):
        half = sample.resize((max(1, sample.size[0] // 2), max(1, sample.size[1] // 2)))
        top = y - half.size[0] if place < 2 else y
        left = x - half.size[1] if place % 2 == 0 else x
        bottom, right = min(top + half.size[0], height), min(left + half.size[1], width)
        inside = half.image[:, max(-top, 0) : bottom - top, max(-left, 0) : right - left]
        canvas[:, max(top, 0) : bottom, max(left, 0) : right] = inside
        shifted = half.boxes + torch.tensor([left, top, left, top])
        cut, share = seen_inside(shifted, (0, 0, height, width))
        boxes.append(cut)
        visible.append(share)
    labels = torch.cat([sample.labels for sample in samples])
    return Mixture(Sample(canvas, torch.cat(boxes), labels), torch.cat(visible))


def mixup(own: Sample, other: Sample, alpha: float, draws: Generator) -> Mixture:
    """The weighted mean of two images, on a canvas of the larger height and the larger width.

    GluonCV's (Zhang et al., arXiv 1902.04103): the corners left above lie on each other, where an
    image ends it is black, values are cut off to integers. The weight of the own image is drawn
    from Beta(alpha, alpha). All objects of both count in full, as in ultralytics; GluonCV weighs
    their losses.
    """
    lam = _numpy_generator(draws).beta(alpha, alpha)
    height, width = (max(sides) for sides in zip(own.size, other.size, strict=True))
    canvas = torch.zeros(3, height, width)
    for sample, weight in ((own, lam), (other, 1 - lam)):
        canvas[:, : sample.size[0], : sample.size[1]] += sample.image * weight
    boxes, labels = torch.cat([own.boxes, other.boxes]), torch.cat([own.labels, other.labels])
    return Mixture(Sample(canvas.to(torch.uint8), boxes, labels), torch.ones(len(boxes)))


def cutmix(own: Sample, other: Sample, alpha: float, draws: Generator) -> Mixture:
    """A rectangle of the other image at its own place, with what it holds of the objects.

    The rectangle is the paper's (Yun et al. 2019, equations 2 to 5: sides of sqrt(1 - lam) of
    those of the image, the centre uniform, cut at the edge) in the part that both images have. One
    without a pixel is drawn again, so that each image is mixed.
    """
    height, width = (min(sides) for sides in zip(own.size, other.size, strict=True))
    top, left, bottom, right = draw_rectangle(height, width, alpha, _numpy_generator(draws))
    image = own.image.clone()
    image[:, top:bottom, left:right] = other.image[:, top:bottom, left:right]
    around, share = seen_around(own.boxes, (top, left, bottom, right))
    inside, other_share = seen_inside(other.boxes, (top, left, bottom, right))
    labels = torch.cat([own.labels, other.labels])
    sample = Sample(image, torch.cat([around, inside]), labels)
    return Mixture(sample, torch.cat([share, other_share]))


def draw_rectangle(
    height: int, width: int, alpha: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of CutMix's rectangle, with a pixel at least.

    Edges are rounded to the nearest pixel, as `box: paper` of CutMix in pretraining does.
    """
    size = np.array([height, width])
    while True:
        side = np.sqrt(1 - rng.beta(alpha, alpha))
        centre = rng.random(2)
        low, high = (
            np.rint(np.clip(centre + half, 0, 1) * size).astype(int)
            for half in (-side / 2, side / 2)
        )
        if (low < high).all():
            return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def copy_paste(own: Sample, other: Sample, min_visible: float, draws: Generator) -> Mixture | None:
    """Some objects of the other image at their own place, cut out by their masks.

    Ghiasi et al. (CVPR 2021), a random subset without blur: from one to all of the objects, each
    number as likely, of those of which the own image has room for `min_visible`. None where there
    is no such object.
    """
    assert own.masks is not None
    assert other.masks is not None
    height, width = (min(sides) for sides in zip(own.size, other.size, strict=True))
    room = torch.zeros_like(other.masks)
    room[:, :height, :width] = True
    shown, share = seen_of_masks(other.boxes, other.masks, other.masks & room)
    able = (share >= min_visible).nonzero()[:, 0]
    if not len(able):
        return None
    count = int(torch.randint(1, len(able) + 1, (), generator=draws))
    chosen = able[torch.randperm(len(able), generator=draws)[:count]].sort().values
    paste = torch.zeros(own.size, dtype=torch.bool)
    paste[:height, :width] = other.masks[chosen, :height, :width].any(0)
    image = own.image.clone()
    part = paste[:height, :width]
    image[:, :height, :width][:, part] = other.image[:, :height, :width][:, part]
    masks = own.masks | (box_masks(own.boxes, own.size) & ~own.masks.any(2).any(1)[:, None, None])
    boxes, visible = seen_of_masks(own.boxes, masks, masks & ~paste)
    labels = torch.cat([own.labels, other.labels[chosen]])
    sample = Sample(image, torch.cat([boxes, shown[chosen]]), labels)
    return Mixture(sample, torch.cat([visible, share[chosen]]))


def seen_inside(boxes: Tensor, rectangle: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Boxes (K, 4) cut at a rectangle (top, left, bottom, right), and the shares (K,) in it."""
    top, left, bottom, right = rectangle
    low, high = torch.tensor([left, top]), torch.tensor([right, bottom])
    cut = torch.cat([boxes[:, :2].clamp(low, high), boxes[:, 2:].clamp(low, high)], dim=1)
    return cut, box_area(cut.double()) / box_area(boxes.double())


def seen_around(boxes: Tensor, rectangle: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Boxes (K, 4) of what a rectangle leaves of each, and the shares (K,) that it leaves.

    A side moves where the rectangle covers it from end to end.
    """
    cut, share = seen_inside(boxes, rectangle)
    left, top, right, bottom = boxes.unbind(1)
    covered_left, covered_top, covered_right, covered_bottom = cut.unbind(1)
    is_met = share > 0
    across = is_met & (covered_left == left) & (covered_right == right)
    along = is_met & (covered_top == top) & (covered_bottom == bottom)
    seen = torch.stack([
        torch.where(along & (covered_left == left), covered_right, left),
        torch.where(across & (covered_top == top), covered_bottom, top),
        torch.where(along & (covered_right == right), covered_left, right),
        torch.where(across & (covered_bottom == bottom), covered_top, bottom),
    ], dim=1)  # fmt: skip
    return seen, 1 - share


def seen_of_masks(boxes: Tensor, masks: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (K, 4) of what is `seen` (K, H, W) of masks (K, H, W), and the shares (K,).

    A box of which all is seen stays as it is; another ends within its old edges. 0 is seen of an
    empty mask.
    """
    whole, left = masks.sum((1, 2)), seen.sum((1, 2))
    columns, rows = seen.any(1).byte(), seen.any(2).byte()
    low = torch.stack([columns.argmax(1), rows.argmax(1)], dim=1)  # the first that is true
    back = torch.stack([columns.flip(1).argmax(1), rows.flip(1).argmax(1)], dim=1)
    high = torch.tensor([seen.shape[2], seen.shape[1]]) - back
    within = torch.cat([boxes[:, :2].maximum(low), boxes[:, 2:].minimum(high)], dim=1)
    return torch.where((left < whole)[:, None], within, boxes), left / whole.clamp(min=1).double()


def box_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (K, H, W) of the pixels that boxes (K, 4) touch."""
    left, top, right, bottom = boxes.T[:, :, None]
    row, column = torch.arange(size[0]), torch.arange(size[1])
    rows, columns = (row + 1 > top) & (row < bottom), (column + 1 > left) & (column < right)
    return rows[:, :, None] & columns[:, None]


def _numpy_generator(draws: Generator) -> np.random.Generator:
    """One that continues `draws`: torch's Beta takes no generator."""
    return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=draws)))
