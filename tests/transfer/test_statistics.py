"""What is said of few pairs, beside what others compute."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from transfer.statistics import (
    ALPHA,
    FEWEST,
    MOST,
    holm,
    holm_levels,
    paired_difference,
    pairs_needed,
)


def closed_test(p_values: list[float]) -> list[float]:
    """Adjusted p by definition: an intersection of hypotheses is tested by Bonferroni, and one
    falls where every intersection that holds it does (Marcus, Peritz and Gabriel 1976)."""
    numbers = range(len(p_values))
    sets = [one for size in range(1, len(p_values) + 1) for one in combinations(numbers, size)]
    of_set = {one: min(1.0, len(one) * min(p_values[i] for i in one)) for one in sets}
    return [max(p for one, p in of_set.items() if index in one) for index in numbers]


def test_holm_is_r_s_and_the_closed_test():
    # p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") of R
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    draw = np.random.default_rng(0)
    for count in (1, 2, 3, 5, 7):
        for _ in range(10):
            p_values = np.round(draw.uniform(0, 0.3, count) ** 2, 2).tolist()  # with ties
            assert holm(p_values) == pytest.approx(closed_test(p_values), abs=1e-12)


def test_what_has_no_test_is_not_counted():
    assert holm([None, 0.02, None, 0.01]) == [None, 0.02, None, 0.02]
    assert holm_levels([None, 0.02, None, 0.01]) == [None, ALPHA, None, ALPHA / 2]
    assert holm([]) == holm_levels([]) == []
    assert holm([None]) == holm_levels([None]) == [None]


def test_levels_are_those_at_which_holm_tests():
    # 0.011 is shown at 0.05 / 4, 0.016 at 0.05 / 3; 0.03 is not at 0.05 / 2, and so 0.04 is no more
    assert holm_levels([0.04, 0.011, 0.03, 0.016]) == pytest.approx(
        [ALPHA / 2, ALPHA / 4, ALPHA / 2, ALPHA / 3]
    )


def test_an_interval_after_holm_holds_zero_where_its_p_is_above_the_level():
    draw = np.random.default_rng(1)
    seen = set()
    for _ in range(200):
        found = []
        for _ in range(4):
            n = int(draw.integers(3, 9))
            plain, shift = draw.normal(0, 1, n), draw.normal(0, 2)
            ours = plain + shift + draw.normal(0, 1, n)
            found.append(paired_difference(ours.tolist(), plain.tolist()))
        p_values = [one.p for one in found]
        for one, p, level in zip(found, holm(p_values), holm_levels(p_values), strict=True):
            assert (abs(one.mean) > one.half_width_at(level)) == (p <= ALPHA)
            seen.add((p <= ALPHA, one.p <= ALPHA))
    assert seen == {(True, True), (False, True), (False, False)}  # and it corrects something


def test_intervals_of_other_levels_are_scipy_s():
    ours, plain = [3.0, 2.5, 4.0, 3.2], [2.0, 2.6, 2.2, 2.9]
    found = paired_difference(ours, plain)
    assert found.deviation == pytest.approx(np.std(np.subtract(ours, plain), ddof=1))
    assert found.half_width_at(ALPHA) == pytest.approx(found.half_width)
    wanted = stats.ttest_rel(ours, plain).confidence_interval(1 - 0.05 / 7)
    half = found.half_width_at(0.05 / 7)
    assert (found.mean - half, found.mean + half) == pytest.approx((wanted.low, wanted.high))
    assert paired_difference([2.0], [1.0]).half_width_at(0.05) is None


def power(n: int, effect: float) -> float:
    """Of the paired t test, by the noncentral t of SciPy's distributions."""
    critical, shift = stats.t.ppf(1 - ALPHA / 2, n - 1), effect * np.sqrt(n)
    return stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)


# power.t.test(delta = effect, sd = 1, power = 0.8, type = "paired") of R: n = 198.15, 33.37, 14.30,
# 9.94, 5.69; G*Power 3.1 has 199, 34 and 15 for the first three
@pytest.mark.parametrize(
    ("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6), (9.0, FEWEST)]
)
def test_pairs_needed_are_r_s(effect, pairs):
    assert pairs_needed(1.0, effect) == pairs
    assert pairs_needed(3.0, 3 * effect) == pairs  # in any unit
    assert power(pairs, effect) >= 0.8
    assert pairs == FEWEST or power(pairs - 1, effect) < 0.8


def test_pairs_needed_for_the_paper_s_gain_fit_what_could_be_found():
    """n pairs that find 1.1 suffice for it, and one that could not does not."""
    for spread in (0.1, 0.7, 1.9, 6.0):
        needed = pairs_needed(spread)
        values = [spread * (-1) ** number for number in range(needed)]
        scale = spread / np.std(values, ddof=1)
        found = paired_difference([scale * value for value in values], [0.0] * needed)
        assert found.detectable <= 1.1
    assert pairs_needed(0.0) == FEWEST
    assert pairs_needed(1e12) is None
    assert pairs_needed(1.1 * 0.3 * MOST**0.5) <= MOST
