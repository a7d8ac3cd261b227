"""YOLO's layout as instance files of MS-COCO.

    data.yaml: train, val, test (folders of images, or lists), names (a list, or {number: name})
    .../images/a.jpg   .../labels/a.txt: class and centre x, centre y, width, height of each object

Coordinates are fractions of the image as it is displayed. A line with more numbers is a polygon,
whose box is taken, or, where data.yaml has kpt_shape, a box with key points.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pretrain.check_results import CheckResult, note, ok
from pretrain.errors import UsageError, shorten
from pretrain.files import draft
from pretrain.images import list_images
from pretrain.safe_pickle import require_file
from transfer.detection.records import list_first
from transfer.detection.splits import refuse_others, write_new
from transfer.image_headers import read_headers

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_TOLERANCE = 0.01  # beyond 0 and 1, by rounding; as other readers allow


class YoloData(NamedTuple):
    """What a data set consists of."""

    classes: dict[int, str]
    splits: dict[str, list[str]]
    """{split: its images}."""
    has_points: bool
    notes: list[str]


# class; x, y, width, height in fractions of the image; whether it was a polygon
_Label = tuple[int, tuple[float, float, float, float], bool]


def convert_yolo(root: Path, out: Path | None, *, write: bool = True) -> list[CheckResult]:
    """Write OUT/annotations/instances_SPLIT.json; no image is copied.

    Args:
        root: the folder with data.yaml.
        out: the new tree; None for the same folder. Another one gets a link `images` to `root`.
        write: False only looks.

    Raises:
        UsageError: no such data set, labels that are none (all files and lines, or the first of
            them), or files with other content are there.
    """
    data = read_yolo(root)
    out = out or root
    inside = root.resolve().is_relative_to(out.resolve())
    files, errors = dict[Path, tuple[str, int]](), list[str]()
    results = [note(text) for text in data.notes]
    if list(data.splits) == ["all"]:
        draw = f"python tools/prepare_data.py instances --data {out} --val-fraction 0.2"
        results.append(note(f"there is one split alone; once converted, this draws others: {draw}"))
    for split, paths in data.splits.items():
        content, found = _convert_split(data, split, paths, out if inside else root, errors)
        results += found
        path = out / "annotations" / f"instances_{split}.json"
        files[path] = json.dumps(content), len(content["images"])
    label_files = [_label_file(path) for paths in data.splits.values() for path in paths]
    if not any(map(os.path.isfile, label_files)):
        errors.append(f"none of the label files is there, such as {label_files[0]}")
    if errors:
        raise UsageError(f"{root} cannot be converted:{list_first(errors)}\nMend them.")
    if not write:
        return results
    refuse_others(files)
    if not inside:
        results.append(_link(out / "images", root))
    return results + write_new(files)


def read_yolo(root: Path) -> YoloData:
    """Classes and images of a data set; UsageError where there is none."""
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    path, content = _read_description(root)
    classes, notes = _class_names(path, content["names"]), list[str]()
    if (count := content.get("nc", len(classes))) != len(classes):
        notes.append(f"{path.name} has {len(classes)} names, and nc {count}: names count")
    splits, missing = dict[str, list[str]](), list[str]()
    for key, split in _SPLITS.items():
        entries, images = content.get(key) or [], list[str]()
        for entry in entries if isinstance(entries, list) else [entries]:
            found = _resolve(root, str(content.get("path") or ""), str(entry))
            missing += [f"{key}: {entry}"] if found is None else []
            images += [] if found is None else _images_of(found, root)
        if images:
            splits[split] = images
    splits = splits or _by_folders(root)
    if missing:
        text = f"{path.name} names what {root} does not have: {', '.join(missing)}"
        if not splits or any(one.startswith("train:") for one in missing):
            raise UsageError(f"{text}. Mend the path, or give the folder that has it with --data.")
        notes.append(text)
    if not splits:
        raise UsageError(f"{root} has no images: neither images/ nor those that {path.name} names.")
    if len(splits) == 1:
        splits = {"all": next(iter(splits.values()))}
    return YoloData(classes, splits, "kpt_shape" in content, notes)


def _read_description(root: Path) -> tuple[Path, dict[str, Any]]:
    """data.yaml, or else the one YAML file with class names, or else classes.txt; its content."""
    found: dict[Path, dict[str, Any]] = {}
    for path in filter(Path.is_file, sorted([*root.glob("*.yaml"), *root.glob("*.yml")])):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and content.get("names"):
            found[path] = content
    found = {path: found[path] for path in found if path.stem == "data"} or found
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise UsageError(f"{root} has {listed}: leave the one that describes the data set.")
    if not found and (path := root / "classes.txt").is_file():
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        found[path] = {"names": list(filter(None, map(str.strip, lines)))}
    if not found:
        raise UsageError(
            f"{root} is no data set in YOLO's layout: it has no data.yaml with names, and no "
            "classes.txt."
        )
    return found.popitem()


def _class_names(path: Path, names: Any) -> dict[int, str]:
    """{number: name} of a list or a map."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    try:
        return {int(number): str(name) for number, name in sorted(names.items())}
    except (AttributeError, TypeError, ValueError):
        raise UsageError(
            f"{path}: names is {names!r:.60}; it must be a list of names, or number: name."
        ) from None


def _resolve(root: Path, base: str, entry: str) -> Path | None:
    """A folder or list of data.yaml inside of `root`.

    Paths are often those of another machine, or begin with ../ where they lie in this folder: the
    first ending of the path that is there is taken.
    """
    parts = [p for p in (*Path(base).parts, *Path(entry).parts) if p not in ("/", "..", ".")]
    for start in range(len(parts)):
        if (path := root.joinpath(*parts[start:])).exists():
            return path
    return None


def _images_of(path: Path, root: Path) -> list[str]:
    """The images of a folder, or of a list of images."""
    if path.is_dir():
        return list_images(path)[0]
    require_file(path)
    lines = filter(None, map(str.strip, path.read_text(encoding="utf-8-sig").splitlines()))
    # one that is not there is kept, for the message
    return [str(_resolve(root, "", line) or root / Path(line).name) for line in lines]


def _by_folders(root: Path) -> dict[str, list[str]]:
    """images/SPLIT or SPLIT/images; otherwise all of images/ as one split."""
    splits: dict[str, list[str]] = {}
    for folder, split in _SPLITS.items():
        for path in (root / "images" / folder, root / folder / "images"):
            if path.is_dir() and (images := list_images(path)[0]):
                splits[split] = images
    if not splits and (images := list_images(root / "images")[0]):
        splits["all"] = images
    return splits


def _convert_split(
    data: YoloData, split: str, paths: Sequence[str], base: Path, errors: list[str]
) -> tuple[dict[str, list[dict[str, Any]]], list[CheckResult]]:
    """An instance file, with file names from `base`, and what there is to say of the split.

    What is wrong is added to `errors`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    used: set[str] = set()
    for path, header in zip(paths, read_headers(paths), strict=True):
        if header is None:
            kind = "it is no image, or cut short" if os.path.exists(path) else "it is not there"
            errors.append(f"{path}: {kind}")
            continue
        width, height = header.displayed_size
        is_tagged = header.orientation != 1
        counts["photos with an EXIF orientation: labels are of the displayed picture"] += is_tagged
        image, name = len(images) + 1, os.path.relpath(path, base)
        images.append({"id": image, "file_name": name, "width": width, "height": height})
        label_file = _label_file(path)
        if not os.path.isfile(label_file):
            counts["images without a label file: no objects"] += 1
            continue
        used.add(label_file)
        before = len(annotations)
        for category, (x, y, w, h), is_polygon in _read_labels(label_file, data, errors):
            counts["polygons: their boxes are taken"] += is_polygon
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": category + 1,
                "bbox": [x * width, y * height, w * width, h * height],
                "area": w * width * h * height,
                "iscrowd": 0,
            })  # fmt: skip
        counts["empty label files: no objects"] += len(annotations) == before
    folders = {os.path.dirname(_label_file(path)) for path in paths}
    files = {str(path) for folder in folders for path in Path(folder).glob("*.txt")}
    if left := sorted(path for path in files - used if not path.endswith("classes.txt")):
        counts[f"label files without an image: {shorten(left, 2)}"] = len(left)
    text = f"{split}: {len(images):,} images, {len(annotations):,} objects of "
    text += f"{len({one['category_id'] for one in annotations})} classes"
    notes = [note(f"{split}: {count:,} {what}") for what, count in counts.items() if count]
    categories = [{"id": k + 1, "name": name} for k, name in data.classes.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return content, [ok(text), *notes]


def _label_file(image: str) -> str:
    """Of .../images/a.jpg it is .../labels/a.txt; without such a folder, beside the image."""
    stem = os.path.splitext(image)[0]
    head, found, tail = stem.rpartition(f"{os.sep}images{os.sep}")
    return f"{head}{os.sep}labels{os.sep}{tail}.txt" if found else f"{stem}.txt"


def _read_labels(path: str, data: YoloData, errors: list[str]) -> Iterator[_Label]:
    """The labels of a file; what is wrong is added to `errors`, with file and line."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
        errors.append(f"{path}: it is no text ({error})")
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _parse_label(line, data)
            except ValueError as error:
                errors.append(f"{path}:{number}: {error}")


def _parse_label(line: str, data: YoloData) -> _Label:
    """A line of a label file; ValueError where it is none."""
    first, *words = line.split()
    category = int(first) if re.fullmatch("[0-9]{1,9}", first) else -1
    if category not in data.classes:
        count = len(data.classes)
        raise ValueError(f"class {first!r} is none of the {count} names, 0 to {max(data.classes)}")
    try:
        values = list(map(float, words))
    except ValueError:
        raise ValueError(f"{line.strip()!r:.60} is no class and numbers") from None
    if data.has_points and len(values) > 4:
        values = values[:4]
    is_polygon = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not is_polygon:
        raise ValueError(
            f"{len(values) + 1} columns; there must be 5 (class, centre x, centre y, width, "
            "height), or class and the points of a polygon"
        )
    outside = [v for v in values if not -_TOLERANCE <= v <= 1 + _TOLERANCE or math.isnan(v)]
    if outside:
        raise ValueError(f"{outside[0]:g} lies outside of 0 and 1: fractions of the image are due")
    if is_polygon:
        x, y = min(values[::2]), min(values[1::2])
        return category, (x, y, max(values[::2]) - x, max(values[1::2]) - y), True
    x, y, width, height = values
    return category, (x - width / 2, y - height / 2, width, height), False


def _link(path: Path, root: Path) -> CheckResult:
    """`path` as a link to the data set."""
    target = os.path.relpath(root.resolve(), path.parent.resolve())
    if path.is_symlink() and os.readlink(path) == target:
        return ok(f"{path} leads to {root} already")
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already; it would become a link to {root}. Remove it.")
    with draft(path):
        try:
            path.symlink_to(target, target_is_directory=True)
        except PermissionError as error:  # file systems without links
            raise UsageError(
                f"{path} cannot be made a link to {root} ({error.strerror}). Leave --out out: the "
                "annotations are then written into the data set itself."
            ) from error
    return ok(f"{path} leads to {root}")
