"""Captions for files of pictures that nobody has described."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.fabric import Fabric

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES
from pretrain.progress import bar
from pretrain.training import Loader
from transfer.captioning.captioner import Captioner
from transfer.captioning.decode import beam_search, images_at_once
from transfer.feature_cache import Pictures, ReadablePictures, readable

_MOST_IMAGES = 50


def image_files(folder: Path) -> list[Path]:
    """The pictures in a folder, by name.

    Raises:
        UsageError: no such folder, or no picture in it.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file; give the folder of the pictures.")
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"{folder} holds no picture; supported are {', '.join(SUFFIXES)}.")
    return found


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
        width: of the beam search; None takes the captioner's.
        workers: loader processes.
    """
    encoder, decoder = captioner.build()
    encoder.to(fabric.device)
    decoder.to(fabric.device)
    options = captioner.decoding
    width = width or options.beam
    loader = Loader(
        ReadablePictures(Pictures(paths, captioner.backbone.preprocess())),
        batch_size=min(_MOST_IMAGES, images_at_once(width)),
        seed=0,
        workers=workers,
        shuffle=False,
        collate=readable,
    )
    said: dict[int, str] = {}
    broken: dict[int, str] = {}
    with bar("captioning", len(paths), "images") as advance:
        for numbers, images, unreadable in loader.epoch(0):
            broken |= unreadable
            advance(len(numbers) + len(unreadable))
            if images is None:
                continue
            found = beam_search(
                decoder,
                encoder(images.to(fabric.device)).float(),
                width,
                options.max_length,
                length_normalisation=options.length_normalisation,
                block_ngrams=options.block_ngrams,
            )
            for number, row in zip(numbers, found.words.tolist(), strict=True):
                said[number] = captioner.vocabulary.decode(row)
    return said, broken
