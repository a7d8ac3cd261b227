"""The operations on arrays of integers that the scores are made of."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def starts_of(counts: Ints) -> Ints:
    """Where groups of these sizes begin when they stand one behind the other."""
    return np.cumsum(counts) - counts


def spread(starts: Ints, sizes: Ints) -> tuple[Ints, Ints]:
    """The positions start, start + 1, ... of ranges: the range of each, and the position."""
    which = np.repeat(np.arange(len(starts)), sizes)
    return which, np.arange(len(which)) + np.repeat(starts - starts_of(sizes), sizes)


def changes(values: NDArray[Any]) -> Bools:
    """Where a value differs from the one before it; the first always does."""
    flags = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=flags[1:])
    return flags


def find_sorted(keys: NDArray[Any], values: NDArray[Any]) -> Ints:
    """The position of each value in ascending `keys`, or -1; fastest where both ascend."""
    if not len(keys):
        return np.full(len(values), -1)
    positions = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    return np.where(keys[positions] == values, positions, -1)


def digits(values: Ints) -> list[NDArray[np.uint16]]:
    """Numbers from 0 on to the base 65,536, lowest digit first: NumPy sorts those by radix."""
    shifts = range(0, max(int(values.max(initial=0)).bit_length(), 1), 16)
    return [((values >> shift) & 0xFFFF).astype(np.uint16) for shift in shifts]
