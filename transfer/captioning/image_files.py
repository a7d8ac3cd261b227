"""The files of captioned images: found by what a file says of them, and compared between splits."""

import filecmp
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES, ImageSource
from pretrain.progress import log
from transfer.captioning.scores.layouts import (
    Id,
    ImageCaptions,
    Log,
    canonical_name,
    log_left_out,
)

_IMAGE_FOLDERS = ("images", "Images", "train_images", "test_images", "Flicker8k_Dataset",
                  "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")  # fmt: skip
_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?\d{12}\.jpg")


@dataclass(frozen=True)
class CaptionedImage:
    """An image with all its captions."""

    image_id: Id
    path: ImageSource
    """Of its file, or where it lies in a shard."""
    captions: tuple[str, ...]


def image_names(
    image_id: Id, file_name: str | None, suffixes: Sequence[str] = SUFFIXES
) -> Iterator[str]:
    """Where an image may lie below its folder: as its name says, or named as its id.

    a/b/c.jpg may be b/c.jpg or c.jpg too, and COCO_val2014_000000391895.jpg of 2014 is
    000000391895.jpg in train2017 or val2017.
    """
    if file_name:
        parts = file_name.split("/")
        yield from ("/".join(parts[first:]) for first in range(len(parts)))
        if parts[-1].startswith("COCO_"):
            plain = parts[-1].rpartition("_")[2]
            yield from (f"{folder}/{plain}" for folder in ("train2017", "val2017"))
        return
    stem = str(image_id)
    yield stem
    for name in (stem, f"{stem:0>12}") if stem.isdigit() else (stem,):
        yield from (f"{name}{suffix}" for suffix in suffixes)


def image_folders(root: Path, images: str | None, *inside: str) -> list[Path]:
    """Where images may lie; `inside` are folders that belong to what is read."""
    tops = [Path(images)] if images else [root, *(root / name for name in _IMAGE_FOLDERS)]
    folders = [top / name for name in inside for top in tops]
    first, *others = [*folders, *tops]
    return [first, *filter(Path.is_dir, others)]


def assemble(
    source: object,
    images: Iterable[ImageCaptions],
    folders: Sequence[Path],
    *,
    max_corrupt: int,
    log: Log = log,
) -> tuple[CaptionedImage, ...]:
    """The images that have captions, in their order; what is left out is logged.

    Args:
        source: the file they are from.
        images: captions that are no text or empty are left out.
        folders: where their files may lie.
        max_corrupt: how many of the files may be missing.
        log: takes a line for each kind of thing that is left out.

    Raises:
        UsageError: no image with a caption, too many images missing, or two of one file.
    """

    @cache
    def names_in(folder: Path) -> frozenset[str]:
        return frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()

    def is_there(path: Path) -> bool:
        return path.name in names_in(path.parent)

    seen: dict[Path, Id] = {}
    found, empty, without, missing = [], [], [], []
    for image in images:
        image_id, names = image.image_id, [*image_names(image.image_id, image.file_name)]
        candidates = (folder / name for name in names for folder in folders)
        path = next(filter(is_there, candidates), folders[0] / names[0])
        if seen.setdefault(path, image_id) != image_id:
            raise UsageError(
                f"{source}: the images {seen[path]!r} and {image_id!r} are one file, {path}. Give "
                "each image one id, and each its own file."
            )
        texts = [text for text in image.captions if isinstance(text, str) and text.strip()]
        empty += [f"image {image_id}: {text!r}" for text in image.captions if text not in texts]
        if not texts:
            without.append(image_id)
        elif is_there(path):
            found.append(CaptionedImage(image_id, path, tuple(texts)))
        else:
            missing.append(str(path))
    log_left_out(log, source, empty, "captions that are empty or no text")
    log_left_out(log, source, without, "images without captions")
    log_left_out(log, source, missing, "images whose file is missing")
    if not found and not missing:
        raise UsageError(f"{source} has no image with a caption.")
    if missing and (len(missing) > max_corrupt or not found):
        raise UsageError(
            f"{len(missing):,} of {len(found) + len(missing):,} images of {source} are not "
            f"there, the first is {missing[0]}. Complete them, name their folder by "
            f"--dataset.images DIR, or give --dataset.max_corrupt {len(missing)} to train and "
            "score without them."
        )
    return tuple(found)


def overlap(train: Sequence[CaptionedImage], held: Sequence[CaptionedImage]) -> list[str]:
    """What is to be said of images that are trained on and scored: a line each.

    Images of MS-COCO are compared by number, of either year and under either name; others that
    share id or name by the content of their files.
    """
    by_id = {str(image.image_id): image for image in train}
    by_name = {canonical_name(image.path.name): image for image in train}
    shared, other = [], []
    for image in held:
        named = by_name.get(canonical_name(image.path.name))
        pairs = [pair for pair in (named, by_id.get(str(image.image_id))) if pair is not None]
        if same := next((pair for pair in pairs if _is_same(image.path, pair.path)), None):
            shared.append(f"{image.path} (id {image.image_id}; in train {same.path})")
        elif pairs:
            other.append(f"{image.path} (in train {pairs[0].path})")
    lines = []
    if shared:
        lines.append(
            f"{len(shared):,} of {len(held):,} images are trained on, the first is {shared[0]}. "
            "Scores on them say nothing of new images."
        )
    if other:
        lines.append(
            f"{len(other):,} of {len(held):,} images share an id or a name with another picture, "
            f"the first is {other[0]}; they are taken for different images."
        )
    return lines


def _is_same(one: ImageSource, other: ImageSource) -> bool:
    if _COCO_NAME.fullmatch(one.name) and _COCO_NAME.fullmatch(other.name):
        return canonical_name(one.name) == canonical_name(other.name)
    try:
        if isinstance(one, Path) and isinstance(other, Path):
            return one == other or filecmp.cmp(one, other, shallow=False)
        return one.read_bytes() == other.read_bytes()
    except (OSError, UsageError):  # named when it is decoded
        return False
