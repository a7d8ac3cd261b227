"""Which images are held out of a data set: the same for every seed, and wherever the data lies."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]

HELD_OUT = 0.2
"""Share of a data set without splits."""


def hold_out(
    names: Sequence[str],
    labels: ArrayLike,
    indices: Indices,
    fraction: float,
    purpose: Literal["val", "choose"],
) -> tuple[Indices, Indices]:
    """Split images: (those that stay, those that are held out).

    Held out is where a hash of `purpose` and the name lies below `fraction`.
    A class of two or more images is on both sides: where the hash does not see to it, the image
    nearest to the other side changes over. A class of one image stays.

    Args:
        names: of all images, CLASS/NAME.
        labels: their classes.
        indices: the images to split.
        fraction: in (0, 1).
        purpose: other purposes hold out other images.
    """
    hashes = np.array([_hash(names[index], purpose) for index in indices])
    classes = np.asarray(labels)[indices]
    out = np.zeros(len(indices), bool)
    order = np.lexsort((hashes, classes))
    for members in np.split(order, np.flatnonzero(np.diff(classes[order])) + 1):
        below = int((hashes[members] < fraction).sum())
        out[members[: min(max(below, 1), len(members) - 1)]] = True
    return indices[~out], indices[out]


def take_few(names: Sequence[str], labels: ArrayLike, per_class: int) -> Indices:
    """So many images of each class, in their order: those with the smallest hashes.

    The fewer are a part of the more, whatever else the data set has. A class of fewer is whole.

    Args:
        names: of all images, CLASS/NAME.
        labels: their classes.
        per_class: how many are taken.
    """
    hashes, classes = np.array([_hash(name, "few") for name in names]), np.asarray(labels)
    order = np.lexsort((hashes, classes))
    first = np.searchsorted(classes[order], classes[order])  # of each one's class
    return np.sort(order[np.arange(len(order)) - first < per_class])


def _hash(name: str, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but the purpose and CLASS/NAME."""
    text = f"{purpose}/{name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2**48
