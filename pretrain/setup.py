"""What a configuration comes to: data and network, then everything that a step needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
from timm.optim._optim_factory import create_optimizer_v2, list_optimizers
from timm.scheduler.scheduler import Scheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from pretrain.backbone import Backbone, BackboneSpec
from pretrain.config import PretrainConfig
from pretrain.data import Data, Images, Transformed, collate, open_data
from pretrain.data.crops import RandomResizedCrop, Square, centre_crop
from pretrain.data.pixels import Pixels
from pretrain.errors import UsageError
from pretrain.progress import bar
from pretrain.training import BatchSampler, InMemoryLoader, Loader, derive, schedule


@dataclass(frozen=True)
class PretrainSetup:
    """Data and network, before anything is on a device."""

    data: Data
    spec: BackboneSpec
    network: nn.Module
    steps_per_epoch: int
    method: str
    """What is mixed: cutmix, none, cutmix+mixup."""

    @property
    def train(self) -> Images:
        """The training images."""
        return self.data.train

    @property
    def parameters(self) -> int:
        """Of the network."""
        return sum(parameter.numel() for parameter in self.network.parameters())


@dataclass(frozen=True)
class Gear:
    """What a step needs, on the device."""

    network: nn.Module
    """The plain module."""
    model: Any
    """The same as Fabric (and torch.compile) wrapped it."""
    optimizer: torch.optim.Optimizer
    rates: Scheduler
    ema: ModelEmaV3 | None
    train: Loader | InMemoryLoader
    val: Loader | InMemoryLoader
    pixels: Pixels

    @property
    def kept(self) -> nn.Module:
        """What is evaluated and becomes the backbone: the averaged weights, if there are such."""
        return self.network if self.ema is None else self.ema.module


def build(config: PretrainConfig, init: Backbone | None = None) -> PretrainSetup:
    """Open the data and build the network; every mistake a user can make shows here.

    Raises:
        UsageError: what cannot be used, and why.
    """
    if config.data is None:
        raise UsageError("no data: give --data DIR")
    data = open_data(Path(config.data), config.dataset)
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
    seed = derive(config.seed, "weights")
    if init is None:
        network = spec.create(num_classes, seed)
    else:
        _check_init(config, init)
        names = init.provenance.classes
        same = init.spec.num_classes == num_classes and names in (None, list(data.train.classes))
        network = init.build(None if same else num_classes, seed)
    known = [str(name) for name in list_optimizers()]
    if config.optimizer.name not in known:
        raise UsageError(
            f"optimizer.name is {config.optimizer.name!r}; timm has {', '.join(sorted(known))}"
        )
    methods = [config.mixing, *config.mixing.others]
    steps = len(data.train) // config.batch_size
    return PretrainSetup(data, spec, network, steps, "+".join(method.method for method in methods))


def _check_init(config: PretrainConfig, init: Backbone) -> None:
    same_args = init.spec.model_args == config.model.args
    if init.spec.arch != config.model.arch or not same_args:
        raise UsageError(
            f"--init is a {init.spec.arch} {init.spec.model_args or ''}, the recipe trains a "
            f"{config.model.arch} {config.model.args or ''}. Give --model.arch {init.spec.arch} or "
            "a backbone of that architecture."
        )


def setup_training(setup: PretrainSetup, config: PretrainConfig, fabric: Fabric) -> Gear:
    """Put everything on the device.

    Raises:
        UsageError: the batch cannot be cut so, the optimiser takes no such arguments.
    """
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    size = config.dataset.image_size
    padded = config.dataset.crop == "padded"
    pixels = Pixels(
        mean=setup.spec.mean,
        std=setup.spec.std,
        pad=size // 8 if padded else 0,
        flip=config.dataset.flip,
        color_jitter=config.dataset.color_jitter,
        lighting=config.dataset.lighting,
        memory_format=layout,
    )
    if config.sync_batch_norm and fabric.device.type != "cuda":
        raise UsageError("sync_batch_norm is true, but torch has it for CUDA only. Leave it off.")
    train, val = _loaders(setup, config, fabric)
    network = setup.network.to(memory_format=layout)  # type: ignore[call-overload]
    if config.sync_batch_norm and fabric.world_size > 1:
        network = convert_sync_batchnorm(network)
    optimizer = _optimizer(network, config)
    compiled: Any = torch.compile(network) if config.compile else network
    model, wrapped = fabric.setup(compiled, optimizer)
    rates = schedule(
        wrapped,
        config.optimizer.schedule,
        steps_per_epoch=len(train),
        epochs=config.epochs,
        warmup_epochs=config.optimizer.warmup_epochs,
        milestones=config.optimizer.milestones,
        decay_rate=config.optimizer.decay_rate,
        min_lr=config.optimizer.min_lr,
    )
    decay = config.optimizer.ema
    ema = None if decay is None else ModelEmaV3(network, decay=decay, use_warmup=True)
    return Gear(network, model, wrapped, rates, ema, train, val, pixels)


def _optimizer(network: nn.Module, config: PretrainConfig) -> torch.optim.Optimizer:
    options = config.optimizer
    try:
        return create_optimizer_v2(
            network,
            opt=options.name,
            lr=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            filter_bias_and_bn=not options.decay_norm_and_bias,
            **options.args,
        )
    except TypeError as error:
        raise UsageError(f"optimizer.args do not fit {options.name}: {error}") from error


def _loaders(
    setup: PretrainSetup, config: PretrainConfig, fabric: Fabric
) -> tuple[Loader | InMemoryLoader, Loader | InMemoryLoader]:
    """Training and validation; each process its share of both."""
    options, size = config.dataset, config.dataset.image_size
    share = {"rank": fabric.global_rank, "ranks": fabric.world_size}
    training: dict[str, Any] = {
        "batch_size": config.batch_size,
        "shuffle": True,
        "drop_last": True,
        "accumulate": config.accumulate,
        "seed": config.seed,
        **share,
    }
    # as many images as a training step has in memory at once
    micro = config.batch_size // (config.accumulate * fabric.world_size)
    validation: dict[str, Any] = {
        "batch_size": max(1, micro),
        "shuffle": False,
        "seed": config.seed,
        **share,
    }
    crop = Square(size) if options.crop == "padded" else RandomResizedCrop(size, options.min_scale)
    train = Transformed(setup.data.train, crop)
    val = Transformed(setup.data.val, centre_crop(size, options.crop_pct))
    if options.cache:
        return (
            _resident(train, training, config, fabric),
            _resident(val, validation, config, fabric),
        )
    reading: dict[str, Any] = {
        "workers": config.workers,
        "max_corrupt": options.max_corrupt,
        "collate": collate,
        "pin_memory": fabric.device.type == "cuda",
    }
    return Loader(train, **training, **reading), Loader(val, **validation, **reading)


def _resident(
    samples: Transformed, how: dict[str, Any], config: PretrainConfig, fabric: Fabric
) -> InMemoryLoader:
    """Every image decoded once, on the device where half of its free memory is enough."""
    BatchSampler(len(samples), **how)  # refuses what cannot be cut before anything is decoded
    reading = Loader(
        samples,
        batch_size=256,
        seed=config.seed,
        workers=config.workers,
        shuffle=False,
        collate=collate,
        max_corrupt=config.dataset.max_corrupt,
    )
    parts: list[tuple[Tensor, Tensor]] = []
    with bar("decoding", len(samples), "images", shown=fabric.is_global_zero) as advance:
        for images, labels in reading.epoch(0):
            parts.append((images, labels))
            advance(len(labels))
    pixels, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    # broken images are not there at all
    loader = InMemoryLoader(
        *_placed(pixels, labels, fabric.device), BatchSampler(len(labels), **how)
    )
    loader.broken.update(reading.broken)
    return loader


def _placed(pixels: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if pixels.numel() < free // 2:
            return pixels.to(device), labels.to(device)
    return pixels, labels
