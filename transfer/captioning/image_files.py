"""From what a file says of images to the files of these images."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES
from pretrain.progress import log
from transfer.captioning.scores.layouts import Id, ImageCaptions, Log, relative_paths

_IMAGE_FOLDERS = ("images", "Images", "train_images", "test_images", "Flicker8k_Dataset",
                  "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")  # fmt: skip

Entries = dict[Id, tuple[Path, list[Any]]]
"""By image, the file where it should lie, and its captions as they stand there."""
Skipped = Mapping[str, Sequence[object]]
"""What is wrong with entries -> those entries."""


@dataclass(frozen=True)
class CaptionedImage:
    """An image with all its captions."""

    image_id: Id
    path: Path
    captions: tuple[str, ...]


class ImageFiles(dict[Path, frozenset[str]]):
    """Which files there are, by one listing of each folder."""

    def __missing__(self, folder: Path) -> frozenset[str]:
        names = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
        return self.setdefault(folder, names)

    def has(self, path: Path) -> bool:
        """Whether there is a file of that name."""
        return path.name in self[path.parent]

    def first(self, candidates: Iterator[Path]) -> Path:
        """The first of the paths where there is a file; the first of all where there is none."""
        first = next(candidates)
        return next(filter(self.has, chain([first], candidates)), first)


def find_images(images: Iterable[ImageCaptions], folders: Sequence[Path]) -> Entries:
    """With the file of each image: where its name says, or named as its id."""
    files = ImageFiles()

    def names(image: ImageCaptions) -> Iterator[str]:
        if image.file_name:
            yield from relative_paths(image.file_name)
            return
        stem = str(image.image_id)
        yield stem
        yield from (f"{stem}{suffix}" for suffix in SUFFIXES)
        if stem.isdigit():
            yield from (f"{stem:0>12}{suffix}" for suffix in SUFFIXES)

    return {
        image.image_id: (
            files.first(folder / name for name in names(image) for folder in folders),
            image.captions,
        )
        for image in images
    }


def image_folders(root: Path, images: str | None, *inside: str) -> list[Path]:
    """Where images may lie; `inside` are folders that belong to what is read."""
    tops = [Path(images)] if images else [root, *(root / name for name in _IMAGE_FOLDERS)]
    folders = [top / name for name in inside for top in tops]
    first, *others = [*folders, *tops]
    return [first, *filter(Path.is_dir, others)]


def log_skipped(source: object, skipped: Skipped, log: Log = log) -> None:
    """One line for each kind of entry that is left out, with the count and the first of them."""
    for problem, entries in skipped.items():
        if entries:
            log(f"{source}: left out {len(entries):,} {problem}, the first is {entries[0]!r:.80}")


def assemble(
    source: object,
    entries: Entries,
    skipped: Skipped,
    *,
    max_corrupt: int,
    log: Log = log,
) -> tuple[CaptionedImage, ...]:
    """The images that have captions, in the order of `entries`; what is left out is logged.

    Args:
        source: the file the entries are from.
        entries: captions that are no text or empty are left out.
        skipped: what the reader of the file has left out already.
        max_corrupt: how many of the image files may be missing.
        log: takes a line for each kind of entry that is left out.

    Raises:
        UsageError: no image with a caption, too many images missing, or two of one file.
    """
    files, seen = ImageFiles(), dict[Path, Id]()
    images, empty, without, missing = [], [], [], []
    for image_id, (path, captions) in entries.items():
        if seen.setdefault(path, image_id) != image_id:
            raise UsageError(
                f"{source}: the images {seen[path]!r} and {image_id!r} are one file, {path}. Give "
                "each image one id, and each its own file."
            )
        texts = [text for text in captions if isinstance(text, str) and text.strip()]
        empty += [f"image {image_id}: {text!r}" for text in captions if text not in texts]
        if not texts:
            without.append(image_id)
        elif files.has(path):
            images.append(CaptionedImage(image_id, path, tuple(texts)))
        else:
            missing.append(str(path))
    log_skipped(source, skipped, log)
    log_skipped(source, {"captions that are empty or no text": empty}, log)
    log_skipped(source, {"images without captions": without}, log)
    log_skipped(source, {"images whose file is missing": missing}, log)
    if not images and not missing:
        raise UsageError(f"{source} has no image with a caption.")
    if missing and (len(missing) > max_corrupt or not images):
        raise UsageError(
            f"{len(missing):,} of {len(images) + len(missing):,} images of {source} are not "
            f"there, the first is {missing[0]}. Complete them, name their folder by "
            f"--dataset.images DIR, or give --dataset.max_corrupt {len(missing)} to train and "
            "score without them."
        )
    return tuple(images)
