"""k nearest neighbours by cosine similarity, with the weighted vote of instance discrimination.

Each of the k most similar training images votes for its class with exp(s / T), T = 0.07 (Wu et al.,
CVPR 2018, section 3.4; DINO, Caron et al., ICCV 2021, evaluates so), or with 1. Equal
similarities: the image that comes first is nearer. Equal votes: the first class wins. Features are
divided by their length and by nothing else. Q queries, N training images, F features, K classes.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Vote = Literal["weighted", "majority"]

_BLOCK = 2**25  # similarities in memory at once


@torch.no_grad()
def nearest(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k most similar rows of the bank, for each query.

    Args:
        bank: (N, F).
        queries: (Q, F), on the same device.
        k: at most N.

    Returns:
        similarities (Q, k), falling, and numbers of the rows (Q, k), on the CPU. Among equal
        similarities the lower number comes first.
    """
    bank = functional.normalize(bank.float(), dim=1)
    found = []
    for part in queries.split(max(1, _BLOCK // len(bank))):
        similar = functional.normalize(part.float(), dim=1) @ bank.T
        values, numbers = similar.topk(k, dim=1)
        # topk may take any of those that equal the last one
        last = values[:, -1:]
        cut = (similar == last).sum(1) > (values == last).sum(1)
        if cut.any():
            ordered = similar[cut].sort(dim=1, descending=True, stable=True)
            values[cut], numbers[cut] = ordered.values[:, :k], ordered.indices[:, :k]
        numbers, order = numbers.sort(dim=1)
        values = values.gather(1, order)
        values, order = values.sort(dim=1, descending=True, stable=True)
        found.append((values.cpu(), numbers.gather(1, order).cpu()))
    similarities, rows = (torch.cat(column) for column in zip(*found, strict=True))
    return similarities, rows


def votes(
    similarities: Tensor,
    labels: Tensor,
    num_classes: int,
    ks: Sequence[int],
    how: Vote,
    temperature: float,
) -> dict[int, Tensor]:
    """The class that wins among the k nearest, for several k.

    Args:
        similarities: (Q, M) of neighbours, falling.
        labels: (Q, M) their classes.
        num_classes: K.
        ks: each at most M.
        how: what a neighbour counts.
        temperature: T.

    Returns:
        k -> (Q,) classes.
    """
    counts = similarities.double()
    counts = (counts / temperature).exp() if how == "weighted" else torch.ones_like(counts)
    winners: dict[int, list[Tensor]] = {k: [] for k in sorted(set(ks))}
    rows = max(1, _BLOCK // num_classes)
    for part, classes in zip(counts.split(rows), labels.split(rows), strict=True):
        sums, done = part.new_zeros(len(part), num_classes), 0
        for k, won in winners.items():
            sums.scatter_add_(1, classes[:, done:k], part[:, done:k])
            won.append(sums.argmax(1))
            done = k
    return {k: torch.cat(won) for k, won in winners.items()}
