"""Captioning transfer, from a backbone to the scores of its captions. Reads top to bottom."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.progress import log
from pretrain.reading import read_json
from pretrain.run import Result, Run, environment, plain
from pretrain.training import (
    MicroBatch,
    TrainLoop,
    TrainState,
    admit,
    epochs_above_chance,
    optimizer_step,
    save_epoch,
)
from transfer.captioning import self_critical
from transfer.captioning.attention_maps import attention_maps
from transfer.captioning.batches import CaptioningData
from transfer.captioning.beam_search import generate_captions, images_at_once
from transfer.captioning.captioner import Captioner
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.dataset import Id
from transfer.captioning.decoder import caption_loss
from transfer.captioning.examples import write_examples
from transfer.captioning.page import TYPICAL, sections, write_page
from transfer.captioning.scores import References, Scores
from transfer.captioning.scores.meteor import Meteor, why_not
from transfer.captioning.scores.notes import caption_notes
from transfer.captioning.setup import TOKENIZER, CaptioningSetup, build, setup_training

_AT_START = "val_CIDEr_start"


def finetune(
    backbone: Backbone,
    config: CaptioningConfig,
    run: Run,
    fabric: Fabric,
    *,
    stop_after: int | None = None,
) -> Result:
    """Train a captioner on a backbone, score it after each epoch, keep the best by CIDEr.

    Leaves RUN/captioner.pth, RUN/captions.json (COCO results of the scored split), a page and,
    last, the result. The epoch is chosen on `val`; scored is `test` where the data has one. Where
    it has none, `val` is both: a selection, so the result has the last epoch's CIDEr too.

    Args:
        backbone: what is measured.
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
    config = setup.config
    start_run = admit(fabric, run, plain(config), backbone.fingerprint(), setup.files)
    words = run.folder / "vocabulary.json"
    if words.exists() and read_json(words) != list(setup.vocabulary.words):
        raise UsageError(
            f"{run.folder} was started with another vocabulary: the training captions have changed "
            "since. Give the same data, or another --out."
        )
    for note in setup.notes if fabric.is_global_zero else ():
        log(note)
    state, data = setup_training(setup, config, fabric)
    start_run()
    if fabric.is_global_zero:
        write_text(words, json.dumps(setup.vocabulary.words))
    fabric.barrier()
    step_function: Callable[..., Tensor] = train_step
    names: tuple[str, ...] = ("loss", "likelihood")
    if data.rewards is not None:
        step_function = partial(self_critical.train_step, references=data.rewards)
        names = self_critical.METRICS
    loop = TrainLoop(
        run,
        fabric,
        state,
        data.train,
        config,
        num_metrics=len(names),
        stop_after=stop_after,
        extra_state=dict(zip(["encoder"], state.more_models, strict=False)),
        chance=None if data.rewards is not None else _chance(setup),
    )
    references = References(
        data.val.by_id([image.captions for image in data.val.images]),
        tokenizer=config.dataset.tokenizer,
    )
    at_start = {}
    with fabric.rank_zero_first():
        if config.start_from is not None and fabric.is_global_zero:
            at_start = {_AT_START: _score_start(run, state, data, setup, references)}
    loop.resume()

    # ---- train
    with loop.running(f"captioner from {setup.given.name}", "captions"):
        for epoch in loop.epochs():
            if fabric.broadcast(_is_stale(run, config.patience)):
                log(f"no better CIDEr in {config.patience} epochs: stopped after epoch {epoch}")
                break
            start = config.encoder.from_epoch
            trains_encoder = start is not None and epoch >= start
            state.model.train()
            if data.rewards is not None:
                self_critical.use_policy(state.model)
            for step, micro_batches in loop.steps(epoch):
                state.lr_scheduler.step_update(step)
                metrics = step_function(state, config, fabric, step, micro_batches, trains_encoder)
                loop.finish_step(metrics)
                loop.checkpoint()
            record = dict(zip(names, loop.means(), strict=True)) | at_start
            record |= {"lr": state.lr, "captions_per_second": round(loop.speed, 1)}
            with fabric.rank_zero_first():  # the others wait for however long that takes
                if fabric.is_global_zero:
                    scores = evaluate(state, data, setup, references, trains_encoder)
                    record |= {f"val_{name}": value for name, value in scores.corpus.items()}
                    is_best = run.is_best("val_CIDEr", record["val_CIDEr"])
                    make = partial(_captioner, state, setup, trains_encoder)
                    # the best is what is scored in the end, so it is kept in any case
                    options = replace(config.checkpoints, best=True)
                    save_epoch(run, options, epoch + 1, is_best, make)
                    learned = f"loss {record['loss']:.3f}"
                    if "reward" in record:
                        learned = f"reward {100 * record['reward']:.1f}"
                    log(
                        f"epoch {epoch + 1}/{loop.num_epochs}  {learned}  BLEU-4 "
                        f"{100 * record['val_Bleu_4']:.1f}  CIDEr "
                        f"{100 * record['val_CIDEr']:.1f}  {loop.speed:.0f} captions/s"
                    )
            loop.finish_epoch(record)
            loop.checkpoint()

    # ---- score what is kept, and leave it, the page and, last, the result
    seconds = round(loop.seconds, 1)
    result = None
    with fabric.rank_zero_first():
        if fabric.is_global_zero:
            result = _finish(run, data, setup, fabric, seconds)
    return fabric.broadcast(result)  # type: ignore[return-value]


def train_step(
    state: TrainState,
    config: CaptioningConfig,
    fabric: Fabric,
    step: int,
    micro_batches: Iterable[MicroBatch],
    trains_encoder: bool,
) -> Tensor:
    """One optimizer step from its micro-batches, which hold images where `trains_encoder`.

    Returns (2,): loss and negative log-likelihood of a word, each summed over the micro-batches.
    """

    def loss_function(batch: MicroBatch) -> tuple[Tensor, Tensor]:
        features, words = batch.data
        if trains_encoder:
            features = state.more_models[0](features)
        output = state.model(features, words)
        loss, likelihood = caption_loss(output, words, config.model.coverage)
        return loss, torch.stack([loss.detach(), likelihood.detach()])

    return optimizer_step(state, fabric, micro_batches, loss_function, step)


def evaluate(
    state: TrainState,
    data: CaptioningData,
    setup: CaptioningSetup,
    references: References[Id],
    trains_encoder: bool,
) -> Scores[Id]:
    """Scores of the epoch's captions of `val`, of beam width 1."""
    network: Any = state.averaged
    decoder = network.decoder.eval()
    encoder = network.encoder if trains_encoder else None
    if data.rewards is None:  # or else it has been trained as it is
        decoder.recalibrate_batch_norm(data.batches(data.batch_norm, 100, encoder))
    batches = data.batches(data.val, 100, encoder)
    decoding = replace(setup.config.decoding, beam=1, groups=1)
    captions = generate_captions(decoder, batches, setup.vocabulary, decoding)
    return references.score(data.val.by_id(captions))


def _score_start(
    run: Run,
    state: TrainState,
    data: CaptioningData,
    setup: CaptioningSetup,
    references: References[Id],
) -> float:
    """CIDEr on `val` of what a run begins with, before it is resumed; logged with each epoch."""
    for record in run.read_log():
        if _AT_START in record:
            return float(record[_AT_START])
    value = evaluate(state, data, setup, references, trains_encoder=False).corpus["CIDEr"]
    log(f"{setup.config.start_from}: CIDEr {100 * value:.1f}")
    return value


def _is_stale(run: Run, patience: int | None) -> bool:
    """Whether the best CIDEr is `patience` epochs old."""
    if patience is None:
        return False
    cider = [record["val_CIDEr"] for record in run.read_log()]
    return bool(cider) and len(cider) - 1 - cider.index(max(cider)) >= patience


def _captioner(state: TrainState, setup: CaptioningSetup, trains_encoder: bool) -> Captioner:
    """The captioner of this moment; a trained encoder becomes its backbone."""
    backbone: Backbone = setup.backbone
    network: Any = state.averaged
    if trains_encoder:  # the classifier saw no training, and stays as it was
        encoder = network.encoder.network.state_dict()
        trained = {
            name.removeprefix("model."): value.cpu().clone(memory_format=torch.contiguous_format)
            for name, value in encoder.items()
        }
        assert trained.keys() <= backbone.weights.keys(), trained.keys()
        backbone = replace(backbone, weights={**backbone.weights, **trained})
    return Captioner(
        backbone=backbone,
        model=setup.config.model,
        decoding=setup.config.decoding,
        vocabulary=setup.vocabulary,
        weights=network.decoder.state_dict(),
    )


def _chance(setup: CaptioningSetup) -> float:
    """The loss of equal probabilities for all words."""
    return math.log(len(setup.vocabulary.words))


def _finish(
    run: Run,
    data: CaptioningData,
    setup: CaptioningSetup,
    fabric: Fabric,
    seconds: float,
) -> Result:
    config, given, history = setup.config, setup.given, run.read_log()
    last, best = history[-1], max(history, key=lambda record: record["val_CIDEr"])
    captioner = Captioner.load(run.checkpoint.with_name("best.pth"))
    encoder, decoder = captioner.build()
    decoder.to(fabric.device)
    is_frozen = captioner.backbone.fingerprint() == setup.backbone.fingerprint()
    trained = None if is_frozen else encoder.to(fabric.device)
    split, name = (data.test, "test") if data.test.images else (data.val, "val")
    batches = data.batches(split, images_at_once(config.decoding.beam), trained)
    captions = split.by_id(generate_captions(decoder, batches, setup.vocabulary, config.decoding))
    tokenizer = config.dataset.tokenizer
    computes_meteor = config.meteor == "auto" and tokenizer == "ptb" and why_not() is None
    references = References(
        split.by_id([image.captions for image in split.images]),
        meteor=Meteor.open() if computes_meteor else None,
        tokenizer=tokenizer,
    )
    scores = references.score(captions)
    for note in caption_notes(f"the captions of {name}", captions.items(), tokenizer, TOKENIZER):
        log(note)
    captioner.save(run.folder / "captioner.pth")
    on_page = sections(scores)
    write_examples(run, split.images, captions, on_page[TYPICAL])
    chosen = set(chain.from_iterable(on_page.values()))
    shown = split.take([image.image_id in chosen for image in split.images])
    batches = data.batches(shown, 50, trained)
    maps = attention_maps(captioner, decoder, shown.images, captions, batches)
    write_page(run.folder / "captions.html", split.images, captions, scores, given.name, maps)
    result = Result(
        task="captioning",
        metric="CIDEr",
        metrics={
            **scores.corpus,
            "scored": name,
            "val_CIDEr_last": last["val_CIDEr"],
            "val_CIDEr_best": best["val_CIDEr"],
            "best_epoch": best["epoch"],
            "epochs": last["epoch"],
            "loss": last["loss"],
            "epochs_above_chance": 0  # of rewards, whose loss is no entropy
            if config.objective == "self_critical"
            else epochs_above_chance((one["loss"] for one in history), _chance(setup)),
            **{name: last[name] for name in (*self_critical.METRICS, _AT_START) if name in last},
            # one caption for all images is the classic failure
            "different_captions": len(set(captions.values())),
            "images_left_out": len(data.features.corrupt),
        },
        backbone=given.describe(),
        data={**setup.data_summary, name: len(split.images)},
        seed=config.seed,
        config=plain(config),
        seconds=seconds,
        environment={**environment(fabric.device), "processes": fabric.world_size},
    )
    run.finish(result)
    return result
