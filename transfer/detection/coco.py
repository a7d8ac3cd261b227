"""MS-COCO's instance files as records; `coco_layout` says where they lie.

Boxes are x, y, width, height, continuous and 0-based. `iscrowd` marks regions of many objects;
`ignore` and `difficult`, which converters write, mark objects that are neither hit nor miss.
Every object is read, or named by an issue, or of an image that an issue names.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import UsageError
from pretrain.images import ImageHeader
from transfer.coco_masks import is_segmentation, may_belong
from transfer.detection.coco_file import (
    InstanceFile,
    check_box_form,
    read_box,
    read_category_id,
    read_id,
    read_instance_file,
)
from transfer.detection.coco_layout import ImageFinder, split_file
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
    read_flag,
    refuse_resized,
)
from transfer.image_headers import read_headers

_DIFFICULT = ("difficult", "ignore")

_Objects = Mapping[int | str, list[WrittenObject]]  # of each image, by its id


def read_coco(
    root: Path,
    split: str,
    classes: Sequence[str] | None = None,
    config: DatasetConfig | None = None,
    *,
    images: bool = True,
    check: bool = True,
    masks: bool = False,
) -> Records:
    """Read a split. Arguments and errors are those of `voc.read_voc`.

    Without `classes`, all categories of the file, by number. With `masks` objects have their
    segmentations, as they are written.
    """
    config = config or DatasetConfig()
    file = read_instance_file(split_file(root, split))
    names = list(file.categories.values())
    classes, label_of, joined = label_names(names, classes)
    issues = [*file.issues, *_similar_names(file, joined, config)]
    objects = _read_objects(file, label_of, issues, masks)
    finder = ImageFinder(root, split, file.path)
    paths = _find_images(file, finder, issues)
    header_of: dict[int | str, ImageHeader | None] = {}
    if images:
        finder.raise_if_none(paths.values(), (one.file_name for one in file.images.values()))
        found = {image: path for image, path in paths.items() if path is not None}
        header_of = dict(zip(found, read_headers(list(found.values())), strict=True))
    records = []
    for image, entry in file.images.items():
        where, header = f"{file.path}: image {image}", header_of.get(image)
        if images and header is None:
            kind = "unreadable image" if image in header_of else "no image"
            text = paths[image] or f"there is no {entry.file_name} in {finder.places}"
            text += f" ({len(objects[image])} objects with it)" if objects[image] else ""
            issues.append(DataIssue(kind, where, text))
            continue
        path, (width, height) = Path(paths[image] or root / entry.file_name), entry.size
        record = Record(image_id=image, path=path, width=width, height=height)
        record, faults = make_record(record, header, objects[image], config.exif)
        records.append(record)
        for one, kind, text in faults:
            issues.append(DataIssue(kind, where if one is None else f"{one.key}", text))
    _check_boxes(file, objects, header_of)
    issues = refuse_resized(issues, len(records))
    if check:
        raise_for_issues(issues, f"{file.path}", config)
    if check and not records:
        raise UsageError(f"{file.path} lists no image that can be used.")
    ids = {name: number for number, name in reversed(file.categories.items())}
    free = max(file.categories, default=0) + 1
    return Records(
        classes=classes,
        images=tuple(records),
        category_ids=tuple(ids.get(name, free + k) for k, name in enumerate(classes)),
        issues=tuple(issues),
        sources=(str(file.path),),
    )


def _similar_names(
    file: InstanceFile, joined: Mapping[str, str], config: DatasetConfig
) -> list[DataIssue]:
    """Categories whose name is that of another one, or differs by space or case alone."""
    kind = "class names joined" if config.similar_names == "join" else "similar class names"
    issues: list[DataIssue] = []
    first: dict[str, int] = {}
    for category, name in file.categories.items():
        like = joined.get(name, name)
        if like in first or like != name:
            beside = f" of category {first[like]}" if like in first else ", a class"
            text = f"{name!r} beside {like!r}{beside}"
            issues.append(DataIssue(kind, f"{file.path}: category {category}", text))
        first.setdefault(like, category)
    return issues


def _read_objects(
    file: InstanceFile, label_of: Mapping[str, int], issues: list[DataIssue], masks: bool
) -> _Objects:
    """The objects of each image; what is wrong is added to `issues`."""
    objects: dict[int | str, list[WrittenObject]] = {image: [] for image in file.images}
    source = str(file.path)
    for number, entry in enumerate(file.annotations):
        where = f"annotation {entry['id']}" if "id" in entry else f"number {number} of annotations"
        where = f"{source}: {where}"
        image, category = read_id(entry.get("image_id")), read_category_id(entry.get("category_id"))
        kind = "broken annotation"
        if image is None or image not in objects:
            text = f"there is no image {entry.get('image_id')!r}"
        elif category is None or category not in file.categories:
            kind, text = "unknown class", f"the file has no category {entry.get('category_id')!r}"
        elif (name := file.categories[category]) not in label_of:
            kind, text = "unknown class", describe_unknown(name, label_of)
        elif (box := read_box(entry.get("bbox"))) is None:
            text = f"bbox is {entry.get('bbox')!r:.80}, not x, y, width, height"
        else:
            try:
                crowd = read_flag(entry.get("iscrowd"))
                difficult = any(read_flag(entry[key]) for key in _DIFFICULT if key in entry)
                x, y, width, height = box
                corners, label = (x, y, x + width, y + height), label_of[name]
                given, fault, segmentation = entry.get("segmentation"), None, None
                size = file.images[image].size
                if masks and is_segmentation(given) and may_belong(given, box, size):
                    segmentation = json.dumps(given)  # a fourth of the memory of its numbers
                elif masks and not crowd:
                    fault = "object without a mask"
                one = WrittenObject(
                    *(where, entry["bbox"], corners, label, difficult, crowd, fault, segmentation)
                )
                objects[image].append(one)
                continue
            except ValueError as error:
                text = f"of iscrowd, {', '.join(_DIFFICULT)}: {error}"
        issues.append(DataIssue(kind, where, text))
    return objects


def _find_images(
    file: InstanceFile, finder: ImageFinder, issues: list[DataIssue]
) -> dict[int | str, str | None]:
    """{image's id: its path, None where it is not there}; one file under two ids is an issue."""
    paths: dict[int | str, str | None] = {}
    first: dict[Any, int | str] = {}
    for image, entry in file.images.items():
        paths[image], identity, by_last_part = finder.find(entry.file_name)
        where, key = f"{file.path}: image {image}", identity or entry.file_name
        if key in first:
            same = file.images[first[key]].file_name
            text = f"{entry.file_name} is image {first[key]} too, there as {same}"
            issues.append(DataIssue("one image, two ids", where, text))
        first.setdefault(key, image)
        if by_last_part:
            text = f"{entry.file_name} leads out of the tree: it is {paths[image]}"
            issues.append(DataIssue("image by its last name", where, text))
    return paths


def _check_boxes(
    file: InstanceFile, objects: _Objects, header_of: Mapping[int | str, ImageHeader | None]
) -> None:
    """Raise where boxes are in another form; their sizes are those written, if there are any."""
    listed, sizes = [], []
    for image, entry in file.images.items():
        header, size = header_of.get(image), entry.size
        if header is not None and header.orientation != 1:
            size = (max(header.size), max(header.size))  # whatever pixels they belong to
        elif header is not None and not all(size):
            size = header.size
        listed += objects[image]
        sizes += [size] * len(objects[image])
    boxes = np.array([one.box for one in listed]).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    check_box_form(
        boxes,
        np.array(sizes).reshape(-1, 2),
        f"{file.path}",
        lambda number: f"{listed[number].key}".rpartition(": ")[2],
    )
