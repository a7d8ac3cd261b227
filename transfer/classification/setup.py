"""What a configuration comes to: images, the backbone that sees them, its frozen features."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.progress import log
from pretrain.training import BatchSampler
from transfer.classification.config import ClassificationConfig, DatasetConfig
from transfer.classification.folders import ClassificationData, Indices, open_image_folders
from transfer.encoder import Encoder, with_image_size
from transfer.feature_cache import FeatureCache, Features


@dataclass(frozen=True)
class ClassificationSetup:
    """Data and backbone, before anything is on a device."""

    data: ClassificationData
    backbone: Backbone
    """With the input size and the resizing of this run."""
    num_features: int


def build(backbone: Backbone, config: ClassificationConfig) -> ClassificationSetup:
    """List the images and look at the backbone; every mistake a user can make shows here.

    Raises:
        UsageError: what cannot be used, and why.
    """
    if config.data is None:
        raise UsageError("no data: give --data DIR, a folder with DIR/{train,val}/CLASS/*.jpg")
    data = open_image_folders(Path(config.data), config.dataset)
    if "full" in config.modes and len(data.train) < config.batch_size:
        raise UsageError(
            f"batch_size is {config.batch_size}, but there are only {len(data.train)} training "
            "images. Give a smaller batch_size."
        )
    if config.modes != ["full"] and not len(data.choose):
        raise UsageError(
            f"no class of {data.name} has two training images, so nothing can be held out to "
            "choose penalty and k on. Add images, or a test split: then they are chosen on val."
        )
    least = min(config.knn.ks)
    if "knn" in config.modes and least > len(data.fit):
        raise UsageError(
            f"knn.ks is {list(config.knn.ks)}, but there are only {len(data.fit)} images to choose "
            f"among the neighbours of. Give a k of at most {len(data.fit)}."
        )
    backbone = _seen(backbone, config.dataset)
    shape = Encoder(backbone, "pooled").feature_shape(backbone)
    if len(shape) != 1:
        raise UsageError(
            f"{backbone.spec.arch} gives {shape} for an image, no single feature to classify by. "
            "Take a backbone with pooling."
        )
    return ClassificationSetup(data, backbone, shape[0])


def _seen(backbone: Backbone, config: DatasetConfig) -> Backbone:
    """The backbone with the preprocessing that the recipe asks for."""
    backbone = with_image_size(backbone, config.image_size)
    own = backbone.spec
    spec = replace(
        own,
        crop_pct=own.crop_pct if config.crop_pct is None else config.crop_pct,
        interpolation=own.interpolation if config.interpolation is None else config.interpolation,
    )
    if spec == own:
        return backbone
    return Backbone(spec=spec, provenance=backbone.provenance, weights=backbone.weights)


def training_batches(
    data: ClassificationData, config: ClassificationConfig, fabric: Fabric
) -> dict[str, Any]:
    """How the training images are cut into batches; UsageError where that cannot be."""
    how: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "shuffle": True,
        "drop_last": True,
        "accumulate": config.accumulate,
        "rank": fabric.global_rank,
        "ranks": fabric.world_size,
    }
    BatchSampler(len(data.train), **how)
    return how


@dataclass(frozen=True)
class Frozen:
    """Features of the images that could be read, by split."""

    data: ClassificationData
    features: Features
    device: torch.device

    def part(self, numbers: Indices) -> tuple[Tensor, Tensor, Indices]:
        """Features (N, F) on the device, labels (N,) on the CPU, and the numbers that are left."""
        left = numbers[self.features.row_of[numbers] >= 0]
        labels = torch.from_numpy(self.data.labels[left])
        return self.features.select(left).to(self.device), labels, left


def freeze(setup: ClassificationSetup, config: ClassificationConfig, fabric: Fabric) -> Frozen:
    """Encode what is not in the cache.

    Raises:
        UsageError: too many broken images, or none left of a class. Features are kept.
    """
    data = setup.data
    cache = FeatureCache(Path(config.cache), setup.backbone, "pooled")
    with fabric.rank_zero_first():  # the others find everything there
        features = cache.features(data.paths, fabric, workers=config.workers)
    features.check_corrupt(config.dataset.max_corrupt, verbose=fabric.is_global_zero)
    broken = features.corrupt
    readable = features.row_of >= 0
    if not readable[data.choose].any():
        raise UsageError(
            "none of the images that penalty and k are chosen on can be read. "
            f"{next(iter(broken.values()))}"
        )
    for numbers, what in ((data.fit, "training"), (data.scored, data.scored_name)):
        gone = np.setdiff1d(data.labels[numbers], data.labels[numbers[readable[numbers]]])
        if len(gone):
            raise UsageError(
                f"no {what} image of class {data.classes[gone[0]]} can be read. "
                f"{next(iter(broken.values()))}"
            )
    if fabric.is_global_zero:
        # equal files have one row
        both = np.intersect1d(features.row_of[data.train], features.row_of[data.scored])
        if count := int((both >= 0).sum()):
            log(
                f"note: {count:,} images are both trained on and scored, byte for byte: the "
                "figures say less than they seem to"
            )
    return Frozen(data, features, fabric.device)
