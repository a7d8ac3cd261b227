"""Pretraining, from a configuration to a backbone file. Reads top to bottom."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn import functional

from pretrain.advice import advice
from pretrain.backbone import Backbone, Provenance
from pretrain.config import PretrainConfig
from pretrain.curves import Curves
from pretrain.evaluation import evaluate
from pretrain.mixing import Mixed, mix_at
from pretrain.mixing.mixed import numpy_generator
from pretrain.pictures import draw_curves, draw_mixed_batch
from pretrain.progress import log
from pretrain.run import Result, Run, environment, plain
from pretrain.setup import Gear, PretrainSetup, build, setup_training
from pretrain.training import MicroBatch, TrainLoop, generator, out_of_memory_hint


def pretrain(
    config: PretrainConfig,
    run: Run,
    fabric: Fabric,
    *,
    init: Backbone | None = None,
    stop_after: int | None = None,
) -> Result:
    """Train a backbone; leaves RUN/backbone.pth (the last epoch's weights) and the result.

    The last epoch is kept, not the best: choosing by the validation images is a selection. The
    result has both figures, and checkpoints/best.pth is the backbone of the best.

    Args:
        config: the recipe.
        run: the folder, new or of a run to be continued.
        fabric: device, precision and processes; each process makes the same call.
        init: the backbone named by config.init.
        stop_after: stop after this step of the run, resumable.

    Raises:
        UsageError: the configuration or the data cannot be used.
        Stopped: SIGINT or SIGTERM, or `stop_after`; the same call continues to the same bits.
    """
    what = f"images of {config.dataset.image_size} pixels"
    with out_of_memory_hint(fabric, config.batch_size, config.accumulate, what):
        return _pretrain(config, run, fabric, init, stop_after)


def _pretrain(
    config: PretrainConfig, run: Run, fabric: Fabric, init: Backbone | None, stop_after: int | None
) -> Result:
    # ---- set up
    setup = build(config, init)
    begun = plain(config), None if init is None else init.fingerprint()
    run.refuse(*begun)
    gear = setup_training(setup, config, fabric)
    if fabric.is_global_zero:
        run.start(*begun)
        for line in advice(
            config,
            parameters=setup.parameters,
            images=len(setup.train),
            on_cpu=fabric.device.type == "cpu",
        ):
            log(f"note: {line}")
    fabric.barrier()
    loop = TrainLoop(
        run,
        fabric,
        gear.model,
        gear.optimizer,
        gear.rates,
        gear.train,
        epochs=config.epochs,
        seed=config.seed,
        num_sums=2,
        also={} if gear.ema is None else {"ema": gear.ema.module},
        save_every=config.checkpoints.every_steps,
        stop_after=stop_after,
    )
    curves = Curves(run, config.tensorboard and fabric.is_global_zero, loop.steps_done)

    # ---- train
    with loop.running(f"{config.model.arch}, {setup.method}"):
        for epoch in loop.epochs():
            gear.model.train()
            for step, parts in loop.steps(epoch):
                sums = train_step(gear, setup, config, fabric, step, parts, run)
                loop.sums += sums
                lr = gear.optimizer.param_groups[0]["lr"]
                curves.step(step + 1, lr, sums / config.accumulate)
            (loss, accuracy), speed = loop.means(), loop.speed
            record = {
                "lr": gear.optimizer.param_groups[0]["lr"],
                "train_loss": loss,
                "train_accuracy": 100 * accuracy,
                **validate(gear, setup, fabric),
                "images_per_second": round(speed, 1),
            }
            if fabric.is_global_zero:
                _keep(run, {"epoch": epoch + 1, **record}, gear, setup, config, fabric)
            curves.epoch(loop.steps_done, record)
            loop.finish_epoch(record)
            if fabric.is_global_zero:
                log(
                    f"epoch {epoch + 1}/{config.epochs}  loss {loss:.3f}  accuracy on mixed labels "
                    f"{100 * accuracy:.1f} %  validation top-1 {record['top1']:.2f} %  "
                    f"{speed:.0f} images/s"
                )
    curves.close()

    # ---- leave the backbone, the pictures and, last, the result
    seconds = round(loop.seconds, 1)
    result = _finish(run, gear, setup, config, fabric, seconds) if fabric.is_global_zero else None
    return fabric.broadcast(result)  # type: ignore[return-value]


def _finish(
    run: Run,
    gear: Gear,
    setup: PretrainSetup,
    config: PretrainConfig,
    fabric: Fabric,
    seconds: float,
) -> Result:
    history = run.read_log()
    last, best = history[-1], max(history, key=lambda record: record["top1"])
    facts = environment(fabric.device)
    backbone = _backbone(gear, setup, config, last, facts)
    result = Result(
        task="pretrain",
        metric="top1",
        metrics={
            **{key: last[key] for key in last if key.startswith(("top", "val_", "train_"))},
            "top1_best": best["top1"],
            "best_epoch": best["epoch"],
            "epochs": config.epochs,
            "images_per_second": last["images_per_second"],
            "images_left_out": len(gear.train.broken) + len(gear.val.broken),
        },
        backbone=backbone.describe(),
        data={
            "name": setup.data.name,
            "train": len(setup.train),
            "val": len(setup.data.val),
            "classes": len(setup.train.classes),
        },
        seed=config.seed,
        config=plain(config),
        seconds=seconds,
        environment={**facts, "processes": fabric.world_size},
    )
    backbone.save(run.folder / "backbone.pth")
    draw_curves(history, setup.method, run.picture("curves.png"))
    run.finish(result)
    return result


def train_step(
    gear: Gear,
    setup: PretrainSetup,
    config: PretrainConfig,
    fabric: Fabric,
    step: int,
    parts: Iterable[MicroBatch],
    run: Run | None = None,
) -> Tensor:
    """One optimiser step from its micro-batches.

    Returns (2,): loss, and accuracy on mixed labels, each summed over the micro-batches.
    """
    mix = mix_at(config.mixing, step / len(gear.train))
    sums = torch.zeros(2, device=fabric.device)
    for part in parts:
        images, labels = part.batch
        draw = numpy_generator(generator(config.seed, "pixels", step, part.number))
        images = gear.pixels.augmented(images, draw)
        mixed = mix(
            images,
            labels,
            setup.spec.num_classes,
            generator(config.seed, "mixing", step, part.number),
        )
        if run is not None and part.number == 0 and step < len(gear.train):
            _draw_batch(mixed, setup, run, waits=step + 1 < len(gear.train))
        with fabric.no_backward_sync(gear.model, enabled=not part.last):
            logits = gear.model(mixed.images)
            smoothing = config.optimizer.label_smoothing
            loss = functional.cross_entropy(logits, mixed.targets, label_smoothing=smoothing)
            fabric.backward(loss / config.accumulate)
        sums += torch.stack([loss.detach(), mixed_accuracy(logits, mixed.targets)]).float()
    if config.optimizer.clip_norm is not None:
        # not finite: with fp16 the scaler skips the step, otherwise the epoch's loss says so
        fabric.clip_gradients(
            gear.model,
            gear.optimizer,
            max_norm=config.optimizer.clip_norm,
            error_if_nonfinite=False,
        )
    gear.optimizer.step()
    gear.optimizer.zero_grad(set_to_none=True)
    if gear.ema is not None:
        gear.ema.update(gear.network, step=step)
    return sums


@torch.no_grad()
def mixed_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean weight that the targets (N, K) give to the largest of the logits (N, K).

    Counting hits on the own label alone, as the official code does, says nothing about a mixed
    image.
    """
    return targets.gather(1, logits.argmax(1, keepdim=True)).mean()


def validate(gear: Gear, setup: PretrainSetup, fabric: Fabric) -> dict[str, Any]:
    """Scores of what would be kept; with an average of the weights, of the raw weights too."""
    networks = {"": gear.kept} if gear.ema is None else {"": gear.kept, "_raw": gear.network}
    build, outputs = gear.pixels.normalised, setup.spec.num_classes
    scores = {}
    for suffix, found in evaluate(networks, gear.val, build, fabric, outputs).items():
        scores[f"top1{suffix}"] = found.top1
        scores[f"top5{suffix}"] = found.top5
        scores[f"val_loss{suffix}"] = found.loss
    return scores


def _draw_batch(mixed: Mixed, setup: PretrainSetup, run: Run, waits: bool) -> None:
    """Draw the first batch of the first epoch in which images mix; its last where none does.

    With a probability below 1 the first batch may be as it was. Methods that have no partners are
    not waited for. A picture that is there stays, so that a resumed run has the same.
    """
    path = run.picture("mixed_batch.png")
    if path.exists():
        return
    partner, lam = mixed.partner.cpu(), mixed.lam.cpu()
    mixes = bool(((partner != torch.arange(len(partner))) & (lam < 1)).any())
    if waits and not mixes and setup.method not in ("none", "cutout"):
        return
    draw_mixed_batch(mixed, setup.train.classes, setup.spec.mean, setup.spec.std, path)


def _keep(
    run: Run,
    record: dict[str, Any],
    gear: Gear,
    setup: PretrainSetup,
    config: PretrainConfig,
    fabric: Fabric,
) -> None:
    """The backbone of this epoch, where it is the best so far or its turn has come."""
    options, epoch = config.checkpoints, record["epoch"]
    turn = options.every_epochs and epoch % options.every_epochs == 0
    is_best = all(record["top1"] > before["top1"] for before in run.read_log())
    if not turn and not (options.best and is_best):
        return
    backbone = _backbone(gear, setup, config, record, environment(fabric.device))
    if options.best and is_best:
        backbone.save(run.checkpoint.with_name("best.pth"))
    if turn:
        backbone.save(run.checkpoint.with_name(f"epoch-{epoch:04d}.pth"))


def _backbone(
    gear: Gear,
    setup: PretrainSetup,
    config: PretrainConfig,
    record: dict[str, Any],
    facts: dict[str, Any],
) -> Backbone:
    provenance = Provenance(
        recipe=plain(config),
        dataset=setup.data.name,
        num_images=len(setup.train),
        epochs=record["epoch"],
        seed=config.seed,
        top1=record["top1"],
        classes=list(setup.train.classes),
        commit=facts["commit"],
        versions=facts["versions"],
        created=facts["created"],
    )
    return Backbone.of(gear.kept, setup.spec, provenance)
