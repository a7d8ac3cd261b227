"""CutMix (Yun et al., ICCV 2019, arXiv 1905.04899, section 3.1 and algorithm A1).

A box of the partner is pasted into the image at its own place.
Label rule: the share of pixels that each image owns in the result, whatever lam the box was drawn
from; two variants of section 4.1.3 have another. The network makes no further pass.
Boxes are (M, 4) integers: top, left, bottom, right, half-open; `boxes` has the rules for drawing.
As clovaai/CutMix-PyTorch, but for the rounding of the box (`box`); soft labels in place of two
losses.

Variants of section 4.1.3 and table 8 (top-1 error on CIFAR-100; CutMix 14.47), as `mixing.args`:

    center Gaussian  15.95   centre: gaussian
    fixed size       14.97   lam: 0.75, which is 16 x 16 of 32; with inside also at the border
    one-hot          15.89   label: one_hot
    complete label   15.17   label: complete
    scheduled        14.72   no argument: mixing.ramp over the whole run

timm's cutmix_minmax is `sides` with `inside` (its own rounding leaves 0.780 of 32 pixels, 0.755 of
224); Darknet draws sides of 0.3 to 0.8. Mean weight of the own label at alpha 1, 224 pixels, over a
million boxes (`aspect` [0.33, 3]):

    as the paper               0.679     inside                     0.500
    official                   0.682     aspect                     0.682
    centre: gaussian           0.574     aspect, inside             0.500
    lam 0.75                   0.809     lam 0.75, inside           0.750
    sides [0.2, 0.8]           0.815     sides [0.2, 0.8], inside   0.750
    label: one_hot             0.820     label: complete            0.500
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UsageError, check_ranges
from pretrain.mixing.boxes import (
    Centre,
    box_mask,
    check_interval,
    official_boxes,
    own_share,
    paper_boxes,
)
from pretrain.mixing.mixed import (
    Mixed,
    MixPairs,
    PairedMix,
    Read,
    blend_labels,
    by_slices,
    mix_rows,
    numpy_generator,
    to_device,
)

LabelRule = Literal["area", "one_hot", "complete"]


@dataclass(frozen=True, kw_only=True)
class CutMix(PairedMix):
    """CutMix; one box for the batch is the paper's."""

    reads: ClassVar[bool] = True
    box: Literal["paper", "official"] = "paper"
    """paper: edges to the nearest pixel, so that the mean area is exact; official: the authors'
    integers. What follows changes the paper's."""
    centre: Centre = "uniform"
    """Where boxes lie: anywhere, or about the middle of the image."""
    lam: float | None = None
    """The same for every box, in place of a draw from Beta. Boxes are still clipped at the border
    (mean weight of the own label at 0.75: 0.81), unless `inside`."""
    sides: tuple[float, float] | None = None
    """Height and width of a box are drawn from this range of shares of the image's, each by itself,
    in place of lam."""
    inside: bool = False
    """No box reaches beyond the image, so none is clipped."""
    aspect: tuple[float, float] | None = None
    """Width / height of a box over the image's own is drawn from this range, log-uniformly."""
    label: LabelRule = "area"
    """Weight of the own label: its share of the pixels, 1 for the larger part, or a half."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows, and two answers to one question."""
        super().__post_init__()
        check_ranges("mixing.args", self, lam="[0, 1]")
        check_interval("sides", self.sides, 1)
        check_interval("aspect", self.aspect, 100)
        of_paper = {"centre": self.centre != "uniform", "inside": self.inside}
        of_paper |= {name: getattr(self, name) is not None for name in ("sides", "aspect")}
        given = [name for name, is_given in of_paper.items() if is_given]
        if self.box == "official" and given:
            raise UsageError(
                f"mixing.box is official, whose rule has no {' or '.join(given)}; give mixing.box "
                f"paper, or leave out mixing.args.{given[0]}"
            )
        for name in ("lam", "aspect"):
            if self.sides is not None and getattr(self, name) is not None:
                raise UsageError(
                    f"mixing.args has sides and {name}; sides says how large and how oblong a box "
                    "is, so give one of them"
                )

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        generator: torch.Generator,
        read: Read | None = None,
    ) -> Mixed:
        """See Mix."""
        pairs, boxes = self.draw(images, generator)
        partner = torch.from_numpy(pairs.partner)
        return paste(images, labels, num_classes, boxes, partner, self.label, read)

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[MixPairs, np.ndarray]:
        """Who is mixed with whom in a batch, and the boxes (M, 4) that are pasted."""
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        drawn = self.draw_boxes(pairs.lam, images.shape[-2], images.shape[-1], rng)
        return pairs, pairs.spread(drawn, 0)

    def draw_boxes(
        self, lam: np.ndarray, height: int, width: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Boxes (N, 4) for the drawn lam (N,)."""
        if self.lam is not None:
            lam = np.full_like(lam, self.lam)
        if self.box == "official":
            return official_boxes(lam, height, width, rng)
        return paper_boxes(
            lam,
            height,
            width,
            rng,
            centre=self.centre,
            inside=self.inside,
            aspect=self.aspect,
            sides=self.sides,
        )


def label_weights(share: np.ndarray, rule: LabelRule) -> np.ndarray:
    """Weights (M,) of the own labels of images that keep a `share` (M,) of their pixels.

    area: that share; one_hot: 1 for those that keep at least half, else 0; complete: a half for
    all into which anything was pasted.
    """
    if rule == "one_hot":
        return np.where(share < 0.5, 0.0, 1.0)
    return np.where(share < 1, 0.5, 1.0) if rule == "complete" else share


def paste(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    boxes: np.ndarray,
    partner: Tensor,
    label: LabelRule = "area",
    read: Read | None = None,
) -> Mixed:
    """Paste box `boxes[i]` (top, left, bottom, right) of image `partner[i]` into image i.

    The label weight is the share of pixels, whatever lam the box was drawn from (equation 1 with
    the correction of algorithm A1), or what `label_weights` makes of it. Boxes and partners may be
    fewer than images: the rest of the batch only lends.
    """
    share = own_share(boxes, *images.shape[-2:])
    lam = torch.from_numpy(label_weights(share, label).astype(np.float32))
    source, weight = to_device(partner, images.device), to_device(lam, images.device)
    targets = blend_labels(labels, num_classes, source, weight)
    return Mixed(paste_pixels(images, boxes, partner, read), targets, lam, partner)


def paste_pixels(
    images: Tensor, boxes: np.ndarray, partner: Tensor, read: Read | None = None
) -> Tensor:
    """The images (M, C, H, W) of `paste`; where nothing is pasted, those given."""
    own, empty = images[: len(boxes)], (boxes[:, 2:] <= boxes[:, :2]).any(1).all()
    if by_slices(images) and (read or not empty):
        paste_row = partial(_paste_box, boxes.tolist())
        return mix_rows(images, partner.tolist(), paste_row, read)
    if empty:
        return own
    source = to_device(partner, images.device)
    if (boxes == boxes[:1]).all():  # one launch for one box
        mixed = own.clone()
        top, left, bottom, right = boxes[0].tolist()
        mixed[:, :, top:bottom, left:right] = images[source, :, top:bottom, left:right]
        return mixed
    return _paste_by_mask(images, boxes, source)


def _paste_box(boxes: list[list[int]], row: int, target: Any, own: Any, theirs: Any) -> None:
    target[...] = own
    top, left, bottom, right = boxes[row]
    target[:, top:bottom, left:right] = theirs[:, top:bottom, left:right]


def _paste_by_mask(images: Tensor, boxes: np.ndarray, partner: Tensor) -> Tensor:
    """As the loop over samples, without one launch per sample."""
    return torch.where(box_mask(boxes, images), images[partner], images[: len(boxes)])
