"""Captions for files of images that nobody has described."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES, describe_others, list_images
from pretrain.progress import bar, log
from pretrain.training import Loader
from transfer.captioning.beam_search import generate_groups, images_at_once
from transfer.captioning.captioner import Captioner
from transfer.captioning.ensemble import Ensemble
from transfer.feature_cache import ImageDataset, collate_readable
from transfer.stores import refuse_store

_MAX_IMAGES = 50


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and below it, by name; files that are none by name are logged.

    What is hidden is skipped.

    Raises:
        UsageError: no such folder, or no image in it.
    """
    refuse_store(folder, "here images of a folder are captioned")
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
    captioners: Sequence[Captioner],
    paths: Sequence[Path],
    fabric: Fabric,
    *,
    workers: int = 0,
    apply_exif: bool = False,
) -> tuple[dict[int, list[str]], dict[int, str]]:
    """Captions by the number of the file, and why others have none.

    An image has the best caption of each group of the search, likeliest first; without groups that
    is one.

    Args:
        captioners: as loaded; several are searched as an ensemble, as the first one's `decoding`
            says. Each image goes through the preprocessing and the encoder of each.
        paths: image files.
        fabric: the device.
        workers: loader processes.
        apply_exif: turn photos as their EXIF orientation says; training reads what is stored.
    """
    first, built = captioners[0], [captioner.build() for captioner in captioners]
    decoder = Ensemble([decoder.to(fabric.device) for _, decoder in built])
    backbones = [captioner.backbone.fingerprint() for captioner in captioners]
    keys = [(name, encoder.kind) for name, (encoder, _) in zip(backbones, built, strict=True)]
    # equal encoders encode once
    encoders = {key: built[place][0].to(fabric.device) for place, key in enumerate(keys)}
    transforms = {
        name: captioner.backbone.preprocess()
        for name, captioner in zip(backbones, captioners, strict=True)
    }
    loader = Loader(
        ImageDataset(paths, partial(_views, transforms), keep_corrupt=True, apply_exif=apply_exif),
        batch_size=min(_MAX_IMAGES, images_at_once(first.decoding.beam)),
        workers=workers,
        collate=collate_readable,
    )
    captions: dict[int, list[str]] = {}
    corrupt: dict[int, str] = {}
    with bar("captioning", len(paths), "images") as advance:
        for numbers, views, messages in loader.epoch(0):
            corrupt |= messages
            if views is not None:
                images = {name: view.to(fabric.device) for name, view in views.items()}
                found = {key: encode(images[key[0]]).float() for key, encode in encoders.items()}
                features = tuple(found[key] for key in keys)
                texts = generate_groups(decoder, [features], first.vocabulary, first.decoding)
                captions |= zip(numbers, texts, strict=True)
            advance(len(numbers) + len(messages))
    return captions, corrupt


def _views(
    transforms: Mapping[str, Callable[[Tensor], Tensor]], image: Tensor
) -> dict[str, Tensor]:
    """What each backbone sees of an image."""
    return {name: transform(image) for name, transform in transforms.items()}
