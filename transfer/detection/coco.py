"""MS-COCO's instance files as records.

    ROOT/annotations/instances_SPLIT.json   ROOT/SPLIT/*.jpg
    ROOT/SPLIT/_annotations.coco.json       ROOT/SPLIT/*.jpg

Boxes are x, y, width, height, continuous and 0-based. `iscrowd` marks regions of many objects.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pretrain.errors import UsageError
from transfer.detection.records import DataIssue, Kind, Record, Records, refuse


def splits(root: Path) -> list[str]:
    """Names of the splits; none where this is no MS-COCO tree."""
    if not root.is_dir():
        return []
    named = root.glob("annotations/instances_*.json")
    found = [path.stem.removeprefix("instances_") for path in named]
    return sorted(found + [path.parent.name for path in root.glob("*/_annotations.coco.json")])


def read_coco(
    root: Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    images: bool = True,
    max_corrupt: int = 0,
    other_classes: Literal["refuse", "drop"] = "refuse",
) -> Records:
    """Read a split. Arguments and errors are those of `voc.read_voc`.

    Without `classes`, all categories of the file, by number. Images are looked for, not opened: a
    broken one, or one of another size than written, shows when it is decoded.
    """
    path, folders = _places(root, split)
    content = _content(path)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    name_of = {category["id"]: str(category["name"]) for category in categories}
    classes = tuple(classes or name_of.values())
    label_of = {name: label for label, name in enumerate(classes)}
    problems: list[DataIssue] = []
    things: dict[Any, list[tuple]] = {image["id"]: [] for image in content["images"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for entry in content["annotations"]:
        where = f"{path}: annotation {entry.get('id', '?')}"
        if entry.get("image_id") not in things:
            text = f"there is no image {entry.get('image_id')!r}"
            problems.append(DataIssue("broken annotation", where, text))
        elif (met := _trouble(where, entry, name_of, label_of)) is not None:
            problems.append(met)
        else:
            box, met = _box(where, entry, *sizes[entry["image_id"]])
            problems += [met] if met is not None else []
            if box is not None:
                crowd = bool(entry.get("iscrowd", 0))
                label = label_of[name_of[entry["category_id"]]]
                things[entry["image_id"]].append((box, label, crowd))
    records = []
    for image in content["images"]:
        found = _find(folders, image["file_name"])
        where = f"{path}: image {image['id']}"
        if images and found is None:
            text = f"there is no {folders[0] / image['file_name']}"
            problems.append(DataIssue("no image", where, text))
        else:
            records.append(_record(image, found or folders[0], things[image["id"]]))
    dropped: tuple[Kind, ...] = ("unknown class",) if other_classes == "drop" else ()
    refuse(problems, f"{path}", max_corrupt=max_corrupt, dropped=dropped)
    if not records:
        raise UsageError(f"{path} lists no image that can be used.")
    ids = {name: number for number, name in name_of.items()}
    free = max(name_of, default=0) + 1
    return Records(
        classes=classes,
        images=tuple(records),
        category_ids=tuple(ids.get(name, free + k) for k, name in enumerate(classes)),
        problems=tuple(problems),
    )


def _places(root: Path, split: str) -> tuple[Path, list[Path]]:
    """The file, and where its images may lie."""
    choices = [
        root / "annotations" / f"instances_{split}.json",
        root / split / "_annotations.coco.json",
    ]
    path = next((path for path in choices if path.is_file()), None)
    if path is None:
        there = ", ".join(splits(root)) or "none"
        raise UsageError(f"{root} has no split {split!r}; it has {there}.")
    return path, [root / split, root / "images" / split, root / "images", root]


def _find(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise UsageError(f"{path}:{line}: broken annotation: it is no JSON ({error})") from error
    needed = {
        "images": ("id", "file_name", "width", "height"),
        "categories": ("id", "name"),
        "annotations": (),
    }
    for key, fields in needed.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UsageError(f"{path} is no instance file of MS-COCO's format: it has no {key!r}.")
        for number, entry in enumerate(entries):
            lacks = [f for f in fields if not isinstance(entry, dict) or f not in entry]
            if lacks:
                raise UsageError(f"{path}: number {number} of {key} has no {', '.join(lacks)}.")
    ids = [image["id"] for image in content["images"]]
    if len(set(ids)) < len(ids):
        twice = next(one for place, one in enumerate(ids) if one in ids[:place])
        raise UsageError(f"{path} lists image {twice} twice.")
    return content


def _trouble(
    where: str, entry: Mapping[str, Any], name_of: Mapping[Any, str], label_of: Mapping[str, int]
) -> DataIssue | None:
    category, box = entry.get("category_id"), entry.get("bbox")
    if category not in name_of:
        return DataIssue("unknown class", where, f"the file has no category {category!r}")
    if name_of[category] not in label_of:
        allowed = ", ".join(label_of)
        return DataIssue("unknown class", where, f"{name_of[category]!r} is none of {allowed}")
    numbers = isinstance(box, list) and len(box) == 4
    if not numbers or not all(isinstance(v, (int, float)) and np.isfinite(v) for v in box or ()):
        return DataIssue("broken annotation", where, f"bbox is {box!r}, not x, y, width, height")
    return None


def _box(
    where: str, entry: Mapping[str, Any], width: int, height: int
) -> tuple[tuple[float, ...] | None, DataIssue | None]:
    left, top, across, down = entry["bbox"]
    shown = f"{left:g}, {top:g}, {across:g}, {down:g}"
    if across <= 0 or down <= 0:
        return None, DataIssue("box without area", where, shown)
    box = (left, top, left + across, top + down)
    cut = (max(left, 0), max(top, 0), min(box[2], width), min(box[3], height))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        text = f"{shown} of {width} x {height}"
        return None, DataIssue("box outside the image", where, text)
    # sums like 0.1 + 0.2 cross the edge by rounding alone
    over = max(abs(a - b) for a, b in zip(box, cut, strict=True)) > 0.01
    text = f"{shown} of {width} x {height}"
    return cut, DataIssue("box over the edge", where, text) if over else None


def _record(image: Mapping[str, Any], path: Path, things: Sequence[tuple]) -> Record:
    crowd = np.array([crowd for *_, crowd in things], dtype=bool)
    return Record(
        image_id=image["id"],
        path=path,
        width=image["width"],
        height=image["height"],
        boxes=np.array([box for box, *_ in things], dtype=np.float64).reshape(-1, 4),
        labels=np.array([label for _, label, _ in things], dtype=np.int64),
        difficult=np.zeros(len(things), dtype=bool),
        truncated=np.zeros(len(things), dtype=bool),
        crowd=crowd,
    )
