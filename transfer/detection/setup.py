"""What a configuration comes to before the first step: records, detector, loader, optimiser."""

from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from pretrain.backbone import Backbone
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError
from pretrain.training import (
    Loader,
    TrainState,
    check_optimizer,
    derive,
    make_train_state,
    seed_ambient,
    train_batching,
)
from transfer.detection.config import (
    DETECTRON2_KINDS,
    LOSSES,
    DetectionConfig,
    DetectorConfig,
    Kind,
)
from transfer.detection.data import DetectionData, open_data
from transfer.detection.dataset import (
    DetectionDataset,
    aspect_ratio_order,
    check_mixing,
    collate,
)
from transfer.random_weights import untrained


@dataclass(frozen=True)
class DetectionSetup:
    """What can be known without a device."""

    backbone: Backbone
    """As given, or its architecture with random weights."""
    kind: Kind
    data: DetectionData
    model: nn.Module
    steps_per_epoch: int
    files: DataFiles

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of what the detector returns in training, in order."""
        return LOSSES[self.kind]

    @property
    def num_parameters(self) -> int:
        """Of the detector."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        data = self.data
        return {
            "name": data.name,
            "train": len(data.train),
            "test": len(data.test),
            "classes": len(data.train.classes),
            "splits": [data.train_split, data.test_split],
            "notes": list(data.notes),
            **self.files.summary,
        }


def resolved(config: DetectionConfig) -> DetectionConfig:
    """The configuration with the library named that will train; UsageError where it is missing."""
    installed = find_spec("detectron2") is not None
    if config.engine == "auto":
        has_both = installed and config.detector.kind in DETECTRON2_KINDS
        return replace(config, engine="detectron2" if has_both else "torchvision")
    if config.engine == "detectron2" and not installed:
        raise UsageError(
            "engine is detectron2, which is not installed here (its guide: "
            "https://github.com/facebookresearch/detectron2/blob/main/INSTALL.md). "
            "--engine torchvision needs nothing more and trains the same detector."
        )
    return config


def build(backbone: Backbone, config: DetectionConfig) -> DetectionSetup:
    """Read the tree and build the detector; every mistake a user can make shows here."""
    config = resolved(config)
    if config.data is None:
        raise UsageError("no data: give --data DIR with a Pascal VOC tree")
    data = open_data(config.data, config.dataset, masks=config.mixing.copy_paste > 0)
    check_mixing(data.train.images, config.mixing)
    if len(data.train) < config.batch_size:
        raise UsageError(
            f"batch_size is {config.batch_size}, but there are only {len(data.train)} training "
            "images. Give a smaller batch_size."
        )
    check_optimizer(config.optimizer)
    detector = config.detector
    if config.random_init:
        backbone, detector = untrained(backbone, config.seed), unfrozen(detector)
    with torch.random.fork_rng(devices=[]):
        seed_ambient(derive(config.seed, "weights"))
        model = build_model(
            backbone, detector, len(data.train.classes), config.engine, config.dataset.square
        )
    images = [record.path for record in (*data.train.images, *data.test.images)]
    annotations = {*data.train.sources, *data.test.sources}
    files = DataFiles((Path(config.data),), images, tuple(annotations), config.digest)
    return DetectionSetup(
        backbone, detector.kind, data, model, len(data.train) // config.batch_size, files
    )


def build_model(
    backbone: Backbone,
    detector: DetectorConfig,
    num_classes: int,
    engine: str,
    square: int | None = None,
) -> nn.Module:
    """The detector of one library or the other; all take and give the same.

    `square` is the side of all images, which ssd wants to know; the other kinds take any.
    N images. In training: uint8 RGB images and targets {"boxes" (K, 4), "labels" (K,) from 1} to
    {loss: scalar}, by the names of LOSSES. In evaluation: images to a list of {"boxes", "labels",
    "scores"}, in pixels of the images as given.
    """
    if engine == "detectron2":
        from transfer.detection.detectron2_model import build_detector

        return build_detector(backbone, detector, num_classes)
    module = import_module(f"transfer.detection.{detector.kind}")
    sides = (square,) if detector.kind == "ssd" else ()
    network: nn.Module = module.build_detector(backbone, detector, num_classes, *sides)
    return network


def unfrozen(detector: DetectorConfig) -> DetectorConfig:
    """What random weights need: all of them trained, BatchNorm too."""
    norm = "trained" if detector.batch_norm == "frozen" else detector.batch_norm
    return replace(detector, freeze=0, batch_norm=norm)


def setup_training(
    setup: DetectionSetup, config: DetectionConfig, fabric: Fabric
) -> tuple[TrainState, Loader]:
    """The detector on its device, and batches of training images.

    torch.compile takes the backbone alone: what follows has other shapes for each image.
    """
    images = setup.data.train.images
    order = partial(aspect_ratio_order, images, config.batch_size, config.seed)
    samples = DetectionDataset(images, config.dataset, train=True, mixing=config.mixing)
    loader = Loader(
        samples,
        at_epoch=samples.at_epoch,
        collate=collate,
        **config.loader.processes,
        max_corrupt=config.dataset.max_corrupt,
        order=order if config.dataset.aspect_ratio_grouping else None,
        **train_batching(config, fabric),
    )
    if config.engine == "torchvision" and fabric.device.type == "cpu":
        # the values of a pixel side by side: faster, other rounding
        setup.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inner: Any = getattr(setup.model, "model", setup.model)  # detectron2's is inside of ours
    state = make_train_state(
        setup.model, config, fabric, steps_per_epoch=len(loader), compiled=[inner.backbone]
    )
    return state, loader
