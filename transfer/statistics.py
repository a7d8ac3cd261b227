"""What few replicates can say: intervals by Student's t, and the difference they could have found.

A replicate is a pretraining seed; differences are between runs of the same seed, so a pair differs
in what is compared and in nothing else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import nctdtrinc, stdtr, stdtrit

LEVEL = 0.95
POWER = 0.8
FEWEST = 3
"""Pairs that a test needs: below, it could hardly have said anything."""


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences."""

    mean: float
    n: int
    """Pairs."""
    half_width: float | None
    """The 95 % interval is mean +- half_width; None for a single pair."""
    detectable: float | None
    """The smallest true difference that a paired t test of n pairs with this spread finds with a
    probability of 80 %, at the level of 5 %; None for a single pair."""
    p: float | None
    """Of the two-sided paired t test; None for fewer than FEWEST pairs, and where all pairs differ
    by the same: without spread there is no t."""


def paired_difference(ours: Sequence[float], plain: Sequence[float]) -> Difference:
    """Differences ours - plain, pair by pair."""
    differences = [a - b for a, b in zip(ours, plain, strict=True)]
    n, mean = len(differences), fmean(differences)
    if n < 2:
        return Difference(mean, n, None, None, None)
    spread = stdev(differences)
    error = spread / math.sqrt(n)
    critical = float(stdtrit(n - 1, (1 + LEVEL) / 2))
    # the noncentral t of a true difference, in standard errors, exceeds `critical` with probability
    # POWER; what lies below -critical is less than a millionth
    shift = float(nctdtrinc(n - 1, 1 - POWER, critical))
    # equal decimals differ in their last bits: that is no spread
    rounding = 1e-12 * max(map(abs, (*ours, *plain)))
    p = t_tails(abs(mean) / error, n - 1) if n >= FEWEST and spread > rounding else None
    return Difference(mean, n, critical * error, shift * error, p)


def t_tails(t: float, freedom: int) -> float:
    """P(|T| > t) of Student's t, to its last digits however small."""
    return 2 * float(stdtr(freedom, -t))


def smallest_sign_flip_p(n: int) -> float:
    """What an exact two-sided sign-flip test of n pairs says at best: 2 of the 2^n signs."""
    return 2 / 2**n
