"""Images that are trained on and scored."""

import re
from collections.abc import Sequence
from pathlib import Path

from transfer.captioning.image_files import CaptionedImage
from transfer.captioning.scores.layouts import canonical_name

_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?\d{12}\.jpg")
_HEAD = 1 << 16  # bytes in which two files of one size are compared


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


def _is_same(one: Path, other: Path) -> bool:
    if one == other:
        return True
    if _COCO_NAME.fullmatch(one.name) and _COCO_NAME.fullmatch(other.name):
        return canonical_name(one.name) == canonical_name(other.name)
    try:
        if one.stat().st_size != other.stat().st_size:
            return False
        with open(one, "rb") as first, open(other, "rb") as second:
            return first.read(_HEAD) == second.read(_HEAD)
    except OSError:  # named when it is decoded
        return False
