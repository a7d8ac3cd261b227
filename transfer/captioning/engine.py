"""Captioning transfer, from a backbone to the scores of its sentences. Reads top to bottom."""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.progress import log
from pretrain.run import Result, Run, environment, plain, write_text
from pretrain.training import MicroBatch, TrainLoop, out_of_memory_hint
from transfer.captioning.captioner import Captioner
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.decode import beam_search, images_at_once
from transfer.captioning.decoder import Decoder, caption_loss
from transfer.captioning.page import sections, write_page
from transfer.captioning.pictures import looks_of
from transfer.captioning.records import Id
from transfer.captioning.scores import References, Scores
from transfer.captioning.scores.meteor import Meteor, why_not
from transfer.captioning.setup import (
    CaptioningSetup,
    Gear,
    Split,
    build,
    feature_batches,
    setup_training,
)


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
    with out_of_memory_hint(fabric, config.batch_size, config.accumulate, "captions"):
        return _finetune(backbone, config, run, fabric, stop_after)


def _finetune(
    backbone: Backbone,
    config: CaptioningConfig,
    run: Run,
    fabric: Fabric,
    stop_after: int | None,
) -> Result:
    # ---- set up
    setup = build(backbone, config)
    begun = plain(config), backbone.fingerprint()
    run.refuse(*begun)
    _refuse_other_words(setup, run)
    gear = setup_training(setup, config, fabric)
    if fabric.is_global_zero:
        run.start(*begun)
        write_text(run.folder / "vocabulary.json", json.dumps(setup.vocabulary.words))
    fabric.barrier()
    loop = TrainLoop(
        run,
        fabric,
        gear.decoder,
        gear.optimizer,
        gear.rates,
        gear.train,
        epochs=config.epochs,
        seed=config.seed,
        num_sums=2,
        also={} if gear.encoder is None else {"encoder": gear.encoder},
        stop_after=stop_after,
    )
    wanted = References({image.image_id: image.captions for image in gear.val.images})

    # ---- train
    with loop.running(f"captioner from {backbone.name}"):
        for epoch in loop.epochs():
            if fabric.broadcast(_is_stale(run, config.patience)):
                log(f"no better CIDEr in {config.patience} epochs: stopped after epoch {epoch}")
                break
            trained = config.encoder.from_epoch is not None and epoch >= config.encoder.from_epoch
            gear.decoder.train()
            for _, parts in loop.steps(epoch):
                loop.sums += train_step(gear, config, fabric, parts, trained)
            (loss, likelihood), speed = loop.means(), loop.speed
            record = {"loss": loss, "likelihood": likelihood, "lr": _rate(gear)}
            with fabric.rank_zero_first():  # the others wait for however long that takes
                if fabric.is_global_zero:
                    said = _tell(gear, setup, config, fabric, trained)
                    scores = wanted.score(said).corpus
                    record |= {f"val_{name}": value for name, value in scores.items()}
                    _keep_best(run, record, gear, setup, config, trained)
            loop.finish_epoch({**record, "captions_per_second": round(speed, 1)})
            if fabric.is_global_zero:
                log(
                    f"epoch {epoch + 1}/{config.epochs}  loss {loss:.3f}  BLEU-4 "
                    f"{100 * record['val_Bleu_4']:.1f}  CIDEr {100 * record['val_CIDEr']:.1f}  "
                    f"{speed:.0f} captions/s"
                )

    # ---- score what is kept, and leave it, the page and, last, the result
    seconds = round(loop.seconds, 1)
    result = None
    with fabric.rank_zero_first():
        if fabric.is_global_zero:
            result = _finish(run, gear, setup, config, fabric, backbone, seconds)
    return fabric.broadcast(result)  # type: ignore[return-value]


def train_step(
    gear: Gear, config: CaptioningConfig, fabric: Fabric, parts: Iterable[MicroBatch], trained: bool
) -> Tensor:
    """One optimiser step from its micro-batches; the batches hold images where `trained`.

    Returns (2,): loss and negative log-likelihood of a word, each summed over the micro-batches.
    """
    sums = torch.zeros(2, device=fabric.device)
    for part in parts:
        features, words = part.batch
        with ExitStack() as unsynchronised:
            for module in filter(None, (gear.decoder, gear.encoder if trained else None)):
                waits = fabric.no_backward_sync(module, enabled=not part.last)
                unsynchronised.enter_context(waits)
            seen = gear.encoder(features) if trained else features
            told = gear.decoder(seen, words)
            loss, likelihood = caption_loss(told, words, config.model.coverage)
            fabric.backward(loss / config.accumulate)
        sums += torch.stack([loss.detach(), likelihood.detach()]).float()
    if config.adam.clip is not None:
        # not finite: with fp16 the scaler skips the step, otherwise the epoch's loss says so
        fabric.clip_gradients(
            gear.decoder, gear.optimizer, max_norm=config.adam.clip, error_if_nonfinite=False
        )
    gear.optimizer.step()
    gear.optimizer.zero_grad(set_to_none=True)
    return sums


def tell(
    decoder: Decoder,
    batches: Iterable[Tensor],
    split: Split,
    setup: CaptioningSetup,
    config: CaptioningConfig,
    width: int,
) -> dict[Id, str]:
    """A caption for each image of a split, from its features in order."""
    rows: list[list[int]] = []
    for features in batches:
        options = config.decoding
        found = beam_search(
            decoder,
            features,
            width,
            options.max_length,
            length_normalisation=options.length_normalisation,
            block_ngrams=options.block_ngrams,
        )
        rows += found.words.tolist()
    return {
        image.image_id: setup.vocabulary.decode(row)
        for image, row in zip(split.images, rows, strict=True)
    }


def _tell(
    gear: Gear, setup: CaptioningSetup, config: CaptioningConfig, fabric: Fabric, trained: bool
) -> dict[Id, str]:
    """The captions of an epoch: width 1, on val."""
    decoder = gear.decoder.module.eval()
    encoder = gear.encoder.module if trained else None

    def batches(split: Split) -> Iterable[Tensor]:
        return feature_batches(
            split, 100, gear.features, encoder, setup.backbone, fabric, config.workers
        )

    decoder.settle(batches(gear.settling))
    return tell(decoder, batches(gear.val), gear.val, setup, config, 1)


def _of_page(split: Split, scores: Scores[Id]) -> Split:
    """The images of the page."""
    chosen = {image.image_id for part in sections(split.images, scores).values() for image in part}
    places = [n for n, image in enumerate(split.images) if image.image_id in chosen]
    return Split(tuple(split.images[n] for n in places), split.numbers[places])


def _is_stale(run: Run, patience: int | None) -> bool:
    """Whether the best CIDEr is `patience` epochs old."""
    if patience is None:
        return False
    cider = [record["val_CIDEr"] for record in run.read_log()]
    return bool(cider) and len(cider) - 1 - cider.index(max(cider)) >= patience


def _rate(gear: Gear) -> float:
    return float(gear.optimizer.param_groups[0]["lr"])


def _keep_best(
    run: Run,
    record: dict[str, Any],
    gear: Gear,
    setup: CaptioningSetup,
    config: CaptioningConfig,
    trained: bool,
) -> None:
    if any(record["val_CIDEr"] <= before["val_CIDEr"] for before in run.read_log()):
        return
    backbone = setup.backbone
    if trained:
        backbone = _trained_backbone(gear, backbone)
    captioner = Captioner(
        backbone=backbone,
        model=config.model,
        decoding=config.decoding,
        vocabulary=setup.vocabulary,
        weights=gear.decoder.module.state_dict(),
    )
    captioner.save(run.checkpoint.with_name("best.pth"))


def _trained_backbone(gear: Gear, backbone: Backbone) -> Backbone:
    """The backbone with the encoder's weights; its classifier, which saw no training, as it was."""
    own = {name: tensor.cpu() for name, tensor in gear.encoder.module.network.state_dict().items()}
    names = {name.removeprefix("model."): tensor for name, tensor in own.items()}
    unknown = [name for name in names if name not in backbone.weights]
    assert not unknown, unknown
    weights = {name: names.get(name, tensor).clone() for name, tensor in backbone.weights.items()}
    return Backbone(spec=backbone.spec, provenance=backbone.provenance, weights=weights)


def _refuse_other_words(setup: CaptioningSetup, run: Run) -> None:
    path = run.folder / "vocabulary.json"
    if path.exists() and json.loads(path.read_text()) != list(setup.vocabulary.words):
        raise UsageError(
            f"{run.folder} was started with another vocabulary: the training captions have changed "
            "since. Give the same data, or another --out."
        )


def _finish(
    run: Run,
    gear: Gear,
    setup: CaptioningSetup,
    config: CaptioningConfig,
    fabric: Fabric,
    backbone: Backbone,
    seconds: float,
) -> Result:
    history = run.read_log()
    last, best = history[-1], max(history, key=lambda record: record["val_CIDEr"])
    captioner = Captioner.load(run.checkpoint.with_name("best.pth"))
    encoder, decoder = captioner.build()
    decoder.to(fabric.device)
    frozen = captioner.backbone.fingerprint() == setup.backbone.fingerprint()
    split, name = (gear.test, "test") if gear.test.images else (gear.val, "val")

    def batches(part: Split, size: int) -> Iterable[Tensor]:
        trained = None if frozen else encoder.to(fabric.device)
        return feature_batches(
            part, size, gear.features, trained, setup.backbone, fabric, config.workers
        )

    width = config.decoding.beam
    size = images_at_once(width)
    said = tell(decoder, batches(split, size), split, setup, config, width)
    meteor = Meteor.open() if config.meteor == "auto" and why_not() is None else None
    wanted = References({image.image_id: image.captions for image in split.images}, meteor=meteor)
    scores = wanted.score(said)
    rows = [{"image_id": image_id, "caption": caption} for image_id, caption in said.items()]
    captioner.save(run.folder / "captioner.pth")
    write_text(run.folder / "captions.json", json.dumps(rows))
    shown = _of_page(split, scores)
    looks = looks_of(captioner, decoder, shown.images, said, batches(shown, 50))
    write_page(run.folder / "captions.html", split.images, said, scores, backbone.name, looks=looks)
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
            # one sentence for all images is the classic failure
            "different_captions": len(set(said.values())),
            "images_left_out": gear.left_out,
        },
        backbone=backbone.describe(),
        data={
            "name": setup.data.name,
            "train": len(setup.data.train),
            name: len(split.images),
            "words": len(setup.vocabulary),
        },
        seed=config.seed,
        config=plain(config),
        seconds=seconds,
        environment={**environment(fabric.device), "processes": fabric.world_size},
    )
    run.finish(result)
    return result
