"""From a configuration to the mixing of a step: schedules are functions of the step.

Of several methods one is drawn for each batch, as timm's Mixup and CutMix.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType, NoneType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.config import MethodConfig, MixingConfig, steps_of
from pretrain.errors import UsageError
from pretrain.mixing.attentive_cutmix import AttentiveCutMix
from pretrain.mixing.cut_thumbnail import CutThumbnail
from pretrain.mixing.cutmix import CutMix
from pretrain.mixing.cutout import Cutout
from pretrain.mixing.feature_cutmix import FeatureCutMix
from pretrain.mixing.fmix import FMix
from pretrain.mixing.gridmask import GridMask
from pretrain.mixing.gridmix import GridMix
from pretrain.mixing.levels import FeatureLevels
from pretrain.mixing.manifold_mixup import ManifoldMixup
from pretrain.mixing.mixed import Mix, Mixed, numpy_generator, unmixed
from pretrain.mixing.mixup import Mixup
from pretrain.mixing.mosaic import Mosaic
from pretrain.mixing.puzzlemix import PuzzleMix
from pretrain.mixing.random_erasing import RandomErasing
from pretrain.mixing.resizemix import ResizeMix
from pretrain.mixing.saliencymix import SaliencyMix
from pretrain.mixing.smoothmix import SmoothMix
from pretrain.mixing.snapmix import SnapMix
from pretrain.mixing.transmix import AttentionRecorder, TransMix


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of `mixes` for each batch, with chances in proportion to `weights`."""

    mixes: tuple[Mix, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse weights that give no chances."""
        if not all(weight >= 0 for weight in self.weights) or not sum(self.weights) > 0:
            raise UsageError(
                f"the weights of the mixing methods are {self.weights}; none may be negative, and "
                "one must be above 0"
            )

    @property
    def on_bytes(self) -> bool:
        """Whether all of them only move pixels; what is drawn by `choose` says it for itself."""
        return all(mix.on_bytes for mix in self.mixes)

    def choose(self, generator: torch.Generator) -> Mix:
        """The method of a batch."""
        chances = np.array(self.weights) / sum(self.weights)
        return self.mixes[numpy_generator(generator).choice(len(self.mixes), p=chances)]

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix."""
        return self.choose(generator)(images, labels, num_classes, generator)


@dataclass(frozen=True, kw_only=True)
class Unmixed:
    """The batch as it is."""

    probability: float = 0.0
    on_bytes: ClassVar[bool] = True

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> Mixed:
        """See Mix."""
        return unmixed(images, labels, num_classes)


METHODS: dict[str, Any] = {
    "none": Unmixed,
    "cutmix": CutMix,
    "mixup": Mixup,
    "cutout": Cutout,
    "resizemix": ResizeMix,
    "cut_thumbnail": CutThumbnail,
    "mosaic": Mosaic,
    "fmix": FMix,
    "gridmix": GridMix,
    "smoothmix": SmoothMix,
    "gridmask": GridMask,
    "random_erasing": RandomErasing,
    "saliencymix": SaliencyMix,
    "attentive_cutmix": AttentiveCutMix,
    "puzzlemix": PuzzleMix,
    "snapmix": SnapMix,
    "transmix": TransMix,
    "manifold_mixup": ManifoldMixup,
    "feature_cutmix": FeatureCutMix,
}
"""The class behind each name; the first line of its module says what it does."""
NETWORK_PARTS = {"network", "guide", "levels", "attention"}
"""Fields that no option gives: see `network_parts`."""
INSIDE_PARTS = {"levels", "attention"}
"""Those of the methods that are at work inside the network."""


_DRAWS_OF_LEVELS = 32  # of a handful each is met


def mix_at(
    options: MixingConfig,
    step: float,
    steps_per_epoch: int = 1,
    batch_size: int = 1,
    parts: Mapping[str, Any] = MappingProxyType({}),
) -> Mix:
    """The mixing of a step.

    Args:
        options: method, its `others`, and the schedule: over `ramp` the probability rises linearly
            from 0 (the paper's Scheduled CutMix, table 8, over the whole run); from `off_after` on
            nothing is mixed (timm's mixup_off_epoch).
        step: steps done before it.
        steps_per_epoch: turns epochs of the schedule into steps.
        batch_size: turns images of the schedule into steps.
        parts: what the methods need of a network: see `network_parts`; and further fields that no
            option gives.
    """
    length = {"steps_per_epoch": steps_per_epoch, "batch_size": batch_size}
    ramp = steps_of(options.ramp, **length)
    share = min(1.0, step / ramp) if ramp else 1.0
    if options.off_after is not None and step >= steps_of(options.off_after, **length):
        share = 0.0
    methods = [options, *options.others]
    mixes = tuple(_build(method, share * method.probability, parts) for method in methods)
    if len(mixes) == 1:
        return mixes[0]
    return Choice(mixes=mixes, weights=tuple(method.weight for method in methods))


def network_parts(
    options: MixingConfig, network: nn.Module, guide: nn.Module | None = None
) -> dict[str, Any]:
    """What the methods need of the network, made once, before it is compiled or wrapped.

    Args:
        options: which methods.
        network: the one that is trained.
        guide: another, trained one for Attentive CutMix; None takes `network`.
    """
    methods = [METHODS[method.method] for method in (options, *options.others)]
    asked = {entry.name for method in methods for entry in fields(method)}
    make: dict[str, Any] = {
        "network": lambda: network,
        "guide": lambda: network if guide is None else guide,
        "levels": lambda: FeatureLevels(network),
        "attention": lambda: AttentionRecorder(network),
    }
    return {name: build() for name, build in make.items() if name in asked}


def try_mixing(
    options: MixingConfig, parts: Mapping[str, Any], images: Tensor, num_classes: int
) -> None:
    """Mix black images by each method, so that what it refuses is refused before a run begins.

    Args:
        options: which methods; at their full probability, whatever the schedule.
        parts: see `network_parts`.
        images: (N, C, H, W) of the size that is trained on.
        num_classes: K.

    Raises:
        UsageError: arguments that a method does not take, or a network that it cannot use.
    """
    labels = torch.arange(len(images)) % num_classes
    for one in (options, *options.others):
        mix = _build(one, 1.0, parts)
        needs = NETWORK_PARTS & {entry.name for entry in fields(METHODS[one.method])}
        draws = _DRAWS_OF_LEVELS if "levels" in needs else len(needs)
        for seed in range(draws):
            mix(images, labels, num_classes, torch.Generator().manual_seed(seed))


def unused_options(options: MixingConfig) -> list[str]:
    """Notes on what is given, and not used by the method that it is given for."""
    notes, every, usual = [], set(), MethodConfig()
    for one in (options, *options.others):
        names = {entry.name for entry in fields(METHODS[one.method])}
        given = [
            f"mixing.{name}"
            for name in ("alpha", "box", "granularity", "partner", "side")
            if getattr(one, name) != getattr(usual, name) and name not in names
        ]
        if given and one.method != "none":
            notes.append(f"{one.method} has no use for {', '.join(given)}")
        every |= names
    if options.guide is not None and "guide" not in every:
        notes.append("mixing.guide is of no use: no method here has a guide (attentive_cutmix has)")
    return notes


def _build(options: MethodConfig, probability: float, parts: Mapping[str, Any]) -> Mix:
    """A method: its fields are those of the same names in its configuration and in `parts`."""
    method = METHODS[options.method]
    names = {entry.name for entry in fields(method)}
    shared = {entry.name for entry in fields(options)} & names - NETWORK_PARTS
    arguments = {name: getattr(options, name) for name in shared}
    arguments |= {name: part for name, part in parts.items() if name in names}
    arguments["probability"] = probability
    if options.method != "none":
        arguments |= _own_arguments(options, method, names - shared - NETWORK_PARTS)
    mix: Mix = method(**arguments)
    return mix


def _own_arguments(options: MethodConfig, method: Any, own: set[str]) -> dict[str, Any]:
    """What `mixing.args` gives to the fields `own` of a method, in their types."""
    if unknown := sorted(options.args.keys() - own):
        flat = {entry.name for entry in fields(options)}.intersection(unknown)
        instead = "".join(
            f"; {name} is an option of its own: mixing.{name}" for name in sorted(flat)
        )
        raise UsageError(
            f"mixing.args has {', '.join(unknown)}; the arguments of {options.method} are "
            f"{', '.join(sorted(own)) or 'none'}{instead}"
        )
    hints, arguments = _hints(method), {}
    for name, value in options.args.items():
        arguments[name] = tuple(value) if isinstance(value, list) else value
        if not _fits(arguments[name], hints[name]):
            raise UsageError(
                f"mixing.args.{name} is {value!r:.40}; {options.method} takes "
                f"{_in_words(hints[name])}"
            )
    return arguments


def _in_words(hint: Any) -> str:
    """A type of `_fits` as a user writes its values in a recipe."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return " or ".join(map(str, inner))
    if get_origin(hint) is tuple:
        more = ", ..." if inner[1:] == (...,) else ""
        return f"a list [{', '.join(_in_words(kind) for kind in inner if kind is not ...)}{more}]"
    if inner:
        return " or ".join(map(_in_words, inner))
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a name"}
    return words.get(hint, "null")


_hints = cache(get_type_hints)  # a method is built for each step


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a type: numbers, texts, literals, tuples, unions of these."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        each = inner[:1] * len(value) if inner[1:] == (...,) and isinstance(value, tuple) else inner
        return (
            isinstance(value, tuple)
            and len(value) == len(each)
            and all(_fits(item, kind) for item, kind in zip(value, each, strict=True))
        )
    if inner:
        return any(_fits(value, kind) for kind in inner)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if hint is NoneType else isinstance(value, hint)
