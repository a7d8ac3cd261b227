"""What the pretraining benchmark compares: this project and timm's train.py, on one device."""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2
from torch.nn import functional

from pretrain.config import MixingConfig, ModelConfig, OptimizerConfig, PretrainConfig
from pretrain.data import Transformed, collate
from pretrain.data.crops import RandomResizedCrop
from pretrain.data.folders import open_folder
from pretrain.data.pixels import Pixels
from pretrain.engine import train_step
from pretrain.setup import Gear, PretrainSetup
from pretrain.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec
from pretrain.training import Loader, make_fabric, micro_batches
from tools.benchmarks._timing import wait


def our_loader(options: argparse.Namespace, workers: int) -> Any:
    """Batches of our loader, decoded, cropped."""
    images = open_folder(options.images, ".")
    return Loader(
        Transformed(images, RandomResizedCrop(options.size)),
        batch_size=options.batch,
        seed=0,
        workers=workers,
        shuffle=True,
        drop_last=True,
        collate=collate,
    )


def timm_loader(options: argparse.Namespace, workers: int) -> Any:
    """Timm's loader as its train.py makes it: normalised batches on the device."""
    dataset = create_dataset("", root=str(options.images), split="train", search_split=False)
    return create_loader(
        dataset,
        input_size=(3, options.size, options.size),
        batch_size=options.batch,
        is_training=True,
        hflip=0.5,
        color_jitter=None,  # type: ignore[arg-type]
        interpolation="bilinear",
        num_workers=workers,
        device=torch.device(options.device),
        persistent_workers=workers > 0,
    )


def our_pixels(options: argparse.Namespace) -> Any:
    """Normalisation and flip."""
    return Pixels(mean=IMAGENET_MEAN, std=IMAGENET_STD, flip=0.5, memory_format=torch.channels_last)


def our_side(options: argparse.Namespace, loader: Any) -> Callable[[Any], None]:
    """A training step of this project on (uint8 images, labels)."""
    config = PretrainConfig(
        model=ModelConfig(arch=options.arch),
        mixing=MixingConfig(),
        optimizer=OptimizerConfig(decay_norm_and_bias=False),
        precision=options.precision,
        batch_size=options.batch,
    )
    fabric = make_fabric(options.device, options.precision)
    spec = BackboneSpec(arch=options.arch, num_classes=1000)
    network = spec.create(1000, 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4)
    model, wrapped = fabric.setup(network, optimizer)
    model.train()
    none: Any = None
    gear = Gear(network, model, wrapped, none, None, loader, loader, our_pixels(options))
    setup = PretrainSetup(none, spec, network, 1000, "cutmix")
    count = [0]

    def one(batch: Any) -> None:
        count[0] += 1
        parts = micro_batches(count[0], [batch], loader, fabric, 0)
        train_step(gear, setup, config, fabric, count[0], parts)
        wait(options.device)

    return one


def network_alone(options: argparse.Namespace) -> Callable[[Any], None]:
    """Forward, backward and optimiser of the same network on (normalised images, labels)."""
    network, optimizer = _built(options, torch.channels_last)

    def one(batch: Any) -> None:
        images, labels = batch
        with _autocast(options):
            loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait(options.device)

    return one


def timm_side(options: argparse.Namespace, channels_last: bool) -> Callable[[Any], None]:
    """A training step of timm's train.py on (normalised images, labels)."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model, optimizer = _built(options, layout)
    mixup = Mixup(mixup_alpha=0, cutmix_alpha=1.0, label_smoothing=0, num_classes=1000)
    criterion = SoftTargetCrossEntropy()

    def one(batch: Any) -> None:
        images, labels = mixup(*batch)
        images = images.contiguous(memory_format=layout)
        with _autocast(options):
            loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait(options.device)

    return one


def _built(options: argparse.Namespace, layout: torch.memory_format) -> tuple[Any, Any]:
    model: Any = timm.create_model(options.arch, num_classes=1000)
    model = model.to(options.device, memory_format=layout)
    model.train()
    return model, create_optimizer_v2(model, opt="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4)


def _autocast(options: argparse.Namespace) -> torch.autocast:
    enabled = options.precision == "bf16-mixed"
    return torch.autocast(options.device, torch.bfloat16, enabled=enabled)


def forever(loader: Any) -> Iterator[Any]:
    """Batches, epoch after epoch."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch) if hasattr(loader, "epoch") else loader
        epoch += 1
