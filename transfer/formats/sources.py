"""What a checkpoint does not say of itself: how its network is fed, and where its strides are.

Preprocessing comes from the file, from the library whose list names the file's SHA-256, from the
program that demonstrably wrote it, or from the user. It is never guessed.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import timm
import torchvision
from timm.data.config import resolve_data_config

from pretrain.errors import UsageError
from pretrain.reading import read_json
from pretrain.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec, create_outline, is_plain

MAX_JSON = 2**24  # bytes


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a network is fed."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    """RGB, of pixels in [0, 1]."""
    std: tuple[float, ...] = IMAGENET_STD
    """RGB, of pixels in [0, 1]."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """The order of the file's first convolution; ours is always RGB."""
    stride: Literal["3x3", "1x1"] | None = "3x3"
    """Which convolution of a bottleneck halves the image; None is unknown."""
    stem: Literal["plain"] | None = None
    """What surrounds a 3x3 stem: plain is one pixel of padding and no pooling; None is unknown."""
    folded: bool = False
    """Its files leave out BatchNorm's statistics, which were folded into the affine map."""
    unsaid: tuple[str, ...] = ()
    """Of the network's function, what neither names, shapes nor the origin say; see parsing."""
    size: int = 224
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    origin: str
    """Where these facts are from, for a person."""

    def spec(self, arch: str, num_classes: int, model_args: Mapping[str, Any]) -> BackboneSpec:
        """Of a backbone that is fed so."""
        return BackboneSpec(
            arch=arch,
            model_args=dict(model_args),
            input_size=(3, self.size, self.size),
            mean=self.mean,  # type: ignore[arg-type]
            std=self.std,  # type: ignore[arg-type]
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            num_classes=num_classes,
        )


def _of_bytes(mean: Sequence[float], std: Sequence[float], **facts: Any) -> Preprocessing:
    """From mean and std of pixels in 0 to 255."""
    mean, std = (tuple(value / 255 for value in values) for values in (mean, std))
    return Preprocessing(mean=mean, std=std, **facts)


_CAFFE_MEAN = (123.675, 116.28, 103.53)
SOURCES: dict[str, Preprocessing] = {
    "cutmix": Preprocessing(origin="CutMix-PyTorch, ImageNet (its train.py)"),
    "cutmix-cifar": _of_bytes(
        (125.3, 123.0, 113.9), (63.0, 62.1, 66.7), stem="plain", size=32, crop_pct=1.0,
        origin="CutMix-PyTorch, CIFAR (its train.py)",
    ),
    "torchvision": Preprocessing(origin="torchvision, its ImageNet presets"),
    "mmpretrain": Preprocessing(origin="mmpretrain and openmixup, their ImageNet pipelines"),
    "msra": _of_bytes(
        _CAFFE_MEAN, (1, 1, 1), channels="bgr", stride="1x1", folded=True,
        origin="MSRA's networks as detectron2's defaults feed them",
    ),
    "detectron1": _of_bytes(
        (122.7717, 115.9465, 102.9801), (1, 1, 1), channels="bgr", stride="1x1", folded=True,
        origin="MSRA's networks as Detectron's defaults feed them",
    ),
    "fair": _of_bytes(
        _CAFFE_MEAN, (58.395, 57.12, 57.375), channels="bgr", folded=True,
        origin="FAIR's Caffe2 ResNeXt as detectron2's X-101-32x8d recipes feed it",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the user states about a file that does not say so itself; None is not stated."""

    arch: str | None = None
    """A timm architecture, where names and shapes do not tell it."""
    source: str | None = None
    """Whose preprocessing the file follows: a key of SOURCES, timm (the architecture's own), or
    timm:NAME, an entry of timm's list."""
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    channels: Literal["rgb", "bgr"] | None = None
    bn_eps: float | None = None
    """What its BatchNorms add to the variance, where that is not the architecture's own."""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the architecture, such as act_layer or output_stride."""
    config: str | None = None
    """A configuration of timm; none for leaving the one beside the file alone."""
    prefix: str | None = None
    """Names that begin so are taken, the others are left."""
    key: str | None = None
    """Where in the file the weights are."""
    leave: Sequence[str] = ()
    """Patterns of names that may stay behind."""

    def __post_init__(self) -> None:
        """Refuse a mean without a std, another scale, and two answers to one question."""
        if (self.mean is None) != (self.std is None):
            raise UsageError("--mean and --std go together: give both, or --source.")
        if self.mean is not None and self.source is not None:
            raise UsageError("--source states mean and std already: give it, or --mean and --std.")
        if self.channels is not None and self.mean is None:
            raise UsageError("--channels goes with --mean and --std; --source states it itself.")
        if self.bn_eps is not None and not 0 < self.bn_eps < 1:
            raise UsageError(f"--bn-eps is {self.bn_eps}; it must lie between 0 and 1.")
        if not is_plain(dict(self.model_args)):
            raise UsageError(f"--model-arg: {self.model_args} are no plain values.")
        listed = str(self.source).startswith("timm:")
        if self.source not in (None, *SOURCES, "timm") and not listed:
            raise UsageError(
                f"--source is {self.source!r}; it must be one of {', '.join((*SOURCES, 'timm'))}."
            )
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and (len(value) != 3 or not all(0 <= x <= 1 for x in value)):
                raise UsageError(
                    f"--{name} is {tuple(value)}; it must be three numbers (red, green, blue) for "
                    "pixels in [0, 1]: divide those of 0 to 255 by 255."
                )

    def preprocessing(self, arch: str) -> Preprocessing | None:
        """As stated, or None where it is not."""
        if self.source == "timm":
            return replace(of_timm(arch), unsaid=("padding", "dilation"))
        if self.source is not None and self.source.startswith("timm:"):
            return of_timm(self.source.removeprefix("timm:"))
        if self.source is not None:
            known = SOURCES[self.source]
            origin = f"{known.origin} (given: --source {self.source})"
            return replace(known, origin=origin, unsaid=("dilation",))
        if self.mean is None or self.std is None:
            return None
        unsaid = ("padding", "dilation", "activation", "eps")
        return Preprocessing(
            mean=tuple(self.mean),
            std=tuple(self.std),
            channels=self.channels or "rgb",
            stride=_stride(arch) if self.arch is not None else None,
            unsaid=unsaid if self.channels else ("channels", *unsaid),
            origin="given: --mean and --std; resizing as torchvision's presets",
        )


def _stride(arch: str) -> Literal["3x3", "1x1"]:
    return "1x1" if arch.endswith("_caffe") else "3x3"


def of_timm(
    arch: str,
    config: Mapping[str, Any] | None = None,
    origin: str = "",
    arguments: Mapping[str, Any] | None = None,
) -> Preprocessing:
    """From timm's own description, by timm's own rule.

    Args:
        arch: an architecture, or an entry of timm's list.
        config: of a file (config.json); None for the architecture's own.
        origin: where it is from, for a person.
        arguments: of timm's train.py, which go before.

    Raises:
        UsageError: timm lacks the architecture, or it is not fed square RGB images.
        LookupError, TypeError, ValueError, AssertionError: no description as timm writes it.
    """
    if config is None:
        try:
            config = timm.get_pretrained_cfg(arch, allow_unregistered=False).to_dict()  # type: ignore[union-attr]
        except RuntimeError as error:
            raise UsageError(f"--source timm: timm knows no {arch!r}.") from error
    facts = resolve_data_config(
        dict(config if arguments is None else arguments), pretrained_cfg=dict(config)
    )
    if len(facts["mean"]) != 3 or facts["input_size"][1] != facts["input_size"][2]:
        raise UsageError(f"{arch} is fed {facts['input_size']}; square RGB images are needed.")
    preprocessing = Preprocessing(
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        size=facts["input_size"][1],
        interpolation=facts["interpolation"],
        crop_pct=float(facts["crop_pct"]),
        stride=_stride(arch),
        origin=origin or f"timm's configuration of {arch} (given: --source timm)",
    )
    preprocessing.spec(arch, 0, {})  # refuses what no image can be fed by
    return preprocessing


def of_timm_training(
    arch: str, arguments: Mapping[str, Any]
) -> tuple[Preprocessing | None, dict[str, Any]]:
    """How timm's train.py built and fed a network, as its create_model and transforms are called.

    Args:
        arch: of timm.
        arguments: of the program, the whole of them.

    Returns:
        preprocessing, None where the arguments do not say it; arguments of the constructor.

    Raises:
        UsageError: a network that is not fed RGB images, or arguments that are no plain values.
    """
    origin = "the arguments of timm's train.py"
    own = arguments.get("model_kwargs") or {}
    if not isinstance(own, Mapping) or not is_plain(dict(own)):
        raise UsageError(f"{origin} inside it: model_kwargs are {own!r}; plain values are needed.")
    size = arguments.get("input_size")
    first = size[0] if isinstance(size, (list, tuple)) and size else None
    channels = arguments.get("in_chans") or own.get("in_chans") or first or 3
    if channels != 3:
        raise UsageError(
            f"{origin} inside it: in_chans is {channels}; backbones are fed RGB images."
        )
    built = {"global_pool": arguments.get("gp"), "bn_eps": arguments.get("bn_eps"), **own}
    if arguments.get("bn_tf") and built["bn_eps"] is None:
        built["bn_eps"] = 1e-3  # so timm of before 0.5 wrote TensorFlow's
    built = {k: v for k, v in built.items() if v is not None and (k, v) not in _usual(arch).items()}
    preprocessing = None
    # its parser writes all of them; one alone is believed too
    if "crop_pct" in arguments or arguments.get("mean") or arguments.get("std"):
        with suppress(LookupError, TypeError, ValueError, AssertionError):
            preprocessing = of_timm(arch, None, origin, arguments)
    return preprocessing, built


@lru_cache
def _usual(arch: str) -> dict[str, Any]:
    """What timm writes down of any network: channels, and its usual pooling."""
    pool: Any = getattr(create_outline(arch), "global_pool", None)
    return {"in_chans": 3, "global_pool": getattr(pool, "pool_type", pool)}


@dataclass(frozen=True)
class KnownFile:
    """What stands of a file beside it (timm's config.json) or in a library's list."""

    name: str
    """In a list as a user would type it, such as torchvision:resnet50/IMAGENET1K_V2."""
    arch: str
    preprocessing: Preprocessing
    model_args: Mapping[str, Any] = field(default_factory=dict)


def read_timm_config(path: Path) -> KnownFile | None:
    """A config.json; None where there is none or it is another program's.

    Raises:
        UsageError: timm wrote it, but for no architecture of this timm; or it is damaged.
    """
    content = read_object(path)
    if not isinstance(arch := content.get("architecture"), str):
        return None
    if not timm.is_model(arch):
        raise UsageError(f"{path} names {arch!r}, which this timm ({timm.__version__}) lacks.")
    arguments = content.get("model_args") or {}
    if not isinstance(arguments, dict) or not is_plain(arguments):
        raise UsageError(f"{path}: model_args are {arguments!r}; plain values are needed.")
    origin = f"timm's config.json in {path.parent}"
    try:
        preprocessing = of_timm(arch, content.get("pretrained_cfg") or content, origin)
    except (LookupError, TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"{path} is no configuration of timm ({error}).") from error
    usual = {**_usual(arch), "num_classes": arguments.get("num_classes")}
    beyond = {key: value for key, value in arguments.items() if (key, value) not in usual.items()}
    return KnownFile(path.parent.name, arch, preprocessing, beyond)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is no such file, or another value in it."""
    content = read_json(path, largest=MAX_JSON) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def load_json(text: str, path: Path) -> Any:
    """What the JSON in a file says; UsageError where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: the JSON in it is damaged ({error}).") from error


# what changes the function and no shape: expression, the usual value
_MM_NETWORK = (
    (r"\bdilations=[\[(]([^\])]+)[\])]", r"[1,\s]+"),
    (r"\bact_cfg=dict\(type='(\w+)'", "ReLU"),
    (r"\bnorm_cfg=dict\(type='(\w+)'", "(Sync|MMSync|Naive)?BN(2d)?"),
    (r"\bconv_cfg=dict\(type='(\w+)'", "Conv2d"),
)


def of_mm_config(text: str) -> Preprocessing | None:
    """From the text of an mmpretrain or openmixup configuration; None where it is not unambiguous.

    Takes the mean, std and channel order of the pipeline; the style of the strides.

    Raises:
        UsageError: a network that is built otherwise than ours of the same shapes.
    """
    for pattern, usual in _MM_NETWORK:
        if unusual := [word for word in re.findall(pattern, text) if not re.fullmatch(usual, word)]:
            raise UsageError(
                f"the configuration inside the file builds its network with {unusual[0]!r} "
                f"({pattern.partition('=')[0].lstrip(chr(92) + 'b')}), which has the shapes of "
                "the plain network, but is not read here. Save checkpoint['state_dict'] alone and "
                "give --arch, --model-arg, --mean and --std, where timm has such a network."
            )
    means, stds, orders, styles = (
        set(re.findall(rf"\b{pattern}", text))
        for pattern in (
            r"mean=[\[(]([^\])]+)[\])]",
            r"std=[\[(]([^\])]+)[\])]",
            r"to_rgb=(True|False)",
            r"style='(pytorch|caffe)'",
        )
    )
    if len(means) != 1 or len(stds) != 1 or len(orders) > 1 or len(styles) > 1:
        return None
    try:
        mean, std = ([float(x) for x in one.pop().split(",") if x.strip()] for one in (means, stds))
    except ValueError:
        return None
    if len(mean) != 3 or len(std) != 3:
        return None
    scale = 255.0 if max(mean) > 1 else 1.0
    is_bgr = orders == {"False"}
    step = -1 if is_bgr else 1
    return Preprocessing(
        mean=tuple(x / scale for x in mean[::step]),
        std=tuple(x / scale for x in std[::step]),
        channels="bgr" if is_bgr else "rgb",
        stride="1x1" if styles == {"caffe"} else "3x3",
        stem="plain" if re.search(r"\btype='ResNe\w+_CIFAR'", text) else None,
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


def of_torchvision(arch: str, weights: Any) -> Preprocessing:
    """From a torchvision weights entry and its own transforms."""
    preset = weights.transforms()
    if not hasattr(preset, "crop_size"):
        raise UsageError(f"torchvision's {arch} does not say how it is fed.")
    size, short_side = preset.crop_size[0], preset.resize_size[0]
    crop_pct = min(1.0, size / short_side)
    if math.floor(size / crop_pct) != short_side:  # the division's rounding
        crop_pct = size / (short_side + 1e-3)
    return Preprocessing(
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        size=size,
        interpolation=preset.interpolation.value,
        crop_pct=crop_pct,
        origin=f"torchvision's list: {arch}/{weights.name}",
    )


def known_file(sha256: str) -> KnownFile | None:
    """The list entry of torchvision or timm whose address carries the beginning of this hash."""
    entry = _known_files().get(sha256[:8])
    return entry and entry()


@lru_cache
def _known_files() -> dict[str, Callable[[], KnownFile]]:
    files: dict[str, Callable[[], KnownFile]] = {
        digits: partial(KnownFile, f"torchvision:{arch}", arch, SOURCES["torchvision"])
        for digits, arch in _OLD_TORCHVISION.items()
    }
    for name in timm.list_pretrained():
        # timm's public function would copy each of its 1,800 entries deeply
        config = timm.models._registry._model_pretrained_cfgs[name]
        digits = digits_in(config.url)
        if digits and config.input_size[1] == config.input_size[2]:
            files[digits[:8]] = partial(_in_timm_s_list, name)
    for arch in torchvision.models.list_models(torchvision.models):
        for weights in torchvision.models.get_model_weights(arch):
            if digits := digits_in(weights.url):
                files[digits[:8]] = partial(_in_torchvision_s_list, arch, weights)
    return files


def _in_timm_s_list(name: str) -> KnownFile:
    arch, config = name.split(".")[0], timm.get_pretrained_cfg(name)
    assert config is not None
    return KnownFile(f"timm:{name}", arch, of_timm(arch, config.to_dict(), f"timm's list: {name}"))


def _in_torchvision_s_list(arch: str, weights: Any) -> KnownFile:
    return KnownFile(f"torchvision:{arch}/{weights.name}", arch, of_torchvision(arch, weights))


def digits_in(url: object) -> str | None:
    """The beginning of the SHA-256 that torchvision and timm put into their files' names."""
    match = re.search(r"-([0-9a-f]{8,64})(?:\.\w+)+$", str(url))
    return match.group(1) if match else None
