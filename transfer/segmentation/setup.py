"""What a configuration comes to before the first step: records, network, loader, optimiser."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
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
    refuse_single_values,
    seed_ambient,
    train_batching,
)
from transfer.random_weights import untrained
from transfer.segmentation.config import SegmentationConfig, SegmenterConfig
from transfer.segmentation.data import open_data
from transfer.segmentation.dataset import SegmentationDataset
from transfer.segmentation.records import Record, SegmentationData

_SAMPLE = 100  # masks that are scored, read before training begins


@dataclass(frozen=True)
class SegmentationSetup:
    """What can be known without a device."""

    backbone: Backbone
    """As given, or its architecture with random weights."""
    data: SegmentationData
    model: nn.Module
    steps_per_epoch: int
    files: DataFiles

    @property
    def num_parameters(self) -> int:
        """Of the network."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        data = self.data
        return {
            "name": data.name,
            "train": len(data.train),
            "val": len(data.val),
            "classes": len(data.classes),
            "splits": list(data.splits),
            "notes": list(data.notes),
            **self.files.summary,
        }


def build(backbone: Backbone, config: SegmentationConfig) -> SegmentationSetup:
    """Read the tree and build the network; every mistake a user can make shows here."""
    if config.data is None:
        raise UsageError("no data: give --data DIR with images and masks")
    data = open_data(config.data, config.dataset)
    check_scored(data.val, config.dataset.max_corrupt)
    if len(data.train) < config.batch_size:
        raise UsageError(
            f"batch_size is {config.batch_size}, but there are only {len(data.train)} training "
            "images. Give a smaller batch_size."
        )
    check_optimizer(config.optimizer)
    segmenter = config.segmenter
    if config.random_init:
        backbone, segmenter = untrained(backbone, config.seed), unfrozen(segmenter)
    with torch.random.fork_rng(devices=[]):
        seed_ambient(derive(config.seed, "weights"))
        model = build_model(backbone, segmenter, len(data.classes))
    files = DataFiles((Path(config.data),), data.paths, data.annotations, config.digest)
    steps_per_epoch = len(data.train) // config.batch_size
    return SegmentationSetup(backbone, data, model, steps_per_epoch, files)


def check_scored(records: Sequence[Record], max_corrupt: int) -> None:
    """Read masks that are scored, lest the first score find one with a value that is no class."""
    faults = 0
    for record in records[:: -(-len(records) // _SAMPLE)]:
        try:
            record.read_mask()
        except UsageError:
            faults += 1
            if faults > max_corrupt:
                raise


def build_model(backbone: Backbone, segmenter: SegmenterConfig, num_classes: int) -> nn.Module:
    """The network, by the kind of the configuration.

    N images of one size, uint8 RGB (N, 3, H, W), or float32 (N, 1, H, W) that need no normalising,
    to {"out": logits (N, K, H, W)}, and in training "aux" of the same shape where `aux_weight` is
    above 0. What belongs to the second head is named `aux_classifier.`.
    """
    module = import_module(f"transfer.segmentation.{segmenter.kind}")
    network: nn.Module = module.build_segmenter(backbone, segmenter, num_classes)
    return network


def unfrozen(segmenter: SegmenterConfig) -> SegmenterConfig:
    """What random weights need: all of them trained, BatchNorm too."""
    norm = "trained" if segmenter.batch_norm == "frozen" else segmenter.batch_norm
    return replace(segmenter, freeze=0, batch_norm=norm)


def setup_training(
    setup: SegmentationSetup, config: SegmentationConfig, fabric: Fabric
) -> tuple[TrainState, Loader]:
    """The network on its device, and batches of training crops.

    Raises:
        UsageError: a micro-batch is one image, of which BatchNorm sees one value, or which has no
            other to be mixed with.
    """
    loader = Loader(
        SegmentationDataset(setup.data.train, config.dataset, train=True),
        **config.loader.processes,
        max_corrupt=config.dataset.max_corrupt,
        **train_batching(config, fabric),
    )
    if config.segmenter.batch_norm != "sync" or fabric.world_size == 1:
        refuse_single_values(setup.model, config.dataset.crop_size, config, fabric)
    _refuse_nothing_to_mix(config, fabric)
    lay_out(setup.model, fabric.device)
    optimizer = config.optimizer
    aux_lr = 10 * optimizer.lr if optimizer.aux_lr is None else optimizer.aux_lr
    state = make_train_state(
        setup.model,
        config,
        fabric,
        steps_per_epoch=len(loader),
        lr_of=lambda name: aux_lr if name.startswith("aux_classifier.") else None,
        power=optimizer.power,
    )
    return state, loader


def _refuse_nothing_to_mix(config: SegmentationConfig, fabric: Fabric) -> None:
    """Mixing would leave every image as it is."""
    is_single = config.batch_size == config.accumulate * fabric.world_size
    if is_single and config.mixing.cutmix + config.mixing.mosaic > 0:
        raise UsageError(
            f"mixing takes pixels from other images of a micro-batch, which is one image here "
            f"(batch_size {config.batch_size}, accumulate {config.accumulate}, "
            f"{fabric.world_size} process(es)): give a larger --batch_size, or a smaller "
            "--accumulate"
        )


def lay_out(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with the values of a pixel side by side where that is faster: in place.

    On a CPU it is slower for convolutions over all channels that are dilated: a step of ResNets at
    strides 8 and 16 takes 1.03 to 1.09 of the time on 2 cores, one of MobileNetV2, whose dilated
    convolutions are depthwise, 0.7, of U-Nets 0.9.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    is_dilated = any(max(one.dilation) > 1 and one.groups == 1 for one in convolutions)
    if device.type == "cpu" and is_dilated:
        return network
    laid_out: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid_out
