"""What a configuration comes to: data, vocabulary and decoder, then everything a step needs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from timm.scheduler.scheduler import Scheduler
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.training import BatchSampler, Loader, derive, schedule, seed_ambient
from transfer.captioning.captioner import build_decoder, view_of
from transfer.captioning.coco import CaptionedImage, Captions, open_captions
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.sentences import FeatureBatches, Ints, Pairs, Sentences, collate
from transfer.captioning.vocabulary import Cut, Vocabulary, build_vocabulary
from transfer.encoder import Encoder, at_size
from transfer.feature_cache import FeatureCache, Features, Pictures

_SETTLE_ON = 5000  # training images


@dataclass(frozen=True)
class CaptioningSetup:
    """Data and network, before anything is on a device."""

    data: Captions
    backbone: Backbone
    """With the input size of this run."""
    vocabulary: Vocabulary
    words: Ints
    """(S, T) of the training sentences."""
    image_of: Ints
    """(S,) number of each one's image among the training images."""
    decoder: Any
    """A decoder.Decoder, an nn.Module."""


@dataclass(frozen=True)
class Gear:
    """What a step needs, on the device."""

    encoder: Any
    """As Fabric wrapped it; None where it stays frozen."""
    decoder: Any
    """As Fabric wrapped it."""
    optimizer: torch.optim.Optimizer
    rates: Scheduler
    train: Sentences
    features: Features
    """Of all images: train, val, test."""
    settling: "Split"
    """Some of the training images, for `Decoder.settle`."""
    val: "Split"
    test: "Split"
    left_out: int
    """Images that could not be read."""


@dataclass(frozen=True)
class Split:
    """Images to caption."""

    images: tuple[CaptionedImage, ...]
    numbers: Ints
    """Of the images, among all of the run."""


def build(backbone: Backbone, config: CaptioningConfig) -> CaptioningSetup:
    """Read the data and build the decoder; every mistake a user can make shows here.

    Raises:
        UsageError: what cannot be used, and why.
    """
    if config.data is None:
        raise UsageError("no data: give --data DIR, a folder of images with captions")
    data = open_captions(Path(config.data), config.dataset)
    backbone = at_size(backbone, config.dataset.image_size)
    sentences = [caption for image in data.train for caption in image.captions]
    cut = Cut.of(sentences)
    vocabulary = build_vocabulary(cut, config.dataset.min_count)
    counts = [len(image.captions) for image in data.train]
    width = Encoder(backbone, view_of(config.model)).shape(backbone)[-1]
    with torch.random.fork_rng(devices=[]):
        seed_ambient(derive(config.seed, "weights"))
        decoder = build_decoder(width, len(vocabulary), config.model)
    return CaptioningSetup(
        data,
        backbone,
        vocabulary,
        vocabulary.encode(cut, config.dataset.max_words),
        np.repeat(np.arange(len(counts)), counts),
        decoder,
    )


def setup_training(setup: CaptioningSetup, config: CaptioningConfig, fabric: Fabric) -> Gear:
    """Encode what is not in the cache, and put everything on the device.

    Raises:
        UsageError: too many broken images, or the batch cannot be cut so. Features are kept.
    """
    data = setup.data
    how: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "shuffle": True,
        "drop_last": True,
        "accumulate": config.accumulate,
        "rank": fabric.global_rank,
        "ranks": fabric.world_size,
    }
    BatchSampler(len(setup.words), **how)  # refuses what cannot be cut before anything is encoded
    paths = [image.path for image in (*data.train, *data.val, *data.test)]
    cache = FeatureCache(Path(config.cache), setup.backbone, view_of(config.model))
    with fabric.rank_zero_first():  # the others find everything there
        features = cache.features(paths, fabric, workers=config.workers)
    features.allow_corrupt(config.dataset.max_corrupt, tell=fabric.is_global_zero)
    readable = features.places >= 0
    kept = readable[setup.image_of]
    words, image_of = setup.words[kept], setup.image_of[kept]
    start = config.encoder.from_epoch
    batches = BatchSampler(len(words), **how)
    frozen = FeatureBatches(features, image_of, words, batches)
    optimizer = torch.optim.Adam(setup.decoder.parameters(), lr=config.adam.lr)
    encoder, pixels = None, None
    if start is not None:
        network = Encoder(setup.backbone, view_of(config.model)).requires_grad_(True)
        optimizer.add_param_group({"params": list(network.parameters()), "lr": config.encoder.lr})
        encoder = fabric.setup_module(network)
        pairs = Pairs(paths, image_of, words, setup.backbone.preprocess())
        pixels = Loader(pairs, workers=config.workers, collate=collate, **how)
    decoder, wrapped = fabric.setup(setup.decoder, optimizer)
    rates = schedule(
        wrapped,
        config.adam.schedule,
        steps_per_epoch=batches.steps,
        epochs=config.epochs,
        milestones=config.adam.milestones,
        decay_rate=config.adam.decay_rate,
    )
    bounds = np.cumsum([0, len(data.train), len(data.val), len(data.test)])
    splits = []
    for place, images in enumerate((data.train[:_SETTLE_ON], data.val, data.test)):
        numbers = np.arange(bounds[place], bounds[place] + len(images))
        numbers = numbers[readable[numbers]]
        splits.append(Split(tuple(images[n - bounds[place]] for n in numbers), numbers))
    until = config.epochs if start is None else start
    return Gear(
        encoder,
        decoder,
        wrapped,
        rates,
        Sentences(frozen, pixels, until),
        features,
        splits[0],
        splits[1],
        splits[2],
        len(features.broken),
    )


def feature_batches(
    split: Split,
    size: int,
    features: Features,
    encoder: Encoder | None,
    backbone: Backbone,
    fabric: Fabric,
    workers: int,
) -> Iterator[Tensor]:
    """The features of a split in its order, `size` images at once, on the device.

    Args:
        split: the images.
        size: of a batch.
        features: of a frozen encoder.
        encoder: the one that was trained, in place of cached features; or None.
        backbone: for its preprocessing.
        fabric: the device.
        workers: loader processes.
    """
    if encoder is None:
        for part in range(math.ceil(len(split.numbers) / size)):
            numbers = split.numbers[part * size : (part + 1) * size]
            yield features.of(numbers).to(fabric.device)
        return
    paths = [image.path for image in split.images]
    loader = Loader(
        Pictures(paths, backbone.preprocess()),
        batch_size=size,
        seed=0,
        workers=workers,
        shuffle=False,
    )
    for _, images in loader.epoch(0):
        with torch.inference_mode():  # not over the yield: it would reach into the caller
            told = encoder(images.to(fabric.device)).float()
        yield told
