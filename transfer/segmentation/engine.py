"""Segmentation transfer, from a backbone to its mean IoU. Reads top to bottom."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional

from pretrain.backbone import Backbone
from pretrain.progress import log
from pretrain.run import Result, Run, environment, plain
from pretrain.training import (
    Loader,
    MicroBatch,
    TrainLoop,
    TrainState,
    admit,
    generator,
    optimizer_step,
    save_epoch,
    scoring_batching,
    share_buffers,
)
from transfer.segmentation.boundaries import BoundaryF
from transfer.segmentation.config import VOID, MixingConfig, SegmentationConfig
from transfer.segmentation.inference import SegmenterFile, scoring_loader, segment
from transfer.segmentation.mixing import mix
from transfer.segmentation.pictures import draw_all
from transfer.segmentation.scores import SegmentationScores, confusion_matrix
from transfer.segmentation.scores import evaluate as score
from transfer.segmentation.setup import SegmentationSetup, build, setup_training


def finetune(
    backbone: Backbone,
    config: SegmentationConfig,
    run: Run,
    fabric: Fabric,
    *,
    stop_after: int | None = None,
) -> Result:
    """Train a segmenter from a backbone and score it.

    Leaves RUN/segmenter.pth, pictures and the result.

    Args:
        backbone: where the segmenter starts from.
        config: the recipe.
        run: the folder, new or of a run to be continued.
        fabric: device, precision and processes; each process makes the same call.
        stop_after: stop after this step of the run, resumable.

    Raises:
        UsageError: the configuration or the data cannot be used.
        Stopped: SIGINT or SIGTERM, or `stop_after`; the same call continues to the same bits.
    """
    # ---- set up
    setup = build(backbone, config)
    start_run = admit(fabric, run, plain(config), backbone.fingerprint(), setup.files)
    state, loader = setup_training(setup, config, fabric)
    start_run()
    for note in setup.data.notes if fabric.is_global_zero else ():
        log(f"note: {note}")
    loop = TrainLoop(run, fabric, state, loader, config, num_metrics=2, stop_after=stop_after)
    loop.resume()
    score_every = config.steps(len(loader), config.score_every)
    data = setup.data
    segmenter = SegmenterFile(state.averaged, setup.backbone, config, data.classes, data.volumes)
    scored_images = scoring_loader(
        setup.data.val,
        config.dataset,
        fabric,
        batch_size=scoring_batching(config, fabric)["batch_size"],
        workers=config.loader.workers,
    )

    # ---- train
    headline = "Dice_3D" if setup.data.volumes else "mIoU"
    evaluated: tuple[SegmentationScores, float | None] | None = None
    with loop.running(f"segmenter from {setup.backbone.name}"):
        for epoch in loop.epochs():
            state.model.train()
            mixing = mixing_at(config.mixing, epoch)
            for step, micro_batches in loop.steps(epoch):
                state.lr_scheduler.step_update(step)
                metrics = train_step(state, config, mixing, fabric, step, micro_batches)
                loop.finish_step(metrics)
                loop.checkpoint()
            mean_loss, accuracy = loop.means()
            record: dict[str, Any] = {
                "lr": state.lr,
                "loss": mean_loss,
                "train_accuracy": 100 * accuracy,
                "images_per_second": round(loop.speed, 2),
            }
            if loop.is_due(score_every):
                is_last = epoch + 1 == loop.num_epochs
                evaluated = evaluate(state, setup, scored_images, fabric, boundaries=is_last)
                record |= _means(setup, evaluated[0])
            if fabric.is_global_zero:
                is_best = headline in record and run.is_best(headline, record[headline])
                save_epoch(run, config.checkpoints, epoch + 1, is_best, lambda: segmenter)
                score = f"  {headline} {record[headline]:.1f}" if headline in record else ""
                log(
                    f"epoch {epoch + 1}/{loop.num_epochs}  loss {mean_loss:.3f}{score}  "
                    f"{loop.speed:.3g} images/s"
                )
            loop.finish_epoch(record)
            loop.checkpoint()

    # ---- score, and leave the segmenter, the pictures and, last, the result
    if evaluated is None:  # stopped after the last epoch
        evaluated = evaluate(state, setup, scored_images, fabric, boundaries=True)
    scores, boundary_f = evaluated
    seconds = round(loop.seconds, 1)
    result = None
    if fabric.is_global_zero:
        segmenter.save(run.folder / "segmenter.pth")
        draw_all(state.averaged, setup, config, run, fabric, scores)
        history = run.read_log()
        figures = _metrics(setup, scores, boundary_f)
        scored = [record for record in history if headline in record]
        if scored:
            best = max(scored, key=lambda record: record[headline])
            figures |= {f"{headline}_best": best[headline], "best_epoch": best["epoch"]}
        result = Result(
            task="segmentation",
            metric=headline,
            metrics={
                **figures,
                "scored_epochs": len(scored),
                "epochs": history[-1]["epoch"],
                "images_per_second": history[-1]["images_per_second"],
                "images_left_out": len(loader.corrupt) + len(scored_images.corrupt),
            },
            backbone=setup.backbone.describe(),
            data=setup.data_summary,
            seed=config.seed,
            config=plain(config),
            seconds=seconds,
            environment={**environment(fabric.device), "processes": fabric.world_size},
        )
        run.finish(result)
    return fabric.broadcast(result)  # type: ignore[return-value]


def mixing_at(config: MixingConfig, epoch: int) -> MixingConfig:
    """The mixing of an epoch: none from `off_epoch` on."""
    off = config.off_epoch
    return config if off is None or epoch < off else MixingConfig()


def train_step(
    state: TrainState,
    config: SegmentationConfig,
    mixing: MixingConfig,
    fabric: Fabric,
    step: int,
    micro_batches: Iterable[MicroBatch],
) -> Tensor:
    """One optimizer step from its micro-batches.

    Returns (2,): loss, and accuracy on the pixels that have a class, each summed over the
    micro-batches.
    """
    aux_weight = config.segmenter.aux_weight

    def loss_function(batch: MicroBatch) -> tuple[Tensor, Tensor]:
        images, masks = batch.data
        draws = generator(config.seed, "mixing", step, batch.number)
        images, masks = mix(images, masks, mixing, draws)
        outputs, targets = state.model(images), masks.long()
        loss = partial_cross_entropy(outputs["out"], targets)
        if aux_weight:
            loss = loss + aux_weight * partial_cross_entropy(outputs["aux"], targets)
        hits = (outputs["out"].detach().argmax(1) == targets).sum()
        accuracy = hits / (targets != VOID).sum().clamp(min=1)
        return loss, torch.stack([loss.detach().float(), accuracy])

    return optimizer_step(state, fabric, micro_batches, loss_function, step)


def partial_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of (N, K, H, W) on (N, H, W), mean over the pixels that have a class.

    Of masks this is torchvision's reference loss, of scribbles the partial cross-entropy (Tang et
    al., CVPR 2018). Where no pixel of the batch has a class it is 0, not torch's NaN.
    """
    # CUDA has no mean and no sum of it where --deterministic is on
    losses = functional.cross_entropy(logits, targets, ignore_index=VOID, reduction="none")
    return losses.sum() / (targets != VOID).sum().clamp(min=1)


def evaluate(
    state: TrainState,
    setup: SegmentationSetup,
    loader: Loader,
    fabric: Fabric,
    *,
    boundaries: bool,
) -> tuple[SegmentationScores, float | None]:
    """Scores of the validation split and, if asked for, its boundary F; in every process.

    Images that cannot be read are left out, as far as `dataset.max_corrupt` allows: the scores are
    those of the rest, of a volume those of its other slices.
    """
    share_buffers(state.averaged, fabric)
    records, classes = setup.data.val, setup.data.classes
    place_of = {case: place for place, case in enumerate(sorted({one.case for one in records}))}
    confusions = torch.zeros(len(place_of), len(classes), len(classes), dtype=torch.int64)
    confusions, outlines = fabric.to_device(confusions), BoundaryF()

    def see(index: int, label_map: Tensor, mask: Tensor) -> None:
        place = place_of[records[index].case]
        confusions[place] += confusion_matrix(label_map, mask, len(classes))
        if boundaries:
            outlines.see(label_map.cpu().numpy(), mask.cpu().numpy())

    segment(state.averaged, loader, fabric, see)
    loader.share_corrupt()
    if fabric.world_size > 1:  # each record was seen by one process
        torch.distributed.all_reduce(confusions)
        outlines.share()
    return score(confusions.cpu(), classes), outlines.mean


def _means(setup: SegmentationSetup, scores: SegmentationScores) -> dict[str, float]:
    """By name; a mean that does not exist is none."""
    dice = "Dice_3D" if setup.data.volumes else "Dice"
    means = {"mIoU": scores.mean_iou, dice: scores.mean_dice}
    return {name: value for name, value in means.items() if value is not None}


def _metrics(
    setup: SegmentationSetup, scores: SegmentationScores, boundary_f: float | None
) -> dict[str, Any]:
    """What the result says of the scores."""
    dice = "Dice_3D" if setup.data.volumes else "Dice"
    more = {"boundary_F": boundary_f, "pixel_accuracy": scores.pixel_accuracy}
    return {
        **_means(setup, scores),
        **{name: value for name, value in more.items() if value is not None},
        "per_class_IoU": dict(scores.iou),
        f"per_class_{dice}": dict(scores.dice),
        "classes_in_mean": scores.num_classes,
    }
