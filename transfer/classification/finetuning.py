"""Full fine-tuning: every weight is trained, the classifier is new. Reads top to bottom."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from pretrain.backbone import Backbone, Provenance, classifier_patterns
from pretrain.images import decode
from pretrain.progress import bar, log
from pretrain.run import Run, environment, plain
from pretrain.training import (
    Loader,
    MicroBatch,
    TrainLoop,
    TrainState,
    derive,
    make_train_state,
    optimizer_step,
    save_epoch,
    share_buffers,
    train_batching,
)
from transfer.classification.config import ClassificationConfig
from transfer.classification.confusion import confusion_matrix, mean_per_class, top1
from transfer.classification.folders import Indices
from transfer.classification.frozen import ModeResult
from transfer.classification.setup import ClassificationSetup
from transfer.feature_cache import ImageDataset


@dataclass(frozen=True)
class LabeledImageDataset:
    """What a loader reads in training: (image, label)."""

    paths: Sequence[Path]
    labels: Indices
    transform: v2.Compose

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(decode(self.paths[index])), int(self.labels[index])


def fine_tune(
    setup: ClassificationSetup,
    config: ClassificationConfig,
    run: Run,
    fabric: Fabric,
    stop_after: int | None = None,
) -> ModeResult:
    """Train the whole network, watching `val` after each epoch.

    Leaves RUN/classifier.pth (the last epoch; a backbone file with its classifier) and, where there
    is a test split, RUN/checkpoints/best.pth (the best by val).

    Raises:
        UsageError: too many broken images, or the training has diverged.
        Stopped: SIGINT or SIGTERM, or `stop_after`; the same call continues to the same bits.
    """
    # ---- set up
    data = setup.data
    state, loader = setup_training(setup, config, fabric)
    loop = TrainLoop(run, fabric, state, loader, config, num_metrics=2, stop_after=stop_after)
    loop.resume()
    has_test = data.scored is not data.val

    # ---- train
    with loop.running(f"fine-tuning {setup.backbone.name}"):
        for epoch in loop.epochs():
            state.model.train()
            for step, micro_batches in loop.steps(epoch):
                state.lr_scheduler.step_update(step)
                loop.finish_step(train_step(state, config, fabric, step, micro_batches))
                loop.checkpoint()
            loss, accuracy = loop.means()
            predictions, _ = predict(state.averaged, setup, data.val, config, fabric)
            matrix = confusion_matrix(predictions, data.labels[data.val], len(data.classes))
            record = {
                "lr": state.lr,
                "loss": loss,
                "train_top1": 100 * accuracy,
                "val_top1": top1(matrix),
                "images_per_second": round(loop.speed, 1),
            }
            if fabric.is_global_zero:
                # with a test split, the best by val is scored too
                options = replace(config.checkpoints, best=config.checkpoints.best or has_test)
                is_best = run.is_best("val_top1", record["val_top1"])
                make = partial(
                    _classifier, state.averaged, setup, config, epoch + 1, record, fabric
                )
                save_epoch(run, options, epoch + 1, is_best, make)
                log(
                    f"epoch {epoch + 1}/{loop.num_epochs}  loss {loss:.3f}  "
                    f"{'val' if has_test else data.scored_name} top-1 {record['val_top1']:.2f} %  "
                    f"{loop.speed:.0f} images/s"
                )
            loop.finish_epoch(record)
            loop.checkpoint()

    # ---- score the last epoch, and the best
    history = fabric.broadcast(run.read_log())
    last, best = history[-1], max(history, key=lambda record: record["val_top1"])
    predictions, broken = predict(state.averaged, setup, data.scored, config, fabric)
    labels = data.labels[data.scored]
    matrix = confusion_matrix(predictions, labels, len(data.classes))
    best_top1 = best["val_top1"]
    if has_test:
        network = Backbone.load(run.checkpoint.with_name("best.pth")).build().to(fabric.device)
        of_best, _ = predict(_channels_last(network), setup, data.scored, config, fabric)
        best_top1 = top1(confusion_matrix(of_best, labels, len(data.classes)))
    if fabric.is_global_zero:
        classifier = _classifier(state.averaged, setup, config, last["epoch"], last, fabric)
        classifier.save(run.folder / "classifier.pth")
    metrics = {
        "full_top1": top1(matrix),
        "full_mean_per_class": mean_per_class(matrix),
        "full_top1_best": best_top1,
        "best_epoch": best["epoch"],
        "epochs": last["epoch"],
        "loss": last["loss"],
        "images_per_second": last["images_per_second"],
        "full_seconds": round(loop.seconds, 1),
    }
    left_out = {data.names[data.train[index]] for index in loader.corrupt} | set(broken)
    return ModeResult(metrics, predictions, sorted(left_out))


def setup_training(
    setup: ClassificationSetup, config: ClassificationConfig, fabric: Fabric
) -> tuple[TrainState, Loader]:
    """The network with a new classifier on its device, and batches of training images."""
    data, backbone = setup.data, setup.backbone
    network = _channels_last(backbone.build(len(data.classes), derive(config.seed, "weights")))
    is_new = re.compile("|".join(classifier_patterns(network))).fullmatch
    crops = backbone.preprocess(train=True, min_scale=config.dataset.min_scale)
    loader = Loader(
        LabeledImageDataset(
            [data.paths[index] for index in data.train], data.labels[data.train], crops
        ),
        workers=config.loader.workers,
        prefetch=config.loader.prefetch,
        max_corrupt=config.dataset.max_corrupt,
        **train_batching(config, fabric),
    )
    state = make_train_state(
        network,
        config,
        fabric,
        steps_per_epoch=len(loader),
        lr_of=lambda name: config.optimizer.head_lr if is_new(name) else None,
    )
    return state, loader


def train_step(
    state: TrainState,
    config: ClassificationConfig,
    fabric: Fabric,
    step: int,
    micro_batches: Iterable[MicroBatch],
) -> Tensor:
    """One optimizer step from its micro-batches.

    Returns (2,): loss and accuracy, each summed over the micro-batches.
    """

    def loss_function(batch: MicroBatch) -> tuple[Tensor, Tensor]:
        images, labels = batch.data
        logits = state.model(images.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return loss, torch.stack([loss.detach().float(), accuracy])

    return optimizer_step(state, fabric, micro_batches, loss_function, step)


@torch.inference_mode()
def predict(
    network: nn.Module,
    setup: ClassificationSetup,
    indices: Indices,
    config: ClassificationConfig,
    fabric: Fabric,
) -> tuple[Indices, list[str]]:
    """(classes (N,) of images in their order, -1 for one left out; files left out).

    Args:
        network: not wrapped for training: each process sees its share, and knows all in the end.
        setup: images and preprocessing.
        indices: of the images.
        config: batch size, workers, broken images.
        fabric: device, precision, processes.
    """
    share_buffers(network, fabric)
    loader = Loader(
        ImageDataset([setup.data.paths[index] for index in indices], setup.backbone.preprocess()),
        batch_size=max(1, config.batch_size // (config.accumulate * fabric.world_size)),
        seed=0,
        workers=config.loader.workers,
        shuffle=False,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        max_corrupt=config.dataset.max_corrupt,
    )
    predictions = torch.zeros(len(indices), dtype=torch.int64, device=fabric.device)
    was_training = network.training
    network.eval()
    own = len(range(fabric.global_rank, len(indices), fabric.world_size))
    with bar("scoring", own, "images", shown=fabric.is_global_zero) as advance:
        for positions, images in loader.epoch(0):
            images = images.to(fabric.device, memory_format=torch.channels_last)
            with fabric.autocast():
                logits = network(images)
            predictions[positions.to(fabric.device)] = logits.argmax(1) + 1
            advance(len(images))
    network.train(was_training)
    loader.share_corrupt()
    everywhere: Any = fabric.all_reduce(predictions, reduce_op="sum")
    broken = [setup.data.names[indices[position]] for position in loader.corrupt]
    return np.asarray(everywhere.cpu()) - 1, broken


def _channels_last(network: nn.Module) -> nn.Module:
    """The values of a pixel side by side: faster, and the same bits wherever it is done."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _classifier(
    network: nn.Module,
    setup: ClassificationSetup,
    config: ClassificationConfig,
    epoch: int,
    record: dict[str, Any],
    fabric: Fabric,
) -> Backbone:
    """The fine-tuned network as a backbone file."""
    facts, data, origin = environment(fabric.device), setup.data, setup.backbone
    provenance = Provenance(
        recipe=plain(config),
        dataset=data.name,
        num_images=len(data.train),
        epochs=epoch,
        seed=config.seed,
        top1=record["val_top1"],
        classes=list(data.classes),
        commit=facts["commit"],
        versions=facts["versions"],
        created=facts["created"],
        source=f"{origin.method}, fine-tuned",
        stated={"from": origin.describe()},
    )
    return Backbone.of(network, replace(origin.spec, num_classes=len(data.classes)), provenance)
