"""Pascal VOC trees as records: a pure function from folder and split to what a detector needs.

    ROOT/JPEGImages/ID.jpg   ROOT/Annotations/ID.xml   ROOT/ImageSets/Main/SPLIT.txt

or a folder of such trees (a VOCdevkit), whose splits are called TREE/SPLIT; or folders train, valid
and test with images and XML files in them, which then are the splits. Splits are joined by `+`:
VOC2007/trainval+VOC2012/trainval. Where two trees give one name to two images, the images of that
union are named TREE/ID. Where files lie exactly, `voc_layout` says.

Boxes on disk are 1-based and inclusive: xmin = 1 is the first pixel and xmax the last one covered.
In a record they are continuous and 0-based, so xmin and ymin move by one and xmax and ymax stay.
With `first_pixel` 0 they are taken for continuous and 0-based already, as written.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UsageError
from pretrain.images import ImageHeader
from transfer.detection.annotations import (
    Annotation,
    ObjectAnnotation,
    object_lines,
    read_annotations,
)
from transfer.detection.config import DatasetConfig
from transfer.detection.headers import read_headers
from transfer.detection.records import (
    Box,
    DataIssue,
    Record,
    Records,
    choose_pixels,
    clip_box,
    label_names,
    raise_for_issues,
    refuse_resized,
)
from transfer.detection.voc_layout import (
    VocFiles,
    describe_missing,
    find_trees,
    is_tree,
    lay_out,
    list_splits,
    read_list,
    split_source,
    without_ending,
)

__all__ = ["choose_splits", "find_trees", "is_tree", "list_splits", "match_files", "read_voc"]


class _Entry(NamedTuple):
    """A line of a split."""

    image_id: str
    """Its name, with the tree's in front where two trees share one."""
    where: str
    """The split's file and the line."""
    name: str
    """As the list has it."""
    xml: tuple[str, ...]
    """The XML files that it can mean: one, if all is well."""
    files: VocFiles

    @property
    def expected_xml(self) -> str:
        """Where its XML file should be, for a message."""
        return f"{self.files.annotations}/{without_ending(self.name)}.xml"


class _Image(NamedTuple):
    """An entry with all that is known of it."""

    entry: _Entry
    annotation: Annotation
    path: str
    header: ImageHeader | None
    """None where images are not looked at."""


def read_voc(
    root: Path,
    split: str,
    classes: Sequence[str] | None = None,
    config: DatasetConfig | None = None,
    *,
    images: bool = True,
    cached: bool = True,
    check: bool = True,
) -> Records:
    """Read a split, or several joined by `+`.

    Args:
        root: the folder with JPEGImages, Annotations and ImageSets/Main, or with such trees.
        split: the name of a file in ImageSets/Main, without .txt.
        classes: class names in order of their labels; None takes the sorted names of this split.
        config: what is allowed, and how boxes are counted; None takes the defaults.
        images: look for each image and its header; scoring alone needs none.
        cached: see annotations.read_annotations.
        check: raise for what the rules refuse; False leaves it in the issues, for the caller.

    Raises:
        UsageError: what the rules of `records.RULES` refuse, with file and line.
    """
    config = config or DatasetConfig()
    entries, issues = _read_split(root, split, images)
    usable = _read_images(entries, issues, config, images, cached)
    names = sorted({one.name for image in usable for one in image.annotation.objects})
    classes, label_of, joined = label_names(names, classes)
    issues += _similar_names(usable, joined, config)
    records = [_make_record(image, label_of, issues, config) for image in usable]
    issues = refuse_resized(issues, len(records))
    if check:
        raise_for_issues(issues, f"{root}, split {split},", config)
    if check and not records:
        raise UsageError(f"{root}, split {split}: no image is left, all {len(entries)} are broken.")
    return Records(classes=classes, images=tuple(records), issues=tuple(issues))


def choose_splits(
    names: Sequence[str], train: str | None, test: str | None, draw: str = ""
) -> tuple[str, str]:
    """The splits to train and to score on, out of `names`; what is given stands.

    Otherwise (trainval, test) where there is a test split, or else (train, val); of MS-COCO's names
    the one that begins so. `draw` is the command that makes splits, for the message.
    """

    def find(name: str) -> str | None:
        return min((n for n in names if re.fullmatch(rf"{name}\d*", n)), default=None)

    if train is None:
        with_test = find("trainval") and (test or find("test")) and test != "val"
        train = find("trainval" if with_test else "train")
    test = test or find("test") or find("val") or find("valid")
    if train is None or test is None:
        raise UsageError(
            f"there are the splits {', '.join(names) or 'none'}: say which to train on and which "
            "to score on with --dataset.train and --dataset.test (several are joined by +)"
            + (f", or draw them: {draw}." if draw and len(names) < 2 else ".")
        )
    return train, test


def match_files(root: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of a tree's images with XML file, of images alone, and of XML files alone; sorted.

    They are as a list of ImageSets/Main takes them. UsageError where there are no such folders.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    tree = lay_out(root)
    if tree.annotations is None or tree.images is None:
        raise UsageError(describe_missing(tree))
    files = VocFiles(tree, images=True)
    entries = [_Entry(name, "", name, tuple(xml), files) for name, xml in files.xml.items()]
    paths = set[str]()
    both, alone = list[str](), list[str]()
    annotations = read_annotations([entry.xml[0] for entry in entries])
    for entry, annotation in zip(entries, annotations, strict=True):
        hint = annotation.image if annotation is not None else ""
        found = files.find_images(entry.name, entry.xml[0], hint)[0]
        paths.update(found)
        (both if found else alone).append(entry.name)
    others = [name for name, of_name in files.images.items() if not paths.issuperset(of_name)]
    return sorted(both), sorted(others), sorted(alone)


def _read_split(root: Path, split: str, images: bool) -> tuple[list[_Entry], list[DataIssue]]:
    """The entries of a split, each once."""
    entries: dict[tuple[Path, str], _Entry] = {}
    issues: list[DataIssue] = []
    files_of: dict[Path, VocFiles] = {}
    for part in split.split("+"):
        tree, source = split_source(root, part)
        if tree.root not in files_of:
            files_of[tree.root] = VocFiles(tree, images)
        files = files_of[tree.root]
        if source.is_dir():
            lines = [(str(source), name) for name in sorted(files.xml.keys() | files.images.keys())]
        else:
            lines = read_list(source, files)
        for where, name in lines:
            image_id = name if files.has(name) else without_ending(name)
            entry = _Entry(image_id, where, name, tuple(files.find_xml(name)), files)
            if (first := entries.setdefault((tree.root, image_id), entry)) is not entry:
                text = f"{image_id}, as in {first.where}"
                issues.append(DataIssue("image listed twice", where, text))
    if len({image_id for _, image_id in entries}) < len(entries):  # two trees share a name
        for (tree_root, image_id), entry in entries.items():
            name = f"{tree_root.name}/{image_id}"
            entries[tree_root, image_id] = entry._replace(image_id=name)
    return list(entries.values()), issues


def _read_images(
    entries: Sequence[_Entry],
    issues: list[DataIssue],
    config: DatasetConfig,
    images: bool,
    cached: bool,
) -> list[_Image]:
    """The entries that can be used; what keeps the others out is added to `issues`."""
    annotations = iter(
        read_annotations([entry.xml[0] for entry in entries if len(entry.xml) == 1], cached)
    )
    usable: list[_Image] = []
    first_of: dict[str, _Entry] = {}  # by what it was read from
    for entry in entries:
        annotation, path, issue = None, f"{entry.image_id}", None
        if len(entry.xml) == 1:
            annotation = next(annotations)
        if images:
            xml, hint = (None, "") if annotation is None else (entry.xml[0], annotation.image)
            found, is_guess = entry.files.find_images(entry.name, xml, hint)
            path = found[0] if found else path
            issue = _find_issue(entry, found)
            if is_guess and issue is None:
                text = f"{entry.name} is {path}"
                issues.append(DataIssue("image by its last name", entry.where, text))
        if annotation is None and len(entry.xml) < 2 and config.no_annotation == "empty":
            annotation = Annotation((0, 0))
            text = f"there is no {entry.expected_xml}"
            issues.append(DataIssue("image without an annotation", entry.where, text))
        if annotation is None:
            text = f"there is no {entry.expected_xml}"
            text = f"there are {' and '.join(entry.xml)}" if len(entry.xml) > 1 else text
            issue = DataIssue("no annotation", entry.where, text)
        elif annotation.error is not None:
            line, _, text = annotation.error.partition(": ")
            issue = DataIssue("broken annotation", f"{entry.xml[0]}:{line}", text)
        for source in (path, *entry.xml):
            if issue is None and first_of.setdefault(source, entry) is not entry:
                text = f"{source} is that of {first_of[source].where} too"
                issue = DataIssue("one image, two ids", entry.where, text)
        if issue is not None:
            issues.append(issue)
        elif annotation is not None:
            usable.append(_Image(entry, annotation, path, None))
    if not images:
        return usable
    headers = read_headers([image.path for image in usable])
    for image, header in zip(usable, headers, strict=True):
        if header is None:
            text = "it is no image, or cut short"
            issues.append(DataIssue("unreadable image", image.path, text))
    read = zip(usable, headers, strict=True)
    return [image._replace(header=header) for image, header in read if header is not None]


def _find_issue(entry: _Entry, found: Sequence[str]) -> DataIssue | None:
    """What is wrong with the images that a name in a list can mean."""
    if not found:
        text = f"there is no {entry.files.tree.images}/{without_ending(entry.name)}.jpg, and none "
        return DataIssue("no image", entry.where, f"{text}of another ending")
    if len(found) > 1:
        return DataIssue("two images of one name", entry.where, f"there are {' and '.join(found)}")
    return None


def _similar_names(
    images: Sequence[_Image], joined: Mapping[str, str], config: DatasetConfig
) -> list[DataIssue]:
    """Class names that differ from another by space or case alone, with the places of both."""
    if not joined:
        return []
    first: dict[str, str] = {}
    for image in images:
        for number, one in enumerate(image.annotation.objects):
            if one.name not in first:
                first[one.name] = f"{image.entry.xml[0]}:{_object_lines(image)[number]}"
    kind = "class names joined" if config.similar_names == "join" else "similar class names"
    return [
        DataIssue(kind, first[name], f"{name!r} beside {like!r}, {first.get(like, 'a class')}")
        for name, like in joined.items()
    ]


def _object_lines(image: _Image) -> list[int]:
    """Where its objects begin. Slow, so asked only where something is wrong."""
    return object_lines(Path(image.entry.xml[0]).read_bytes())


def _make_record(
    image: _Image, label_of: Mapping[str, int], issues: list[DataIssue], config: DatasetConfig
) -> Record:
    """The record; what is wrong with it is added to `issues`.

    Args:
        image: what was read.
        label_of: class name -> label.
        issues: of the split.
        config: how boxes are counted, and which pixels they belong to.
    """
    annotation, header, shift = image.annotation, image.header, config.first_pixel
    # counted from 1, the last pixel covered ends at its own number
    boxes = [(o.xmin - shift, o.ymin - shift, o.xmax, o.ymax) for o in annotation.objects]
    size, is_turned = annotation.size, False
    if header is not None:
        size, is_turned, issue = choose_pixels(annotation.size, header, boxes, config.exif)
        where = image.entry.xml[0] if image.entry.xml else image.path
        issues += [DataIssue(issue[0], where, issue[1])] if issue is not None else []
    objects: list[tuple[Box, int, bool, bool]] = []
    seen: set[tuple[int, Box]] = set()
    faults: list[tuple[int, str, str]] = []  # number of the object, kind, text
    for number, (one, box) in enumerate(zip(annotation.objects, boxes, strict=True)):
        clipped, found, text = None, list[str](), ""
        if one.name not in label_of:
            found.append("unknown class")
        elif _is_fraction(one) and min(size) != 1:
            found.append("box in fractions")
        else:
            if shift and (0 <= one.xmin < 1 or 0 <= one.ymin < 1):
                found.append("box at pixel 0")
                left, top = (0.0 if -1 <= side < 0 else side for side in box[:2])
                box = (left, top, *box[2:])
            # numbers like 33.119998 cross the edge by rounding alone
            clipped, kind = clip_box(box, size if all(size) else None, tolerance=0.01)
            found += [kind] if kind is not None else []
        if clipped is not None:
            label = label_of[one.name]
            if (label, box) in seen:
                found.append("object twice")
            seen.add((label, box))
            objects.append((clipped, label, one.difficult, False))
        if found == ["unknown class"]:
            near = get_close_matches(one.name, label_of, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            text = f"{one.name!r} is none of {', '.join(label_of) or 'nothing'}{hint}"
        elif found:
            text = f"{one} of {size[0]} x {size[1]}"
        faults += [(number, kind, text) for kind in found]
    lines = _object_lines(image) if faults else []
    for number, kind, text in faults:
        issues.append(DataIssue(kind, f"{image.entry.xml[0]}:{lines[number]}", text))
    record = Record(
        image_id=image.entry.image_id,
        path=Path(image.path),
        width=size[0],
        height=size[1],
        apply_exif=is_turned,
    )
    return record.with_objects(objects)


def _is_fraction(one: ObjectAnnotation) -> bool:
    """Whether an object's box is in fractions of the image."""
    corners = one[2:]
    return max(corners) <= 1 and min(corners) >= 0 and any(side % 1 for side in corners)
