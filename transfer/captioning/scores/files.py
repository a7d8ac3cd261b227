"""References and results: the files of captions that are scored, in any layout of `layouts`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pretrain.errors import UsageError
from pretrain.progress import log
from transfer.captioning.scores.layouts import ImageCaptions, Log, read_images


@dataclass(frozen=True)
class CaptionFile:
    """The captions of a file, by id in the order of the file."""

    path: Path
    captions: dict[str, list[str]]
    file_names: dict[str, str] = field(default_factory=dict)
    """Of the images, where the file has them."""


def read_references(path: Path, log: Log = log) -> CaptionFile:
    """The reference captions of each image.

    Args:
        path: see `layouts`.
        log: takes a line for what is left out.

    Raises:
        UsageError: no file, no such format, an id that stands for several images, or an image
            without captions; the message names the entry.
    """
    images = _read(path, log)
    if bare := [image_id for image_id, image in images.items() if not image.captions]:
        count = f"{len(bare)} of {len(images)}"
        raise UsageError(f"{path}: {count} ids have no captions, the first is {bare[0]!r}.")
    names = {image_id: image.file_name for image_id, image in images.items() if image.file_name}
    captions = {image_id: image.captions for image_id, image in images.items()}
    return CaptionFile(Path(path), captions, names)


def read_results(
    path: Path, take: Literal["first"] | None = None, log: Log = log
) -> dict[str, str]:
    """The one caption of each image.

    Args:
        path: see `layouts`.
        take: of several captions, such as the beams of a search, the first; None refuses them.
        log: takes a line for what is left out.

    Raises:
        UsageError: as `read_references`, and where an id has several captions.
    """
    if take not in (None, "first"):
        raise UsageError(f"take is {take!r}; expected 'first' or None.")
    images = _read(path, log)
    several = [image_id for image_id, image in images.items() if len(image.captions) != 1]
    if take is not None:
        several = [image_id for image_id in several if not images[image_id].captions]
    if several:
        remedy = "" if take else " --take first takes the first of each, such as the best beam."
        raise UsageError(
            f"{path}: {len(several)} of {len(images)} ids do not have one caption, the first is "
            f"{several[0]!r} with {len(images[several[0]].captions)}. Results hold one caption an "
            f"image.{remedy}"
        )
    if cut := sum(len(image.captions) > 1 for image in images.values()):
        log(f"{path}: {cut:,} of {len(images):,} ids have several captions, the first is taken")
    return {image_id: image.captions[0] for image_id, image in images.items()}


def _read(path: Path, log: Log) -> dict[str, ImageCaptions]:
    """Without the images that MS-COCO lists only."""
    images = read_images(path, log).images
    images = {key: image for key, image in images.items() if image.captions or not image.is_listed}
    if not images:
        raise UsageError(f"{path} holds no captions.")
    return images
