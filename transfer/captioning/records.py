"""Images with their sentences, and an honest account of the entries that cannot be used."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pretrain.errors import UsageError
from pretrain.progress import log

Id = int | str


@dataclass(frozen=True)
class CaptionedImage:
    """An image with all its sentences."""

    image_id: Id
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Captions:
    """A data set in its splits; `test` may be empty, then `val` is all that is held out."""

    name: str
    train: tuple[CaptionedImage, ...]
    val: tuple[CaptionedImage, ...]
    test: tuple[CaptionedImage, ...] = ()


class LeftOut:
    """Entries that cannot be used: how many of each kind, and the first of them."""

    def __init__(self, source: object) -> None:
        self._source = source
        self._found: dict[str, list[object]] = defaultdict(list)

    def add(self, what: str, entry: object) -> None:
        """Count an entry under what is wrong with it."""
        self._found[what].append(entry)

    def lines(self) -> list[str]:
        """One line a kind, with the count and the first."""
        return [
            f"{self._source}: left out {len(entries):,} {what}, the first is {entries[0]!r:.80}"
            for what, entries in self._found.items()
        ]


class Folders:
    """Which files there are, by one listing of each folder."""

    def __init__(self) -> None:
        self._names = cache(self._listed)

    @staticmethod
    def _listed(folder: Path) -> frozenset[str]:
        return frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()

    def has(self, path: Path) -> bool:
        """Whether there is a file of that name."""
        return path.name in self._names(path.parent)

    def first(self, candidates: Sequence[Path]) -> Path | None:
        """The first of the paths that is there."""
        return next(filter(self.has, candidates), None)


def assemble(
    source: object,
    sentences: Mapping[Id, Sequence[object]],
    places: Mapping[Id, Path],
    left_out: LeftOut,
    *,
    max_corrupt: int,
    tell: Callable[[str], None] = log,
) -> tuple[CaptionedImage, ...]:
    """The images that have sentences, in the order of `places`; tells what is left out.

    Args:
        source: the file the entries are from.
        sentences: by image; what is no text or empty is left out.
        places: by image, the file where it should lie.
        left_out: what the reader of the file has left out already.
        max_corrupt: how many of the files may be missing.
        tell: takes a line for each kind of entry that is left out.

    Raises:
        UsageError: no image with a sentence, or too many images missing.
    """
    folders = Folders()
    images, missing, wanted = [], [], 0
    for image_id, path in places.items():
        texts = []
        for text in sentences.get(image_id, ()):
            if isinstance(text, str) and text.strip():
                texts.append(text)
            else:
                left_out.add("captions that are empty or no text", f"image {image_id}: {text!r}")
        if not texts:
            left_out.add("images without captions", image_id)
            continue
        wanted += 1
        if folders.has(path):
            images.append(CaptionedImage(image_id, path, tuple(texts)))
        else:
            missing.append(path)
            left_out.add("images whose file is missing", str(path))
    for line in left_out.lines():
        tell(line)
    if not wanted:
        raise UsageError(f"{source} has no image with a caption.")
    if missing and (len(missing) > max_corrupt or not images):
        raise UsageError(
            f"{len(missing):,} of {wanted:,} images of {source} are not there, the first is "
            f"{missing[0]}. Complete them, or give --dataset.max_corrupt {len(missing)} to train "
            "and score without them."
        )
    return tuple(images)
