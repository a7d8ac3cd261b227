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

from collections.abc import Mapping, Sequence
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
from transfer.detection.records import (
    DataIssue,
    Record,
    Records,
    WrittenObject,
    describe_unknown,
    label_names,
    make_record,
    raise_for_issues,
    refuse_resized,
)
from transfer.detection.voc_layout import (
    VocFiles,
    read_list,
    split_source,
    without_ending,
)
from transfer.image_headers import read_headers


class _Image(NamedTuple):
    """A line of a split, and what is found by it."""

    image_id: str
    """Its name, with the tree's in front where two trees share one."""
    where: str
    """The split's file and the line."""
    name: str
    """As the list has it."""
    xml: tuple[str, ...]
    """The XML files that it can mean: one, if all is well."""
    files: VocFiles
    annotation: Annotation = Annotation()
    path: str = ""
    header: ImageHeader | None = None
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
    entries, lists, issues = _read_split(root, split, images)
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
    sources = (*lists, *(file for entry in entries for file in entry.xml))
    return Records(classes=classes, images=tuple(records), issues=tuple(issues), sources=sources)


def _read_split(
    root: Path, split: str, images: bool
) -> tuple[list[_Image], list[str], list[DataIssue]]:
    """The entries of a split, each once; the lists that name them; what is odd about these."""
    entries: dict[tuple[Path, str], _Image] = {}
    lists: list[str] = []
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
            lists.append(str(source))
        for where, name in lines:
            image_id = name if files.has(name) else without_ending(name)
            entry = _Image(image_id, where, name, tuple(files.find_xml(name)), files)
            if (first := entries.setdefault((tree.root, image_id), entry)) is not entry:
                text = f"{image_id}, as in {first.where}"
                issues.append(DataIssue("image listed twice", where, text))
    if len({image_id for _, image_id in entries}) < len(entries):  # two trees share a name
        for (tree_root, image_id), entry in entries.items():
            name = f"{tree_root.name}/{image_id}"
            entries[tree_root, image_id] = entry._replace(image_id=name)
    return list(entries.values()), lists, issues


def _read_images(
    entries: Sequence[_Image],
    issues: list[DataIssue],
    config: DatasetConfig,
    images: bool,
    cached: bool,
) -> list[_Image]:
    """The entries that can be used, with all they have; what is wrong is added to `issues`."""
    single = [entry.xml for entry in entries if len(entry.xml) == 1]
    annotations = read_annotations([xml[0] for xml in single], cached)
    annotation_of: dict[tuple[str, ...], Annotation | None] = dict(
        zip(single, annotations, strict=True)
    )
    usable: list[_Image] = []
    first_of: dict[str, _Image] = {}  # by what it was read from
    for entry in entries:
        annotation, path, issue = annotation_of.get(entry.xml), entry.image_id, None
        name = without_ending(entry.name)
        if images:
            xml, hint = (None, "") if annotation is None else (entry.xml[0], annotation.image)
            found, is_guess = entry.files.find_images(entry.name, xml, hint)
            path = found[0] if found else path
            if not found:
                text = f"there is no {entry.files.tree.images}/{name}.jpg, and none of another"
                issue = DataIssue("no image", entry.where, f"{text} ending")
            elif len(found) > 1:
                text = f"there are {' and '.join(found)}"
                issue = DataIssue("two images of one name", entry.where, text)
            elif is_guess:
                text = f"{entry.name} is {path}"
                issues.append(DataIssue("image by its last name", entry.where, text))
        if annotation is None:
            text = f"there is no {entry.files.annotations}/{name}.xml"
            text = f"there are {' and '.join(entry.xml)}" if len(entry.xml) > 1 else text
            if len(entry.xml) < 2 and config.no_annotation == "empty":
                annotation = Annotation()
                issues.append(DataIssue("image without an annotation", entry.where, text))
            else:
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
            usable.append(entry._replace(annotation=annotation, path=path))
    if not images:
        return usable
    readable = []
    headers = read_headers([image.path for image in usable])
    for image, header in zip(usable, headers, strict=True):
        if header is None:
            text = "it is no image, or cut short"
            issues.append(DataIssue("unreadable image", image.path, text))
        else:
            readable.append(image._replace(header=header))
    return readable


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
                first[one.name] = f"{image.xml[0]}:{_object_lines(image)[number]}"
    kind = "class names joined" if config.similar_names == "join" else "similar class names"
    return [
        DataIssue(kind, first[name], f"{name!r} beside {like!r}, {first.get(like, 'a class')}")
        for name, like in joined.items()
    ]


def _object_lines(image: _Image) -> list[int]:
    """Where its objects begin. Slow, so asked only where something is wrong."""
    return object_lines(Path(image.xml[0]).read_bytes())


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
    shift = config.first_pixel
    width, height = image.annotation.size if image.header is None else image.header.size
    objects: list[WrittenObject] = []
    for number, one in enumerate(image.annotation.objects):
        # counted from 1, the last pixel covered ends at its own number
        box = (one.xmin - shift, one.ymin - shift, one.xmax, one.ymax)
        label, fault = label_of.get(one.name), None
        if label is None:
            fault = "unknown class"
        elif _is_fraction(one) and min(width, height) != 1:
            label, fault = None, "box in fractions"
        elif shift and (0 <= one.xmin < 1 or 0 <= one.ymin < 1):
            fault = "box at pixel 0"
            left, top = (0.0 if -1 <= side < 0 else side for side in box[:2])
            box = (left, top, *box[2:])
        objects.append(WrittenObject(number, one, box, label, one.difficult, fault=fault))
    path, (width, height) = Path(image.path), image.annotation.size
    record = Record(image_id=image.image_id, path=path, width=width, height=height)
    record, faults = make_record(record, image.header, objects, config.exif)
    file = image.xml[0] if image.xml else image.path
    lines = _object_lines(image) if faults and objects else []
    for written, kind, text in faults:
        if written is not None and kind == "unknown class":
            text = describe_unknown(image.annotation.objects[written.key].name, label_of)
        where = file if written is None else f"{file}:{lines[written.key]}"
        issues.append(DataIssue(kind, where, text))
    return record


def _is_fraction(one: ObjectAnnotation) -> bool:
    """Whether an object's box is in fractions of the image."""
    corners = one[2:]
    return max(corners) <= 1 and min(corners) >= 0 and any(side % 1 for side in corners)
