"""Detection transfer, from a backbone to its average precision. Reads top to bottom."""

import json
from typing import Any

import torch
from lightning.fabric import Fabric

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.progress import log
from pretrain.run import Result, Run, environment, plain, write_text
from pretrain.training import TrainLoop, out_of_memory_hint, schedule
from transfer.detection.average_precision import VocScores, evaluate
from transfer.detection.config import DetectionConfig
from transfer.detection.faster_rcnn import LOSSES
from transfer.detection.inference import detect, save_detector
from transfer.detection.pictures import draw_all
from transfer.detection.setup import (
    DetectionSetup,
    build,
    make_loader,
    make_optimizer,
    resolved,
)


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
    try:
        with out_of_memory_hint(fabric, config.batch_size, config.accumulate):
            return _finetune(backbone, resolved(config), run, fabric, stop_after)
    except FloatingPointError as error:  # detectron2's own word for it
        raise UsageError(
            f"training has diverged ({error}). Give a smaller --solver.lr, or --solver.clip 10."
        ) from error


def _finetune(
    given: Backbone, config: DetectionConfig, run: Run, fabric: Fabric, stop_after: int | None
) -> Result:
    # ---- set up
    setup = build(given, config)
    backbone, solver = setup.backbone, config.solver
    loader = make_loader(setup, config, fabric)
    if fabric.is_global_zero:
        run.start(plain(config), given.fingerprint())
        log(f"note: engine {config.engine}")
        for note in setup.data.notes:
            log(f"note: {note}")
    fabric.barrier()
    optimizer = make_optimizer(setup.model, solver, config.batch_size)
    model, optimizer = fabric.setup(setup.model, optimizer)
    rates = schedule(
        optimizer,
        solver.schedule,
        steps_per_epoch=len(loader),
        epochs=config.epochs,
        warmup_epochs=solver.warmup_epochs,
        milestones=solver.milestones,
    )
    loop = TrainLoop(
        run,
        fabric,
        model,
        optimizer,
        rates,
        loader,
        epochs=config.epochs,
        seed=config.seed,
        num_sums=len(LOSSES),
        stop_after=stop_after,
    )

    # ---- train
    found: tuple[list[dict[str, Any]], VocScores] | None = None
    with loop.running(f"detector from {backbone.name}"):
        for epoch in loop.epochs():
            model.train()
            for _, parts in loop.steps(epoch):
                for part in parts:
                    images, targets = part.batch
                    with fabric.no_backward_sync(model, enabled=not part.last):
                        parts_of_loss = model(images, targets)
                        losses = torch.stack([parts_of_loss[name] for name in LOSSES])
                        fabric.backward(losses.sum() / config.accumulate)
                    loop.sums += losses.detach().float()
                if solver.clip is not None:
                    fabric.clip_gradients(
                        model, optimizer, max_norm=solver.clip, error_if_nonfinite=False
                    )
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            means, speed = loop.means(), loop.speed
            record: dict[str, Any] = {
                "lr": optimizer.param_groups[0]["lr"],
                "loss": sum(means),
                **dict(zip(LOSSES, means, strict=True)),
                "images_per_second": round(speed, 2),
            }
            last = epoch + 1 == config.epochs
            if last or (config.score_every and (epoch + 1) % config.score_every == 0):
                found = _score(model, setup, config, fabric)
                mean = found[1].mean
                record |= {"AP50": mean["voc07"]["AP50"], "AP": mean["voc07"]["AP"]}
            loop.finish_epoch(record)
            if fabric.is_global_zero:
                score = f"  AP50 {record['AP50']:.1f}" if "AP50" in record else ""
                log(
                    f"epoch {epoch + 1}/{config.epochs}  loss {sum(means):.3f}{score}  "
                    f"{speed:.3g} images/s"
                )

    # ---- score, and leave the detector, the pictures and, last, the result
    if found is None:  # stopped after the last epoch
        found = _score(model, setup, config, fabric)
    detections, scores = found
    result = None
    if fabric.is_global_zero:
        write_text(run.folder / "detections.json", json.dumps(detections))
        classes = setup.data.train.classes
        save_detector(run.folder / "detector.pth", model.module, backbone, config, classes)
        draw_all(setup.data.test, detections, run, LOSSES)
        seconds = round(loop.seconds, 1)
        result = _result(run, scores, setup, config, fabric, seconds, loop.speed)
        run.finish(result)
    return fabric.broadcast(result)  # type: ignore[return-value]


def _score(
    model: Any, setup: DetectionSetup, config: DetectionConfig, fabric: Fabric
) -> tuple[list[dict[str, Any]], VocScores]:
    """Detections in the test split and their scores, in every process."""
    detections = detect(
        model,
        setup.data.test.images,
        setup.data.train.classes,
        config.images,
        fabric,
        batch_size=max(1, config.batch_size // (config.accumulate * fabric.world_size)),
        workers=config.workers,
        max_corrupt=config.voc.max_corrupt,
    )
    return detections, evaluate(setup.data.test, detections)


def _result(
    run: Run,
    scores: VocScores,
    setup: DetectionSetup,
    config: DetectionConfig,
    fabric: Fabric,
    seconds: float,
    speed: float,
) -> Result:
    scored = [record for record in run.read_log() if "AP50" in record]
    best = max(scored, key=lambda record: record["AP50"])
    data = setup.data
    return Result(
        task="detection",
        metric="AP50",
        metrics={
            **metrics_of(scores),
            "AP50_best": best["AP50"],
            "best_epoch": best["epoch"],
            "scored_epochs": len(scored),
            "epochs": config.epochs,
            "images_per_second": round(speed, 2),
        },
        backbone=setup.backbone.describe(),
        data={
            "name": data.name,
            "train": len(data.train),
            "test": len(data.test),
            "classes": len(data.train.classes),
            "splits": [data.train_split, data.test_split],
            "notes": list(data.notes),
        },
        seed=config.seed,
        config=plain(config),
        seconds=seconds,
        environment={**environment(fabric.device), "processes": fabric.world_size},
    )


def metrics_of(scores: VocScores) -> dict[str, Any]:
    """Headline AP50 is the 11-point figure, as the paper's; the area figures stand beside it."""
    return {
        **scores.mean["voc07"],
        **{f"{name}_area": value for name, value in scores.mean["area"].items()},
        "per_class_AP50": scores.voc07["0.50"],
        "classes_in_mean": scores.num_classes,
    }
