"""What each trial tries: points of its arm's space, drawn by Optuna's samplers.

A point is a function of the sweep's seed, the trial's number and, with TPE, of what the brackets
before have found: a sweep that is killed, or shared by any number of processes, tries the same. The
space that arms share has the same points in each arm, so that no method is lucky in its draws (TPE:
in the first bracket, which is random; then each arm follows its own).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from pretrain.errors import UsageError
from pretrain.run import plain
from tools.support.sweep.config import Parameter, Scalar, Sweep

Point = dict[str, Scalar]


def distributions(sweep: Sweep, arm: str) -> dict[str, BaseDistribution]:
    """The space of an arm in Optuna's words."""
    base = plain(sweep.bases[arm])
    found = {}
    for name, one in sweep.space(arm).items():
        usual = _at(base, name)
        is_whole = isinstance(usual, int) or (
            usual is None and not _takes_fractions(sweep, arm, name, one)
        )
        found[name] = _distribution(one, is_whole)
    return found


def draw(sweep: Sweep, arm: str, before: Sequence[FrozenTrial], count: int) -> list[Point]:
    """The points of an arm's next trials.

    Args:
        sweep: with its sampler and seed.
        arm: whose.
        before: its trials so far, all of them finished.
        count: of the trials that come next, a bracket.
    """
    space = distributions(sweep, arm)
    if sweep.config.sampler == "tpe" and before:
        return _draw_tpe(sweep, arm, space, before, count)
    # the points of all arms at once, of which each takes its own columns
    columns: dict[str, BaseDistribution] = {}
    for other in sweep.config.arms:
        own = distributions(sweep, other)
        columns |= {_column(sweep, other, name): one for name, one in own.items()}
    points = _draw_points(sweep, columns, len(before) + count)[len(before) :]
    return [{name: point[_column(sweep, arm, name)] for name in space} for point in points]


def _draw_points(
    sweep: Sweep, space: Mapping[str, BaseDistribution], count: int
) -> list[dict[str, Any]]:
    """The first points of a space, by a sampler that learns nothing."""
    seed = _seed(sweep.config.seed, 0)
    if sweep.config.sampler != "qmc":
        study = _scratch(optuna.samplers.RandomSampler(seed=seed))
        return [study.ask(dict(space)).params for _ in range(count)]
    # a sampler of Sobol's points draws choices at random, as they are no numbers: their places are
    numbers = {
        name: IntDistribution(0, max(1, len(one.choices) - 1))
        if isinstance(one, CategoricalDistribution)
        else one
        for name, one in space.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.QMCSampler(scramble=True, seed=seed)
        study = _scratch(sampler)
        trial = create_trial(value=0.0)  # it is asked for, and not looked at
        found = [sampler.sample_relative(study, trial, numbers) for _ in range(count)]
    return [
        {
            name: one.choices[min(point[name], len(one.choices) - 1)]
            if isinstance(one, CategoricalDistribution)
            else point[name]
            for name, one in space.items()
        }
        for point in found
    ]


def _draw_tpe(
    sweep: Sweep,
    arm: str,
    space: Mapping[str, BaseDistribution],
    before: Sequence[FrozenTrial],
    count: int,
) -> list[Point]:
    place = list(sweep.config.arms).index(arm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=_seed(sweep.config.seed, 1, place, len(before)),
            n_startup_trials=0,  # the first bracket was that
            multivariate=True,
            constant_liar=True,  # the points of a bracket keep away from each other
        )
        study = _scratch(sampler, less=sweep.config.metric == "val_loss")
        study.add_trials(before)
        return [study.ask(dict(space)).params for _ in range(count)]


def waiting(space: Mapping[str, BaseDistribution], point: Point) -> FrozenTrial:
    """A trial that nobody has begun."""
    return create_trial(state=TrialState.WAITING, params=point, distributions=dict(space))


def _scratch(sampler: Any, less: bool = False) -> optuna.Study:
    """A study in memory: what is kept is written only once it is whole."""
    return optuna.create_study(sampler=sampler, direction="minimize" if less else "maximize")


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _column(sweep: Sweep, arm: str, name: str) -> str:
    """Where the points of all arms have an option: the arm's own apart from what all share."""
    return f"{arm} {name}" if name in sweep.config.arms[arm].space else name


def _takes_fractions(sweep: Sweep, arm: str, name: str, one: Parameter) -> bool:
    """Whether an option that the recipe leaves at null, which has no type, takes 2.5."""
    try:
        sweep.trial(arm, {name: math.floor(one.low or 0.0) + 0.5}, sweep.config.seed)
    except UsageError:
        return False
    return True


def _distribution(one: Parameter, is_whole: bool) -> BaseDistribution:
    """In Optuna's words; `is_whole`: the option takes whole numbers."""
    if one.choices is not None:
        return CategoricalDistribution(one.choices)
    low, high = one.low or 0.0, one.high or 0.0
    if low == int(low) and high == int(high) and is_whole:
        return IntDistribution(int(low), int(high), log=one.log)
    return FloatDistribution(low, high, log=one.log)


def _at(config: Mapping[str, Any], name: str) -> Any:
    """What a configuration has at a.b.c; None where that is nothing."""
    value: Any = config
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
