"""What a detector is trained and scored on: images, their objects, and what was wrong with them.

K objects of an image. Boxes are left, top, right, bottom in pixels, continuous and 0-based: a box
over the first pixel alone is 0, 0, 1, 1.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import UsageError
from transfer.detection.config import DatasetConfig

# each kind of issue, and what is done by default
RULES = {
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
_MAX_LISTED = 10

Box = tuple[float, float, float, float]
# a COCO-style results list: {"image_id", "category" (a name), "bbox" (x, y, width, height:
# continuous, 0-based), "score"}
Detections = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, order=True)
class DataIssue:
    """One thing that is wrong with the files on disk."""

    kind: str
    """A key of RULES."""
    where: str
    """File and, where it is known, line: Annotations/000001.xml:14."""
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image and its K objects, none by default."""

    image_id: str | int
    """As the data set names it: in Pascal VOC the file's name, in MS-COCO a number."""
    path: Path
    width: int
    height: int
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    """(K, 4) float64."""
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(K,) int64, positions in the class list."""
    difficult: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """(K,) bool: trained on, but neither hit nor miss in Pascal VOC's scores."""
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """(K,) bool: MS-COCO's regions of many objects. Never trained on; scored as difficult."""

    def with_objects(self, objects: Sequence[tuple[Box, int, bool, bool]]) -> "Record":
        """The same image with objects: box, label, difficult, crowd."""
        return replace(
            self,
            boxes=np.array([box for box, *_ in objects], np.float64).reshape(-1, 4),
            labels=np.array([label for _, label, *_ in objects], np.int64),
            difficult=np.array([difficult for *_, difficult, _ in objects], bool),
            crowd=np.array([crowd for *_, crowd in objects], bool),
        )


@dataclass(frozen=True, kw_only=True)
class Records:
    """The images of a split."""

    classes: tuple[str, ...]
    images: tuple[Record, ...]
    category_ids: tuple[int, ...] = ()
    """MS-COCO's number of each class; empty where the data set has none."""
    issues: tuple[DataIssue, ...] = ()
    """Found while reading and treated by the rules."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_objects(self) -> int:
        """Of all images."""
        return sum(len(record.labels) for record in self.images)

    def for_training(self, *, difficult: bool = True) -> "Records":
        """Without crowds (and difficult objects, if asked), then without images of no object.

        Both libraries drop crowds. detectron2 leaves images without objects out and torchvision's
        reference does so for MS-COCO: they are left out for both engines.
        """
        images = []
        for record in self.images:
            keep = ~record.crowd if difficult else ~record.crowd & ~record.difficult
            if keep.any():
                names = ("boxes", "labels", "difficult", "crowd")
                images.append(replace(record, **{n: getattr(record, n)[keep] for n in names}))
        return replace(self, images=tuple(images))


def clip_box(
    box: Box, size: tuple[int, int] | None, tolerance: float = 0.0
) -> tuple[Box | None, str | None]:
    """The part of a box inside the image, None where there is none; and what is wrong with it.

    Args:
        box: left, top, right, bottom.
        size: width and height of the image; None where they are unknown, which clips nothing.
        tolerance: a box may reach over the edge by so many pixels without an issue.
    """
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return None, "box without area"
    if size is None:
        return box, None
    clipped = (max(left, 0.0), max(top, 0.0), min(right, size[0]), min(bottom, size[1]))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, "box outside the image"
    over = max(abs(a - b) for a, b in zip(box, clipped, strict=True))
    return clipped, "box over the edge" if over > tolerance else None


def raise_for_issues(issues: Sequence[DataIssue], source: str, config: DatasetConfig) -> None:
    """Raise where the rules refuse an issue, and list all such issues, or the first of them.

    Args:
        issues: what was found.
        source: the tree and split, for the message.
        config: how many images may be broken, and whether objects of unknown classes are dropped.

    Raises:
        UsageError: with file and line of each, and what can be done.
    """
    classes = [issue for issue in issues if issue.kind == "unknown class"]
    images = [i for i in issues if RULES[i.kind] == "refused" and i.kind != "unknown class"]
    if len(images) <= config.max_corrupt:
        images = []
    if config.other_classes == "drop":
        classes = []
    if not (refused := images + classes):
        return
    listed = "".join(f"\n  {issue}" for issue in refused[:_MAX_LISTED])
    more = f"\n  and {len(refused) - _MAX_LISTED} more" if len(refused) > _MAX_LISTED else ""
    remedies = []
    if images:
        remedies.append(
            f"mend them, or leave so many images out with --dataset.max_corrupt {len(images)}"
        )
    if classes:
        remedies.append(
            "mend the names, or give the classes wanted with --dataset.classes and drop the others "
            "with --dataset.other_classes drop"
        )
    raise UsageError(f"{source} cannot be used:{listed}{more}\n{'; '.join(remedies).capitalize()}.")


def summarize_issues(issues: Sequence[DataIssue], examples: int = 2) -> list[str]:
    """A line for each kind: how many, by which rule they were treated, and the first of them."""
    lines = []
    for kind, count in Counter(issue.kind for issue in issues).items():
        first = [issue.where for issue in issues if issue.kind == kind][:examples]
        rule = RULES[kind] if RULES[kind] != "refused" else "left out, as asked"
        more = ", ..." if count > examples else ""
        lines.append(f"{count:,} x {kind} ({rule}): {', '.join(first)}{more}")
    return lines
