"""What a detector is trained and scored on: images, their objects, and what was wrong with them.

K objects of an image. Boxes are left, top, right, bottom in pixels, continuous and 0-based: a box
over the first pixel alone is 0, 0, 1, 1.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pretrain.errors import UsageError
from pretrain.images import ImageHeader
from transfer.detection.config import DatasetConfig

# each kind of issue, and what is done by default
RULES = {
    "broken annotation": "refused",
    "no annotation": "refused",
    "no image": "refused",
    "two images of one name": "refused",
    "unreadable image": "refused",
    "unknown class": "refused",
    "similar class names": "refused",
    "class names joined": "are one class",
    "category twice": "refused",
    "one image, two ids": "refused",
    "EXIF orientation": "refused",
    "photo turned": "by its EXIF orientation",
    "photo as stored": "its EXIF orientation is ignored",
    "image listed twice": "the second is dropped",
    "box without area": "dropped",
    "box outside the image": "dropped",
    "box over the edge": "cut at the edge",
    "box at pixel 0": "then boxes are counted from 0: give {0}first_pixel 0",
    "box in fractions": "refused",
    "object twice": "both are kept",
    "annotation twice": "the second is dropped",
    "size of another image": "the image's own is taken",
    "resized after labelling": "refused",
    "image without an annotation": "no object, as asked",
    "category without objects": "left out",
    "object without a mask": "never pasted; its box stands for it",
    "image by its last name": "taken",
}
# what to do about the refused ones; {0} stands for what options begin with, {1} for how many
_REMEDIES = {
    "unknown class": "mend the names, or give the classes wanted with {0}classes and drop the "
    "others with {0}other_classes drop",
    "similar class names": "give them one name, or join them with {0}similar_names join",
    "category twice": "give each category one id and one name",
    "one image, two ids": "keep one entry of each image, with the objects of both",
    "box in fractions": "multiply xmin and xmax by the width of the image, ymin and ymax by its "
    "height",
    "resized after labelling": "scale the boxes as the images were; where they do fit, write the "
    "sizes that the images have",
    "EXIF orientation": "say whether the boxes belong to the picture as it is displayed, {0}exif "
    "apply, or to the stored pixels, {0}exif ignore",
    "no annotation": "add them; if images without an XML file have no objects, {0}no_annotation "
    "empty; or leave so many images out with {0}max_corrupt {1}",
}
_MEND = "mend them, or leave so many images out with {0}max_corrupt {1}"
_FLAGS = dict.fromkeys(("1", "1.0", "true", "yes"), True)
_FLAGS |= dict.fromkeys(("0", "0.0", "false", "no", "unspecified", ""), False)

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
    """Of the pixels that the boxes belong to, as `height`."""
    height: int
    apply_exif: bool = False
    """They are those of the picture turned as its EXIF orientation says."""
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    """(K, 4) float64."""
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(K,) int64, positions in the class list."""
    difficult: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """(K,) bool: trained on, but neither hit nor miss in Pascal VOC's scores."""
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """(K,) bool: MS-COCO's regions of many objects. Never trained on; scored as difficult."""
    segmentations: tuple[str | None, ...] = ()
    """JSON, as MS-COCO writes it (see `masks`); None of an object without, or where none was asked
    for. () is None of each."""


class WrittenObject(NamedTuple):
    """An object before it is cut at the edges of its image."""

    key: Any
    """The reader's own; the same for two that are one object, written twice."""
    written: object
    """The box as it is written, for a message."""
    box: Box
    label: int | None
    """None where it cannot be used."""
    difficult: bool
    crowd: bool = False
    fault: str | None = None
    """The kind of issue that is known of it already."""
    segmentation: str | None = None


# the object, or None for the image; kind and text of an issue
Fault = tuple[WrittenObject | None, str, str]


@dataclass(frozen=True, kw_only=True)
class Records:
    """The images of a split."""

    classes: tuple[str, ...]
    images: tuple[Record, ...]
    category_ids: tuple[int, ...] = ()
    """MS-COCO's number of each class; empty where the data set has none."""
    issues: tuple[DataIssue, ...] = ()
    """Found while reading and treated by the rules."""
    sources: tuple[str, ...] = ()
    """The files of annotations and the list that were read."""

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
                chosen = {n: getattr(record, n)[keep] for n in names}
                segmentations = tuple(compress(record.segmentations, keep))
                images.append(replace(record, **chosen, segmentations=segmentations))
        return replace(self, images=tuple(images))


def read_flag(value: Any) -> bool:
    """A flag as programs write it: 1, true, yes; or 0, false, no, unspecified, nothing at all.

    Raises:
        ValueError: it is something else.
    """
    if value in (0, 1):
        return bool(value)
    text = "" if value is None else str(value).strip().lower()
    if text not in _FLAGS:
        allowed = ", ".join(filter(None, _FLAGS))
        raise ValueError(f"{value!r} is no flag (allowed are {allowed}, and nothing)")
    return _FLAGS[text]


def label_names(
    names: Iterable[str], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int], dict[str, str]]:
    """Which label each class name gets, if names that differ by space or case alone are joined.

    Args:
        names: as they are written.
        classes: the classes in order of their labels; None takes the names, in their order.

    Returns:
        The classes; name -> label, without the names that are like none of the classes; of names
        that are not written as their class is: name -> class.
    """

    def fold(name: str) -> str:
        return "".join(name.split()).casefold()

    names = list(dict.fromkeys(names))
    class_of: dict[str, str] = {}
    # of spellings without an order of their own, those without spaces around come first
    spellings = sorted(names, key=lambda name: name != name.strip())
    for name in spellings if classes is None else classes:
        class_of.setdefault(fold(name), name)
    if classes is None:
        classes = tuple(dict.fromkeys(class_of[fold(name)] for name in names))
    classes = tuple(classes)
    label_of = {name: label for label, name in enumerate(classes)}
    joined = {n: class_of[fold(n)] for n in names if n not in label_of and fold(n) in class_of}
    return classes, label_of | {n: label_of[one] for n, one in joined.items()}, joined


def describe_unknown(name: str, classes: Collection[str]) -> str:
    """The text of an issue about an object of none of the classes."""
    near = "".join(f" (did you mean {one!r}?)" for one in get_close_matches(name, classes, 1))
    return f"{name!r} is none of {', '.join(classes) or 'nothing'}{near}"


def make_record(
    record: Record, header: ImageHeader | None, objects: Sequence[WrittenObject], exif: str
) -> tuple[Record, list[Fault]]:
    """An image with those parts of its objects that lie in it, and what is wrong with them.

    Args:
        record: without objects, and with the size that is written; 0, 0 where nothing is.
        header: of the image; None where it was not looked at.
        objects: all of them.
        exif: see DatasetConfig.
    """
    faults: list[Fault] = []
    if header is not None:
        record, faults = _choose_pixels(record, header, [one.box for one in objects], exif)
    size = record.width, record.height
    kept: list[tuple[WrittenObject, Box]] = []
    first: dict[tuple[int, Box], WrittenObject] = {}
    for one in objects:
        clipped, kinds = None, [one.fault]
        if one.label is not None:
            clipped, kind = _clip_box(one.box, size)
            kinds.append(kind)
        if one.label is not None and clipped is not None:
            before = first.setdefault((one.label, one.box), one)
            is_same = before is not one and before.key == one.key
            if before is not one:
                kinds.append("annotation twice" if is_same else "object twice")
            if not is_same:
                kept.append((one, clipped))
        text = f"{one.written} of {size[0]} x {size[1]}" if any(kinds) else ""
        faults += [(one, kind, text) for kind in kinds if kind is not None]
    return replace(
        record,
        boxes=np.array([box for _, box in kept], np.float64).reshape(-1, 4),
        labels=np.array([one.label for one, _ in kept], np.int64),
        difficult=np.array([one.difficult for one, _ in kept], bool),
        crowd=np.array([one.crowd for one, _ in kept], bool),
        segmentations=tuple(one.segmentation for one, _ in kept),
    ), faults


def _clip_box(box: Box, size: tuple[int, int]) -> tuple[Box | None, str | None]:
    """The part of a box inside the image, None where there is none; and what is wrong with it."""
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return None, "box without area"
    if not all(size):
        return box, None
    clipped = (max(left, 0.0), max(top, 0.0), min(right, size[0]), min(bottom, size[1]))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, "box outside the image"
    over = max(abs(a - b) for a, b in zip(box, clipped, strict=True))
    # numbers like 33.119998, and sums like 0.1 + 0.2, cross the edge by rounding alone
    return clipped, "box over the edge" if over > 0.01 else None


def _choose_pixels(
    record: Record, header: ImageHeader, boxes: Sequence[Box], exif: str
) -> tuple[Record, list[Fault]]:
    """The record with the size of those pixels of a photo that the boxes belong to."""
    written, stored, displayed = (record.width, record.height), header.size, header.displayed_size
    written = written if all(written) else (0, 0)  # one side alone is no size
    own = f"{stored[0]} x {stored[1]}"
    record = replace(record, width=stored[0], height=stored[1])
    if header.orientation == 1:
        text = f"{written[0]} x {written[1]} is written, the image is {own}"
        is_other = written not in (stored, (0, 0))
        return record, [(None, "size of another image", text)] if is_other else []
    text = f"orientation {header.orientation}, stored as {own}, displayed as "
    text += f"{displayed[0]} x {displayed[1]}, written as {written[0]} x {written[1]}"
    if exif == "auto":

        def fit(size: tuple[int, int]) -> bool:
            return all(right <= size[0] + 1 and low <= size[1] + 1 for _, _, right, low in boxes)

        is_said = stored != displayed and written in (stored, displayed)
        is_wrong = is_said and written == stored and not fit(stored) and fit(displayed)
        if not is_said or is_wrong:
            text += ", which the boxes do not fit" if is_wrong else ""
            return record, [(None, "EXIF orientation", text)]
        exif = "apply" if written == displayed else "ignore"
    kinds = ["photo turned" if exif == "apply" else "photo as stored"]
    if written not in (stored, displayed, (0, 0)):
        kinds.append("size of another image")
    if exif == "apply":
        record = replace(record, width=displayed[0], height=displayed[1], apply_exif=True)
    return record, [(None, kind, text) for kind in kinds]


def refuse_resized(issues: Sequence[DataIssue], num_images: int) -> list[DataIssue]:
    """The issues; where most images have another size than is written, it is refused.

    In a few it is an entry that is wrong, and the image's own is taken. In more than half of them,
    and two at least, the images were resized after they were labelled.
    """
    other, resized = "size of another image", "resized after labelling"
    if sum(issue.kind == other for issue in issues) <= max(1, num_images / 2):
        return list(issues)
    return [replace(issue, kind=resized) if issue.kind == other else issue for issue in issues]


def raise_for_issues(
    issues: Sequence[DataIssue],
    source: str,
    config: DatasetConfig,
    option: str | None = "--dataset.",
) -> None:
    """Raise where the rules refuse an issue, and list all such issues, or the first of them.

    Args:
        issues: what was found.
        source: the tree and split, for the message.
        config: how many images may be broken, and what else is allowed.
        option: what the options that change the rules begin with in the tool; None where it has
            none, and those of training are named.

    Raises:
        UsageError: with file and line of each, and what can be done.
    """
    refused = [issue for issue in issues if RULES[issue.kind] == "refused"]
    if config.other_classes == "drop":
        refused = [issue for issue in refused if issue.kind != "unknown class"]
    count = sum(map(_can_be_left_out, refused))
    if count <= config.max_corrupt:
        refused = [issue for issue in refused if not _can_be_left_out(issue)]
    if not refused:
        return
    remedies = dict.fromkeys(_REMEDIES.get(issue.kind, _MEND) for issue in refused)
    text = _fill_in("; ".join(remedies), option, count)
    raise UsageError(f"{source} cannot be used:{list_first(refused)}\n{text[0].upper()}{text[1:]}.")


def list_first(faults: Sequence[object], most: int = 10) -> str:
    """The first faults for a message, each on a line of its own, and how many more there are."""
    more = f"\n  and {len(faults) - most} more" if len(faults) > most else ""
    return "".join(f"\n  {fault}" for fault in faults[:most]) + more


def _can_be_left_out(issue: DataIssue) -> bool:
    return "max_corrupt" in _REMEDIES.get(issue.kind, _MEND)


def _fill_in(text: str, option: str | None, count: int = 0) -> str:
    """A rule or remedy with the tool's names of its options."""
    if option is None:
        return text.format("finetune_det.py --dataset.", "N")
    text = text.format(option, count)
    # a command line of its own, not a configuration
    return text.replace("_", "-") if option == "--" else text


def summarize_issues(
    issues: Sequence[DataIssue], examples: int = 2, option: str | None = "--dataset."
) -> list[str]:
    """A line for each kind: how many, by which rule they were treated, and the first of them."""
    lines = []
    for kind, count in Counter(issue.kind for issue in issues).items():
        of_kind = [issue for issue in issues if issue.kind == kind][:examples]
        # which names are one is what counts, not where
        first = [f"{i.where}: {i.text}" if "joined" in kind else i.where for i in of_kind]
        rule = RULES[kind] if RULES[kind] != "refused" else "left out, as asked"
        more = ", ..." if count > examples else ""
        rule = _fill_in(rule, option)
        lines.append(f"{count:,} x {kind} ({rule}): {', '.join(first)}{more}")
    return lines
