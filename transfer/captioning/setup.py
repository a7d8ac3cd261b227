"""What a configuration comes to: data, vocabulary and decoder, then everything a step needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.training import (
    BatchSampler,
    Loader,
    TrainState,
    check_optimizer,
    derive,
    make_train_state,
    seed_ambient,
    train_batching,
)
from transfer.captioning.batches import CaptionBatches, ImageCaptionDataset, collate
from transfer.captioning.captioner import build_decoder, feature_kind
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.dataset import CaptionDataset, CaptionedImage, open_captions
from transfer.captioning.vocabulary import Ints, Vocabulary, build_vocabulary, tokenize_captions
from transfer.encoder import Encoder, with_image_size
from transfer.feature_cache import FeatureCache, Features, ImageDataset

_BATCH_NORM_IMAGES = 5000


@dataclass(frozen=True)
class CaptioningSetup:
    """Data and network, before anything is on a device."""

    data: CaptionDataset
    backbone: Backbone
    """With the input size of this run."""
    vocabulary: Vocabulary
    words: Ints
    """(S, T) of the training captions."""
    image_of: Ints
    """(S,) index of each one's image among the training images."""
    decoder: Any
    """A decoder.Decoder, an nn.Module."""

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the result says of the data, beside the images that were scored."""
        sizes = {"train": len(self.data.train), "words": len(self.vocabulary)}
        return {"name": self.data.name, **sizes}


class CaptioningNetwork(nn.Module):
    """The decoder, and the encoder where it is trained: what an average is kept of."""

    def __init__(self, decoder: nn.Module, encoder: Encoder | None) -> None:
        super().__init__()
        self.decoder, self.encoder = decoder, encoder


@dataclass(frozen=True)
class Split:
    """Images to caption."""

    images: tuple[CaptionedImage, ...]
    indices: Ints
    """Of the images, among all of the run."""


@dataclass(frozen=True)
class CaptioningData:
    """Batches to train on, and what is captioned."""

    train: CaptionBatches
    features: Features
    """Of all images: train, val, test."""
    batch_norm: Split
    """Some of the training images, for `Decoder.recalibrate_batch_norm`."""
    val: Split
    test: Split


def build(backbone: Backbone, config: CaptioningConfig) -> CaptioningSetup:
    """Read the data and build the decoder; every mistake a user can make shows here.

    Raises:
        UsageError: what cannot be used, and why.
    """
    if config.data is None:
        raise UsageError("no data: give --data DIR, a folder of images with captions")
    check_optimizer(config.optimizer)
    data = open_captions(Path(config.data), config.dataset)
    backbone = with_image_size(backbone, config.dataset.image_size)
    captions = tokenize_captions([text for image in data.train for text in image.captions])
    vocabulary = build_vocabulary(captions, config.dataset.min_count)
    counts = [len(image.captions) for image in data.train]
    width = Encoder(backbone, feature_kind(config.model)).feature_shape(backbone)[-1]
    with torch.random.fork_rng(devices=[]):
        seed_ambient(derive(config.seed, "weights"))
        decoder = build_decoder(width, len(vocabulary), config.model)
    return CaptioningSetup(
        data,
        backbone,
        vocabulary,
        vocabulary.encode(captions, config.dataset.max_words),
        np.repeat(np.arange(len(counts)), counts),
        decoder,
    )


def setup_training(
    setup: CaptioningSetup, config: CaptioningConfig, fabric: Fabric
) -> tuple[TrainState, CaptioningData]:
    """Encode what is not in the cache, and put everything on the device.

    Raises:
        UsageError: too many broken images, or the batch cannot be cut so. Features are kept.
    """
    data = setup.data
    batching = train_batching(config, fabric)
    BatchSampler(len(setup.words), **batching)  # refuses before anything is encoded
    paths = [image.path for image in (*data.train, *data.val, *data.test)]
    cache = FeatureCache(Path(config.cache), setup.backbone, feature_kind(config.model))
    with fabric.rank_zero_first():  # the others find everything there
        features = cache.features(paths, fabric, workers=config.loader.workers)
    features.check_corrupt(config.dataset.max_corrupt, verbose=fabric.is_global_zero)
    readable = features.row_of >= 0
    kept = readable[setup.image_of]
    words, image_of = setup.words[kept], setup.image_of[kept]
    batches = BatchSampler(len(words), **batching)
    if config.encoder.from_epoch is None:
        encoder, parts = None, [setup.decoder]
        train = CaptionBatches(features, image_of, words, batches)
    else:
        encoder = Encoder(setup.backbone, feature_kind(config.model)).requires_grad_(True)
        parts = [setup.decoder, encoder]
        pixels = Loader(
            ImageCaptionDataset(paths, image_of, words, setup.backbone.preprocess()),
            workers=config.loader.workers,
            prefetch=config.loader.prefetch,
            collate=collate,
            **batching,
        )
        start = config.encoder.from_epoch
        train = CaptionBatches(features, image_of, words, batches, pixels=pixels, pixels_from=start)
    state = make_train_state(
        CaptioningNetwork(setup.decoder, encoder),
        config,
        fabric,
        steps_per_epoch=batches.steps,
        lr_of=lambda name: config.encoder.lr if name.startswith("encoder.") else None,
        parts=parts,
        compiled=parts,
    )
    splits, first = [], 0
    for images, most in ((data.train, _BATCH_NORM_IMAGES), (data.val, None), (data.test, None)):
        indices = np.arange(first, first + len(images[:most]))
        indices = indices[readable[indices]]
        splits.append(Split(tuple(images[index - first] for index in indices), indices))
        first += len(images)
    return state, CaptioningData(train, features, *splits)


def feature_batches(
    split: Split,
    size: int,
    features: Features,
    encoder: nn.Module | None,
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
        for first in range(0, len(split.indices), size):
            yield features.select(split.indices[first : first + size]).to(fabric.device)
        return
    loader = Loader(
        ImageDataset([image.path for image in split.images], backbone.preprocess()),
        batch_size=size,
        seed=0,
        workers=workers,
        shuffle=False,
    )
    for _, images in loader.epoch(0):
        with torch.inference_mode():  # not over the yield: it would reach into the caller
            encoded = encoder(images.to(fabric.device)).float()
        yield encoded
