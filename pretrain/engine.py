"""Pretraining, from a configuration to a backbone file. Reads top to bottom."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional

from pretrain.advice import advice
from pretrain.backbone import Backbone, Provenance
from pretrain.config import WITHOUT_PARTNERS, PretrainConfig
from pretrain.evaluation import evaluate as evaluate_networks
from pretrain.mixing import Mixed, forward, mix_at
from pretrain.mixing.decoupled import decoupled_loss
from pretrain.mixing.mixed import numpy_generator, smooth_targets
from pretrain.pictures import draw_curves, draw_mixed_batch
from pretrain.progress import log
from pretrain.rotation import plain_network, turn
from pretrain.run import Result, Run, environment, plain
from pretrain.setup import Loaders, PretrainSetup, build, setup_training
from pretrain.training import (
    MicroBatch,
    TrainLoop,
    TrainState,
    admit,
    epochs_above_chance,
    generator,
    optimizer_step,
    save_epoch,
)
from pretrain.training.devices import out_of_memory_hint


def pretrain(
    config: PretrainConfig,
    run: Run,
    fabric: Fabric,
    *,
    init: Backbone | None = None,
    guide: Backbone | None = None,
    stop_after: int | None = None,
    stop_after_epoch: int | None = None,
) -> Result:
    """Train a backbone; leaves RUN/backbone.pth (the last epoch's weights) and the result.

    The last epoch is kept, not the best: choosing by the validation images is a selection. The
    result has both figures, and checkpoints/best.pth is the backbone of the best.

    Args:
        config: the recipe.
        run: the folder, new or of a run to be continued.
        fabric: device, precision and processes; each process makes the same call.
        init: the backbone named by config.init.
        guide: the backbone named by config.mixing.guide.
        stop_after: stop after this step of the run, resumable.
        stop_after_epoch: the same after this epoch, scored and logged.

    Raises:
        UsageError: the configuration or the data cannot be used.
        Diverged: the loss is no number.
        Stopped: SIGINT or SIGTERM, `stop_after` or `stop_after_epoch`; the same call continues to
            the same bits.
    """
    # ---- set up
    setup = build(config, init, guide)
    given = [backbone.fingerprint() for backbone in (init, guide) if backbone is not None]
    fingerprint = "+".join(given) or None
    start_run = admit(fabric, run, plain(config), fingerprint, setup.files)
    for line in advise(setup, config, fabric) if fabric.is_global_zero else ():
        log(f"note: {line}")
    state, loaders = setup_training(setup, config, fabric)
    start_run()
    num_metrics = 3 if config.rotation.weight else 2
    chance = math.log(setup.spec.num_classes)
    loop = TrainLoop(
        run,
        fabric,
        state,
        loaders.train,
        config,
        num_metrics=num_metrics,
        stop_after=stop_after,
        stop_after_epoch=stop_after_epoch,
        chance=chance,
    )
    loop.resume()
    score_every = config.steps(len(loaders.train), config.score_every)

    # ---- train
    with loop.running(f"{config.model.arch}, {setup.method}"):
        for epoch in loop.epochs():
            state.model.train()
            for step, micro_batches in loop.steps(epoch):
                state.lr_scheduler.step_update(step)
                metrics = train_step(
                    state, loaders, setup, config, fabric, step, micro_batches, run
                )
                loop.finish_step(metrics)
                loop.checkpoint()
            loss, accuracy, *turned = loop.means()
            record = {
                "lr": state.lr,
                "train_loss": loss,
                "train_accuracy": 100 * accuracy,
                "images_per_second": round(loop.speed, 1),
            }
            if turned:
                record["train_rotation_accuracy"] = 100 * turned[0]
            if loop.is_due(score_every):
                record |= evaluate(state, loaders, setup, fabric)
            if fabric.is_global_zero:
                top1 = record.get("top1")
                is_best = top1 is not None and run.is_best("top1", top1)
                facts = {"epoch": epoch + 1, "top1": top1}
                make = partial(_backbone, state, setup, config, facts, fabric)
                save_epoch(run, config.checkpoints, epoch + 1, is_best, make)
                score = "" if top1 is None else f"validation top-1 {top1:.2f} %  "
                log(
                    f"epoch {epoch + 1}/{loop.num_epochs}  loss {loss:.3f}  accuracy on mixed "
                    f"labels {100 * accuracy:.1f} %  {score}{loop.speed:.0f} images/s"
                )
            loop.finish_epoch(record)
            loop.checkpoint()

    # ---- leave the backbone, the pictures and, last, the result
    seconds = round(loop.seconds, 1)
    result = None
    if fabric.is_global_zero:
        history = run.read_log()
        scored = [record for record in history if "top1" in record]
        last, best = history[-1], max(scored, key=lambda record: record["top1"])
        backbone = _backbone(state, setup, config, last, fabric)
        result = Result(
            task="pretrain",
            metric="top1",
            metrics={
                **{key: last[key] for key in last if key.startswith(("top", "val_", "train_"))},
                "top1_best": best["top1"],
                "best_epoch": best["epoch"],
                "epochs": last["epoch"],
                "epochs_above_chance": epochs_above_chance(
                    (one["train_loss"] for one in history), chance
                ),
                "images_per_second": last["images_per_second"],
                "images_left_out": len(loaders.train.corrupt) + len(loaders.val.corrupt),
            },
            backbone=backbone.describe(),
            data=setup.data_summary,
            seed=config.seed,
            config=plain(config),
            seconds=seconds,
            environment={**environment(fabric.device), "processes": fabric.world_size},
        )
        backbone.save(run.folder / "backbone.pth")
        draw_curves(history, setup.method, run.picture("curves.png"))
        run.finish(result)
    return fabric.broadcast(result)  # type: ignore[return-value]


def advise(setup: PretrainSetup, config: PretrainConfig, fabric: Fabric) -> list[str]:
    """Notes on the data, and what is known to go wrong with this recipe on it and this device."""
    warnings = advice(
        config,
        parameters=setup.num_parameters,
        images=len(setup.data.train),
        on_cpu=fabric.device.type == "cpu",
    )
    return [*setup.notes, *warnings]


def train_step(
    state: TrainState,
    loaders: Loaders,
    setup: PretrainSetup,
    config: PretrainConfig,
    fabric: Fabric,
    step: int,
    micro_batches: Iterable[MicroBatch],
    run: Run | None = None,
) -> Tensor:
    """One optimizer step from its micro-batches.

    Returns (2,): loss, and accuracy on mixed labels, each summed over the micro-batches; (3,) with
    the accuracy of the rotation task where it has a weight.
    """
    steps_per_epoch = len(loaders.train)
    mix = mix_at(config.mixing, step, steps_per_epoch, config.batch_size, setup.network_parts)

    def loss_function(batch: MicroBatch) -> tuple[Tensor, Tensor]:
        images, labels = batch.data
        pixels, num_classes = loaders.pixels, setup.spec.num_classes
        draw = numpy_generator(generator(config.seed, "pixels", step, batch.number))
        draws = generator(config.seed, "mixing", step, batch.number)
        with fabric.autocast():  # of methods that look at the images through a network
            mixed = pixels.mixed(mix, images, labels, num_classes, draw, draws)
        if run is not None and batch.number == 0 and step < steps_per_epoch:
            _draw_batch(mixed, setup, run, is_last=step + 1 == steps_per_epoch)
        if config.rotation.weight:
            draws = generator(config.seed, "rotation", step, batch.number)
            again = numpy_generator(generator(config.seed, "pixels", step, batch.number))
            images = pixels.augmented(images, again)  # as they were before they were mixed
            turned, turns = turn(images, config.rotation.angles, draws)
            logits, turn_logits = state.model(mixed.images, turned)
            targets = mixed.targets
        else:
            logits, targets = forward(state.model, mixed)
        # not by cross_entropy, which gives every row the same, whatever its sum
        smoothed = smooth_targets(targets, config.label_smoothing)
        loss = functional.cross_entropy(logits, smoothed)
        if eta := config.mixing.decoupled:
            loss = loss + eta * decoupled_loss(logits, labels, mixed.partner, mixed.lam)
        accuracies = [mixed_accuracy(logits, targets)]
        if config.rotation.weight:
            loss = loss + config.rotation.weight * functional.cross_entropy(turn_logits, turns)
            accuracies.append((turn_logits.argmax(1) == turns).float().mean())
        return loss, torch.stack([loss.detach(), *accuracies])

    samples = f"images of {config.dataset.size_at(step // steps_per_epoch)} pixels"
    with out_of_memory_hint(fabric, config.batch_size, config.accumulate, samples):
        return optimizer_step(state, fabric, micro_batches, loss_function, step)


@torch.no_grad()
def mixed_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of the targets (N, K) that lies on the largest of the logits (N, K).

    Counting hits on the own label alone, as the official code does, says nothing about a mixed
    image.
    """
    hit = targets.gather(1, logits.argmax(1, keepdim=True))
    return hit.sum() / targets.sum().clamp(min=1e-6)  # rows need not sum to 1 (SnapMix)


def evaluate(
    state: TrainState, loaders: Loaders, setup: PretrainSetup, fabric: Fabric
) -> dict[str, Any]:
    """Scores of what would be kept; with an average of the weights, of the raw weights too."""
    networks = {"": state.averaged}
    if state.ema is not None:
        networks["_raw"] = state.network
    normalised, outputs = loaders.pixels.normalised, setup.spec.num_classes
    scores = {}
    found = evaluate_networks(networks, loaders.val, normalised, fabric, outputs)
    for suffix, evaluation in found.items():
        scores[f"top1{suffix}"] = evaluation.top1
        scores[f"top5{suffix}"] = evaluation.top5
        scores[f"val_loss{suffix}"] = evaluation.loss
    return scores


def _draw_batch(mixed: Mixed, setup: PretrainSetup, run: Run, is_last: bool) -> None:
    """Draw the first batch of the first epoch in which images mix; its last where none does.

    With a probability below 1 the first batch may be as it was. Methods that have no partners are
    not waited for. A picture that is there stays, so that a resumed run has the same.
    """
    path = run.picture("mixed_batch.png")
    if path.exists():
        return
    lam = mixed.lam.cpu()
    partner = mixed.partner.cpu().view(len(lam), -1)
    other = (partner != torch.arange(len(lam))[:, None]).any(1)
    if bool((other & (lam < 1)).any()) or is_last or setup.method in WITHOUT_PARTNERS:
        classes = setup.data.train.classes
        draw_mixed_batch(mixed, classes, setup.spec.mean, setup.spec.std, path)


def _backbone(
    state: TrainState,
    setup: PretrainSetup,
    config: PretrainConfig,
    record: dict[str, Any],
    fabric: Fabric,
) -> Backbone:
    facts = environment(fabric.device)
    provenance = Provenance(
        recipe=plain(config),
        dataset=setup.data.name,
        num_images=len(setup.data.train),
        epochs=record["epoch"],
        seed=config.seed,
        top1=record["top1"],
        classes=list(setup.data.train.classes),
        commit=facts["commit"],
        versions=facts["versions"],
        created=facts["created"],
    )
    return Backbone.of(plain_network(state.averaged), setup.spec, provenance)
