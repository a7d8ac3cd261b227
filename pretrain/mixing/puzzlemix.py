"""PuzzleMix (Kim, Choo and Song, ICML 2020, arXiv 2009.06962, sections 3 and 4, algorithm 1).

A grid of blocks is laid over both images. `puzzle_masks` chooses how much of each block is to be
the own image's, in `n_labels` steps, so that little of what is salient is hidden, neighbours agree,
and the mean is near lam (equation 3); then each image moves its salient blocks to where it is shown
(`transport`, algorithm 1). Label rule: the mean of the mask, in each row its own. One further pass
of the network, forward and backward to the images, in evaluation mode: the saliency of a pixel is
the size of the loss's gradient there.

How the reference code (snu-mllab/PuzzleMix) differs:
- it finds the masks on the CPU, image after image, by a compiled library (gco: alpha-beta swaps,
  costs cut to integers). Here all are found at once on the device, and their energy was the least
  there is in each of 4096 problems; of those of 16 x 16 blocks theirs was above it in a third.
- by default its further pass is in evaluation mode too, though its backward reaches the parameters;
  with `clean_lam` it is in training mode (averages of batches count the images twice), and that
  gradient is trained on together with the mixed images'.
- its images are squares that the blocks divide. Here blocks may differ by a pixel.
- a block without any saliency, where another is not moved to, it shows black; here it stays.
- here the prior of lam below 1e-4 and above 1 - 1e-4 is that of these; there it is not convex.
- its adversarial noise is left out.

N images, M rows mixed, C channels, R x K blocks, L levels.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain.errors import UsageError, check_ranges
from pretrain.mixing.mixed import (
    Mixed,
    PairedMix,
    blend_labels,
    numpy_generator,
    soft_labels,
    to_device,
)
from pretrain.mixing.network import gradient_saliency


@dataclass(frozen=True, kw_only=True)
class PuzzleMix(PairedMix):
    """PuzzleMix; one lam and one grid for the batch are the reference's.

    Often one image fills the picture: of 256 rows of flowers, 128 pixels, a lam for each and an
    untrained ResNet-18, the mask was all 0 in 21 % and all 1 in 25 %, the same rows as by the
    reference's code (at 2 x 2 blocks 73 % of the rows, at 16 x 16 5 %).
    """

    on_bytes: ClassVar[bool] = False
    network: nn.Module = field(repr=False)
    """The one that is trained."""
    block_num: int | None = None
    """Blocks along each side; None draws 2, 4, 8 or 16 for each batch."""
    n_labels: int = 3
    """Levels of the mask from 0 to 1."""
    beta: float = 1.2
    """Weight of neighbours' agreement."""
    gamma: float = 0.5
    """How much of it depends on the colours on both sides of a border."""
    eta: float = 0.2
    """Weight of lam."""
    neigh_size: int = 4
    """Pixels averaged before colours are compared; the reference has 2 for ImageNet."""
    transport: bool = True
    """Whether salient blocks move to where they are shown."""
    t_eps: float = 0.8
    """Cost of a move from side to side, in shares of the image's saliency."""
    t_size: int | None = None
    """Side in pixels of the pieces that move; None moves whole blocks."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """By which the images were divided: colours are compared as they were before."""

    def __post_init__(self) -> None:
        """Refuse what makes no grid or no minimum."""
        super().__post_init__()
        counts = dict.fromkeys(("block_num", "neigh_size", "t_size"), ">= 1")
        weights = dict.fromkeys(("beta", "gamma", "eta", "t_eps"), ">= 0")
        check_ranges("mixing.args", self, n_labels="[2, 16]", **counts, **weights)
        if not (self.std and all(0 < each < math.inf for each in self.std)):
            raise UsageError(
                f"mixing.args.std is {list(self.std)}; give a number above 0 for each channel, or "
                "one for all"
            )

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix. Normalised floats.

        Raises:
            UsageError: the images are bytes, or have other channels than `std`.
        """
        if len(self.std) not in (1, images.shape[1]):
            raise UsageError(
                f"mixing.args.std has {len(self.std)} numbers for images of {images.shape[1]} "
                "channels; give one for each, or one for all"
            )
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        block_num = int(rng.choice((2, 4, 8, 16))) if self.block_num is None else self.block_num
        partner, count = torch.from_numpy(pairs.partner), len(pairs.partner)
        if not pairs.mixed.any():
            targets = soft_labels(labels, num_classes)[:count]
            return Mixed(images[:count], targets, torch.ones(count), partner)
        source = to_device(partner, images.device)
        saliency = gradient_saliency(self.network, images, labels)
        height, width = images.shape[2:]
        blocks = min(block_num, height), min(block_num, width)
        std = to_device(torch.tensor(self.std), images.device)[:, None, None]
        fine = _finer(blocks, images, self.neigh_size)
        mask = puzzle_masks(
            shares(saliency, blocks),
            functional.adaptive_avg_pool2d(images.float() * std, fine),
            source,
            pairs.spread(pairs.lam, 1),
            self.n_labels,
            beta=self.beta,
            gamma=self.gamma,
            eta=self.eta,
        )
        changed = to_device(torch.from_numpy(pairs.mixed[pairs.group]), images.device)
        mask = torch.where(changed[:, None, None], mask, 1.0)
        own, other = images[:count], images[source]
        if self.transport:
            pieces = blocks if self.t_size is None else _finer(blocks, images, self.t_size)
            share, shown = shares(saliency, pieces), _resized(mask, pieces)
            own = move_blocks(own, transport(shown, share[:count], self.t_eps), pieces)
            other = move_blocks(other, transport(1 - shown, share[source], self.t_eps), pieces)
        mask = _resized(mask, (height, width))
        mixed = torch.lerp(other.float(), own.float(), mask[:, None]).to(images.dtype)
        lam = mask.mean((1, 2))
        return Mixed(mixed, blend_labels(labels, num_classes, source, lam), lam, partner)


def shares(saliency: Tensor, blocks: tuple[int, int]) -> Tensor:
    """Shares (N, R, K) of the saliency (N, H, W); equal ones where it is nothing or no number."""
    means = functional.adaptive_avg_pool2d(saliency, blocks)
    total = means.sum((1, 2), keepdim=True)
    return torch.where((total > 0) & total.isfinite(), means / total, 1 / math.prod(blocks))


def puzzle_masks(
    share: Tensor,
    colours: Tensor,
    partner: Tensor,
    lam: np.ndarray,
    n_labels: int = 3,
    *,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
) -> Tensor:
    """Masks (M, R, K) of the own images, levels from 0 to 1 (equation 3).

    Args:
        share: (N, R, K), the saliency of each block, summing to 1 in each image.
        colours: (N, C, R * r, K * k), the images in [0, 1] (or so, plus any constant), each block
            averaged to r x k colours.
        partner: (M,) on the device of the images.
        lam: (M,) on the host.
        n_labels: L.
        beta: weight of agreement.
        gamma: weight of agreement on how colours fit over a border.
        eta: weight of the prior: Binomial(L - 1, lam).
    """
    unary, smooth = energy_terms(share, colours, partner, lam, n_labels, beta, gamma, eta)
    return least_energy(unary, smooth) / (n_labels - 1)


def energy_terms(
    share: Tensor,
    colours: Tensor,
    partner: Tensor,
    lam: np.ndarray,
    n_labels: int,
    beta: float,
    gamma: float,
    eta: float,
) -> tuple[Tensor, Tensor]:
    """The terms that `least_energy` takes; see `puzzle_masks`."""
    count, blocks = len(partner), (share.shape[1], share.shape[2])
    inner = torch.ones(2, *blocks, device=share.device)
    inner[0, -1], inner[1, :, -1] = 0, 0
    agreement = beta / (16 * math.sqrt(math.prod(blocks))) * inner
    shown = colours[partner], colours[:count]  # at level 0, at level 1
    none, partly, other_way, full = (
        gamma * agreement * _misfit(shown[this], shown[following], blocks)
        for this in (0, 1)
        for following in (0, 1)
    )
    # the misfit of two levels a, b is what is bilinear in them: so much for each, so much for both
    hidden = share[:count] + (none + partly).sum(1) / 2 + _behind(none + other_way) / 2
    covered = share[partner] + (full + other_way).sum(1) / 2 + _behind(full + partly) / 2
    smooth = ((partly + other_way - none - full) / 2 + agreement).clamp(min=0)
    levels = np.arange(n_labels)
    ways = np.array([math.comb(n_labels - 1, level) for level in levels])
    chance = np.clip(lam, 1e-4, 1 - 1e-4)[:, None]
    binomial = ways * chance**levels * (1 - chance) ** levels[::-1]
    prior = to_device(torch.from_numpy(-np.log(binomial).astype(np.float32)), share.device)
    weight = torch.linspace(0, 1, n_labels, device=share.device)[:, None, None]
    unary = torch.lerp(hidden[:, None], covered[:, None], weight)
    return unary + eta / math.prod(blocks) * prior[:, :, None, None], smooth


def energy(unary: Tensor, smooth: Tensor, levels: Tensor) -> Tensor:
    """Sum (M,) of `unary` at the levels (M, R, K) and of `smooth` * (difference / (L - 1))^2."""
    step = _ahead(levels) / (unary.shape[1] - 1)
    chosen = unary.gather(1, levels.long()[:, None]).sum((1, 2, 3))
    return chosen + (smooth * step.square()).sum((1, 2, 3))


def least_energy(unary: Tensor, smooth: Tensor) -> Tensor:
    """Levels (M, R, K), floats 0 to L - 1, of the least energy, or within some 1e-6 of it.

    With convex terms the energy is that of a minimum cut (Ishikawa, 2003), and its linear
    interpolation between the levels has the same minimum: each threshold of a minimum of the latter
    is one of the former. That convex function is minimised by a primal-dual method (Chambolle and
    Pock, 2011, algorithm 1, over-relaxed) in steps that all blocks of all images take together, and
    of eight thresholds the best is kept.

    Args:
        unary: (M, L, R, K), convex in L.
        smooth: (M, 2, R, K) at least 0, of each block with the next below it and on its right; 0
            in the last row and column.
    """
    top, blocks = unary.shape[1] - 1, unary.shape[2:]
    level = torch.arange(top, device=unary.device)[:, None, None]
    weight = smooth / top**2
    edges = (weight > 0).sum((1, 2, 3), keepdim=True).clamp(min=1)
    mean = weight.sum((1, 2, 3), keepdim=True) / edges
    dual_step = mean.clamp(min=1e-9) / math.sqrt(8)
    step = (1 / (8 * dual_step))[:, 0]
    # the interpolation has kinks at whole numbers: its slope rises there, for differences by 2
    slopes = unary.diff(dim=1)
    kinks = step[:, None] * slopes + level
    dual_kinks = weight[:, :, None] * (2 * level + 1) + dual_step[:, None] * level
    point, dual = (slopes < 0).sum(1).float(), torch.zeros_like(weight)
    for _ in range(16 * max(blocks)):
        moved = torch.addcmul(point, step, dual.sum(1) - _behind(dual))
        nearer = (moved[:, None] - kinks).clamp(0, 1).sum(1)
        wanted = torch.addcmul(dual, dual_step, _ahead(nearer.lerp(point, -1)))
        size = wanted.abs()
        over = (size[:, :, None] - dual_kinks).clamp(min=0).minimum(dual_step[:, None]).sum(2)
        size = (size - over).minimum((2 * top - 1) * weight)
        point = point.lerp(nearer, 1.8)
        dual = dual.lerp(size.copysign(wanted), 1.8)
    thresholds = torch.arange(1, 16, 2, device=unary.device)[:, None, None, None] / 16
    levels = (nearer + thresholds).floor().clamp(max=top)
    best = torch.stack([energy(unary, smooth, each) for each in levels]).argmin(0)
    return levels[best, torch.arange(len(best), device=unary.device)]


def transport(mask: Tensor, share: Tensor, eps: float = 0.8) -> Tensor:
    """Which block an image shows where: (M, R * K) indices, every visible block once (algorithm 1).

    Each block goes where it gains most, its share of saliency if the mask is above 0 there, less
    `eps` times the squared distance; of several the best stays, and the others choose again.

    Args:
        mask: (M, R, K), how much of the image is shown.
        share: (M, R, K), its saliency.
        eps: cost of a way as long as the longer side.
    """
    count, rows, columns = mask.shape
    index = torch.arange(rows * columns, device=mask.device)
    row, column = index // columns, index % columns
    squares = (row[:, None] - row).square() + (column[:, None] - column).square()
    cost = (
        eps * (squares / max(rows - 1, columns - 1, 1) ** 2)
        - share.flatten(1)[:, :, None] * (mask.flatten(1) > 0)[:, None]
    )
    nobody = torch.full((count, rows * columns), rows * columns, device=mask.device)
    for _ in range(max(rows, columns)):
        value, place = cost.min(2)
        best = torch.zeros_like(value).scatter_reduce(1, place, value, "amin")
        ahead = (value < 0) & (value == best.gather(1, place))
        winner = nobody.scatter_reduce(1, place, torch.where(ahead, index, nobody), "amin")
        lost = (winner.gather(1, place) != index).float()
        cost = cost.scatter(2, place[:, :, None], (value + lost)[:, :, None])
    return torch.where(winner < rows * columns, winner, index)


def move_blocks(images: Tensor, source: Tensor, blocks: tuple[int, int]) -> Tensor:
    """Images (M, C, H, W) that show block `source[:, i]` (M, R * K) of themselves at block i."""
    (top, row), (left, column) = (
        (torch.arange(count, device=images.device) * size // count, _block(size, count, images))
        for size, count in zip(images.shape[2:], blocks, strict=True)
    )
    taken = source[:, row[:, None] * blocks[1] + column]
    below = torch.arange(len(row), device=images.device) - top[row]
    beside = torch.arange(len(column), device=images.device) - left[column]
    pixel = (top[taken // blocks[1]] + below[:, None]) * len(column)
    pixel += left[taken % blocks[1]] + beside
    pixel = pixel.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, pixel).view_as(images)


def _finer(blocks: tuple[int, int], images: Tensor, size: int) -> tuple[int, int]:
    """Blocks divided into pieces of about `size` pixels."""
    rows, columns = (
        count * max(1, side // count // size)
        for count, side in zip(blocks, images.shape[2:], strict=True)
    )
    return rows, columns


def _block(size: int, count: int, like: Tensor) -> Tensor:
    """In which of `count` blocks, which begin at i * size // count, each of `size` lines lies."""
    return (torch.arange(1, size + 1, device=like.device) * count - 1) // size


def _resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (M, R, K) on a finer grid."""
    row, column = (_block(n, mask.shape[dim + 1], mask) for dim, n in enumerate(size))
    return mask[:, row][:, :, column]


def _ahead(values: Tensor) -> Tensor:
    """Values (M, R, K) of the next block below and on the right, less the own: (M, 2, R, K)."""
    return torch.stack([values.roll(-1, 1), values.roll(-1, 2)], 1) - values[:, None]


def _behind(edges: Tensor) -> Tensor:
    """Sum (M, R, K) of what is between a block and the one above, and the one on its left."""
    return edges[:, 0].roll(1, 1) + edges[:, 1].roll(1, 2)


def _misfit(this: Tensor, following: Tensor, blocks: tuple[int, int]) -> Tensor:
    """How colours differ over the borders of each block: (M, 2, R, K), below and on the right."""
    down, right = (
        (this - following.roll(-1, dim))
        .abs()
        .mean(1)
        .unflatten(2, (blocks[1], -1))
        .unflatten(1, (blocks[0], -1))
        for dim in (2, 3)
    )
    return torch.stack([down[:, :, -1].mean(3), right[..., -1].mean(2)], 1)
