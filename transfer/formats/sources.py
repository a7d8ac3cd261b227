"""What a checkpoint does not say of itself: how its network is fed, and where its strides are.

Conventions come from the file, from the library whose list names the file's SHA-256, from the
program that demonstrably wrote it, or from the user. They are never guessed.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import timm
import torchvision
from timm.data.config import resolve_data_config

from pretrain.errors import UsageError
from pretrain.spec import IMAGENET_MEAN, IMAGENET_STD

Three = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a network is fed."""

    mean: Three
    """RGB, of pixels in [0, 1]."""
    std: Three
    """RGB, of pixels in [0, 1]."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """The order of the file's first convolution; ours is always RGB."""
    stride: Literal["3x3", "1x1"] | None = "3x3"
    """Which convolution of a bottleneck halves the image; None is unknown."""
    size: int = 224
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    origin: str = ""
    """Where these facts are from, in words."""


_CAFFE_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)

SOURCES: dict[str, Convention] = {
    "cutmix": Convention(
        mean=IMAGENET_MEAN, std=IMAGENET_STD, origin="CutMix-PyTorch, ImageNet (its train.py)"
    ),
    "cutmix-cifar": Convention(
        mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
        std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
        size=32,
        crop_pct=1.0,
        origin="CutMix-PyTorch, CIFAR (its train.py)",
    ),
    "torchvision": Convention(
        mean=IMAGENET_MEAN, std=IMAGENET_STD, origin="torchvision, its ImageNet presets"
    ),
    "mmpretrain": Convention(
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        origin="mmpretrain and openmixup, their ImageNet pipelines",
    ),
    "msra": Convention(
        mean=_CAFFE_MEAN,
        std=(1 / 255,) * 3,
        channels="bgr",
        stride="1x1",
        origin="MSRA's networks as detectron2's defaults feed them",
    ),
    "detectron1": Convention(
        mean=(122.7717 / 255, 115.9465 / 255, 102.9801 / 255),
        std=(1 / 255,) * 3,
        channels="bgr",
        stride="1x1",
        origin="MSRA's networks as Detectron's defaults feed them",
    ),
    "fair": Convention(
        mean=_CAFFE_MEAN,
        std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
        channels="bgr",
        origin="FAIR's Caffe2 ResNeXt as detectron2's X-101-32x8d recipes feed it",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the user says about a file; None is unsaid."""

    arch: str | None = None
    """A timm architecture, where names and shapes do not tell it."""
    source: str | None = None
    """Whose conventions the file follows: a key of SOURCES, or timm (the architecture's own)."""
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    channels: Literal["rgb", "bgr"] = "rgb"
    prefix: str | None = None
    """Names that begin so are taken, the others are left."""

    def __post_init__(self) -> None:
        """Refuse half of a convention, another scale, and two answers to one question."""
        if (self.mean is None) != (self.std is None):
            raise UsageError("--mean and --std go together: give both, or --source.")
        if self.mean is not None and self.source is not None:
            raise UsageError("--source states mean and std already: give it, or --mean and --std.")
        if self.source is not None and self.source not in (*SOURCES, "timm"):
            raise UsageError(
                f"--source is {self.source!r}; it must be one of {', '.join((*SOURCES, 'timm'))}."
            )
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and (len(value) != 3 or not all(0 <= x <= 1 for x in value)):
                raise UsageError(
                    f"--{name} is {tuple(value)}; it must be three numbers (red, green, blue) for "
                    "pixels in [0, 1]: divide those of 0 to 255 by 255."
                )

    def convention(self, arch: str) -> Convention | None:
        """What was given, or None where nothing was."""
        if self.source == "timm":
            return of_timm(arch)
        if self.source is not None:
            return replace(
                SOURCES[self.source],
                origin=f"{SOURCES[self.source].origin} (given: --source {self.source})",
            )
        if self.mean is None or self.std is None:
            return None
        known = self.arch is not None
        return Convention(
            mean=tuple(self.mean),  # type: ignore[arg-type]
            std=tuple(self.std),  # type: ignore[arg-type]
            channels=self.channels,
            stride=("1x1" if arch.endswith("_caffe") else "3x3") if known else None,
            origin="given: --mean and --std; resizing as torchvision's presets",
        )


def described(arch: str) -> Any:
    """Timm's own description (PretrainedCfg) of an architecture or of one of its listed weights."""
    return timm.get_pretrained_cfg(arch)


def of_timm(arch: str, config: Mapping[str, Any] | None = None, origin: str = "") -> Convention:
    """From timm's own description: of an architecture, or of a file (config.json, arguments)."""
    if config is None:
        if not timm.is_model(arch):
            raise UsageError(f"--source timm: timm knows no architecture {arch!r}.")
        config = described(arch).to_dict()
    settled = resolve_data_config(dict(config), pretrained_cfg=dict(config))
    if len(settled["mean"]) != 3 or settled["input_size"][1] != settled["input_size"][2]:
        raise UsageError(f"{arch} is fed {settled['input_size']}; square RGB images are needed.")
    return Convention(
        mean=tuple(settled["mean"]),
        std=tuple(settled["std"]),
        size=settled["input_size"][1],
        interpolation=settled["interpolation"],
        crop_pct=settled["crop_pct"],
        stride="1x1" if arch.endswith("_caffe") else "3x3",
        origin=origin or f"timm's default configuration of {arch} (given: --source timm)",
    )


def of_mm_config(text: str) -> Convention | None:
    """From the text of an mmpretrain or openmixup configuration; None where it is not unambiguous.

    Takes the mean, std and channel order of the pipeline; the style of the strides.
    """
    means = set(re.findall(r"\bmean=[\[(]([^\])]+)[\])]", text))
    stds = set(re.findall(r"\bstd=[\[(]([^\])]+)[\])]", text))
    orders = set(re.findall(r"\bto_rgb=(True|False)", text))
    styles = set(re.findall(r"\bstyle='(pytorch|caffe)'", text))
    if len(means) != 1 or len(stds) != 1 or len(orders) > 1 or len(styles) > 1:
        return None
    try:
        mean, std = (
            [float(x) for x in group.pop().split(",") if x.strip()] for group in (means, stds)
        )
    except ValueError:
        return None
    if len(mean) != 3 or len(std) != 3:
        return None
    scale = 255.0 if max(mean) > 1 else 1.0
    bgr = orders == {"False"}
    mean, std = ([x / scale for x in (reversed(group) if bgr else group)] for group in (mean, std))
    return Convention(
        mean=tuple(mean),  # type: ignore[arg-type]
        std=tuple(std),  # type: ignore[arg-type]
        channels="bgr" if bgr else "rgb",
        stride="1x1" if styles == {"caffe"} else "3x3",
        origin="the configuration inside the file; resizing as torchvision's presets",
    )


# torchvision's files of before 2021, no longer in its lists: the SHA-256 begins so
_OLD_TORCHVISION = {
    "5c106cde": "resnet18",
    "333f7ec4": "resnet34",
    "19c8e357": "resnet50",
    "5d3b4d8f": "resnet101",
    "b121ed2d": "resnet152",
    "8ba56ff5": "resnext101_32x8d",
    "95faca4d": "wide_resnet50_2",
    "32ee1156": "wide_resnet101_2",
}


@dataclass(frozen=True)
class Known:
    """A file that a library lists by its hash."""

    name: str
    """As a user would type it: torchvision:resnet50/IMAGENET1K_V2, timm:resnet50.a1_in1k."""
    arch: str
    convention: Convention


def of_torchvision(arch: str, weights: Any) -> Convention:
    """From a torchvision weights entry and its own transforms."""
    preset = weights.transforms()
    if not hasattr(preset, "crop_size"):
        raise UsageError(f"torchvision's {arch} does not say how it is fed.")
    return Convention(
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        size=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        crop_pct=_crop_pct(preset.crop_size[0], preset.resize_size[0]),
        origin=f"torchvision's list: {arch}/{weights.name}",
    )


def _crop_pct(size: int, short_side: int) -> float:
    """The share that leads back to `short_side`, whatever the division rounds."""
    share = min(1.0, size / short_side)
    return share if math.floor(size / share) == short_side else size / (short_side + 1e-3)


def known_file(sha256: str) -> Known | None:
    """The list entry of torchvision or timm whose address carries the beginning of this hash."""
    return _known_files().get(sha256[:8])


@lru_cache
def _known_files() -> dict[str, Known]:
    files = {
        digits: Known(f"torchvision:{arch}", arch, SOURCES["torchvision"])
        for digits, arch in _OLD_TORCHVISION.items()
    }
    for name in timm.list_pretrained():
        config = described(name)
        digits = _digits(config.url if isinstance(config.url, str) else "")
        if digits and tuple(config.input_size)[1] == tuple(config.input_size)[2]:
            arch = name.split(".")[0]
            origin = f"timm's list: {name}"
            files[digits] = Known(f"timm:{name}", arch, of_timm(arch, config.to_dict(), origin))
    for arch in torchvision.models.list_models(torchvision.models):
        for weights in torchvision.models.get_model_weights(arch):
            if digits := _digits(weights.url):
                convention = of_torchvision(arch, weights)
                files[digits] = Known(f"torchvision:{arch}/{weights.name}", arch, convention)
    return files


def _digits(url: str) -> str | None:
    found = re.search(r"-([0-9a-f]{8})[0-9a-f]*(?:\.\w+)+$", url)
    return found.group(1) if found else None
