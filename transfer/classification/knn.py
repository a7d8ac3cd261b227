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

_CHUNK = 2**25  # similarities in memory at once


@torch.no_grad()
def find_neighbours(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k most similar rows of the bank, for each query.

    Args:
        bank: (N, F).
        queries: (Q, F), on the same device.
        k: at most N.

    Returns:
        similarities (Q, k), falling, and indices of the rows (Q, k), on the CPU. Among equal
        similarities the lower index comes first.
    """
    bank = functional.normalize(bank.float(), dim=1)
    chunks = []
    for chunk in queries.split(max(1, _CHUNK // len(bank))):
        similarities = functional.normalize(chunk.float(), dim=1) @ bank.T
        values, indices = similarities.topk(k, dim=1)
        # topk may take any of those that equal the last one
        last = values[:, -1:]
        cut = (similarities == last).sum(1) > (values == last).sum(1)
        if cut.any():
            ordered = similarities[cut].sort(dim=1, descending=True, stable=True)
            values[cut], indices[cut] = ordered.values[:, :k], ordered.indices[:, :k]
        indices, order = indices.sort(dim=1)
        values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
        chunks.append((values.cpu(), indices.gather(1, order).cpu()))
    all_values, all_indices = (torch.cat(column) for column in zip(*chunks, strict=True))
    return all_values, all_indices


def vote_classes(
    similarities: Tensor,
    labels: Tensor,
    num_classes: int,
    ks: Sequence[int],
    weighting: Literal["weighted", "majority"],
    temperature: float,
) -> dict[int, Tensor]:
    """The class that wins among the k nearest, for several k.

    Args:
        similarities: (Q, M) of neighbours, falling.
        labels: (Q, M) their classes.
        num_classes: K.
        ks: each at most M.
        weighting: what a neighbour counts.
        temperature: T.

    Returns:
        k -> (Q,) classes.
    """
    weights = similarities.double()
    weights = (weights / temperature).exp() if weighting == "weighted" else torch.ones_like(weights)
    predictions: dict[int, list[Tensor]] = {k: [] for k in sorted(set(ks))}
    rows = max(1, _CHUNK // num_classes)
    for chunk, classes in zip(weights.split(rows), labels.split(rows), strict=True):
        votes, counted = chunk.new_zeros(len(chunk), num_classes), 0
        for k, winners in predictions.items():
            votes.scatter_add_(1, classes[:, counted:k], chunk[:, counted:k])
            winners.append(votes.argmax(1))
            counted = k
    return {k: torch.cat(winners) for k, winners in predictions.items()}
