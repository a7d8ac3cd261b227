"""What a configuration comes to: data and network, then everything that a step needs."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from pretrain.backbone import Backbone, BackboneSpec
from pretrain.config import WITHOUT_PARTNERS, DatasetConfig, PretrainConfig
from pretrain.data import Images, ImageSplits, Transformed, collate, open_data
from pretrain.data.crops import RandomResizedCrop, Square, centre_crop
from pretrain.data.images import ImageShards
from pretrain.data.pixels import Pixels
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError, first_line
from pretrain.mixing import network_parts
from pretrain.mixing.schedule import INSIDE_PARTS, try_mixing, unused_options
from pretrain.progress import bar
from pretrain.rotation import RotationNetwork
from pretrain.training import (
    BatchSampler,
    InMemoryLoader,
    Loader,
    TrainState,
    check_optimizer,
    derive,
    make_train_state,
    refuse_single_values,
    scoring_batching,
    train_batching,
)


@dataclass(frozen=True)
class PretrainSetup:
    """Data and network, before anything is on a device."""

    data: ImageSplits
    spec: BackboneSpec
    network: nn.Module
    steps_per_epoch: int
    files: DataFiles
    method: str
    """What is mixed: cutmix, none, cutmix+mixup."""
    notes: tuple[str, ...]
    """What is to be said before anything is trained."""
    network_parts: Mapping[str, Any]
    """What the mixing methods need of a network."""

    @property
    def num_parameters(self) -> int:
        """Of the network."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        return {
            "name": self.data.name,
            "train": len(self.data.train),
            "val": len(self.data.val),
            "classes": len(self.data.train.classes),
            "notes": list(self.notes),
            **self.files.summary,
        }


@dataclass(frozen=True)
class Loaders:
    """The images of a process, and what is done to them on the device."""

    train: Loader | InMemoryLoader
    val: Loader | InMemoryLoader
    pixels: Pixels


def build(
    config: PretrainConfig, init: Backbone | None = None, guide: Backbone | None = None
) -> PretrainSetup:
    """Open the data and build the network; every mistake a user can make shows here.

    Args:
        config: the recipe.
        init: the backbone named by config.init.
        guide: the backbone named by config.mixing.guide.

    Raises:
        UsageError: what cannot be used, and why.
    """
    if config.data is None:
        raise UsageError("no data: give --data DIR")
    data = open_data(config.data, config.dataset, config.loader.shard_cache)
    size, num_classes = config.dataset.image_size, len(data.train.classes)
    spec = BackboneSpec(
        arch=config.model.arch,
        model_args=config.model.args,
        input_size=(3, size, size),
        mean=config.dataset.mean,
        std=config.dataset.std,
        interpolation="bilinear",
        crop_pct=config.dataset.crop_pct,
        num_classes=num_classes,
    )
    seed, notes = derive(config.seed, "weights"), [*data.notes]
    if init is None:
        network = spec.create(num_classes, seed)
    else:
        if (init.spec.arch, init.spec.model_args) != (config.model.arch, config.model.args):
            raise UsageError(
                f"--init is a {init.spec.arch} {init.spec.model_args or ''}, the recipe trains a "
                f"{config.model.arch} {config.model.args or ''}. Give --model.arch "
                f"{init.spec.arch} or a backbone of that architecture."
            )
        outputs = init.output_names
        same = outputs == data.train.classes
        if init.spec.num_classes and not same:
            why = "its classes are others" if outputs else "its file does not name its classes"
            notes.append(f"the classifier of --init is replaced by a new one: {why}")
        network = init.build(None if same else num_classes, seed)
    check_optimizer(config.optimizer)
    methods = [config.mixing, *config.mixing.others]
    steps = len(data.train) // config.batch_size
    method = "+".join(method.method for method in methods)
    annotations = {*data.train.annotations, *data.val.annotations}
    images = chain(data.train.paths, data.val.paths)
    indexes = {
        one.reader.index.path for one in (data.train, data.val) if isinstance(one, ImageShards)
    }
    roots = (Path(config.data), *{path.parent for path in indexes})
    files = DataFiles(roots, images, tuple(annotations), config.digest)
    sizes = _sizes(config, steps, network)
    parts = network_parts(config.mixing, network, None if guide is None else guide.build())
    parts["std"] = spec.std  # by which PuzzleMix has the colours again
    for one in {*sizes.values(), size}:
        try_mixing(config.mixing, parts, torch.zeros(2, 3, one, one), num_classes)
    notes += unused_options(config.mixing)
    if guide is not None and (guide.spec.mean, guide.spec.std) != (spec.mean, spec.std):
        notes.append(
            f"mixing.guide was trained on images of mean {guide.spec.mean} and std "
            f"{guide.spec.std}; it is shown this recipe's, of {spec.mean} and {spec.std}"
        )
    if config.rotation.weight and parts.keys() & INSIDE_PARTS:
        raise UsageError(
            f"rotation.weight is {config.rotation.weight} with {method}, which mixes inside the "
            "network, where the turned images go through with the others. Give "
            "--rotation.weight 0, or another --mixing.method."
        )
    if config.dataset.progressive.smallest is not None:
        said = ", ".join(f"{side} pixels from epoch {first}" for first, side in sizes.items())
        notes.append(f"progressive resizing: {said}; scored at {size}")
    return PretrainSetup(data, spec, network, steps, files, method, tuple(notes), parts)


def _sizes(config: PretrainConfig, steps_per_epoch: int, network: nn.Module) -> dict[int, int]:
    """The epochs, from 1, from which on the training images have another size, and that size.

    Raises:
        UsageError: the run ends before images have image_size, or the network takes no other.
    """
    dataset = config.dataset
    smallest, end = dataset.progressive.smallest, dataset.progressive.end
    if smallest is None or end is None:
        return {1: dataset.image_size}
    epochs = -(-config.steps(steps_per_epoch) // max(1, steps_per_epoch))
    if end > epochs - 1:
        raise UsageError(
            f"dataset.progressive.end is {end:g}, but the run has {epochs} epoch(s): none would "
            f"have image_size. Give --dataset.progressive.end {epochs - 1} or less."
        )
    try:  # on one image, scored: nothing is changed
        with torch.inference_mode():
            copy.deepcopy(network).eval()(torch.zeros(1, 3, smallest, smallest))
    except Exception as error:  # an assertion, or whatever its layers raise
        raise UsageError(
            f"dataset.progressive.smallest is {smallest}, but {config.model.arch} takes no images "
            f"of that size ({first_line(error).rstrip('.')}). Give "
            "--dataset.progressive.smallest null, or another --model.arch."
        ) from error
    sizes = [dataset.size_at(epoch) for epoch in range(epochs)]
    pairs = enumerate(zip([None, *sizes], sizes, strict=False), start=1)
    return {epoch: now for epoch, (before, now) in pairs if now != before}


def setup_training(
    setup: PretrainSetup, config: PretrainConfig, fabric: Fabric
) -> tuple[TrainState, Loaders]:
    """Put everything that a step needs on the device.

    Raises:
        UsageError: the batch cannot be cut so, the optimizer does not take its arguments, or images
            that were to be kept in memory cannot be read.
    """
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    options = config.dataset
    pixels = Pixels(
        mean=setup.spec.mean,
        std=setup.spec.std,
        pad=options.image_size // 8 if options.crop == "padded" else 0,
        flip=options.flip,
        color_jitter=options.color_jitter,
        lighting=options.lighting,
        memory_format=layout,
    )
    if config.sync_batch_norm and fabric.device.type != "cuda":
        raise UsageError("sync_batch_norm is true, but torch has it for CUDA only. Leave it off.")
    train, val = _loaders(setup, config, fabric)
    halved = any(
        one.granularity == "half" and one.method not in WITHOUT_PARTNERS
        for one in (config.mixing, *config.mixing.others)
    )
    refuse_single_values(setup.network, options.size_at(0), config, fabric, halved=halved)
    network = setup.network.to(memory_format=layout)  # type: ignore[call-overload]
    guide = setup.network_parts.get("guide", network)  # which nothing else puts on the device
    guide.to(device=fabric.device, memory_format=layout)
    if config.rotation.weight:
        network = RotationNetwork(network, derive(config.seed, "rotation"))
    if config.sync_batch_norm and fabric.world_size > 1:
        network = convert_sync_batchnorm(network)
    state = make_train_state(network, config, fabric, steps_per_epoch=len(train))
    return state, Loaders(train, val, pixels)


def _loaders(
    setup: PretrainSetup, config: PretrainConfig, fabric: Fabric
) -> tuple[Loader | InMemoryLoader, Loader | InMemoryLoader]:
    """Training and validation; each process its share of both."""
    options = config.dataset
    val_crop = centre_crop(options.image_size, options.crop_pct)
    order: Any = None
    if isinstance(train := setup.data.train, ImageShards) and not options.cache:
        order = train.reader.order(options.shard_window, config.seed, config.epochs)
    at_epoch = _AtEpoch(train, options)
    batching = {**train_batching(config, fabric), "order": order}
    val, val_batching = Transformed(setup.data.val, val_crop), scoring_batching(config, fabric)
    reading: dict[str, Any] = {
        "workers": config.loader.workers,
        "prefetch": config.loader.prefetch,
        "max_corrupt": options.max_corrupt,
        "collate": collate,
        "pin_memory": fabric.device.type == "cuda",
    }
    if options.cache:
        held = ((at_epoch(0), batching), (val, val_batching))
        of_train, of_val = (_in_memory(images, how, reading, fabric) for images, how in held)
        return of_train, of_val
    return (
        Loader(at_epoch(0), at_epoch=at_epoch, **batching, **reading),
        Loader(val, keep=True, **val_batching, **reading),
    )


@dataclass(frozen=True)
class _AtEpoch:
    """The training images as a loader reads them in an epoch."""

    images: Images
    options: DatasetConfig

    def __call__(self, epoch: int) -> Transformed:
        size, options = self.options.size_at(epoch), self.options
        resized = options.crop == "resized"
        crop = RandomResizedCrop(size, options.min_scale) if resized else Square(size)
        return Transformed(self.images, crop)


def _in_memory(
    samples: Transformed, how: dict[str, Any], reading: dict[str, Any], fabric: Fabric
) -> InMemoryLoader:
    """Every image decoded once, on the device where half of its free memory is enough."""
    BatchSampler(len(samples), **how)  # refuses what cannot be cut before anything is decoded
    files = Loader(samples, batch_size=256, seed=how["seed"], **reading)
    batches: list[tuple[Tensor, Tensor]] = []
    with bar("decoding", len(samples), "images", shown=fabric.is_global_zero) as advance:
        for images, labels in files.epoch(0):
            batches.append((images, labels))
            advance(len(labels))
    images, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    device = fabric.device
    if device.type == "cuda" and images.numel() < torch.cuda.mem_get_info(device)[0] // 2:
        images, labels = images.to(device), labels.to(device)
    # broken images are not there at all
    loader = InMemoryLoader(images, labels, BatchSampler(len(labels), **how), files.max_corrupt)
    loader.corrupt.update(files.corrupt)
    return loader
