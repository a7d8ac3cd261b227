"""What a configuration comes to: images, backbone, then everything that a step needs."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from pretrain.backbone import Backbone, classifier_patterns
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError
from pretrain.training import (
    Loader,
    TrainState,
    check_optimizer,
    derive,
    make_train_state,
    refuse_single_values,
    train_batching,
)
from transfer.classification.config import ClassificationConfig
from transfer.classification.folders import ClassificationData, open_image_folders
from transfer.feature_cache import Encoder, ImageDataset, with_image_size
from transfer.random_weights import untrained
from transfer.shard_room import require_room


@dataclass(frozen=True)
class ClassificationSetup:
    """Data and backbone, before anything is on a device."""

    data: ClassificationData
    given: Backbone
    """As given, or its architecture with random weights."""
    backbone: Backbone
    """With the input size and the resizing of this run."""
    num_features: int
    files: DataFiles
    notes: tuple[str, ...]
    """What is to be said before anything is measured."""

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        return {
            "name": self.data.name,
            "train": len(self.data.train),
            "scored": len(self.data.scored),
            "classes": len(self.data.classes),
            "notes": list(self.data.notes),
            **self.files.summary,
        }


def build(
    backbone: Backbone, config: ClassificationConfig, data: ClassificationData | None = None
) -> ClassificationSetup:
    """List the images and look at the backbone; every mistake a user can make shows here.

    Args:
        backbone: what is measured.
        config: the recipe, with the folder of the images.
        data: the images, where they are no class folders and are listed already.

    Raises:
        UsageError: what cannot be used, and why.
    """
    if config.data is None:
        raise UsageError("no data: give --data DIR, a folder with DIR/{train,val}/CLASS/*.jpg")
    check_optimizer(config.optimizer)
    options, ks = config.dataset, list(config.knn.ks)
    data = data or open_image_folders(config.data, options, config.loader.shard_cache)
    if "full" in config.modes and len(data.train) < config.batch_size:
        raise UsageError(
            f"batch_size is {config.batch_size}, but there are only {len(data.train)} training "
            "images. Give a smaller batch_size."
        )
    if "full" in config.modes:
        use = "full fine-tuning reads them in any order; --mode linear,knn reads each once"
        require_room((data.paths[n] for n in data.train), config.loader.shard_cache, use)
    if config.modes != ["full"] and not len(data.choose):
        raise UsageError(
            f"no class of {data.name} has two training images, so nothing can be held out to "
            "choose penalty and k on. Add images, or a test split: then they are chosen on val."
        )
    if "knn" in config.modes and min(ks) > len(data.fit):
        raise UsageError(
            f"knn.ks is {ks}, but there are only {len(data.fit)} images to choose "
            f"among the neighbours of. Give a k of at most {len(data.fit)}."
        )
    given = untrained(backbone, config.seed) if config.random_init else backbone
    backbone = with_image_size(given, options.image_size)
    asked: dict[str, Any] = {"crop_pct": options.crop_pct, "interpolation": options.interpolation}
    if changes := {name: value for name, value in asked.items() if value is not None}:
        backbone = replace(backbone, spec=replace(backbone.spec, **changes))
    shape = Encoder(backbone, "pooled").feature_shape(backbone)
    if len(shape) != 1:
        raise UsageError(
            f"{backbone.spec.arch} gives {shape} for an image, no single feature to classify by. "
            "Take a backbone with pooling."
        )
    files = DataFiles((Path(config.data),), data.files, data.annotations, config.digest)
    notes = tuple(_notes(data, config))
    return ClassificationSetup(data, given, backbone, shape[0], files, notes)


def _notes(data: ClassificationData, config: ClassificationConfig) -> list[str]:
    shown = ", ".join(data.classes[:8]) + (", ..." if len(data.classes) > 8 else "")
    scored = f"{len(data.scored):,} of {data.scored_name} scored"
    counts = f"{len(data.train):,} training images; {scored}"
    if config.modes != ["full"]:
        counts += f"; what is tuned is chosen on {len(data.choose):,} ({data.chosen_on})"
    return [*data.notes, f"{len(data.classes)} classes: {shown}", counts]


def setup_training(
    setup: ClassificationSetup, config: ClassificationConfig, fabric: Fabric
) -> tuple[TrainState, Loader]:
    """The network with a new classifier on its device, and batches of training images."""
    data, backbone = setup.data, setup.backbone
    network: Any = backbone.build(len(data.classes), derive(config.seed, "weights"))
    # the values of a pixel side by side: faster, and the same bits wherever it is done
    network.to(memory_format=torch.channels_last)
    is_new = re.compile("|".join(classifier_patterns(network))).fullmatch
    crops = backbone.preprocess(train=True, min_scale=config.dataset.min_scale)
    loader = Loader(
        ImageDataset([data.paths[index] for index in data.train], crops, data.labels[data.train]),
        **config.loader.processes,
        max_corrupt=config.dataset.max_corrupt,
        **train_batching(config, fabric),
    )
    refuse_single_values(network, backbone.spec.input_size[1], config, fabric)
    state = make_train_state(
        network,
        config,
        fabric,
        steps_per_epoch=len(loader),
        lr_of=lambda name: config.optimizer.head_lr if is_new(name) else None,
    )
    return state, loader
