"""timm's own layout (a folder), a single safetensors file, and a torchvision state dict."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.models import save_for_hf
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.models import NAMES
from pretrain.spec import create_model
from transfer.formats import passports
from transfer.formats.architectures import RESIDUAL
from transfer.formats.proof import (
    Proof,
    assemble,
    compare,
    features,
    level_names,
    raw_image,
)

# not square, and larger than what the crop keeps: resizing and cropping are part of the proof
_RAW = 1.3, 1.7


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
        **{key: None for key in ("tag", "hf_hub_id", "url", "license", "origin_url", "notes")},
    }
    fed: dict[str, Any] = {
        "input_size": spec.input_size,
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop_pct,
        "crop_mode": "center",
    }
    names = {"label_names": backbone.provenance.classes} if backbone.provenance.classes else {}
    save_for_hf(
        network,
        str(folder),
        model_config=names,
        model_args=dict(spec.model_args),
        safe_serialization=True,
        data_config=fed,  # what the architecture's own weights recommend for tests goes with them
    )


def refuse_ours(backbone: Backbone) -> None:
    """Raise UsageError for an architecture that timm alone cannot build."""
    if backbone.spec.arch in NAMES:
        raise UsageError(
            f"timm has no {backbone.spec.arch}: it is this project's own. Export --to safetensors "
            "or backbone, which this project reads."
        )


def add_passport(folder: Path, passport: dict[str, Any]) -> None:
    """Into config.json, under a key that timm does not look at."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content[passports.KEY] = passport
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_safetensors(backbone: Backbone, path: Path, passport: dict[str, Any]) -> None:
    """One file, its passport in the header."""
    safetensors.torch.save_file(
        dict(backbone.weights), path, {"format": "pt", passports.KEY: json.dumps(passport)}
    )


def write_torchvision(backbone: Backbone, path: Path) -> None:
    """A bare state dict, as torchvision publishes them."""
    torchvision_network(backbone, device="meta")
    with open(path, "wb") as handle:
        torch.save(dict(backbone.weights), handle)


def prove_timm(backbone: Backbone, folder: Path) -> Proof:
    """Timm opens the folder by `local-dir:` and preprocesses by what it finds there."""
    created = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    settled = resolve_data_config({}, model=created)
    transform = create_transform(**settled)
    return _prove(backbone, f"timm {timm.__version__}, local-dir", created, transform)


def prove_safetensors(backbone: Backbone, path: Path) -> Proof:
    """Timm opens the file by `checkpoint_path`; how to feed it is in the header's passport."""
    spec = backbone.spec
    created = create_model(
        spec.arch, num_classes=spec.num_classes, checkpoint_path=str(path), **spec.model_args
    )
    with safetensors.safe_open(path, framework="pt") as archive:
        told = json.loads(archive.metadata()[passports.KEY])["spec"]
    transform = create_transform(
        tuple(told["input_size"]),
        mean=told["mean"],
        std=told["std"],
        interpolation=told["interpolation"],
        crop_pct=told["crop_pct"],
    )
    title = f"timm {timm.__version__}, checkpoint_path"
    return _prove(backbone, title, created.eval(), transform)


def prove_torchvision(backbone: Backbone, path: Path) -> Proof:
    """Torchvision's ResNet class under torchvision's preset, with this mean, std and sizes."""
    spec = backbone.spec
    network = torchvision_network(backbone, device="meta")
    weights = torch.load(path, weights_only=True, mmap=True)  # no second copy in memory
    network.load_state_dict(weights, strict=True, assign=True)
    size = spec.input_size[1]
    transform = ImageClassification(
        crop_size=size,
        resize_size=int(size / spec.crop_pct),
        mean=spec.mean,
        std=spec.std,
        interpolation=InterpolationMode(spec.interpolation),
    )
    kept = {f"layer{stage}": f"res{stage + 1}" for stage in (1, 2, 3, 4)}
    network.eval()
    image = _photo(backbone)
    with torch.inference_mode():
        value = transform(image)[None]
        theirs = {}
        for name, module in network.named_children():
            if name == "avgpool":
                break
            value = module(value)
            if name in kept:
                theirs[kept[name]] = value
    found = features(backbone, backbone.preprocess()(image)[None])
    ours = {name: found[name] for name in kept.values()}
    return compare(f"torchvision {torchvision.__version__}, ResNet", ours, theirs)


def torchvision_network(backbone: Backbone, device: str = "cpu") -> nn.Module:
    """Torchvision's ResNet of this shape; UsageError where it has none."""
    spec = backbone.spec
    kind = RESIDUAL.get(spec.arch)
    if kind is None or kind.stem != "7x7" or kind.squeeze or kind.pooled:
        raise UsageError(
            f"torchvision's ResNet cannot be {spec.arch}: it knows ResNet, ResNeXt and Wide ResNet "
            "with the stride in the 3x3. Export --to timm or safetensors."
        )
    block = BasicBlock if kind.block == "basic" else Bottleneck
    with torch.device(device):
        network = ResNet(
            block,
            list(kind.layers),
            num_classes=max(1, spec.num_classes),
            groups=kind.groups,
            width_per_group=kind.width,
        )
    if spec.num_classes == 0:
        network.add_module("fc", nn.Identity())
    return network


def _photo(backbone: Backbone) -> Image.Image:
    """A raw image somewhat larger than the network's input."""
    size = backbone.spec.input_size[1]
    pixels = raw_image(int(_RAW[0] * size), int(_RAW[1] * size))
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


@torch.inference_mode()
def _prove(backbone: Backbone, target: str, created: nn.Module, transform: Any) -> Proof:
    """The same picture through their transform and network, and through ours."""
    image = _photo(backbone)
    names = level_names(backbone)
    ours = features(backbone, backbone.preprocess()(image)[None])
    network = FeatureGetterNet(created, out_indices=tuple(names.values()))
    images: Tensor = transform(image)[None]
    return compare(target, ours, dict(zip(names, network(images), strict=True)))
