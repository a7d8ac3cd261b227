"""A sweep as its YAML file describes it, and the configuration of each of its trainings.

Every mistake in the file shows here, before anything is trained.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from pretrain.config import PretrainConfig
from pretrain.errors import UsageError, check_ranges
from pretrain.reading import check, read_yaml
from tools.support.command import Parser, build_config, refuse_unknown_keys

Scalar = None | bool | int | float | str
# an arm with more epochs would have another budget; seeds and places are the sweep's own
_RESERVED = {
    "epochs": "the budget: options has it, for all arms",
    "duration": "the budget: give epochs, in options",
    "seed": "the sweep's own: seed, and finals",
    "data": "the tool's: --data DIR",
    "name": "the sweep's own: name",
    "score_every": "the sweep's own: every epoch is scored",
    "config": "the sweep's own: config, one recipe for all arms",
    "help": "no option of a recipe",
    "print_config": "no option of a recipe",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_OWN_FILES = (
    "logs", "optuna.db", "sweep.yaml", "sweep.md", "data.json", "result.json", "index.html",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """What one option of the recipe may be: a range, or a list of values."""

    low: float | None = None
    """Smallest value; whole numbers at both ends make a whole number, where the option takes it."""
    high: float | None = None
    """Largest value, included."""
    log: bool = False
    """Spread evenly over the orders of magnitude."""
    choices: tuple[Scalar, ...] | None = None
    """The values themselves, in place of a range."""

    def __post_init__(self) -> None:
        """Refuse what is neither, or both, or empty."""
        has_range = self.low is not None and self.high is not None
        if (self.choices is None) != has_range or (self.choices is not None and self.log):
            raise UsageError("it must be {low: A, high: B}, with log: true or without, or "
                             "{choices: [A, B, ...]}")  # fmt: skip
        if self.choices is not None:
            if not self.choices or len({*map(repr, self.choices)}) < len(self.choices):
                raise UsageError(f"choices is {list(self.choices)}; it must name values, each once")
            return
        low, high = self.low, self.high
        if not (math.isfinite(low) and math.isfinite(high) and low < high):  # type: ignore[arg-type, operator]
            raise UsageError(f"low is {low} and high {high}; low must be below high")
        if self.log and low <= 0:  # type: ignore[operator]
            raise UsageError(f"low is {low} with log: true; it must be above 0")


Space = Mapping[str, Parameter]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the methods that are compared."""

    options: dict[str, Any] = field(default_factory=dict)
    """Over the sweep's, such as {mixing.method: cutmix}."""
    space: dict[str, Parameter] = field(default_factory=dict)
    """Beside the sweep's; a name that stands in both is this arm's."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The YAML file."""

    name: str
    config: str
    """The recipe that every trial starts from."""
    options: dict[str, Any] = field(default_factory=dict)
    """Over the recipe, for all arms, such as {epochs: 6}."""
    metric: Literal["top1", "top5", "val_loss"] = "top1"
    """Of the last epoch, not of the best: choosing the epoch too would be a second selection."""
    trials: int
    """Of each arm."""
    rungs: tuple[int, ...] = ()
    """Epochs after which the better trials go on and the others end; () trains each in full."""
    keep: float = 0.5
    """The share that goes on, rounded down, at least one trial."""
    brackets: int = 1
    """Groups of trials that are halved each by itself, one after another."""
    sampler: Literal["random", "qmc", "tpe"] = "random"
    """random; qmc: Sobol's points, more even; tpe: learns from the brackets before."""
    seed: int = 0
    """Of the points and of every trial's training."""
    finals: tuple[int, ...] = ()
    """Seeds with which each arm's winner is trained again, in full."""
    space: dict[str, Parameter] = field(default_factory=dict)
    """Of every arm: option of the recipe -> what it may be."""
    arms: dict[str, Arm]

    def __post_init__(self) -> None:
        """Refuse counts and shares out of range."""
        check_ranges("", self, trials="[1, 10000]", seed=">= 0", keep="(0, 1)")
        check_ranges("", self, brackets=f"[1, {self.trials}]")
        if list(self.rungs) != sorted({*self.rungs}) or any(rung < 1 for rung in self.rungs):
            raise UsageError(f"rungs is {list(self.rungs)}; it must be epochs, each above the last")
        if len({*self.finals}) < len(self.finals) or any(seed < 0 for seed in self.finals):
            raise UsageError(f"finals is {list(self.finals)}; it must be seeds, each once")
        if self.seed in self.finals:
            raise UsageError(
                f"finals has {self.seed}, the seed that the trials have: the winner was chosen by "
                "it. Give other seeds."
            )
        if not self.arms:
            raise UsageError("arms is empty; it must hold at least one NAME: {options: {...}}")
        for name in (self.name, *self.arms):
            if not _NAME.fullmatch(name) or name in _OWN_FILES:
                raise UsageError(
                    f"{name!r:.60} names a folder; it must be letters, digits and . _ + -, "
                    f"beginning with one of the first two, and not {', '.join(_OWN_FILES)}"
                )
        for arm, values in self.arms.items():
            if not {**self.space, **values.space}:
                raise UsageError(f"arm {arm} has no space; name at least one option to tune")


def read_sweep(path: Path) -> SweepConfig:
    """The sweep in a file.

    Raises:
        UsageError: an unknown key, with those that are known; a value of another type or range.
    """
    name = f"sweep {path}"
    return parse_sweep(check(read_yaml(path, name), dict, name), name)


def parse_sweep(content: Mapping[str, Any], name: str) -> SweepConfig:
    """The sweep in what its file holds; errors begin with `name`, see `read_sweep`."""
    for place, values, kind in _levels(content):
        refuse_unknown_keys(values, [one.name for one in fields(kind)], f"{name}: {place}")
        for key in ("low", "high") if kind is Parameter else ():
            if isinstance(values.get(key), str):
                raise UsageError(
                    f"{name}: {place}{key} is {values[key]!r:.60}, a text; it must be a number, "
                    "which to YAML has a point before its exponent: 1.0e-3"
                )
        if kind is Parameter:  # else its place would be space[...]
            check(values, kind, f"{name}: {place.removesuffix('.')}")
    config: SweepConfig = check(content, SweepConfig, name)
    return config


def _levels(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], type]]:
    """(place, mapping, its dataclass) of every mapping with fixed keys."""
    yield "", content, SweepConfig
    arms = content.get("arms")
    named = arms.items() if isinstance(arms, dict) else ()
    whose = {"": content, **{f"arms.{arm}.": values for arm, values in named}}
    for place, values in whose.items():
        if not isinstance(values, dict):
            continue  # said when its type is checked
        if place:
            yield place, values, Arm
        space = values.get("space")
        for option, parameter in space.items() if isinstance(space, dict) else ():
            if isinstance(parameter, dict):
                yield f"{place}space.{option}.", parameter, Parameter


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep of some data in some folder."""

    config: SweepConfig
    recipe: Path
    data: str
    out: Path

    @property
    def epochs(self) -> int:
        """Of a trial that is trained in full; the same for every arm."""
        return next(iter(self.bases.values())).epochs or 0

    @property
    def stops(self) -> tuple[int, ...]:
        """Epochs at which trials are compared: the rungs, and the end."""
        return (*self.config.rungs, self.epochs)

    def space(self, arm: str) -> Space:
        """The sweep's and its own: option -> what it may be."""
        return {**self.config.space, **self.config.arms[arm].space}

    @cached_property
    def bases(self) -> dict[str, PretrainConfig]:
        """The recipe as each arm's trials have it, but for what is tuned."""
        return {arm: self.trial(arm, {}, self.config.seed) for arm in self.config.arms}

    def trial(self, arm: str, params: Mapping[str, Scalar], seed: int) -> PretrainConfig:
        """The configuration of a training.

        Args:
            arm: whose options it has.
            params: option -> value, of its space.
            seed: of the training.

        Raises:
            UsageError: the recipe has no such option, or not this value of it.
        """
        given = {**self.config.options, **self.config.arms[arm].options, **params}
        words = [
            word for name, value in given.items() for word in (f"--{name}", _word(name, value))
        ]
        try:
            options = _parser().parse(["--config", str(self.recipe), *words])
            config = build_config(PretrainConfig, _parser(), options)
        except UsageError as error:
            raise UsageError(f"arm {arm}: {error}") from error
        return replace(
            config,
            name=self.config.name,
            data=self.data,
            seed=seed,
            score_every=1.0,
            checkpoints=replace(config.checkpoints, best=False),
        )

    def check(self) -> None:
        """Raise UsageError for what no trial could be trained with; both ends of ranges are tried.

        Data and network are not looked at.
        """
        if not self.recipe.is_file():
            raise UsageError(f"config: there is no file {self.recipe}.")
        for name in self.config.options.keys() & _RESERVED.keys() - {"epochs"}:
            raise UsageError(f"options has {name}, which is {_RESERVED[name]}.")
        for arm, values in self.config.arms.items():
            for options, whose in ((values.options, f"arm {arm}"), (self.space(arm), "space")):
                for name in options.keys() & _RESERVED.keys():
                    raise UsageError(f"{whose} has {name}, which is {_RESERVED[name]}.")
            for ends in _ends(self.space(arm)):
                config = self.trial(arm, ends, self.config.seed)
        if config.epochs is None:
            raise UsageError(
                f"the recipe {self.recipe} lasts {config.duration}, but a budget is counted in "
                "epochs. Give options: {epochs: N}."
            )
        if self.config.rungs and self.config.rungs[-1] >= config.epochs:
            raise UsageError(
                f"rungs has {self.config.rungs[-1]}, but a trial has {config.epochs} epoch"
                f"{'' if config.epochs == 1 else 's'}; every rung must lie before its end."
            )

    def plain(self) -> dict[str, Any]:
        """What makes it this sweep, as plain values: the file, and what its recipe came to."""
        sweep = asdict(self.config)
        for options in (sweep, *sweep["arms"].values()):
            del options["options"]  # the recipes have them
        del sweep["config"]
        recipes = {arm: asdict(base) for arm, base in self.bases.items()}
        return json.loads(json.dumps({"sweep": sweep, "recipes": recipes}))


@cache
def _parser() -> Parser:
    """Once: to make it takes longer than to use it."""
    parser = Parser()
    parser.add_configuration(PretrainConfig, "the sweep's config")
    return parser


def _word(name: str, value: Any) -> str:
    """A value of the YAML file as a word of a command line."""
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except TypeError as error:  # YAML has dates and bytes
        raise UsageError(f"{name} is {value!r:.60}; write it in quotes, as text") from error


def _ends(space: Space) -> Iterator[dict[str, Scalar]]:
    """Points that meet every end of every range, and every choice."""
    values = {
        name: one.choices or (_whole(one.low), _whole(one.high)) for name, one in space.items()
    }
    for place in range(max(map(len, values.values()))):
        yield {name: own[min(place, len(own) - 1)] for name, own in values.items()}


def _whole(value: Any) -> Scalar:
    """2.0 as 2, which every option of numbers takes."""
    return int(value) if value == int(value) else value
