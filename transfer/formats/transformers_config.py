"""What Hugging Face transformers writes beside a network: config.json and preprocessor_config.json.

Its ResNet places strides by an option, and its functions by others; what differs from ours of the
same shapes is refused by name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from transfer.formats.architectures import ARCHITECTURES, CAFFE, ResNetShape
from transfer.formats.sources import KnownFile, Preprocessing, read_object

PREPROCESSOR = "preprocessor_config.json"
_INTERPOLATION = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# model_type -> options that change the function and no shape: what is read, transformers' defaults
_OPTIONS: dict[str, dict[str, Any]] = {
    "resnet": {"hidden_act": "relu", "downsample_in_first_stage": False, "num_channels": 3},
    "convnext": {"hidden_act": "gelu", "patch_size": 4, "num_channels": 3},
}


def read_transformers_config(path: Path) -> KnownFile | None:
    """A config.json of transformers and its preprocessor; None where it is another program's.

    Raises:
        UsageError: a network that ours of the same shapes does not compute, or no preprocessor.
    """
    config = read_object(path)
    kind = str(config.get("model_type"))
    if kind not in _OPTIONS:
        return None
    for name, read in _OPTIONS[kind].items():
        if (value := config.get(name, read)) != read:
            raise UsageError(
                f"{path}: {name} is {value!r}, which has the shapes of the plain network, but is "
                f"not read here; it must be {read!r}."
            )
    arch = _name_resnet(config, path) if kind == "resnet" else ""
    beside = path.parent / PREPROCESSOR
    content = read_object(beside)
    if not content:
        raise UsageError(
            f"{path} is of transformers, which keeps mean and std in {PREPROCESSOR}; that is not "
            f"beside it. Copy it there, or give --config none{f' --arch {arch}' * bool(arch)}, "
            "--mean and --std."
        )
    try:
        preprocessing = _read_preprocessor(content, "1x1" if arch.endswith("_caffe") else "3x3")
    except (LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{beside} is no image processor of transformers ({error}).") from error
    return KnownFile(path.parent.name, arch, preprocessing)


def _name_resnet(config: Mapping[str, Any], path: Path) -> str:
    """The architecture of a ResNetConfig; its defaults are those of a ResNet-50."""
    block = config.get("layer_type", "bottleneck")
    widths = [config.get("embedding_size", 64), *config.get("hidden_sizes", (256, 512, 1024, 2048))]
    expansion = 4 if block == "bottleneck" else 1
    shape = ResNetShape(block=block, layers=tuple(config.get("depths", (3, 4, 6, 3))))
    name = ARCHITECTURES.get(shape)
    if name is None or widths != [64, *(expansion * width for width in (64, 128, 256, 512))]:
        raise UsageError(
            f"{path}: {block} blocks {list(shape.layers)} of widths {widths} are no ResNet that is "
            "known here."
        )
    if config.get("downsample_in_bottleneck", False) and block == "bottleneck":
        if name not in CAFFE:
            raise UsageError(f"{path}: a {name} with its strides in the 1x1 is not supported.")
        return CAFFE[name]
    return name


def _read_preprocessor(content: Mapping[str, Any], stride: Any) -> Preprocessing:
    """As its image processors resize: by crop_pct (ConvNext's), to a square, or by two sizes."""
    size = content["size"]
    side = size if isinstance(size, int) else size.get("shortest_edge", size.get("height"))
    crop = content.get("crop_size")
    if content.get("do_center_crop") and crop:
        crop = crop if isinstance(crop, int) else crop["height"]
        side, crop_pct = crop, min(1.0, crop / side)
    elif "ConvNext" in str(content.get("image_processor_type", content.get("crop_pct"))) or (
        "crop_pct" in content
    ):
        crop_pct = (content.get("crop_pct") or 224 / 256) if side < 384 else 1.0
    else:
        crop_pct = 1.0
    if content.get("do_rescale", True) is not True or (
        abs(content.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6
    ):
        raise ValueError("pixels that are not in [0, 1]")
    mean, std = content["image_mean"], content["image_std"]
    if content.get("do_normalize", True) is not True:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    preprocessing = Preprocessing(
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        size=int(side),
        crop_pct=float(crop_pct),
        interpolation=_INTERPOLATION[content.get("resample", 2)],
        stride=stride,
        origin=f"{PREPROCESSOR} of transformers",
    )
    preprocessing.spec("resnet50", 0, {})  # refuses what no image can be fed by
    return preprocessing
