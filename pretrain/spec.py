"""How to build a network and how to feed it: the part of a backbone that is not its weights."""

import difflib
import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn
from torchvision.transforms import InterpolationMode, v2

from pretrain.errors import UsageError
from pretrain.models import register

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Level:
    """One feature level: its number in timm's order, its channels, its stride in input pixels."""

    index: int
    channels: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """How to build the network and how to feed it."""

    arch: str
    """A timm model name, such as resnet50 or convnext_tiny, or one that models.register adds."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Plain values passed to its constructor."""
    input_size: tuple[int, int, int] = (3, 224, 224)
    """Channels, height, width it was trained at."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """RGB, of pixels in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """RGB, of pixels in [0, 1]."""
    interpolation: str = "bilinear"
    """For resizing: nearest, bilinear or bicubic."""
    crop_pct: float = 0.875
    """Evaluation resizes the short side to input size / crop_pct and crops the centre."""
    num_classes: int = 1000
    """Outputs of its own classifier; 0 where a foreign file had none."""

    def __post_init__(self) -> None:
        """Check every field: a spec may come from a stranger's file."""
        for name in ("input_size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check(isinstance(self.arch, str) and bool(self.arch), "arch", self.arch, "a timm name")
        _check(is_plain(self.model_args), "model_args", self.model_args, "plain values")
        _check(_is_modest(self.model_args), "model_args", "of large numbers", "at most 16,384 each")
        size = self.input_size
        _check(
            len(size) == 3 and size[0] == 3 and all(isinstance(n, int) and n > 0 for n in size),
            "input_size",
            size,
            "(3, height, width)",
        )
        for name in ("mean", "std"):
            value = getattr(self, name)
            good = len(value) == 3 and all(isinstance(x, (int, float)) for x in value)
            good = good and (name == "mean" or min(value) > 0)
            _check(good, name, value, "three numbers, std above 0")
        modes = ("nearest", "bilinear", "bicubic")
        _check(self.interpolation in modes, "interpolation", self.interpolation, f"one of {modes}")
        _check(0 < self.crop_pct <= 1, "crop_pct", self.crop_pct, "in (0, 1]")
        _check(
            isinstance(self.num_classes, int) and self.num_classes >= 0,
            "num_classes",
            self.num_classes,
            "an integer, 0 for no classifier",
        )

    def create(self, num_classes: int, seed: int) -> nn.Module:
        """The network with random weights drawn from `seed`; the ambient generators are untouched.

        Args:
            num_classes: outputs of the classifier; 0 for none (pooled features).
            seed: 0 <= seed < 2**32.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return create_model(self.arch, num_classes=num_classes, **self.model_args)

    def normalisation(self) -> tuple[nn.Module, nn.Module]:
        """From uint8 RGB (..., 3, H, W) to the network's floats; works on whole batches."""
        return v2.ToDtype(torch.float32, scale=True), v2.Normalize(self.mean, self.std)

    def levels(self) -> tuple[Level, ...]:
        """The feature levels from fine to coarse. UsageError where the architecture has none."""
        return _levels(self.arch, json.dumps(self.model_args, sort_keys=True))


def evaluation_crop(
    height: int, width: int, crop_pct: float, interpolation: InterpolationMode
) -> tuple[nn.Module, nn.Module]:
    """Short side to floor(min(height, width) / crop_pct), then the centre: timm's rule."""
    short_side = math.floor(min(height, width) / crop_pct)
    return (
        v2.Resize(short_side, interpolation=interpolation, antialias=True),
        v2.CenterCrop((height, width)),
    )


def create_model(arch: str, **arguments: Any) -> nn.Module:
    """timm.create_model without pretrained weights, refusals in words."""
    register()
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"timm knows no architecture {arch!r}.{hint}")
    try:
        return timm.create_model(arch, pretrained=False, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(f"{arch} cannot be built with {arguments}: {error}") from error


@lru_cache
def _levels(arch: str, model_args: str) -> tuple[Level, ...]:
    try:
        with torch.device("meta"):
            network = create_model(arch, features_only=True, **json.loads(model_args))
            info: Any = network.feature_info
    except (RuntimeError, AttributeError) as error:
        raise UsageError(f"{arch} offers no feature levels: {error}") from error
    return tuple(
        Level(index, channels, stride)
        for index, (channels, stride) in enumerate(
            zip(info.channels(), info.reduction(), strict=True)
        )
    )


def is_plain(value: Any) -> bool:
    """True for what JSON can hold: dicts of strings, lists, numbers, words, None."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _is_modest(value: Any) -> bool:
    """False for a depth of a billion, which would be built for hours."""
    if isinstance(value, dict):
        return all(map(_is_modest, value.values()))
    if isinstance(value, (list, tuple)):
        return len(value) <= 1000 and all(map(_is_modest, value))
    return not isinstance(value, int) or abs(value) <= 16_384


def _check(good: bool, name: str, value: object, allowed: str) -> None:
    if not good:
        raise UsageError(f"spec.{name} is {value!r}; it must be {allowed}")
