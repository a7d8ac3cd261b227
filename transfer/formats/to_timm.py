"""timm's own layout (a folder), a single safetensors file, and a torchvision state dict."""

import json
from collections.abc import Callable
from functools import partial, partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors.torch
import timm
import torch
import torchvision
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.models import save_for_hf
from timm.models._features import FeatureGetterNet
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from pretrain.backbone import Backbone
from pretrain.cache import file_sha256
from pretrain.errors import UsageError
from pretrain.models import NAMES
from pretrain.spec import create_model
from transfer.formats import sidecar
from transfer.formats.architectures import RESNET_SHAPES
from transfer.parity import (
    ParityReport,
    assemble,
    compare,
    features,
    is_outline,
    level_names,
    raw_image,
)

# fields of a spec that timm calls by the same names
_PREPROCESSING = ("input_size", "mean", "std", "interpolation", "crop_pct")


def write_timm(backbone: Backbone, folder: Path) -> None:
    """`model.safetensors` and `config.json`, written by timm itself.

    Raises:
        UsageError: an architecture that timm alone cannot build.
    """
    spec = backbone.spec
    refuse_ours(backbone)
    network: Any = assemble(backbone)
    network.pretrained_cfg = network.default_cfg = {
        **network.pretrained_cfg,
        "architecture": spec.arch,
        **dict.fromkeys(("tag", "hf_hub_id", "url", "license", "origin_url", "notes")),
    }
    classes = backbone.provenance.classes
    save_for_hf(
        network,
        str(folder),
        model_config={"label_names": classes} if classes else {},
        model_args=dict(spec.model_args),
        safe_serialization=True,
        # instead of what the architecture's own weights recommend
        data_config={key: getattr(spec, key) for key in _PREPROCESSING} | {"crop_mode": "center"},
    )


def refuse_ours(backbone: Backbone) -> None:
    """Raise UsageError for an architecture that timm alone cannot build."""
    if backbone.spec.arch in NAMES:
        raise UsageError(
            f"timm has no {backbone.spec.arch}: it is this project's own. Export --to safetensors "
            "or backbone, which this project reads."
        )


def add_sidecar(backbone: Backbone, folder: Path, reports: list[ParityReport]) -> None:
    """Into config.json, under a key that timm ignores."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    digest = file_sha256(folder / "model.safetensors")
    content[sidecar.KEY] = sidecar.describe(backbone, reports, sha256=digest)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_safetensors(backbone: Backbone, path: Path, metadata: dict[str, Any]) -> None:
    """One file, the sidecar's content in its header."""
    header = {"format": "pt", sidecar.KEY: json.dumps(metadata)}
    safetensors.torch.save_file(dict(backbone.weights), path, header)


def write_torchvision(backbone: Backbone, path: Path) -> None:
    """A bare state dict, as torchvision publishes them."""
    with open(path, "wb") as handle:
        torch.save(dict(backbone.weights), handle)


def verify_timm(backbone: Backbone, folder: Path) -> ParityReport:
    """Timm opens the folder by `local-dir:` and preprocesses by what it finds there."""

    def load() -> tuple[nn.Module, Any]:
        create = partial(timm.create_model, f"local-dir:{folder}", pretrained=True)
        network = _on_the_file_s_tensors(create)
        transform = create_transform(**resolve_data_config({}, model=network))
        return _levels_by_timm(backbone, network), transform

    return _verify(backbone, f"timm {timm.__version__}, local-dir", load)


def verify_safetensors(backbone: Backbone, path: Path) -> ParityReport:
    """Timm opens the file by `checkpoint_path`; how to feed it is in the header."""

    def load() -> tuple[nn.Module, Any]:
        spec = backbone.spec
        own = {"num_classes": spec.num_classes, "checkpoint_path": str(path), **spec.model_args}
        network = _on_the_file_s_tensors(partial(create_model, spec.arch, **own))
        with safetensors.safe_open(path, framework="pt") as archive:
            stated = json.loads(archive.metadata()[sidecar.KEY])["spec"]
        transform = create_transform(**{key: stated[key] for key in _PREPROCESSING})
        return _levels_by_timm(backbone, network), transform

    return _verify(backbone, f"timm {timm.__version__}, checkpoint_path", load)


def _levels_by_timm(backbone: Backbone, network: Any) -> nn.Module:
    return FeatureGetterNet(network.eval(), tuple(level_names(backbone).values()))


def _on_the_file_s_tensors(create: Callable[[], nn.Module]) -> nn.Module:
    """A network whose own program loads a file: the tensors are taken, where it would copy them.

    That saves a second set of weights; buffers that no file holds need the usual way.
    """
    assigning = partialmethod(nn.Module.load_state_dict, assign=True)
    with torch.device("meta"), patch.object(nn.Module, "load_state_dict", assigning):
        network = create()
    return create() if is_outline(network) else network


def verify_torchvision(backbone: Backbone, path: Path) -> ParityReport:
    """Torchvision's ResNet class under torchvision's preset, with this mean, std and sizes."""

    def load() -> tuple[nn.Module, Any]:
        spec = backbone.spec
        network = torchvision_network(backbone)
        weights = torch.load(path, weights_only=True, mmap=True)  # no second copy in memory
        network.load_state_dict(weights, strict=True, assign=True)
        transform = ImageClassification(
            crop_size=spec.input_size[1],
            resize_size=int(spec.input_size[1] / spec.crop_pct),
            mean=spec.mean,
            std=spec.std,
            interpolation=InterpolationMode(spec.interpolation),
        )
        names = {f"layer{stage}": f"res{stage + 1}" for stage in (1, 2, 3, 4)}
        return create_feature_extractor(network.eval(), names), transform

    return _verify(backbone, f"torchvision {torchvision.__version__}, ResNet", load)


def torchvision_network(backbone: Backbone) -> nn.Module:
    """Torchvision's ResNet of these shapes, without weights; UsageError where it has none."""
    spec = backbone.spec
    if shape := RESNET_SHAPES.get(spec.arch):
        with torch.device("meta"):
            network = ResNet(
                BasicBlock if shape.block == "basic" else Bottleneck,
                list(shape.layers),
                num_classes=max(1, spec.num_classes),
                groups=shape.groups,
                width_per_group=shape.width,
            )
        if spec.num_classes == 0:
            network.add_module("fc", nn.Identity())
        own = {name: tensor.shape for name, tensor in network.state_dict().items()}
        if own == {name: tensor.shape for name, tensor in backbone.weights.items()}:
            return network
    built = f" built with {spec.model_args}" if spec.model_args else ""
    raise UsageError(
        f"torchvision's ResNet cannot be {spec.arch}{built}: it knows ResNet, ResNeXt and Wide "
        "ResNet with the stride in the 3x3. Export --to timm or safetensors."
    )


@torch.inference_mode()
def _verify(
    backbone: Backbone, target: str, load: Callable[[], tuple[nn.Module, Any]]
) -> ParityReport:
    """Raw pixels through their transform to their levels, and through ours.

    The image is not square and larger than what the crop keeps: both are compared too. Their
    network, which `load` gives with its transform, is gone before ours computes.
    """
    size = backbone.spec.input_size[1]
    pixels = raw_image(int(1.3 * size), int(1.7 * size))
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())

    def compute() -> Any:
        extractor, transform = load()
        return extractor(transform(image)[None])

    theirs = compute()
    if not isinstance(theirs, dict):
        theirs = dict(zip(level_names(backbone), theirs, strict=True))
    ours = features(backbone, backbone.preprocess()(image)[None])
    return compare(target, {name: ours[name] for name in theirs}, theirs)
