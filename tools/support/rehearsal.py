"""Each trainer, set up for `pretrain.projection`: a few steps, and what there is to do in all."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from pretrain.backbone import Backbone
from pretrain.config import ProgressiveConfig
from pretrain.errors import UsageError
from pretrain.images import decode
from pretrain.projection import Rehearsal
from pretrain.training import BatchSampler, train_batching

# images of a step
_SMALL = {"pretrain": 16, "classification": 16, "detection": 2, "segmentation": 4}
_ENCODED = 8  # images


def rehearse(task: str, setup: Any, config: Any, fabric: Fabric, small: bool = False) -> Rehearsal:
    """The steps of a run.

    Args:
        task: pretrain, classification, detection, segmentation or captioning.
        setup: what its `build` made; its network is trained by the steps.
        config: of the run.
        fabric: device, precision and processes.
        small: steps of few images, which on a CPU cost as much an image.
    """
    measured = config
    if small and task in _SMALL:
        size = min(config.batch_size, _SMALL[task] * fabric.world_size)
        measured = replace(config, batch_size=size, accumulate=1)
    rehearsals = {
        "pretrain": _pretraining,
        "classification": _classification,
        "detection": _detection,
        "segmentation": _segmentation,
        "captioning": _captioning,
    }
    return rehearsals[task](setup, config, measured, fabric)


def _length(samples: int, config: Any, fabric: Fabric) -> tuple[int, int]:
    """Steps and epochs of the whole run; UsageError where its batch cannot be filled or cut."""
    a_epoch = BatchSampler(samples, **train_batching(config, fabric)).steps
    total = config.steps(a_epoch)
    return total, -(-total // a_epoch)


def _scorings(setup: Any, config: Any, steps: int, epochs: int) -> int:
    """How often a run with `score_every` is scored."""
    period = config.steps(setup.steps_per_epoch, config.score_every)
    return min(epochs, -(-steps // period)) if period else 1


def _pretraining(setup: Any, config: Any, measured: Any, fabric: Fabric) -> Rehearsal:
    from pretrain.engine import train_step
    from pretrain.setup import setup_training

    total, epochs = _length(len(setup.data.train), config, fabric)
    dataset = config.dataset  # the largest images are measured: they take the most memory
    measured = replace(measured, dataset=replace(dataset, progressive=ProgressiveConfig()))
    areas = [(dataset.size_at(epoch) / dataset.image_size) ** 2 for epoch in range(epochs)]
    state, loaders = setup_training(setup, measured, fabric)
    state.model.train()
    networks = 1 if state.ema is None else 2
    scorings = _scorings(setup, config, total, epochs)
    return Rehearsal(
        config=measured,
        loader=loaders.train,
        train_step=partial(train_step, state, loaders, setup, measured, fabric),
        trained=total * config.batch_size,
        cost=sum(areas) / len(areas),
        scored=networks * len(setup.data.val) * scorings,
        samples=f"images of {config.dataset.image_size} pixels",
    )


def _classification(setup: Any, config: Any, measured: Any, fabric: Fabric) -> Rehearsal:
    from transfer.classification.engine import train_step
    from transfer.classification.setup import setup_training

    data = setup.data
    is_tuned = "full" in config.modes
    total, epochs = _length(len(data.train), config, fabric) if is_tuned else (0, 0)
    measured = replace(measured, batch_size=min(measured.batch_size, len(data.train)))
    state, loader = setup_training(setup, measured, fabric)
    state.model.train()
    encoded = data.paths if config.modes != ["full"] else ()
    return Rehearsal(
        config=measured,
        loader=loader,
        train_step=partial(train_step, state, measured, fabric),
        trained=total * config.batch_size,
        scored=epochs * len(data.val) + is_tuned * len(data.scored),
        seconds=_seconds_to_encode(setup.backbone, "pooled", encoded, fabric),
    )


def _detection(setup: Any, config: Any, measured: Any, fabric: Fabric) -> Rehearsal:
    from transfer.detection.engine import train_step
    from transfer.detection.setup import setup_training

    total, epochs = _length(len(setup.data.train), config, fabric)
    state, loader = setup_training(setup, measured, fabric)
    state.model.train()
    return Rehearsal(
        config=measured,
        loader=loader,
        train_step=partial(train_step, state, setup.losses, fabric),
        trained=total * config.batch_size,
        scored=_scorings(setup, config, total, epochs) * len(setup.data.test),
    )


def _segmentation(setup: Any, config: Any, measured: Any, fabric: Fabric) -> Rehearsal:
    from transfer.segmentation.engine import train_step
    from transfer.segmentation.setup import setup_training

    total, epochs = _length(len(setup.data.train), config, fabric)
    state, loader = setup_training(setup, measured, fabric)
    state.model.train()
    return Rehearsal(
        config=measured,
        loader=loader,
        train_step=partial(train_step, state, measured, measured.mixing, fabric),
        trained=total * config.batch_size,
        scored=_scorings(setup, config, total, epochs) * len(setup.data.val),
        samples="slices" if setup.data.volumes else "images",
    )


def _captioning(setup: Any, config: Any, measured: Any, fabric: Fabric) -> Rehearsal:
    """The decoder on features of zeros, which cost as much; the encoder on a few images."""
    from transfer.captioning import self_critical
    from transfer.captioning.captioner import feature_kind
    from transfer.captioning.engine import train_step
    from transfer.captioning.setup import setup_training
    from transfer.feature_cache import Encoder, Features

    data, config = setup.data, setup.config
    kind = feature_kind(config.model)
    paths = [image.path for image in (*data.train, *data.val, *data.test)]
    shape = Encoder(setup.backbone, kind).feature_shape(setup.backbone)
    rows, row_of = np.zeros((1, *shape), np.float32), np.zeros(len(paths), np.int64)
    state, batches = setup_training(setup, config, fabric, Features(rows, row_of, {}))
    state.model.train()
    function = train_step
    if batches.rewards is not None:
        self_critical.use_policy(state.model)
        function = partial(self_critical.train_step, references=batches.rewards)
    total = config.steps(len(batches.train))
    epochs = -(-total // len(batches.train))
    once = _seconds_to_encode(setup.backbone, kind, paths, fabric)
    if (start := config.encoder.from_epoch) is not None:  # forward and backward
        once *= 1 + 3 * max(0, epochs - start) * batches.train.batches.count / len(paths)
    scored = epochs * len(data.val) + config.decoding.beam * len(data.test or data.val)
    return Rehearsal(
        config=config,
        loader=batches.train,
        train_step=lambda step, parts: function(state, config, fabric, step, parts, False),
        trained=total * config.batch_size,
        scored=scored,
        seconds=once,
        samples="captions",
    )


@torch.inference_mode()
def _seconds_to_encode(
    backbone: Backbone, kind: Any, paths: Sequence[Path], fabric: Fabric
) -> float:
    """For all of the images, by some of them; the first time warms up."""
    from transfer.feature_cache import Encoder

    encoder, prepare = Encoder(backbone, kind).to(fabric.device), backbone.preprocess()
    some, seconds = paths[:: max(1, len(paths) // _ENCODED)][:_ENCODED], 0.0
    for _ in range(2 if some else 0):
        started, images = time.monotonic(), []
        for path in some:
            with suppress(UsageError):  # the run names it
                images.append(prepare(decode(path)))
        if images:
            encoder(torch.stack(images).to(fabric.device))
        seconds = (time.monotonic() - started) / len(some)
    return seconds * len(paths)
