"""What a configuration comes to: data, vocabulary and decoder, then everything a step needs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from pretrain.audit import load_strict
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
)
from transfer.captioning import start
from transfer.captioning.batches import (
    CaptionBatches,
    CaptioningData,
    Split,
    collate,
    step_batching,
    take_images,
    take_words,
)
from transfer.captioning.captioner import build_decoder, feature_kind
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.dataset import CaptionDataset, CaptionedImage, open_captions
from transfer.captioning.scores.notes import caption_notes
from transfer.captioning.self_critical import reward_references
from transfer.captioning.vocabulary import (
    Ints,
    TokenizedCaptions,
    Vocabulary,
    build_vocabulary,
    tokenize_captions,
)
from transfer.feature_cache import Encoder, FeatureCache, Features, ImageDataset, with_image_size
from transfer.random_weights import untrained
from transfer.shard_room import require_room

TOKENIZER = "--dataset.tokenizer"
_BATCH_NORM_IMAGES = 5000
_MANY = 0.25  # of the training captions, or of their words: no matter of a few


@dataclass(frozen=True)
class CaptioningSetup:
    """Data and network, before anything is on a device."""

    config: CaptioningConfig
    """With what is taken over from the start."""
    data: CaptionDataset
    given: Backbone
    """As given, or its architecture with random weights."""
    backbone: Backbone
    """With the input size of this run, and the weights of the start."""
    vocabulary: Vocabulary
    words: Ints
    """(S, T) of the training captions."""
    image_of: Ints
    """(S,) index of each one's image among the training images."""
    decoder: Any
    """A decoder.Decoder, an nn.Module."""
    files: DataFiles
    steps_per_epoch: int
    """In one process."""
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


def build(backbone: Backbone, config: CaptioningConfig) -> CaptioningSetup:
    """Read the data and build the decoder; every mistake a user can make shows here.

    Raises:
        UsageError: what cannot be used, and why.
    """
    check_optimizer(config.optimizer)
    begun = weights = None
    if config.start_from is not None:
        begun, weights = start.load(config.start_from), start.file_of(config.start_from)
        start.check_backbone(config.start_from, begun, backbone)
        given, backbone, config = backbone, begun.backbone, start.take_over(config, begun)
    else:
        given = backbone = untrained(backbone, config.seed) if config.random_init else backbone
    if config.data is None:
        raise UsageError("no data: give --data DIR, a folder of images with captions")
    data = open_captions(config.data, config.dataset, cache_gib=config.loader.shard_cache)
    if config.encoder.from_epoch is not None:
        use = "the encoder is trained on them in any order; without --encoder.from_epoch it is not"
        require_room([image.path for image in data.train], config.loader.shard_cache, use)
    backbone = with_image_size(backbone, config.dataset.image_size)
    tokenizer = config.dataset.tokenizer
    captions = tokenize_captions(_texts(data.train), tokenizer)
    if begun is None:
        vocabulary = build_vocabulary(captions, config.dataset.min_count, tokenizer)
    else:
        vocabulary = begun.vocabulary
    counts = [len(image.captions) for image in data.train]
    is_rewarded = config.objective == "self_critical"
    if is_rewarded and len(counts) < 2:
        raise UsageError(
            "objective self_critical wants two training images or more, and there is one: words "
            "that all images share are worth nothing in CIDEr. Use --objective cross_entropy."
        )
    samples = len(counts) if is_rewarded else sum(counts)
    # refuses what a dry run shall show
    batches = BatchSampler(samples, **step_batching(config, len(counts)))
    width = Encoder(backbone, feature_kind(config.model)).feature_shape(backbone)[-1]
    with torch.random.fork_rng(devices=[]):
        seed_ambient(derive(config.seed, "weights"))
        decoder = build_decoder(width, len(vocabulary), config.model)
    if begun is not None:
        load_strict(decoder, begun.weights)
    roots = tuple(map(Path, filter(None, (config.data, config.dataset.images))))
    paths = [image.path for image in (*data.train, *data.val, *data.test)]
    images = [path for path in paths if isinstance(path, Path)]  # shards are known by their indexes
    return CaptioningSetup(
        config,
        data,
        given,
        backbone,
        vocabulary,
        vocabulary.encode(captions, config.dataset.max_words),
        np.repeat(np.arange(len(counts)), counts),
        decoder,
        DataFiles(roots, images, data.files, config.digest, weights),
        batches.steps,
        (*data.notes, *_notes(data, captions, config, vocabulary)),
    )


def _texts(images: Sequence[CaptionedImage]) -> list[str]:
    return [text for image in images for text in image.captions]


def _notes(
    data: CaptionDataset,
    captions: TokenizedCaptions,
    config: CaptioningConfig,
    vocabulary: Vocabulary,
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
    unknown = vocabulary.unknown_share(captions)
    if config.start_from is not None and unknown > _MANY:
        yield (
            f"{unknown:.0%} of the words of the training captions are not in the vocabulary of "
            f"{config.start_from}, and count as one unknown word"
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
    place = {"rank": fabric.global_rank, "ranks": fabric.world_size}
    batching = step_batching(config, len(data.train), **place)
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
    take: Any = partial(take_words, words)
    rewards = None
    if config.objective == "self_critical":
        rewards = reward_references(words, image_of)
        image_of = np.unique(image_of)
        take = partial(take_images, image_of)
    batches = BatchSampler(len(image_of), **batching)
    parts, encoder, pixels = [setup.decoder], None, None
    if config.encoder.from_epoch is not None:
        encoder = Encoder(setup.backbone, feature_kind(config.model)).requires_grad_(True)
        parts.append(encoder)
        pixels = Loader(
            ImageDataset([paths[image] for image in image_of], setup.backbone.preprocess()),
            **config.loader.processes,
            collate=partial(collate, take),
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
        features, image_of, take, batches, pixels, config.encoder.from_epoch or 0
    )
    val, test = len(data.train), len(data.train) + len(data.val)
    return state, CaptioningData(
        train=train,
        features=features,
        batch_norm=split(data.train[:_BATCH_NORM_IMAGES], 0),
        val=split(data.val, val),
        test=split(data.test, test),
        rewards=rewards,
        backbone=setup.backbone,
        device=fabric.device,
        workers=config.loader.workers,
    )
