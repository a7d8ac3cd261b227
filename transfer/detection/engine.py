"""Detection transfer, from a backbone to its average precision. Reads top to bottom."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from timm.optim._optim_factory import create_optimizer_v2
from torch import nn

from pretrain import torch_file
from pretrain.backbone import Backbone
from pretrain.errors import UserError
from pretrain.progress import bar, say
from pretrain.run import Result, Run, environment, plain, write_text
from pretrain.training import Course, Loader, derive, schedule, seed_ambient
from transfer.detection.average_precision import VocScores, evaluate
from transfer.detection.config import DetectionConfig
from transfer.detection.faster_rcnn import build_detector
from transfer.detection.pictures import draw_curve, draw_detections
from transfer.detection.samples import Samples, collate
from transfer.detection.voc import Records, choose_splits, read_voc

LOSSES = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")


@dataclass(frozen=True)
class Prepared:
    """What a configuration comes to, before the first step."""

    train: Records
    test: Records
    model: nn.Module
    steps_per_epoch: int


def prepare(backbone: Backbone, config: DetectionConfig) -> Prepared:
    """Read the tree and build the detector; every mistake a user can make shows here."""
    if config.data is None:
        raise UserError("no data: give --data DIR with a Pascal VOC tree")
    root = Path(config.data)
    train_split, test_split = choose_splits(root, config.voc.train, config.voc.test)
    train = read_voc(root, train_split)
    test = read_voc(root, test_split, train.classes)
    with torch.random.fork_rng(devices=[]):
        seed_ambient(derive(config.seed, "weights"))
        model = build_detector(backbone, config.detector, len(train.classes))
    # images without objects teach torchvision's heads nothing about classes: detectron2 leaves
    # them out of training, and so do we; scoring keeps them
    images = tuple(record for record in train.images if len(record.labels))
    train = Records(train.classes, images, train.dropped)
    return Prepared(train, test, model, len(train) // config.batch_size)


def finetune(backbone: Backbone, config: DetectionConfig, run: Run, fabric: Fabric) -> Result:
    """Train a detector from a backbone and score it.

    Leaves RUN/detector.pth, RUN/detections.json (COCO-style results), pictures and the result.

    Raises:
        UserError: the configuration or the data cannot be used.
        Stopped: SIGINT or SIGTERM; the same call continues to the same bits.
    """
    # ---- set up
    ready = prepare(backbone, config)
    settings: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "workers": config.workers,
    }
    samples = Samples(ready.train.images, config.voc.flip)
    train = Loader(samples, shuffle=True, drop_last=True, collate=collate, **settings)
    run.start(plain(config), backbone.fingerprint())
    optimizer = create_optimizer_v2(
        [parameter for parameter in ready.model.parameters() if parameter.requires_grad],
        opt="momentum" if config.solver.optimizer == "sgd" else config.solver.optimizer,
        lr=config.solver.lr,
        weight_decay=config.solver.weight_decay,
    )
    model, optimizer = fabric.setup(ready.model, optimizer)
    rates = schedule(
        optimizer,
        config.solver.schedule,
        steps_per_epoch=len(train),
        epochs=config.epochs,
        warmup_epochs=config.solver.warmup_epochs,
        milestones=config.solver.milestones,
    )
    if ready.train.dropped:
        say(f"{ready.train.dropped} boxes without area left out of training")
    course = Course(
        run,
        fabric,
        model,
        optimizer,
        rates,
        train,
        epochs=config.epochs,
        seed=config.seed,
        num_sums=len(LOSSES),
    )

    # ---- train
    with course.running(f"detector from {backbone.name}"):
        for epoch in course.epochs():
            model.train()
            for _, (part,) in course.steps(epoch):
                images, targets = part.batch
                losses = model([image / 255 for image in images], targets)
                parts = torch.stack([losses[name] for name in LOSSES])
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(parts.sum())
                if config.solver.clip is not None:
                    fabric.clip_gradients(
                        model, optimizer, max_norm=config.solver.clip, error_if_nonfinite=False
                    )
                optimizer.step()
                course.sums += parts.detach().float()
            means, speed = course.means(), course.speed
            parts_by_name = dict(zip(LOSSES, means, strict=True))
            course.finish_epoch(
                {"loss": sum(means), **parts_by_name, "images_per_second": round(speed, 1)}
            )
            say(f"epoch {epoch + 1}/{config.epochs}  loss {sum(means):.3f}  {speed:.1f} images/s")

    # ---- score, and leave the detector, the pictures and, last, the result
    detections = detect(model, ready.test, config, fabric)
    scores = evaluate(ready.test, detections)
    write_text(run.folder / "detections.json", json.dumps(detections))
    detector = {
        "format": "detector/1",
        "backbone": backbone.describe(),
        "config": plain(config),
        "classes": list(ready.train.classes),
        "state_dict": model.module.state_dict(),
    }
    torch_file.write(run.folder / "detector.pth", detector)
    draw_detections(ready.test, detections, run.picture("detections.png"))
    draw_curve(run.read_log(), LOSSES, run.picture("curve.png"))
    result = Result(
        task="detection",
        metric="AP50",
        metrics=metrics_of(scores),
        backbone=backbone.describe(),
        data={
            "name": Path(config.data or "").name,
            "train": len(ready.train),
            "test": len(ready.test),
            "classes": len(ready.train.classes),
        },
        seed=config.seed,
        config=plain(config),
        seconds=round(course.seconds, 1),
        environment=environment(fabric.device),
    )
    run.finish(result)
    return result


@torch.inference_mode()
def detect(
    model: nn.Module, records: Records, config: DetectionConfig, fabric: Fabric
) -> list[dict[str, Any]]:
    """Detections of every image as a COCO-style results list, boxes x, y, width, height."""
    samples = Samples(records.images)
    loader = Loader(
        samples,
        batch_size=config.batch_size,
        seed=config.seed,
        shuffle=False,
        workers=config.workers,
        collate=collate,
    )
    model.eval()
    rows: list[dict[str, Any]] = []
    number = 0
    with bar("scoring", len(records), "images") as advance:
        for images, _ in loader.epoch(0):
            found = model([image / 255 for image in fabric.to_device(images)])
            for output in found:
                image_id = records.images[number].image_id
                for (left, top, right, bottom), label, score in zip(
                    output["boxes"].tolist(),
                    output["labels"].tolist(),
                    output["scores"].tolist(),
                    strict=True,
                ):
                    rows.append(
                        {
                            "image_id": image_id,
                            "category": records.classes[label - 1],
                            "bbox": [left, top, right - left, bottom - top],
                            "score": score,
                        }
                    )
                number += 1
            advance(len(images))
    return rows


def metrics_of(scores: VocScores) -> dict[str, Any]:
    """Headline AP50 is the 11-point figure, as the paper's; the area figures stand beside it."""
    return {
        **scores.mean["voc07"],
        **{f"{name}_area": value for name, value in scores.mean["area"].items()},
        "per_class_AP50": scores.voc07["0.50"],
        "classes_in_mean": scores.num_classes,
    }
