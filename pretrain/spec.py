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
from torch.overrides import TorchFunctionMode
from torchvision.transforms import InterpolationMode, v2

from pretrain.errors import UsageError
from pretrain.models import register

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# arguments of timm.create_model that load other weights or build something else
_LOADING = {"pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay",
            "cache_dir", "features_only", "num_classes"}  # fmt: skip


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
        """Check every field: a spec may come from a file of unknown origin."""
        for name in ("input_size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        size, outputs = self.input_size, self.num_classes
        modes = ("nearest", "bilinear", "bicubic")
        rules = (
            ("arch", isinstance(self.arch, str) and self.arch, "a timm name"),
            ("model_args", isinstance(self.model_args, dict), "plain values by name"),
            ("model_args", is_plain(self.model_args), "plain values"),
            ("model_args", is_plain(self.model_args, 16_384), "numbers of at most 16,384"),
            ("model_args", _are_own(self.model_args), "arguments of the network alone"),
            ("input_size", _are_three(size, int, 0) and size[0] == 3, "(3, height, width)"),
            ("mean", _are_three(self.mean), "three numbers"),
            ("std", _are_three(self.std, above=0), "three numbers above 0"),
            ("interpolation", self.interpolation in modes, f"one of {modes}"),
            ("crop_pct", 0 < self.crop_pct <= 1, "in (0, 1]"),
            ("num_classes", isinstance(outputs, int) and outputs >= 0, "an integer, 0 for none"),
        )
        for name, good, allowed in rules:
            if not good:
                value = repr(getattr(self, name))[:200]
                raise UsageError(f"spec.{name} is {value}; it must be {allowed}")

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
    height: int, width: int, crop_pct: float, interpolation: str
) -> tuple[nn.Module, nn.Module]:
    """Short side to floor(min(height, width) / crop_pct), then the centre: timm's rule."""
    short_side, mode = math.floor(min(height, width) / crop_pct), InterpolationMode(interpolation)
    resize = v2.Resize(short_side, interpolation=mode, antialias=True)
    return resize, v2.CenterCrop((height, width))


def create_model(arch: str, **arguments: Any) -> nn.Module:
    """timm.create_model without pretrained weights; UsageError where it cannot be built."""
    register()
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"timm knows no architecture {arch!r}.{hint}")
    try:
        return timm.create_model(arch, pretrained=False, **arguments)
    except UsageError:
        raise
    except (TypeError, AssertionError, ValueError, LookupError, AttributeError) as error:
        raise UsageError(f"{arch} cannot be built with {arguments}: {error}") from error


_DRAWING = tuple(
    getattr(torch.Tensor, f"{name}_")
    for name in ("normal", "uniform", "erfinv", "mul", "add", "clamp", "fill", "zero")
)


class _Undrawn(TorchFunctionMode):
    """Nothing is drawn without content: most of the time that such a network takes."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _DRAWING and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def create_outline(arch: str, **arguments: Any) -> nn.Module:
    """As create_model, with tensors on the meta device: shapes without content."""
    with torch.device("meta"), _Undrawn():
        return create_model(arch, **arguments)


@lru_cache
def _levels(arch: str, model_args: str) -> tuple[Level, ...]:
    try:
        network = create_outline(arch, features_only=True, **json.loads(model_args))
        info: Any = network.feature_info
    except (RuntimeError, AttributeError) as error:
        raise UsageError(f"{arch} offers no feature levels: {error}") from error
    # numbers of those that there are: a vision transformer's levels are its last three blocks
    levels = zip(info.out_indices, info.channels(), info.reduction(), strict=True)
    return tuple(Level(index, channels, stride) for index, channels, stride in levels)


def is_plain(value: Any, largest: float = math.inf) -> bool:
    """True for what JSON can hold: dicts with text keys, lists, numbers, texts, None.

    With `largest`, whole numbers and lengths of lists up to it: a depth of a billion would be
    built for hours.
    """
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(value[key], largest) for key in value)
    if isinstance(value, (list, tuple)):
        return len(value) <= largest and all(is_plain(inner, largest) for inner in value)
    if isinstance(value, int):
        return abs(value) <= largest
    return value is None or isinstance(value, (float, str))


def _are_own(arguments: Any) -> bool:
    return not isinstance(arguments, dict) or _LOADING.isdisjoint(arguments)


def _are_three(values: tuple[Any, ...], kind: Any = (int, float), above: float = -math.inf) -> bool:
    return len(values) == 3 and all(isinstance(v, kind) and v > above for v in values)
