"""Captions for files of images that nobody has described."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES, describe_others, list_images
from pretrain.progress import bar, log
from pretrain.training import Loader
from transfer.captioning.beam_search import generate_captions, images_at_once
from transfer.captioning.captioner import Captioner
from transfer.feature_cache import ImageDataset, collate_readable

_MAX_IMAGES = 50


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and below it, by name; files that are none by name are logged.

    What is hidden is skipped.

    Raises:
        UsageError: no such folder, or no image in it.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file; give the folder of the images.")
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}.")
    paths, others = list_images(folder)
    for note in describe_others(folder, others):
        log(note)
    if not paths:
        raise UsageError(f"{folder} holds no image; supported are {', '.join(SUFFIXES)}.")
    return [Path(path) for path in paths]


@torch.inference_mode()
def caption_files(
    captioner: Captioner,
    paths: Sequence[Path],
    fabric: Fabric,
    *,
    workers: int = 0,
    apply_exif: bool = False,
) -> tuple[dict[int, str], dict[int, str]]:
    """Captions by the number of the file, and why others have none.

    Args:
        captioner: as loaded.
        paths: image files.
        fabric: the device.
        workers: loader processes.
        apply_exif: turn photos as their EXIF orientation says; training reads what is stored.
    """
    encoder, decoder = captioner.build()
    encoder.to(fabric.device)
    decoder.to(fabric.device)
    loader = Loader(
        ImageDataset(
            paths, captioner.backbone.preprocess(), keep_corrupt=True, apply_exif=apply_exif
        ),
        batch_size=min(_MAX_IMAGES, images_at_once(captioner.decoding.beam)),
        workers=workers,
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
                    decoder, [features], captioner.vocabulary, captioner.decoding
                )
                captions |= zip(numbers, texts, strict=True)
            advance(len(numbers) + len(messages))
    return captions, corrupt
