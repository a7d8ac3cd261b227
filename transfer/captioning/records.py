"""Images with their captions, and an honest account of the entries that cannot be used."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain.errors import UsageError
from pretrain.progress import log

Id = int | str
Skipped = Mapping[str, Sequence[object]]
"""What is wrong with entries -> those entries."""


@dataclass(frozen=True)
class CaptionedImage:
    """An image with all its captions."""

    image_id: Id
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionDataset:
    """A data set in its splits; without a `test` split, `val` is all that is not trained on."""

    name: str
    train: tuple[CaptionedImage, ...]
    val: tuple[CaptionedImage, ...]
    test: tuple[CaptionedImage, ...] = ()


class ImageFiles(dict[Path, frozenset[str]]):
    """Which files there are, by one listing of each folder."""

    def __missing__(self, folder: Path) -> frozenset[str]:
        names = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
        return self.setdefault(folder, names)

    def has(self, path: Path) -> bool:
        """Whether there is a file of that name."""
        return path.name in self[path.parent]

    def first(self, candidates: Sequence[Path]) -> Path:
        """The first of the paths where there is a file; the first of all where there is none."""
        return next(filter(self.has, candidates), candidates[0])


def log_skipped(source: object, skipped: Skipped, log: Callable[[str], None] = log) -> None:
    """One line for each kind of entry that is left out, with the count and the first of them."""
    for problem, entries in skipped.items():
        if entries:
            log(f"{source}: left out {len(entries):,} {problem}, the first is {entries[0]!r:.80}")


def assemble(
    source: object,
    captions: Mapping[Id, Iterable[object]],
    paths: Mapping[Id, Path],
    skipped: Skipped,
    *,
    max_corrupt: int,
    log: Callable[[str], None] = log,
) -> tuple[CaptionedImage, ...]:
    """The images that have captions, in the order of `paths`; what is left out is logged.

    Args:
        source: the file the entries are from.
        captions: by image; what is no text or empty is left out.
        paths: by image, the file where it should lie.
        skipped: what the reader of the file has left out already.
        max_corrupt: how many of the image files may be missing.
        log: takes a line for each kind of entry that is left out.

    Raises:
        UsageError: no image with a caption, or too many images missing.
    """
    files = ImageFiles()
    images, empty, without, missing = [], [], [], []
    for image_id, path in paths.items():
        texts = []
        for text in captions.get(image_id, ()):
            if isinstance(text, str) and text.strip():
                texts.append(text)
            else:
                empty.append(f"image {image_id}: {text!r}")
        if not texts:
            without.append(image_id)
        elif files.has(path):
            images.append(CaptionedImage(image_id, path, tuple(texts)))
        else:
            missing.append(str(path))
    skipped = {
        **skipped,
        "captions that are empty or no text": empty,
        "images without captions": without,
        "images whose file is missing": missing,
    }
    log_skipped(source, skipped, log)
    if not images and not missing:
        raise UsageError(f"{source} has no image with a caption.")
    if missing and (len(missing) > max_corrupt or not images):
        raise UsageError(
            f"{len(missing):,} of {len(images) + len(missing):,} images of {source} are not "
            f"there, the first is {missing[0]}. Complete them, or give --dataset.max_corrupt "
            f"{len(missing)} to train and score without them."
        )
    return tuple(images)
