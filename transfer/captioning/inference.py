"""Captions from features, and for files of images that nobody has described."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES
from pretrain.progress import bar
from pretrain.training import Loader
from transfer.captioning.beam_search import beam_search, images_at_once
from transfer.captioning.captioner import Captioner
from transfer.captioning.config import DecodingConfig
from transfer.captioning.decoder import Decoder
from transfer.captioning.vocabulary import Vocabulary
from transfer.feature_cache import ImageDataset, collate_readable

_MAX_IMAGES = 50


def generate_captions(
    decoder: Decoder,
    batches: Iterable[Tensor],
    vocabulary: Vocabulary,
    config: DecodingConfig,
    width: int | None = None,
) -> list[str]:
    """The caption of each image, from batches of features (N, ...) in order.

    Args:
        decoder: in evaluation mode.
        batches: on the decoder's device.
        vocabulary: the decoder's.
        config: how to search.
        width: of the beam; None takes the configuration's.
    """
    captions: list[str] = []
    for features in batches:
        output = beam_search(
            decoder,
            features,
            width or config.beam,
            config.max_length,
            length_normalisation=config.length_normalisation,
            block_ngrams=config.block_ngrams,
        )
        captions += map(vocabulary.decode, output.words.tolist())
    return captions


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by name.

    Raises:
        UsageError: no such folder, or no image in it.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file; give the folder of the images.")
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UsageError(f"{folder} holds no image; supported are {', '.join(SUFFIXES)}.")
    return paths


@torch.inference_mode()
def caption_files(
    captioner: Captioner,
    paths: Sequence[Path],
    fabric: Fabric,
    *,
    width: int | None = None,
    workers: int = 0,
) -> tuple[dict[int, str], dict[int, str]]:
    """Captions by the number of the file, and why others have none.

    Args:
        captioner: as loaded.
        paths: image files.
        fabric: the device.
        width: of the beam; None takes the captioner's.
        workers: loader processes.
    """
    encoder, decoder = captioner.build()
    encoder.to(fabric.device)
    decoder.to(fabric.device)
    loader = Loader(
        ImageDataset(paths, captioner.backbone.preprocess(), keep_corrupt=True),
        batch_size=min(_MAX_IMAGES, images_at_once(width or captioner.decoding.beam)),
        seed=0,
        workers=workers,
        shuffle=False,
        collate=collate_readable,
    )
    captions: dict[int, str] = {}
    corrupt: dict[int, str] = {}
    with bar("captioning", len(paths), "images") as advance:
        for numbers, images, messages in loader.epoch(0):
            corrupt |= messages
            if images is not None:
                features = encoder(images.to(fabric.device)).float()
                texts = generate_captions(
                    decoder, [features], captioner.vocabulary, captioner.decoding, width
                )
                captions |= zip(numbers, texts, strict=True)
            advance(len(numbers) + len(messages))
    return captions, corrupt
