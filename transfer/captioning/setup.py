"""What a configuration comes to: data, vocabulary and decoder, then everything a step needs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.data_digest import DataFiles
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
from transfer.captioning.batches import CaptionBatches, collate
from transfer.captioning.captioner import build_decoder, feature_kind
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.dataset import CaptionDataset, CaptionedImage, Id, open_captions
from transfer.captioning.scores.notes import caption_notes
from transfer.captioning.vocabulary import (
    Ints,
    TokenizedCaptions,
    Vocabulary,
    build_vocabulary,
    tokenize_captions,
)
from transfer.feature_cache import Encoder, FeatureCache, Features, ImageDataset, with_image_size

TOKENIZER = "--dataset.tokenizer"
_BATCH_NORM_IMAGES = 5000
_MANY = 0.25  # of the training captions, where cutting them is no matter of a few long ones
T = TypeVar("T")


@dataclass(frozen=True)
class CaptioningSetup:
    """Data and network, before anything is on a device."""

    config: CaptioningConfig
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
    files: DataFiles
    notes: tuple[str, ...]
    """What is odd about the captions, for log and result."""

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the result says of the data, beside the images that were scored."""
        data = self.data
        counts = {"train": len(data.train), "words": len(self.vocabulary)}
        return {"name": data.name, **counts, "notes": list(self.notes), **self.files.summary}

    def unknown_words(self, split: Literal["train", "val"]) -> float:
        """Share of the words of a split's captions that are not in the vocabulary."""
        images = getattr(self.data, split)
        captions = tokenize_captions(_texts(images), self.vocabulary.tokenizer)
        return self.vocabulary.unknown_share(captions)


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

    def by_id(self, values: Sequence[T]) -> dict[Id, T]:
        """What belongs to each image, by its id."""
        ids = [image.image_id for image in self.images]
        return dict(zip(ids, values, strict=True))

    def take(self, kept: Sequence[bool] | NDArray[np.bool_]) -> "Split":
        """The images that have a true value."""
        return Split(tuple(compress(self.images, kept)), self.indices[np.array(kept, bool)])


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
    backbone: Backbone
    """For its preprocessing."""
    device: torch.device
    workers: int
    """Loader processes."""

    def batches(self, split: Split, size: int, encoder: nn.Module | None) -> Iterator[Tensor]:
        """The features of a split in its order, `size` images at once, on the device.

        Args:
            split: the images.
            size: of a batch.
            encoder: on the device, where it was trained; None takes the cached features.
        """
        if encoder is None:
            for first in range(0, len(split.indices), size):
                yield self.features.select(split.indices[first : first + size]).to(self.device)
            return
        images = ImageDataset([image.path for image in split.images], self.backbone.preprocess())
        loader = Loader(images, batch_size=size, seed=0, workers=self.workers, shuffle=False)
        for _, batch in loader.epoch(0):
            with torch.inference_mode():  # not over the yield: it would reach into the caller
                encoded = encoder(batch.to(self.device)).float()
            yield encoded


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
    tokenizer = config.dataset.tokenizer
    captions = tokenize_captions(_texts(data.train), tokenizer)
    vocabulary = build_vocabulary(captions, config.dataset.min_count, tokenizer)
    counts = [len(image.captions) for image in data.train]
    BatchSampler(  # refuses what a dry run shall show
        sum(counts),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        accumulate=config.accumulate,
    )
    width = Encoder(backbone, feature_kind(config.model)).feature_shape(backbone)[-1]
    with torch.random.fork_rng(devices=[]):
        seed_ambient(derive(config.seed, "weights"))
        decoder = build_decoder(width, len(vocabulary), config.model)
    roots = tuple(map(Path, filter(None, (config.data, config.dataset.images))))
    images = [image.path for image in (*data.train, *data.val, *data.test)]
    return CaptioningSetup(
        config,
        data,
        backbone,
        vocabulary,
        vocabulary.encode(captions, config.dataset.max_words),
        np.repeat(np.arange(len(counts)), counts),
        decoder,
        DataFiles(roots, images, data.files, config.digest),
        (*data.notes, *_notes(data, captions, config)),
    )


def _texts(images: Sequence[CaptionedImage]) -> list[str]:
    return [text for image in images for text in image.captions]


def _notes(
    data: CaptionDataset, captions: TokenizedCaptions, config: CaptioningConfig
) -> Iterator[str]:
    """What the run says of its captions, of which `captions` are those of training."""
    tokenizer = config.dataset.tokenizer
    for split in ("train", "val", "test"):
        pairs = [(one.image_id, text) for one in getattr(data, split) for text in one.captions]
        yield from caption_notes(f"{data.name}, {split}", pairs, tokenizer, TOKENIZER)
    longest = min(config.dataset.max_words, config.decoding.max_length - 1)
    share = float(np.mean(captions.captions.counts > longest))
    if share > _MANY:
        yield (
            f"{share:.0%} of the training captions have more than {longest} words, and such are "
            "cut or never generated: --dataset.max_words and --decoding.max_length allow more"
        )
    if config.meteor == "auto" and tokenizer != "ptb":
        yield f"METEOR is left out: it is for English, and the tokenizer is {tokenizer}"


def setup_training(
    setup: CaptioningSetup,
    config: CaptioningConfig,
    fabric: Fabric,
    features: Features | None = None,
) -> tuple[TrainState, CaptioningData]:
    """Put everything on the device, what is not in the cache encoded before.

    Args:
        setup: data and network.
        config: of the run.
        fabric: device, precision and processes.
        features: of all images, in place of those of the cache.

    Raises:
        UsageError: too many corrupt images, or the batch cannot be cut so. Features are kept.
    """
    data = setup.data
    batching = train_batching(config, fabric)
    BatchSampler(len(setup.words), **batching)  # refuses before anything is encoded
    paths = [image.path for image in (*data.train, *data.val, *data.test)]
    if features is None:
        cache = FeatureCache(Path(config.cache), setup.backbone, feature_kind(config.model))
        with fabric.rank_zero_first():  # the others find everything there
            features = cache.features(paths, fabric, workers=config.loader.workers)
    features.check_corrupt(config.dataset.max_corrupt, verbose=fabric.is_global_zero)
    readable = features.row_of >= 0
    kept = readable[setup.image_of]
    words, image_of = setup.words[kept], setup.image_of[kept]
    batches = BatchSampler(len(words), **batching)
    parts, encoder, pixels = [setup.decoder], None, None
    if config.encoder.from_epoch is not None:
        encoder = Encoder(setup.backbone, feature_kind(config.model)).requires_grad_(True)
        parts.append(encoder)
        pixels = Loader(
            ImageDataset([paths[image] for image in image_of], setup.backbone.preprocess()),
            **vars(config.loader),
            collate=partial(collate, words),
            **batching,
        )
    state = make_train_state(
        CaptioningNetwork(setup.decoder, encoder),
        config,
        fabric,
        steps_per_epoch=batches.steps,
        lr_of=lambda name: config.encoder.lr if name.startswith("encoder.") else None,
        parts=parts,
        compiled=parts,
    )

    def split(images: Sequence[CaptionedImage], first: int) -> Split:
        indices = np.arange(first, first + len(images))
        return Split(tuple(images), indices).take(readable[indices])

    train = CaptionBatches(
        features, image_of, words, batches, pixels, config.encoder.from_epoch or 0
    )
    val, test = len(data.train), len(data.train) + len(data.val)
    return state, CaptioningData(
        train=train,
        features=features,
        batch_norm=split(data.train[:_BATCH_NORM_IMAGES], 0),
        val=split(data.val, val),
        test=split(data.test, test),
        backbone=setup.backbone,
        device=fabric.device,
        workers=config.loader.workers,
    )
