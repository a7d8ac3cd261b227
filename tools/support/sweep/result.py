"""What a sweep has found: result.json, and all that follows from it. No torch, no Optuna.

The content of result.json is plain values; `Arm` and the functions read it. A score is of the last
epoch that a trial was trained for. Best-of-N flatters: the best of N noisy scores is above what its
parameters give on average, the more the larger N; so the winner is trained again with other seeds,
and both numbers are shown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, quantiles
from typing import Any

from tools.support.sweep.rungs import budget
from transfer.statistics import FEWEST, Difference, paired_difference

FORMAT = "sweep/1"
_EDGE = 0.05  # of a range: what lies nearer to its end is at its edge


@dataclass(frozen=True)
class Spread:
    """Of the scores of an arm's trials after so many epochs."""

    epochs: int
    n: int
    values: tuple[float, float, float, float, float]
    """Least, quartiles, largest."""


@dataclass(frozen=True)
class Arm:
    """One method of a sweep."""

    name: str
    result: Mapping[str, Any]
    """The content of result.json."""

    @property
    def trials(self) -> list[dict[str, Any]]:
        """By number: number, point, state, scores, seconds, diverged."""
        return self.result["arms"][self.name]["trials"]

    @property
    def space(self) -> dict[str, dict[str, Any]]:
        """Option -> low, high, log, choices."""
        config = self.result["sweep"]
        return {**config["space"], **config["arms"][self.name]["space"]}

    @property
    def budget(self) -> int:
        """Epochs that the plan gives its trials; the same for every arm."""
        config = self.result["sweep"]
        return budget(config["trials"], config["brackets"], self.result["stops"], config["keep"])

    @property
    def epochs(self) -> int:
        """Epochs that its trials were trained for: the budget, unless some diverged."""
        return sum(max(map(int, trial["scores"]), default=0) for trial in self.trials)

    @property
    def seconds(self) -> float:
        """Of its trials, without those of attempts that were killed."""
        return sum(trial["seconds"] for trial in self.trials)

    @property
    def winner(self) -> dict[str, Any] | None:
        """The best trial that was trained in full; None where all diverged."""
        whole = [trial for trial in self.trials if trial["state"] == "complete"]
        sign = 1 if self.result["less"] else -1
        return min(whole, key=lambda one: (sign * last_score(one), one["number"]), default=None)

    @property
    def finals(self) -> dict[int, float]:
        """Seed -> score of the winner's parameters, without seeds on which it diverged."""
        finals = self.result["arms"][self.name]["finals"]
        return {one["seed"]: last_score(one) for one in finals if one["state"] == "complete"}

    @property
    def interval(self) -> Difference | None:
        """Mean and 95 % interval of the finals; None without any."""
        values = [*self.finals.values()]
        return paired_difference(values, [0.0] * len(values)) if values else None

    @property
    def optimism(self) -> float | None:
        """How much better the winner looked in the sweep than on other seeds."""
        if self.winner is None or self.interval is None:
            return None
        gain = last_score(self.winner) - self.interval.mean
        return -gain if self.result["less"] else gain

    def difference(self, other: "Arm") -> Difference | None:
        """To another arm, over the seeds on which both have a final; None without any."""
        seeds = [seed for seed in self.finals if seed in other.finals]
        if not seeds:
            return None
        return paired_difference(
            [self.finals[seed] for seed in seeds], [other.finals[seed] for seed in seeds]
        )

    @property
    def spreads(self) -> list[Spread]:
        """After each rung and at the end, of the trials that came so far."""
        found = []
        for stop in self.result["stops"]:
            values = sorted(t["scores"][str(stop)] for t in self.trials if str(stop) in t["scores"])
            if values:
                middle = quantiles(values, method="inclusive") if len(values) > 1 else 3 * values
                found.append(Spread(stop, len(values), (values[0], *middle, values[-1])))
        return found

    @property
    def at_edge(self) -> list[str]:
        """What the winner has at an end of its range: a wider range may have a better one."""
        if self.winner is None:
            return []
        return [
            f"{name} {value:.3g}, of {space['low']:.3g} to {space['high']:.3g}"
            for name, value in self.winner["point"].items()
            if (space := self.space[name])["choices"] is None
            and not _EDGE < share(space, value) < 1 - _EDGE
        ]


@dataclass(frozen=True)
class Summary:
    """All arms of a sweep."""

    result: Mapping[str, Any]

    @cached_property
    def arms(self) -> list[Arm]:
        """In the order of the YAML file."""
        return [Arm(name, self.result) for name in self.result["arms"]]

    @property
    def scores(self) -> list[float]:
        """Of all trials that have one."""
        return [last_score(one) for arm in self.arms for one in arm.trials if one["scores"]]

    def values(self, arm: Arm) -> list[float]:
        """The last score of each of an arm's trials; what diverged counts as the worst of all."""
        pick = max if self.result["less"] else min
        if not self.scores:
            return []
        worst = pick(self.scores)
        return [
            worst if trial["state"] == "diverged" else last_score(trial) for trial in arm.trials
        ]

    def expected_best(self, arm: Arm) -> list[float]:
        """Of the first k = 1, 2, ... trials, see `expected_best`."""
        return expected_best(self.values(arm), less=self.result["less"])


def last_score(trial: Mapping[str, Any]) -> float:
    """Of the last epoch that was trained."""
    return trial["scores"][max(trial["scores"], key=int)]


def expected_best(values: Sequence[float], less: bool = False) -> list[float]:
    """The expected best of k trials, k = 1 ... n, from the scores of n.

    Dodge et al., EMNLP 2019 (arXiv 1909.03004), equations 3 to 6: the maximum of k draws *with
    replacement* from the n scores is at most v with the probability (share of scores <= v)^k. It is
    exact for the empirical distribution, and so a little low for the true one (Tang et al., ACL
    2020), most where k is near n.

    Args:
        values: one score a trial.
        less: the smallest is the best.
    """
    n, ranked = len(values), sorted(values, reverse=less)
    return [
        math.fsum(value * (((i + 1) / n) ** k - (i / n) ** k) for i, value in enumerate(ranked))
        for k in range(1, n + 1)
    ]


def share(space: Mapping[str, Any], value: Any) -> float:
    """Where a value lies in its range or among its choices, from 0 to 1."""
    if space["choices"] is not None:
        place, count = space["choices"].index(value), len(space["choices"])
        return place / (count - 1) if count > 1 else 0.5
    low, high = space["low"], space["high"]
    if space["log"]:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def notes(summary: Summary) -> list[str]:
    """What a reader must know before believing the table."""
    result, lines = summary.result, list[str]()
    for arm in summary.arms:
        lost = [trial["number"] for trial in arm.trials if trial["state"] == "diverged"]
        if lost:
            lines.append(
                f"{arm.name}: {len(lost)} of {len(arm.trials)} trial"
                f"{'' if len(arm.trials) == 1 else 's'} diverged ({', '.join(map(str, lost))}); "
                f"{'it' if len(lost) == 1 else 'each'} counts as the worst and used its share of "
                "the budget."
            )
        if arm.winner is None:
            lines.append(f"{arm.name} has no winner: no trial came to its end.")
        for place in arm.at_edge:
            lines.append(
                f"{arm.name}: the winner lies at the edge of its range ({place}). A wider range "
                "may hold a better one."
            )
    first, *others = summary.arms
    for arm in others:
        found = arm.difference(first)
        if found is not None and found.half_width is not None:
            if found.n < FEWEST:
                said = f"no difference can be shown by fewer than {FEWEST} pairs"
            elif abs(found.mean) > found.half_width:
                said = "an interval without 0"
            else:
                said = "an interval that holds 0: no difference is shown"
                said += f"; n = {found.n} could have found {found.detectable:.2f}"
            lines.append(
                f"{arm.name} - {first.name}: {found.mean:+.2f} ± {found.half_width:.2f} "
                f"(95 %, n = {found.n} pairs of seeds), {said}."
            )
    optimism = [arm.optimism for arm in summary.arms if arm.optimism is not None]
    if optimism and result["sweep"]["trials"] > 1:  # one alone is not chosen
        lines.append(
            f"The best of {result['sweep']['trials']} was chosen by its score, which flatters: on "
            f"average the winners were {abs(fmean(optimism)):.2f} "
            f"{'better' if fmean(optimism) > 0 else 'worse'} in the sweep than on other seeds."
        )
    return lines
