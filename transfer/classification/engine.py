"""Classification transfer, from a backbone to its scores in each mode. Reads top to bottom."""

import json
import math
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from pretrain.backbone import Backbone, Provenance
from pretrain.errors import Stopped, UsageError
from pretrain.files import write_text
from pretrain.progress import bar, log
from pretrain.reading import Number, check, read_json
from pretrain.run import Result, Run, environment, plain
from pretrain.training import (
    BatchSampler,
    Loader,
    MicroBatch,
    TrainLoop,
    TrainState,
    admit,
    epochs_above_chance,
    from_rank_zero,
    optimizer_step,
    save_epoch,
    scoring_batching,
    share_buffers,
    train_batching,
)
from transfer.classification.config import ClassificationConfig
from transfer.classification.confusion import confusion_matrix, draw_confusion, most_confused, top1
from transfer.classification.folders import Indices
from transfer.classification.frozen import ModeResult, encode, knn, linear_probe
from transfer.classification.setup import ClassificationSetup, build, setup_training
from transfer.feature_cache import ImageDataset

_TITLES = {"linear": "linear probe", "knn": "k-NN", "full": "full fine-tuning"}


def finetune(
    backbone: Backbone,
    config: ClassificationConfig,
    run: Run,
    fabric: Fabric,
    *,
    stop_after: int | None = None,
) -> Result:
    """Measure a backbone by a linear probe, by nearest neighbours, by fine-tuning, as asked for.

    Leaves RUN/modes/MODE.json as each mode ends, RUN/predictions.json, a confusion picture, with
    full fine-tuning RUN/classifier.pth and, last, the result. What is chosen (penalty, k) is never
    chosen on the scored images: see `folders.open_image_folders`.

    Args:
        backbone: what is measured.
        config: the recipe.
        run: the folder, new or of a run to be continued: finished modes are not computed again.
        fabric: device, precision and processes; each process makes the same call.
        stop_after: stop after this step of fine-tuning, resumable.

    Raises:
        UsageError: the configuration or the data cannot be used.
        Stopped: SIGINT or SIGTERM, or `stop_after`; the same call continues to the same bits.
    """
    # ---- set up
    setup = build(backbone, config)
    start_run = admit(fabric, run, plain(config), backbone.fingerprint(), setup.files)
    results = from_rank_zero(fabric, lambda: _read_results(run, config))
    if "full" in config.modes:  # refuses before anything is encoded
        BatchSampler(len(setup.data.train), **train_batching(config, fabric))
    for note in setup.notes if fabric.is_global_zero else ():
        log(f"note: {note}")
    frozen, started = None, time.monotonic()
    if {*config.modes} - {*results} - {"full"}:
        frozen = encode(setup, config, fabric)
    encoding = time.monotonic() - started
    start_run()
    for mode, before in results.items() if fabric.is_global_zero else ():
        log(f"{_TITLES[mode]}: done before, {before.metrics[f'{mode}_top1']:.2f} % top-1")

    # ---- measure, one mode after another
    for mode in config.modes:
        if mode in results:
            continue
        started = time.monotonic()
        try:
            if mode == "full":
                results[mode] = train_classifier(setup, config, run, fabric, stop_after)
            else:
                assert frozen is not None
                results[mode] = (linear_probe if mode == "linear" else knn)(frozen, config)
        except KeyboardInterrupt as error:  # fine-tuning stops between two steps by itself
            done = f"{len(results)} of {len(config.modes)} modes"
            raise Stopped(str(run.folder), done, signal.SIGINT) from error
        metrics = results[mode].metrics
        if mode != "full":  # whose clock goes on over a stop, and whose epochs are logged
            metrics[f"{mode}_seconds"] = round(time.monotonic() - started, 1)
            tuned = "penalty" if mode == "linear" else "k"
            text = f"{metrics[f'{mode}_top1']:.2f} % top-1, {tuned} {metrics[f'{mode}_{tuned}']:g}"
            if fabric.is_global_zero:
                log(f"{_TITLES[mode]}: {text}")
        if fabric.is_global_zero:
            write_text(run.folder / f"modes/{mode}.json", json.dumps(asdict(results[mode])))

    # ---- leave predictions, the picture and, last, the result
    result = None
    if fabric.is_global_zero:
        result = _finish(run, results, setup, config, fabric, encoding)
    return fabric.broadcast(result)  # type: ignore[return-value]


def train_classifier(
    setup: ClassificationSetup,
    config: ClassificationConfig,
    run: Run,
    fabric: Fabric,
    stop_after: int | None = None,
) -> ModeResult:
    """Full fine-tuning: train every weight and a new classifier, watching `val` after each epoch.

    Leaves RUN/classifier.pth (the last epoch; a backbone file with its classifier) and, where there
    is a test split, RUN/checkpoints/best.pth (the best by val).

    Raises:
        UsageError: too many broken images, or the training has diverged.
        Stopped: SIGINT or SIGTERM, or `stop_after`; the same call continues to the same bits.
    """
    # ---- set up
    data = setup.data
    state, loader = setup_training(setup, config, fabric)
    chance = math.log(len(data.classes))
    loop = TrainLoop(
        run, fabric, state, loader, config, num_metrics=2, stop_after=stop_after, chance=chance
    )
    loop.resume()
    has_test = data.scored is not data.val
    # with a test split, the best by val is scored too
    keep = replace(config.checkpoints, best=config.checkpoints.best or has_test)

    val = scoring_loader(setup, data.val, config, fabric)
    scored = scoring_loader(setup, data.scored, config, fabric) if has_test else val

    def evaluate(network: nn.Module, loader: Loader, indices: Indices) -> float:
        predictions = predict(network, loader, fabric)
        return top1(confusion_matrix(predictions, data.labels[indices], len(data.classes)))

    # ---- train
    with loop.running(f"fine-tuning {setup.backbone.name}"):
        for epoch in loop.epochs():
            state.model.train()
            for step, micro_batches in loop.steps(epoch):
                state.lr_scheduler.step_update(step)
                loop.finish_step(train_step(state, config, fabric, step, micro_batches))
                loop.checkpoint()
            loss, accuracy = loop.means()
            record = {
                "lr": state.lr,
                "loss": loss,
                "train_top1": 100 * accuracy,
                "val_top1": evaluate(state.averaged, val, data.val),
                "images_per_second": round(loop.speed, 1),
            }
            if fabric.is_global_zero:
                is_best = run.is_best("val_top1", record["val_top1"])
                facts = {**record, "epoch": epoch + 1}
                make = partial(_classifier, state, setup, config, facts, fabric)
                save_epoch(run, keep, epoch + 1, is_best, make)
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
    predictions = predict(state.averaged, scored, fabric)
    best_top1 = best["val_top1"]
    if has_test:
        network: Any = Backbone.load(run.checkpoint.with_name("best.pth")).build()
        network.to(fabric.device, memory_format=torch.channels_last)
        best_top1 = evaluate(network, scored, data.scored)
    if fabric.is_global_zero:
        _classifier(state, setup, config, last, fabric).save(run.folder / "classifier.pth")
    metrics = {
        "full_top1_best": best_top1,
        "best_epoch": best["epoch"],
        "epochs": last["epoch"],
        "loss": last["loss"],
        "epochs_above_chance": epochs_above_chance((one["loss"] for one in history), chance),
        "images_per_second": last["images_per_second"],
        "full_seconds": round(loop.seconds, 1),
    }
    left_out = {data.names[data.train[index]] for index in loader.corrupt}
    left_out |= {data.names[data.scored[index]] for index in scored.corrupt}
    return ModeResult.of("full", data, predictions, left_out, metrics)


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
        labels, images = batch.data
        logits = state.model(images.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return loss, torch.stack([loss.detach().float(), accuracy])

    return optimizer_step(state, fabric, micro_batches, loss_function, step)


def scoring_loader(
    setup: ClassificationSetup, indices: Indices, config: ClassificationConfig, fabric: Fabric
) -> Loader:
    """What `predict` reads: the images of a split, each process its share."""
    return Loader(
        ImageDataset([setup.data.paths[index] for index in indices], setup.backbone.preprocess()),
        workers=config.loader.workers,
        max_corrupt=config.dataset.max_corrupt,
        keep=True,
        **scoring_batching(config, fabric),
    )


@torch.inference_mode()
def predict(network: nn.Module, loader: Loader, fabric: Fabric) -> Indices:
    """The classes (N,) of images in their order, -1 for one left out.

    Args:
        network: not wrapped for training: each process sees its share, and knows all in the end.
            Stays in evaluation mode.
        loader: see `scoring_loader`; it knows what could not be read.
        fabric: device, precision, processes.
    """
    share_buffers(network, fabric)
    count = loader.batches.count
    predictions = torch.zeros(count, dtype=torch.int64, device=fabric.device)
    network.eval()
    with bar("scoring", count, "images", shown=fabric.is_global_zero) as advance:
        for positions, images in loader.epoch(0):
            images = images.to(fabric.device, memory_format=torch.channels_last)
            with fabric.autocast():
                logits = network(images)
            predictions[positions.to(fabric.device)] = logits.argmax(1) + 1
            advance(len(images) * fabric.world_size)
    loader.share_corrupt()
    everywhere: Any = fabric.all_reduce(predictions, reduce_op="sum")
    return np.asarray(everywhere.cpu()) - 1


def _read_results(run: Run, config: ClassificationConfig) -> dict[str, ModeResult]:
    """The modes that the run had finished; UsageError where one of their files cannot be read."""
    results = {}
    for mode in config.modes:
        file = run.folder / f"modes/{mode}.json"
        try:
            if file.exists():
                found = check(read_json(file), ModeResult, str(file))
                check(found.metrics.get(f"{mode}_top1"), Number, f"{file}: metrics.{mode}_top1")
                results[mode] = found
        except UsageError as error:
            raise UsageError(f"{error}. Remove it: the mode is measured again.") from error
    return results


def _classifier(
    state: TrainState,
    setup: ClassificationSetup,
    config: ClassificationConfig,
    record: dict[str, Any],
    fabric: Fabric,
) -> Backbone:
    """The fine-tuned network as a backbone file."""
    facts, data, origin = environment(fabric.device), setup.data, setup.backbone
    provenance = Provenance(
        recipe=plain(config),
        dataset=data.name,
        num_images=len(data.train),
        epochs=record["epoch"],
        seed=config.seed,
        top1=record["val_top1"],
        classes=list(data.classes),
        commit=facts["commit"],
        versions=facts["versions"],
        created=facts["created"],
        source=f"{origin.method}, fine-tuned",
        stated={"from": origin.describe()},
    )
    spec = replace(origin.spec, num_classes=len(data.classes))
    return Backbone.of(state.averaged, spec, provenance)


def _finish(
    run: Run,
    results: dict[str, ModeResult],
    setup: ClassificationSetup,
    config: ClassificationConfig,
    fabric: Fabric,
    encoding: float,
) -> Result:
    data, headline = setup.data, config.modes[0]
    predictions = np.array(results[headline].predicted)
    matrix = confusion_matrix(predictions, data.labels[data.scored], len(data.classes))
    metrics = {key: value for mode in config.modes for key, value in results[mode].metrics.items()}
    left_out = sorted({name for result in results.values() for name in result.left_out})
    # file below DIR -> its class, and what each mode takes it for; null (-1): it cannot be read
    names = [*data.classes, None]
    rows = {
        data.names[index]: {"true": data.classes[data.labels[index]]}
        | {mode: names[result.predicted[row]] for mode, result in results.items()}
        for row, index in enumerate(data.scored)
    }
    write_text(run.folder / "predictions.json", json.dumps(rows, indent=1))
    title = (
        f"{_TITLES[headline]}, {setup.given.name}: {top1(matrix):.1f} % right\n"
        f"{matrix.sum():,} images of {data.name}, {data.scored_name}"
    )
    draw_confusion(matrix, data.classes, title, run.picture("confusion.png"))
    result = Result(
        task="classification",
        metric=f"{headline}_top1",
        metrics={
            **metrics,
            "modes": config.modes,
            "scored": data.scored_name,
            "chosen_on": data.chosen_on,
            "confused": most_confused(matrix, data.classes),
            "images_left_out": len(left_out),
            "left_out": left_out[:20],
        },
        backbone=setup.given.describe(),
        data=setup.data_summary,
        seed=config.seed,
        config=plain(config),
        seconds=round(encoding + sum(metrics[f"{mode}_seconds"] for mode in config.modes), 1),
        environment={**environment(fabric.device), "processes": fabric.world_size},
    )
    run.finish(result)
    return result
