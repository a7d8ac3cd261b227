"""What a detector is trained and scored on: images, their objects, and what was wrong with them.

K objects of an image. Boxes are left, top, right, bottom in pixels, continuous and 0-based: a box
over the first pixel alone is 0, 0, 1, 1.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pretrain.errors import UsageError

Kind = Literal[
    "broken annotation",
    "no annotation",
    "no image",
    "unreadable image",
    "unknown class",
    "image listed twice",
    "box without area",
    "box outside the image",
    "box over the edge",
    "object twice",
    "size of another image",
]
# what is done, where nobody has asked for something else
RULES: dict[Kind, str] = {
    "broken annotation": "refused",
    "no annotation": "refused",
    "no image": "refused",
    "unreadable image": "refused",
    "unknown class": "refused",
    "image listed twice": "the second is dropped",
    "box without area": "dropped",
    "box outside the image": "dropped",
    "box over the edge": "cut at the edge",
    "object twice": "both are kept",
    "size of another image": "the image's own is taken",
}
_OF_AN_IMAGE = ("broken annotation", "no annotation", "no image", "unreadable image")
_SHOWN = 10


@dataclass(frozen=True, order=True)
class DataIssue:
    """One thing that is wrong on disk."""

    kind: Kind
    where: str
    """File and, where it can be told, line: Annotations/000001.xml:14."""
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image and its K objects."""

    image_id: str | int
    """As the data names it: of Pascal VOC the file's name, of MS-COCO a number."""
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    """(K, 4) float64."""
    labels: np.ndarray
    """(K,) int64, positions in the class list."""
    difficult: np.ndarray
    """(K,) bool: trained on, but neither hit nor miss in Pascal VOC's scores."""
    truncated: np.ndarray
    """(K,) bool: part of the object lies outside of the image. Of no consequence."""
    crowd: np.ndarray
    """(K,) bool: MS-COCO's regions of many objects. Never trained on; scored as difficult."""


@dataclass(frozen=True, kw_only=True)
class Records:
    """The images of a split."""

    classes: tuple[str, ...]
    images: tuple[Record, ...]
    category_ids: tuple[int, ...] = ()
    """MS-COCO's number of each class; 1, 2, ... where the data has none."""
    numbered: bool = True
    """False where the data has no numbers of its own."""
    problems: tuple[DataIssue, ...] = ()
    """What was met while reading, and dealt with by the rules."""

    def __post_init__(self) -> None:
        """Number the classes where nobody did."""
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.classes) + 1)))
            object.__setattr__(self, "numbered", False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_objects(self) -> int:
        """Of all images."""
        return sum(len(record.labels) for record in self.images)

    def to_train_on(self, *, difficult: bool = True) -> "Records":
        """Without crowds (and difficult objects, if asked), then without images of no object.

        Both libraries drop crowds. detectron2 leaves images without objects out and torchvision's
        reference does so for MS-COCO: they are left out for both engines.
        """
        kept = []
        for record in self.images:
            wanted = ~record.crowd if difficult else ~record.crowd & ~record.difficult
            if wanted.any():
                kept.append(record if wanted.all() else _chosen(record, wanted))
        return replace(self, images=tuple(kept))


def _chosen(record: Record, wanted: np.ndarray) -> Record:
    names = ("boxes", "labels", "difficult", "truncated", "crowd")
    return replace(record, **{name: getattr(record, name)[wanted] for name in names})


def refuse(
    problems: Iterable[DataIssue],
    source: str,
    *,
    max_corrupt: int = 0,
    dropped: Sequence[Kind] = (),
) -> None:
    """Raise where a problem stands that the rules do not let pass, and name them all, or the first.

    Args:
        problems: what was met.
        source: the tree and split, for the message.
        max_corrupt: so many images may be broken; they are then left out.
        dropped: kinds that the user wants dropped instead.

    Raises:
        UsageError: with file and line of each, and what can be done.
    """
    refused = [p for p in problems if RULES[p.kind] == "refused" and p.kind not in dropped]
    images = [p for p in refused if p.kind in _OF_AN_IMAGE]
    if len(images) <= max_corrupt:
        refused = [p for p in refused if p not in images]
    if not refused:
        return
    listed = "".join(f"\n  {problem}" for problem in refused[:_SHOWN])
    more = f"\n  and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    ways = []
    if any(p.kind in _OF_AN_IMAGE for p in refused):
        count = len({p.where.rsplit(":", 1)[0] for p in images})
        ways.append(f"mend them, or leave so many images out with --voc.max_corrupt {count}")
    if any(p.kind == "unknown class" for p in refused):
        ways.append(
            "mend the names, or give the classes wanted with --voc.classes and drop the others "
            "with --voc.other_classes drop"
        )
    raise UsageError(f"{source} cannot be used:{listed}{more}\n{'; '.join(ways).capitalize()}.")


def summary(problems: Sequence[DataIssue], examples: int = 2) -> list[str]:
    """A line for each kind: how many, by which rule dealt with, and the first of them."""
    lines = []
    for kind, count in Counter(problem.kind for problem in problems).items():
        first = [problem.where for problem in problems if problem.kind == kind][:examples]
        rule = RULES[kind] if RULES[kind] != "refused" else "left out, as asked"
        more = ", ..." if count > examples else ""
        lines.append(f"{count:,} x {kind} ({rule}): {', '.join(first)}{more}")
    return lines
