"""Full fine-tuning: every weight is trained, the classifier is new. Reads top to bottom."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from pretrain.training import Loader, TrainLoop, derive, out_of_memory_hint, schedule
from transfer.classification.config import ClassificationConfig, SolverConfig
from transfer.classification.confusion import confusion_matrix, mean_per_class, top1
from transfer.classification.folders import Indices
from transfer.classification.setup import ClassificationSetup, training_batches
from transfer.feature_cache import ImageDataset


@dataclass(frozen=True)
class Labelled:
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
) -> tuple[dict[str, Any], Indices, list[str]]:
    """Train the whole network, watching `val` after each epoch.

    Leaves RUN/classifier.pth (the last epoch; a backbone file with its classifier) and, where there
    is a test split, RUN/checkpoints/best.pth (the best by val).

    Returns:
        metrics; the predictions for the scored images, -1 for one left out; files left out.

    Raises:
        UsageError: too many broken images, or the training has diverged.
        Stopped: SIGINT or SIGTERM, or `stop_after`; the same call continues to the same bits.
    """
    # ---- set up
    data, backbone, solver = setup.data, setup.backbone, config.solver
    network = _laid_out(backbone.build(len(data.classes), derive(config.seed, "weights")))
    optimizer = make_optimizer(network, solver)
    model, wrapped = fabric.setup(network, optimizer)
    paths = [data.paths[number] for number in data.train]
    crops = backbone.preprocess(train=True, min_scale=solver.min_scale)
    loader = Loader(
        Labelled(paths, data.labels[data.train], crops),
        workers=config.workers,
        max_corrupt=config.dataset.max_corrupt,
        **training_batches(data, config, fabric),
    )
    rates = schedule(
        wrapped,
        "cosine",
        steps_per_epoch=len(loader),
        epochs=config.epochs,
        warmup_epochs=solver.warmup_epochs,
    )
    loop = TrainLoop(
        run,
        fabric,
        model,
        wrapped,
        rates,
        loader,
        epochs=config.epochs,
        seed=config.seed,
        num_sums=2,
        stop_after=stop_after,
    )
    tested = data.scored is not data.val

    # ---- train
    with (
        out_of_memory_hint(fabric, config.batch_size, config.accumulate),
        loop.running(f"fine-tuning {backbone.name}"),
    ):
        for epoch in loop.epochs():
            model.train()
            for _, parts in loop.steps(epoch):
                for part in parts:
                    images, labels = part.batch
                    images = images.contiguous(memory_format=torch.channels_last)
                    with fabric.no_backward_sync(model, enabled=not part.last):
                        logits = model(images)
                        smoothing = solver.label_smoothing
                        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
                        fabric.backward(loss / config.accumulate)
                    right = (logits.argmax(1) == labels).float().mean()
                    loop.sums += torch.stack([loss.detach().float(), right])
                if solver.clip is not None:
                    fabric.clip_gradients(
                        model, wrapped, max_norm=solver.clip, error_if_nonfinite=False
                    )
                wrapped.step()
                wrapped.zero_grad(set_to_none=True)
            (loss_mean, accuracy), speed = loop.means(), loop.speed
            said, _ = predict(network, setup, data.val, config, fabric)
            record = {
                "lr": wrapped.param_groups[0]["lr"],
                "loss": loss_mean,
                "train_top1": 100 * accuracy,
                "val_top1": top1(confusion_matrix(said, data.labels[data.val], len(data.classes))),
                "images_per_second": round(speed, 1),
            }
            if tested and fabric.is_global_zero and _is_best(run, record):
                leading = _classifier(network, setup, config, epoch + 1, record, fabric)
                leading.save(run.checkpoint.with_name("best.pth"))
            loop.finish_epoch(record)
            if fabric.is_global_zero:
                log(
                    f"epoch {epoch + 1}/{config.epochs}  loss {loss_mean:.3f}  "
                    f"{'val' if tested else data.scored_name} top-1 {record['val_top1']:.2f} %  "
                    f"{speed:.0f} images/s"
                )

    # ---- score the last epoch, and the best
    history = fabric.broadcast(run.read_log())
    last, leader = history[-1], max(history, key=lambda record: record["val_top1"])
    said, broken = predict(network, setup, data.scored, config, fabric)
    truth = data.labels[data.scored]
    matrix = confusion_matrix(said, truth, len(data.classes))
    best_top1 = leader["val_top1"]
    if tested:
        best = Backbone.load(run.checkpoint.with_name("best.pth")).build().to(fabric.device)
        held, _ = predict(_laid_out(best), setup, data.scored, config, fabric)
        best_top1 = top1(confusion_matrix(held, truth, len(data.classes)))
    if fabric.is_global_zero:
        classifier = _classifier(network, setup, config, config.epochs, last, fabric)
        classifier.save(run.folder / "classifier.pth")
    metrics = {
        "full_top1": top1(matrix),
        "full_mean_per_class": mean_per_class(matrix),
        "full_top1_best": best_top1,
        "best_epoch": leader["epoch"],
        "epochs": config.epochs,
        "loss": last["loss"],
        "images_per_second": last["images_per_second"],
        "full_seconds": round(loop.seconds, 1),
    }
    left_out = [data.names[data.train[number]] for number in loader.broken]
    return metrics, said, sorted({*left_out, *broken})


def make_optimizer(network: nn.Module, config: SolverConfig) -> torch.optim.Optimizer:
    """Four groups: backbone and new classifier, each with and without weight decay."""
    is_new = re.compile("|".join(classifier_patterns(network))).fullmatch
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        rests = parameter.ndim <= 1  # norms and biases
        groups.setdefault((is_new(name) is not None, rests), []).append(parameter)
    described = [
        {
            "params": parameters,
            "lr": config.head_lr if new else config.lr,
            "weight_decay": 0.0 if rests else config.weight_decay,
        }
        for (new, rests), parameters in sorted(groups.items(), key=lambda entry: entry[0])
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(described)
    return torch.optim.SGD(described, momentum=0.9, nesterov=True)


@torch.inference_mode()
def predict(
    network: nn.Module,
    setup: ClassificationSetup,
    numbers: Indices,
    config: ClassificationConfig,
    fabric: Fabric,
) -> tuple[Indices, list[str]]:
    """(classes (N,) of images in their order, -1 for one left out; files left out).

    Args:
        network: not wrapped for training: each process sees its share, and knows all in the end.
        setup: images and preprocessing.
        numbers: the images.
        config: batch size, workers, broken images.
        fabric: device, precision, processes.
    """
    if fabric.world_size > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)
    loader = Loader(
        ImageDataset([setup.data.paths[number] for number in numbers], setup.backbone.preprocess()),
        batch_size=max(1, config.batch_size // (config.accumulate * fabric.world_size)),
        seed=0,
        workers=config.workers,
        shuffle=False,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        max_corrupt=config.dataset.max_corrupt,
    )
    said = torch.zeros(len(numbers), dtype=torch.int64, device=fabric.device)
    was_training = network.training
    network.eval()
    own = len(range(fabric.global_rank, len(numbers), fabric.world_size))
    with bar("scoring", own, "images", shown=fabric.is_global_zero) as advance:
        for places, images in loader.epoch(0):
            images = images.to(fabric.device, memory_format=torch.channels_last)
            with fabric.autocast():
                logits = network(images)
            said[places.to(fabric.device)] = logits.argmax(1) + 1
            advance(len(images))
    network.train(was_training)
    loader.share_corrupt()
    everywhere: Any = fabric.all_reduce(said, reduce_op="sum")
    broken = [setup.data.names[numbers[place]] for place in loader.broken]
    return np.asarray(everywhere.cpu()) - 1, broken


def _laid_out(network: nn.Module) -> nn.Module:
    """The values of a pixel side by side: faster, and the same bits wherever it is done."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _is_best(run: Run, record: dict[str, Any]) -> bool:
    return all(record["val_top1"] > before["val_top1"] for before in run.read_log())


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
