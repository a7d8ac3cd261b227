"""Detection transfer, from a backbone to its average precision. Reads top to bottom."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.files import write_text
from pretrain.progress import log
from pretrain.run import Result, Run, environment, plain
from pretrain.training import (
    Loader,
    MicroBatch,
    TrainLoop,
    TrainState,
    admit,
    optimizer_step,
    save_epoch,
    scoring_batching,
    share_buffers,
)
from transfer.detection.average_precision import VocScores
from transfer.detection.average_precision import evaluate as score
from transfer.detection.config import DetectionConfig
from transfer.detection.inference import DetectorFile, detect, scoring_loader
from transfer.detection.loss_normalizer import update_loss_normalizers
from transfer.detection.pictures import draw_all
from transfer.detection.setup import DetectionSetup, build, resolved, setup_training


def finetune(
    backbone: Backbone,
    config: DetectionConfig,
    run: Run,
    fabric: Fabric,
    *,
    stop_after: int | None = None,
) -> Result:
    """Train a detector from a backbone and score it.

    Leaves RUN/detector.pth, RUN/detections.json (COCO-style results), pictures and the result.

    Args:
        backbone: where the detector starts from.
        config: the recipe.
        run: the folder, new or of a run to be continued.
        fabric: device, precision and processes; each process makes the same call.
        stop_after: stop after this step of the run, resumable.

    Raises:
        UsageError: the configuration or the data cannot be used.
        Stopped: SIGINT or SIGTERM, or `stop_after`; the same call continues to the same bits.
    """
    config = resolved(config)
    # ---- set up
    setup = build(backbone, config)
    start_run = admit(fabric, run, plain(config), backbone.fingerprint(), setup.files)
    state, loader = setup_training(setup, config, fabric)
    start_run()
    for note in (f"engine {config.engine}", *setup.data.notes) if fabric.is_global_zero else ():
        log(f"note: {note}")
    names = setup.losses
    loop = TrainLoop(
        run, fabric, state, loader, config, num_metrics=len(names), stop_after=stop_after
    )
    loop.resume()
    score_every = config.steps(len(loader), config.score_every)
    classes = setup.data.train.classes
    detector = DetectorFile(state.averaged, setup.backbone, config, classes)
    test_images = scoring_loader(
        setup.data.test.images,
        config.dataset,
        fabric,
        batch_size=scoring_batching(config, fabric)["batch_size"],
        workers=config.loader.workers,
    )

    # ---- train
    evaluated: tuple[list[dict[str, Any]], VocScores] | None = None
    with loop.running(f"detector from {setup.backbone.name}"):
        for epoch in loop.epochs():
            state.model.train()
            for step, micro_batches in loop.steps(epoch):
                state.lr_scheduler.step_update(step)
                loop.finish_step(train_step(state, names, fabric, step, micro_batches))
                loop.checkpoint()
            losses = loop.means()
            record: dict[str, Any] = {
                "lr": state.lr,
                "loss": sum(losses),
                **dict(zip(names, losses, strict=True)),
                "images_per_second": round(loop.speed, 2),
            }
            if loop.is_due(score_every):
                evaluated = evaluate(state, setup, test_images, fabric)
                mean = evaluated[1].mean["voc07"]
                record |= {key: mean[key] for key in ("AP50", "AP") if mean[key] is not None}
            if fabric.is_global_zero:
                is_best = "AP50" in record and run.is_best("AP50", record["AP50"])
                save_epoch(run, config.checkpoints, epoch + 1, is_best, lambda: detector)
                ap50 = f"  AP50 {record['AP50']:.1f}" if "AP50" in record else ""
                log(
                    f"epoch {epoch + 1}/{loop.num_epochs}  loss {sum(losses):.3f}{ap50}  "
                    f"{loop.speed:.3g} images/s"
                )
            loop.finish_epoch(record)
            loop.checkpoint()

    # ---- score, and leave the detector, the pictures and, last, the result
    if evaluated is None:  # stopped after the last epoch
        evaluated = evaluate(state, setup, test_images, fabric)
    result = None
    if fabric.is_global_zero:
        result = _finish(run, detector, setup, config, fabric, evaluated, loop)
    return fabric.broadcast(result)  # type: ignore[return-value]


def train_step(
    state: TrainState,
    names: Sequence[str],
    fabric: Fabric,
    step: int,
    micro_batches: Iterable[MicroBatch],
) -> Tensor:
    """One optimizer step from its micro-batches.

    Returns (len(names),): the detector's losses, each summed over the micro-batches.
    """

    def loss_function(batch: MicroBatch) -> tuple[Tensor, Tensor]:
        losses = state.model(*batch.data)
        stacked = torch.stack([losses[name] for name in names])
        return stacked.sum(), stacked

    losses = optimizer_step(state, fabric, micro_batches, loss_function, step)
    update_loss_normalizers(state.network, fabric)
    return losses


def evaluate(
    state: TrainState, setup: DetectionSetup, test_images: Loader, fabric: Fabric
) -> tuple[list[dict[str, Any]], VocScores]:
    """Detections in the test split (COCO-style results) and their scores, in every process."""
    share_buffers(state.averaged, fabric)
    truth, classes = setup.data.test, setup.data.train.classes
    detections = detect(state.averaged, test_images, truth.images, classes, fabric)
    return detections, score(truth, detections)


def _finish(
    run: Run,
    detector: DetectorFile,
    setup: DetectionSetup,
    config: DetectionConfig,
    fabric: Fabric,
    evaluated: tuple[list[dict[str, Any]], VocScores],
    loop: TrainLoop,
) -> Result:
    detections, scores = evaluated
    write_text(run.folder / "detections.json", json.dumps(detections))
    detector.save(run.folder / "detector.pth")
    seconds = round(loop.seconds, 1)
    draw_all(setup.data.test, detections, run, setup.losses)
    history = run.read_log()
    scored = [record for record in history if "AP50" in record]
    # where no class has an object to find there is no mean, and so no metric
    means = {**scores.mean["voc07"], **{f"{k}_area": v for k, v in scores.mean["area"].items()}}
    metrics: dict[str, Any] = {key: value for key, value in means.items() if value is not None}
    if scored:
        best = max(scored, key=lambda record: record["AP50"])
        metrics |= {"AP50_best": best["AP50"], "best_epoch": best["epoch"]}
    result = Result(
        task="detection",
        metric="AP50",
        metrics={
            **metrics,  # the headline is the 11-point figure, as the paper's
            "per_class_AP50": scores.voc07["0.50"],
            "classes_in_mean": scores.num_classes,
            "scored_epochs": len(scored),
            "epochs": history[-1]["epoch"],
            "images_per_second": history[-1]["images_per_second"],
        },
        backbone=setup.backbone.describe(),
        data=setup.data_summary,
        seed=config.seed,
        config=plain(config),
        seconds=seconds,
        environment={**environment(fabric.device), "processes": fabric.world_size},
    )
    run.finish(result)
    return result
