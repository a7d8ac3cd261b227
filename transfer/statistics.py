"""What few replicates can say: intervals by Student's t, and the difference they could have found.

A replicate is a pretraining seed; differences are between runs of the same seed, so a pair differs
in what is compared and in nothing else.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import nctdtrinc, stdtr, stdtrit

ALPHA = 0.05
POWER = 0.8
MOST = 1_000_000
"""Pairs above which nobody asks how many are needed."""
PAPERS_GAIN = 1.1
"""Points of AP that CutMix adds to Faster R-CNN in the paper's table 10 (VOC, 75.6 to 76.7)."""
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
    deviation: float | None = None
    """Standard deviation of the differences; None for a single pair."""

    def half_width_at(self, alpha: float) -> float | None:
        """Half of the interval that misses the true mean with a probability of `alpha`."""
        if self.deviation is None:
            return None
        return _critical(self.n, alpha) * self.deviation / math.sqrt(self.n)


def paired_difference(ours: Sequence[float], plain: Sequence[float]) -> Difference:
    """Differences ours - plain, pair by pair."""
    differences = [a - b for a, b in zip(ours, plain, strict=True)]
    n, mean = len(differences), fmean(differences)
    if n < 2:
        return Difference(mean, n, None, None, None)
    spread = stdev(differences)
    error = spread / math.sqrt(n)
    # equal decimals differ in their last bits: that is no spread
    rounding = 1e-12 * max(map(abs, (*ours, *plain)))
    p = t_tails(abs(mean) / error, n - 1) if n >= FEWEST and spread > rounding else None
    return Difference(mean, n, _critical(n) * error, _detectable(spread, n), p, spread)


def _critical(n: int, alpha: float = ALPHA) -> float:
    """What |t| of n pairs exceeds with a probability of `alpha` where nothing differs."""
    return float(-stdtrit(n - 1, alpha / 2))


def _detectable(deviation: float, n: int) -> float:
    # the noncentral t of a true difference, in standard errors, exceeds the critical value with
    # probability POWER; what lies below -critical is less than a millionth
    return float(nctdtrinc(n - 1, 1 - POWER, _critical(n))) * deviation / math.sqrt(n)


def pairs_needed(deviation: float, difference: float = PAPERS_GAIN) -> int | None:
    """The fewest pairs with which a paired t test finds a true difference four times out of five.

    At the level of 5 %, two-sided, without correction; never below FEWEST. The deviation counts as
    known: one that few pairs have shown is itself uncertain (the 95 % interval of three pairs
    reaches from half of it to six times it), and the number of pairs goes with its square.

    Args:
        deviation: standard deviation of the differences between pairs, in the unit of `difference`.
        difference: the true one, above zero.

    Returns:
        None where MOST pairs are too few.
    """
    if _detectable(deviation, MOST) > difference:
        return None

    def suffice(n: int) -> bool:  # what is detectable falls with n
        return _detectable(deviation, n) <= difference

    return bisect_left(range(MOST), True, FEWEST, key=suffice)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm 1979, Scand. J. Statist. 6, 65-70).

    The smallest of m is multiplied by m, the next by m - 1, and so on, each being at least the one
    before. To call shown what is at most ALPHA errs in any of them with a probability of ALPHA at
    most, however they depend on each other. None is no test: it stays None and is not counted.
    """
    order = _ranked(p_values)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        adjusted[index] = largest = max(largest, min(1.0, (len(order) - rank) * p))
    return adjusted


def holm_levels(p_values: Sequence[float | None], alpha: float = ALPHA) -> list[float | None]:
    """The level of an interval for each test that agrees with `holm`: without zero where shown.

    It is the level at which Holm tests it: alpha / (m - rank + 1) for the tests shown; the first
    that is not ends the procedure, and those behind it, which it tests no more, share its level.

    Guaranteed: an interval holds zero if and only if its corrected p is above alpha, and what is
    not shown has the intervals at alpha over their number that fit Holm's test (Strassburger and
    Bretz 2008 and Guilbaud 2008, for one-sided tests). Not guaranteed: that all intervals hold
    their true differences at once with a probability of 1 - alpha. That a shown difference is none
    is refuted at that level, its size is not pinned down; for that, all need alpha / m.
    """
    order = _ranked(p_values)
    levels: list[float | None] = [None] * len(p_values)
    level, is_open = alpha, True
    for rank, (p, index) in enumerate(order):
        if is_open:
            level = alpha / (len(order) - rank)
            is_open = (len(order) - rank) * p <= alpha  # in the words of `holm`
        levels[index] = level
    return levels


def _ranked(p_values: Sequence[float | None]) -> list[tuple[float, int]]:
    """(p, index) from the smallest."""
    return sorted((p, index) for index, p in enumerate(p_values) if p is not None)


def t_tails(t: float, freedom: int) -> float:
    """P(|T| > t) of Student's t, to its last digits however small."""
    return 2 * float(stdtr(freedom, -t))


def smallest_sign_flip_p(n: int) -> float:
    """What an exact two-sided sign-flip test of n pairs says at best: 2 of the 2^n signs."""
    return 2 / 2**n
