"""Synchronous successive halving, and what it costs: pure functions of scores.

Jamieson and Talwalkar, AISTATS 2016 (arXiv 1502.07943), algorithm 1; brackets as Hyperband's (Li
et al., JMLR 2018), here all alike. A rung waits for every trial of its bracket, so neither who goes
on nor what is spent depends on the number of processes or their speed. Asynchronous pruners (ASHA,
Optuna's) promote whoever is first, and spend more or less with the order of arrival.

Scores are larger for better trials here, and -inf for one that diverged; stops are the epochs at
which trials are compared: the rungs, then the end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Scores = Mapping[int, float]
"""Epoch -> score of a trial; it has those of its past."""


@dataclass(frozen=True)
class Decision:
    """What becomes of the trials of a bracket, by their places in it."""

    due: Mapping[int, int]
    """Trial -> the epoch to which it is to be trained now."""
    pruned: tuple[int, ...]
    complete: tuple[int, ...]


def decide(trials: Sequence[Scores], stops: Sequence[int], keep: float) -> Decision:
    """Who is trained on, who ends, who is complete; the better of equal trials is the earlier.

    Args:
        trials: of one bracket.
        stops: rising; the last is the end.
        keep: the share that goes on.
    """
    alive, pruned = list(range(len(trials))), list[int]()
    for place, stop in enumerate(stops):
        if due := {trial: stop for trial in alive if stop not in trials[trial]}:
            is_end = place == len(stops) - 1
            complete = [trial for trial in alive if trial not in due] if is_end else []
            return Decision(due, tuple(pruned), tuple(complete))
        if place < len(stops) - 1:
            ranked = sorted(alive, key=lambda trial: (-trials[trial][stop], trial))
            going = kept(len(ranked), keep)
            alive, pruned = ranked[:going], pruned + ranked[going:]
    return Decision({}, tuple(pruned), tuple(alive))


def kept(count: int, keep: float) -> int:
    """How many of so many trials go on."""
    return max(1, math.floor(count * keep + 1e-9))  # 0.29 x 100 is 28.999...


def split(trials: int, brackets: int) -> list[range]:
    """The numbers of the trials of each bracket; earlier brackets have the one too many."""
    sizes = [trials // brackets + (place < trials % brackets) for place in range(brackets)]
    starts = [sum(sizes[:place]) for place in range(brackets)]
    return [range(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def budget(trials: int, brackets: int, stops: Sequence[int], keep: float) -> int:
    """Epochs of an arm: a function of the plan alone, so it is the same for every arm."""
    total = 0
    for bracket in split(trials, brackets):
        count = len(bracket)
        for before, stop in zip((0, *stops), stops, strict=False):
            total += count * (stop - before)
            count = kept(count, keep)
    return total
