"""Pretraining, from a configuration to a backbone file. Reads top to bottom."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from timm.optim._optim_factory import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from pretrain.backbone import Backbone, BackboneSpec, Provenance, evaluation_crop
from pretrain.config import DatasetConfig, MixingConfig, PretrainConfig
from pretrain.data.image_folder import (
    ImageFolder,
    check_same_classes,
    open_image_folder,
    validation_split,
)
from pretrain.errors import UserError
from pretrain.mixing import CutMix, Cutout, Mix, Mixed, Mixup, unmixed
from pretrain.pictures import draw_curves, draw_mixed_batch
from pretrain.progress import say
from pretrain.run import Result, Run, environment, plain
from pretrain.training import Course, Loader, derive, generator, schedule


@dataclass(frozen=True)
class Prepared:
    """What a configuration comes to, before the first step."""

    train: ImageFolder
    val: ImageFolder
    spec: BackboneSpec
    model: nn.Module
    mix: Mix
    steps_per_epoch: int


def prepare(config: PretrainConfig) -> Prepared:
    """Open the data and build the network; every mistake a user can make shows here."""
    if config.data is None:
        raise UserError("no data: give --data DIR with image folders")
    root, options = Path(config.data), config.dataset
    train = open_image_folder(root, options.train, training_crop(options))
    size = options.image_size
    crop = evaluation_crop(size, size, options.crop_pct, InterpolationMode.BILINEAR)
    val = open_image_folder(root, validation_split(root, options.val), v2.Compose(crop))
    check_same_classes(train, val)
    spec = BackboneSpec(
        arch=config.model.arch,
        model_args=config.model.args,
        input_size=(3, size, size),
        mean=options.mean,
        std=options.std,
        interpolation="bilinear",
        crop_pct=options.crop_pct,
        num_classes=len(train.classes),
    )
    model = spec.create(spec.num_classes, derive(config.seed, "weights"))
    steps = len(train) // config.batch_size
    return Prepared(train, val, spec, model, make_mix(config.mixing), steps)


def training_crop(options: DatasetConfig) -> v2.Compose:
    """Crop and flip on uint8 images, drawing from torch's ambient generator."""
    size = options.image_size
    if options.crop == "resized":
        crop: list[nn.Module] = [v2.RandomResizedCrop(size, (options.min_scale, 1), antialias=True)]
    else:
        crop = [v2.Resize(size, antialias=True), v2.RandomCrop(size, padding=size // 8)]
    return v2.Compose([*crop, v2.RandomHorizontalFlip(options.flip)])


def make_mix(options: MixingConfig) -> Mix:
    """The mixing method of a configuration."""
    match options.method:
        case "none":
            return lambda images, labels, num_classes, _: unmixed(images, labels, num_classes)
        case "cutmix":
            return CutMix(
                alpha=options.alpha,
                probability=options.probability,
                box=options.box,
                granularity=options.granularity,
            )
        case "mixup":
            return Mixup(
                alpha=options.alpha,
                probability=options.probability,
                granularity=options.granularity,
            )
        case "cutout":
            return Cutout(side=options.side, probability=options.probability)


def pretrain(config: PretrainConfig, run: Run, fabric: Fabric) -> Result:
    """Train a backbone; leaves RUN/backbone.pth (the last epoch's weights) and the result.

    The last epoch is kept, not the best: choosing by the validation images is a selection. The
    result has both figures.

    Raises:
        UserError: the configuration or the data cannot be used.
        Stopped: SIGINT or SIGTERM; the same call continues to the same bits.
    """
    # ---- set up
    ready = prepare(config)
    settings: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "workers": config.workers,
    }
    train = Loader(ready.train, shuffle=True, drop_last=True, **settings)
    val = Loader(ready.val, shuffle=False, **settings)
    run.start(plain(config))
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    network = ready.model.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(
        network,
        opt="sgd",  # timm's "sgd" is with Nesterov momentum
        lr=config.optimizer.lr,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        filter_bias_and_bn=False,
    )
    model, optimizer = fabric.setup(network, optimizer)
    rates = schedule(
        optimizer,
        config.optimizer.schedule,
        steps_per_epoch=len(train),
        epochs=config.epochs,
        warmup_epochs=config.optimizer.warmup_epochs,
        milestones=config.optimizer.milestones,
    )
    normalise = v2.Compose(ready.spec.normalisation())
    course = Course(
        run,
        fabric,
        model,
        optimizer,
        rates,
        train,
        epochs=config.epochs,
        seed=config.seed,
        num_sums=2,
    )

    # ---- train
    with course.running(f"{config.model.arch}, {config.mixing.method}"):
        for epoch in course.epochs():
            model.train()
            for step, (images, labels) in course.steps(epoch):
                images = normalise(images).contiguous(memory_format=layout)
                draw = generator(config.seed, "mixing", step)
                mixed = ready.mix(images, labels, ready.spec.num_classes, draw)
                if step == 0:
                    draw_mixed_batch(
                        mixed,
                        ready.train.classes,
                        ready.spec.mean,
                        ready.spec.std,
                        run.picture("mixed_batch.png"),
                    )
                course.sums += train_step(model, optimizer, fabric, mixed, config)
            (loss, accuracy), speed = course.means(), course.speed
            record = {
                "lr": optimizer.param_groups[0]["lr"],
                "train_loss": loss,
                "train_accuracy": 100 * accuracy,
                **evaluate(model, val, normalise, fabric, layout),
                "images_per_second": round(speed, 1),
            }
            course.finish_epoch(record)
            say(
                f"epoch {epoch + 1}/{config.epochs}  loss {loss:.3f}  accuracy on mixed labels "
                f"{100 * accuracy:.1f} %  validation top-1 {record['top1']:.2f} %  "
                f"{speed:.0f} images/s"
            )

    # ---- leave the backbone, the pictures and, last, the result
    log = run.read_log()
    last, best = log[-1], max(log, key=lambda record: record["top1"])
    facts = environment(fabric.device)
    backbone = Backbone.of(
        model.module,
        ready.spec,
        Provenance(
            recipe=plain(config),
            dataset=Path(config.data or "").name,
            num_images=len(ready.train),
            epochs=config.epochs,
            seed=config.seed,
            top1=last["top1"],
            commit=facts["commit"],
            versions=facts["versions"],
            created=facts["created"],
        ),
    )
    backbone.save(run.folder / "backbone.pth")
    draw_curves(log, config.mixing.method, run.picture("curves.png"))
    result = Result(
        task="pretrain",
        metric="top1",
        metrics={
            **{key: last[key] for key in ("top1", "top5", "val_loss", "train_loss")},
            "top1_best": best["top1"],
            "best_epoch": best["epoch"],
            "epochs": config.epochs,
            "images_per_second": last["images_per_second"],
        },
        backbone=backbone.describe(),
        data={
            "name": Path(config.data or "").name,
            "train": len(ready.train),
            "val": len(ready.val),
            "classes": len(ready.train.classes),
        },
        seed=config.seed,
        config=plain(config),
        seconds=round(course.seconds, 1),
        environment=facts,
    )
    run.finish(result)
    return result


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fabric: Fabric,
    mixed: Mixed,
    config: PretrainConfig,
) -> Tensor:
    """One optimiser step. Returns (2,): loss, and accuracy against the mixed label.

    A prediction earns the weight that the mixed target gives it: counting hits on the own label
    alone (as the official code does) says nothing about a mixed image.
    """
    logits = model(mixed.images)
    smoothing = config.optimizer.label_smoothing
    loss = functional.cross_entropy(logits, mixed.targets, label_smoothing=smoothing)
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    optimizer.step()
    with torch.no_grad():
        accuracy = mixed.targets.gather(1, logits.argmax(1, keepdim=True)).mean()
        return torch.stack([loss, accuracy]).float()


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    normalise: v2.Compose,
    fabric: Fabric,
    layout: torch.memory_format,
) -> dict[str, Any]:
    """Top-1 and top-5 in percent and mean loss over every image of the loader."""
    model.eval()
    sums = torch.zeros(3, device=fabric.device)
    count = 0
    for images, labels in loader.epoch(0):
        images, labels = fabric.to_device((images, labels))
        logits = model(normalise(images).contiguous(memory_format=layout)).float()
        hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([hits[:, 0].sum(), hits.sum(), loss])
        count += len(labels)
    top1, top5, loss = (sums / count).tolist()
    return {"top1": 100 * top1, "top5": 100 * top5, "val_loss": loss}
