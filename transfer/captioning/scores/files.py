"""What is scored: references and results, in any layout of `layouts`, and which belong together."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pretrain.errors import UsageError
from pretrain.progress import log
from transfer.captioning.scores.layouts import (
    ImageCaptions,
    Log,
    canonical_name,
    is_file_name,
    kind_of,
    parse_id,
    parse_json,
    read_images,
    read_text,
    unpacked,
)

T = TypeVar("T")


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
    several = [
        image_id
        for image_id, image in images.items()
        if len(image.captions) != 1 and not (take and image.captions)
    ]
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
    _, images = read_images(path, log)
    images = {key: image for key, image in images.items() if image.captions or not image.is_listed}
    if not images:
        raise UsageError(f"{path} holds no captions.")
    return images


def read_ids(path: Path) -> list[str]:
    """Ids from a file: a JSON list, or one a line."""
    text = read_text(path)
    if unpacked(path).suffix == ".json":
        content = parse_json(text, str(path))
        if not isinstance(content, list):
            raise UsageError(f"{path} is no list of ids but {kind_of(content)}.")
        ids = [str(parse_id(value, f"{path}, entry {n}")) for n, value in enumerate(content)]
    else:
        lines = enumerate(text.split("\n"), start=1)
        ids = [str(parse_id(line, f"{path}, line {n}")) for n, line in lines if line.strip()]
    if not ids:
        raise UsageError(f"{path} holds no ids.")
    return list(dict.fromkeys(ids))


def match_ids(
    references: CaptionFile,
    results: Mapping[str, T],
    name: object = "the results",
    log: Log = log,
) -> dict[str, T]:
    """The results by the ids of the references, where the two differ only in how they are written.

    391895, 000000391895, COCO_val2014_000000391895.jpg and val2014/COCO_val2014_000000391895.jpg
    are one image; other names are compared without folders and ending. An id of the results that
    stands among the references is taken as it is; what no reference has stays as it is.

    Args:
        references: with their file names, which count too.
        results: by id.
        name: what a message calls the results.
        log: takes a line where ids are matched so.

    Raises:
        UsageError: an id that fits several images, or an image that several ids fit.
    """
    strange = [key for key in results if key not in references.captions]
    if not strange:
        return dict(results)
    by_id: dict[str, set[str]] = defaultdict(set)
    by_name: dict[str, set[str]] = defaultdict(set)
    for image_id in references.captions:
        by_id[canonical_name(image_id)].add(image_id)
        if image_id in references.file_names:
            by_name[canonical_name(references.file_names[image_id])].add(image_id)
    named = len(references.file_names) == len(references.captions)
    target: dict[str, str] = {}
    for key in strange:
        form = canonical_name(key)
        fitting = {*by_name[form]}
        if not (named and is_file_name(key)):  # ids that merely count the images are no names
            fitting |= by_id[form]
        if len(fitting) > 1:
            first, second, *_ = sorted(fitting)
            raise UsageError(
                f"{name}: the id {key!r} fits {first!r} and {second!r} of {references.path}. Write "
                "the ids of both files alike."
            )
        if fitting:
            target[key] = fitting.pop()
    counts = Counter(target.get(key, key) for key in results)
    if twice := next((image_id for image_id, count in counts.items() if count > 1), None):
        one, other, *_ = [key for key in results if target.get(key, key) == twice]
        raise UsageError(f"{name}: the ids {one!r} and {other!r} are one image, {twice!r}.")
    if target:
        key, image_id = next(iter(target.items()))
        log(
            f"{name}: {len(target):,} of {len(results):,} ids are written otherwise than in "
            f"{references.path} and matched by number or name: {key} is {image_id}"
        )
    return {target.get(key, key): value for key, value in results.items()}


def choose(
    references: CaptionFile,
    results: Mapping[str, str],
    ids: Sequence[str] | None = None,
    subset: bool = False,
    name: object = "the results",
) -> dict[str, list[str]]:
    """The references of the images to score, in their order.

    Args:
        references: all there are.
        results: the captions to score.
        ids: score these images only; each needs references.
        subset: leave out the images without a caption; otherwise they are an error.
        name: what a message calls the results.

    Raises:
        UsageError: images without a caption, or captions without references.
    """
    chosen = references.captions
    if ids is not None:
        if lone := [image_id for image_id in ids if image_id not in chosen]:
            count = f"{len(lone)} of {len(ids)} ids asked for"
            path = references.path
            raise UsageError(f"{count} have no references in {path}, the first is {lone[0]!r}.")
        chosen = {image_id: chosen[image_id] for image_id in ids}
    elif lone := [image_id for image_id in results if image_id not in chosen]:
        raise UsageError(
            f"{len(lone)} of {len(results)} ids in {name} are not in {references.path}, the first "
            f"is {lone[0]!r}; ids there look like {next(iter(chosen))!r}."
        )
    if missing := [image_id for image_id in chosen if image_id not in results]:
        if not subset:
            raise UsageError(
                f"{len(missing)} of {len(chosen)} images have no caption in {name}, the first has "
                f"id {missing[0]!r}. Give captions for all, or --subset to score those that have "
                "one."
            )
        if len(missing) == len(chosen):
            raise UsageError(f"none of the {len(chosen)} images has a caption in {name}.")
        chosen = {image_id: texts for image_id, texts in chosen.items() if image_id in results}
    return chosen
