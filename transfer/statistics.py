"""What few replicates can say: intervals by Student's t, and the difference they could have found.

A replicate is a pretraining seed; differences are between runs of the same seed, so a pair differs
in what is compared and in nothing else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, fmean

import numpy as np

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


def paired(ours: Sequence[float], plain: Sequence[float]) -> Difference:
    """Differences ours - plain, pair by pair."""
    differences = [a - b for a, b in zip(ours, plain, strict=True)]
    n = len(differences)
    if n < 2:
        return Difference(fmean(differences), n, None, None, None)
    spread = deviation(differences)
    # equal decimals differ in their last bits: that is no spread
    rounding = 1e-12 * max(map(abs, (*ours, *plain)))
    p = p_value(differences) if n >= FEWEST and spread > rounding else None
    return Difference(fmean(differences), n, half_width(differences), detectable(spread, n), p)


def p_value(differences: Sequence[float]) -> float:
    """Two-sided, of the t test that the mean of at least two unequal values is zero."""
    n = len(differences)
    t = abs(fmean(differences)) * math.sqrt(n) / deviation(differences)
    return t_tails(t, n - 1)


def smallest_sign_flip_p(n: int) -> float:
    """What an exact two-sided sign-flip test of n pairs says at best: 2 of the 2^n signs."""
    return 2 / 2**n


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of at least two values, with n - 1 below."""
    middle = fmean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean of at least two values."""
    n = len(values)
    return t_quantile((1 + LEVEL) / 2, n - 1) * deviation(values) / math.sqrt(n)


def detectable(spread: float, n: int) -> float:
    """The true mean that a two-sided t test of n values finds with probability POWER."""
    return _shift(n) * spread / math.sqrt(n)


@cache
def _shift(n: int) -> float:
    """The mean in standard errors that a test of n values finds with probability POWER."""
    critical = t_quantile((1 + LEVEL) / 2, n - 1)
    return _root(lambda shift: _power(shift, critical, n - 1) - POWER, 50)


def _power(shift: float, critical: float, freedom: int) -> float:
    """P(|T| > critical) for noncentral T = (Z + shift) / S with S^2 chi-squared over `freedom`.

    The density of S, integrated over what Z leaves: a thousand points give five digits.
    """
    s = np.linspace(1e-6, 1 + 12 / math.sqrt(freedom), 1001)
    log_density = (
        math.log(2)
        + freedom / 2 * math.log(freedom / 2)
        - math.lgamma(freedom / 2)
        + (freedom - 1) * np.log(s)
        - freedom * s**2 / 2
    )
    normal = NormalDist().cdf
    found = np.array([normal(shift - critical * x) + normal(-shift - critical * x) for x in s])
    return float(np.trapezoid(np.exp(log_density) * found, s))


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile above 1/2 of Student's t."""
    return _root(lambda t: t_cdf(t, freedom) - probability, 1e4)


def t_cdf(t: float, freedom: int) -> float:
    """Student's t distribution for a whole number of degrees of freedom, in closed form.

    Abramowitz and Stegun, 26.7.3 and 26.7.4, with theta = arctan(t / sqrt(freedom)).
    """
    theta = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(theta)
    odd = freedom % 2 == 1
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    central = math.sin(theta) * total
    if odd:
        central = 2 / math.pi * (theta + central)
    return 0.5 + central / 2


def t_tails(t: float, freedom: int) -> float:
    """P(|T| > t) of Student's t, to its last digits however small: 1 - t_cdf would cancel.

    The incomplete beta function I_x(freedom / 2, 1 / 2), x = freedom / (freedom + t^2), as its
    power series (DLMF 8.17.7), whose terms are all positive; for x near 1 it is the closed form.
    """
    a, x = freedom / 2, freedom / (freedom + t**2)
    if x > 0.99:
        return 2 * (1 - t_cdf(t, freedom))
    factor, total, k = 1.0, 0.0, 0
    while factor > 1e-17 * total * a or k == 0:
        total += factor / (a + k)
        k += 1
        factor *= x * (k - 0.5) / k
    log_beta = math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)
    return math.exp(a * math.log(x) - log_beta) * total


def _root(rising: Callable[[float], float], high: float) -> float:
    """Where a rising function of [0, high] crosses zero, by bisection."""
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
