"""What every mixing method takes and gives, and who is mixed with whom.

N images in, M rows out (M = N, but for granularity "half"), C channels, H height, W width,
K classes.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import check_ranges

Granularity = Literal["batch", "pair", "half", "sample"]
Partner = Literal["any", "other"]
Read = Callable[[Sequence[int]], Iterator[Any]]
"""Makes images of a batch, in this order, each when it is needed: bytes as NumPy's arrays, floats
as tensors, which may be written over when three more are read. Where a method takes it as `read`,
only the shape and device of its `images` count, and the result has the dtype and shape of what is
read."""


@dataclass(frozen=True)
class Mixed:
    """A mixed batch."""

    images: Tensor
    """(M, C, H, W), the dtype and device of the input."""
    targets: Tensor
    """(M, K) float32, rows summing to 1 unless the method's rule says otherwise (SnapMix)."""
    lam: Tensor
    """(M,) float32: the weight of an image's own label. On the CPU, but on the device of the
    images where it depends on what they show."""
    partner: Tensor
    """(M,) int64 on the CPU: the input row whose label has the rest of the weight; (M, P) where
    several have."""
    inside: "InNetwork | None" = None
    """What is left to do while the network runs; see `forward`."""
    note: str = ""
    """What the images do not show, such as the level at which features are mixed."""


class InNetwork(AbstractContextManager[None], Protocol):
    """A method at work inside the network: entered around the pass that trains on a batch."""

    def targets(self, mixed: Mixed) -> Tensor:
        """Targets (M, K) of the batch after its pass."""
        ...


def forward(model: Callable[[Tensor], Tensor], mixed: Mixed) -> tuple[Tensor, Tensor]:
    """Logits (M, K) and targets (M, K) of a mixed batch: one pass of the network in training."""
    if mixed.inside is None:
        return model(mixed.images), mixed.targets
    with mixed.inside:
        logits = model(mixed.images)
    return logits, mixed.inside.targets(mixed)


def warn_of_plain_pass() -> None:
    """Say, once, that a network trains on what was mixed for `forward`, and not by it."""
    warnings.warn(
        "a mixed batch did not go through forward(model, mixed) of pretrain.mixing: in a plain "
        "model(mixed.images) nothing is mixed inside the network, and the targets do not fit. "
        "Write logits, targets = forward(model, mixed).",
        stacklevel=1,
    )


class Mix(Protocol):
    """A mixing method."""

    @property
    def on_bytes(self) -> bool:
        """Whether it only moves pixels: to bytes it does, to the bit, what it does to floats.

        SaliencyMix too, but where it finds its peak: that of bytes is OpenCV's.
        """
        ...

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """Mix a batch of any size on any device; the inputs stay as they are.

        Args:
            images: (N, C, H, W), floating or uint8; blended bytes are rounded to the nearest.
            labels: (N,) integers or (N, K) soft labels, on the device of the images.
            num_classes: K.
            generator: a CPU generator; all random numbers are drawn there and sent once, so that
                CPU and CUDA mix alike.
        """
        ...


@dataclass(frozen=True)
class MixPairs:
    """Who is mixed with whom: row i of the result is image i with `partner[i]`."""

    partner: np.ndarray
    """(M,) rows of the input."""
    group: np.ndarray
    """(M,) which random draw a row uses."""
    mixed: np.ndarray
    """(groups,) whether that draw mixes at all."""
    lam: np.ndarray
    """(groups,) float64 in [0, 1]."""

    def spread(self, drawn: np.ndarray, unmixed: float) -> np.ndarray:
        """Draws (groups, ...) to rows (M, ...), `unmixed` where a draw does not mix."""
        shape = (-1,) + (1,) * (drawn.ndim - 1)
        return np.where(self.mixed.reshape(shape), drawn, unmixed)[self.group]


@dataclass(frozen=True, kw_only=True)
class PairedMix:
    """The options of a method that mixes pairs of images.

    The defaults are the CutMix paper's for all; of others, SnapMix's has alpha 5, Cut-Thumbnail's
    probability 0.8.
    """

    on_bytes: ClassVar[bool] = True
    reads: ClassVar[bool] = False
    """Whether it takes `read`; see `Read`."""

    alpha: float = 1.0
    """lam ~ Beta(alpha, alpha). The CutMix paper used 1.0 for Mixup too; 0.2 is common there, and
    SnapMix's paper has 5."""
    probability: float = 1.0
    """Chance that a draw (of the batch, pair or sample) mixes at all; Cut-Thumbnail's authors have
    0.8."""
    granularity: Granularity = "batch"
    """Who shares a draw of lam and box.

    - batch: everybody (the paper, the official code, torchvision)
    - pair: images i and N-1-i, which are each other's partners (timm's "pair")
    - half: as pair, and only the first half is returned: ceil(N/2) rows without an image that
      appears twice (timm's "half")
    - sample: nobody (timm's "elem")
    """
    partner: Partner = "any"
    """any: a permutation, in which an image may meet itself (the paper); other: a random cycle, in
    which it cannot. For pair and half only the middle of an odd batch is alone."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        check_ranges("mixing", self, alpha="> 0", probability="[0, 1]")

    def draw_pairs(self, count: int, rng: np.random.Generator) -> MixPairs:
        """Pair the images of a batch of `count`; `rng` is the only source of randomness."""
        rows = np.arange((count + 1) // 2 if self.granularity == "half" else count)
        if self.granularity in ("pair", "half"):
            partners = count - 1 - rows
            group = np.minimum(rows, partners)
        else:
            partners = order = rng.permutation(count)
            if self.partner == "other":
                partners = np.empty_like(order)
                partners[order] = np.roll(order, 1)
            group = np.zeros_like(rows) if self.granularity == "batch" else rows
        mixed = rng.random(int(group.max()) + 1) < self.probability
        return MixPairs(partners, group, mixed, rng.beta(self.alpha, self.alpha, len(mixed)))


def several_partners(rows: int, count: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Partners (rows, number) of the first images of a batch of `count`.

    They are the next in a random cycle of the batch: different images, and none its own partner,
    where the batch has so many.
    """
    order = rng.permutation(count)
    place = np.argsort(order)[:rows, None]
    return order[(place + np.arange(1, number + 1)) % count]


def by_slices(images: Tensor) -> bool:
    """Whether a loop over samples and their slices is faster than one operation with masks.

    Not where a gradient is to come through: the loop writes into memory of its own.
    """
    return images.device.type == "cpu" and not images.requires_grad


def mix_rows(
    images: Tensor,
    partner: Sequence[int],
    write: Callable[[int, Any, Any, Any], object],
    read: Read | None = None,
) -> Tensor:
    """Mixed images (M, C, H, W) on a CPU, one by one while they are in its cache.

    Args:
        images: (N, C, H, W).
        partner: M rows of them.
        write: of (row, target, own, theirs): fills the target (C, H, W) from an image and its
            partner's, which it leaves as they are. Bytes are NumPy's arrays, a slice of which takes
            a quarter of the time.
        read: see `Read`.
    """
    chains = _chains(partner)
    order = [row for chain in chains for row in chain[: -1 if chain[-1] == chain[0] else None]]
    every: Any = images.numpy() if images.dtype == torch.uint8 else images.unbind()
    reading = read(order) if read else map(every.__getitem__, order)
    first = next(reading)
    if isinstance(first, Tensor):
        layout = torch.contiguous_format if first.is_contiguous() else torch.channels_last
        mixed = torch.empty((len(partner), *first.shape), dtype=first.dtype, memory_format=layout)
        targets: Any = mixed.unbind()
    else:
        mixed = torch.empty_like(images[: len(partner)])
        targets = mixed.numpy()
    given = itertools.chain([first], reading)
    for chain in chains:
        start = own = next(given)
        if len(chain) > 4 and isinstance(own, Tensor):  # written over before the chain closes
            start = own.clone()
        for row, other in itertools.pairwise(chain):
            theirs = start if other == chain[0] else next(given)
            write(row, targets[row], own, theirs)
            own = theirs
    return mixed


def _chains(partner: Sequence[int]) -> list[list[int]]:
    """Chains in which each row is followed by its partner, so that few images are met twice.

    The last of a chain closes it, or stands in another, or only lends.
    """
    chains, left = [], dict(enumerate(partner))
    while left:
        row = next(iter(left))
        chain = [row]
        while row in left:
            row = left.pop(row)
            chain.append(row)
        chains.append(chain)
    return chains


def as_array(images: Tensor) -> np.ndarray:
    """Images on a CPU as NumPy's array of the same memory, to move pixels: in less time there."""
    array: np.ndarray = (
        images.view(torch.int16) if images.dtype == torch.bfloat16 else images
    ).numpy()
    return array


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """A NumPy generator that continues `generator`: torch's own Beta takes no generator."""
    return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))


def soft_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (N,) or (N, K) as rows of weights (N, K), float32."""
    if labels.ndim == 2:
        return labels.float()
    rows = torch.zeros(len(labels), num_classes, dtype=torch.float32, device=labels.device)
    return rows.scatter_(1, labels.long()[:, None], 1.0)


def smooth_targets(targets: Tensor, smoothing: float) -> Tensor:
    """Targets (M, K) of which a share is spread evenly over the classes; each row keeps its sum.

    Labels smoothed before they are mixed come to the same.
    """
    even = targets.sum(1, keepdim=True) * (smoothing / targets.shape[1])
    return (1 - smoothing) * targets + even


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device, without waiting for what the device is at.

    On Apple's GPUs such a copy may read memory that is already in other use (pytorch 83015).
    """
    return tensor.to(device, non_blocking=device.type != "mps")


def blend_labels(labels: Tensor, num_classes: int, partner: Tensor, lam: Tensor) -> Tensor:
    """Lam * own + (1 - lam) * partner's, row by row (paper, equation 1); all on one device."""
    weight = lam[:, None]
    if labels.ndim == 2:
        return weight * labels[: len(lam)].float() + (1 - weight) * labels[partner].float()
    labels = labels.long()
    own, other = labels[: len(lam), None], labels[partner, None]
    targets = lam.new_zeros(len(lam), num_classes).scatter_(1, other, 1 - weight)
    return targets.scatter_(1, own, torch.where(own == other, weight + (1 - weight), weight))


def blend_several(
    labels: Tensor, num_classes: int, owners: np.ndarray, share: np.ndarray
) -> Tensor:
    """Labels weighted by the shares (M, P) of the images (M, P) that own a row, on their device."""
    source, weight = (
        to_device(torch.from_numpy(array), labels.device)
        for array in (owners, share.astype(np.float32)[:, :, None])
    )
    return (weight * soft_labels(labels, num_classes)[source]).sum(1)


def unmixed(images: Tensor, labels: Tensor, num_classes: int) -> Mixed:
    """The batch as it is, not copied: every lam 1, every image its own partner."""
    count = len(images)
    return Mixed(images, soft_labels(labels, num_classes), torch.ones(count), torch.arange(count))
