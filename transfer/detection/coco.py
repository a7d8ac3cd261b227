"""MS-COCO's instance files as records.

    ROOT/annotations/instances_SPLIT.json   ROOT/SPLIT/*.jpg
    ROOT/SPLIT/_annotations.coco.json       ROOT/SPLIT/*.jpg

Boxes are x, y, width, height, continuous and 0-based. `iscrowd` marks regions of many objects.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from transfer.detection.config import DatasetConfig
from transfer.detection.detections_file import read_json
from transfer.detection.records import Box, DataIssue, Record, Records, clip_box, raise_for_issues

# what each entry of an instance file must have
_FIELDS = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": (),
}


def list_splits(root: Path) -> list[str]:
    """Names of the splits; none where this is no MS-COCO tree."""
    names = [p.stem.removeprefix("instances_") for p in root.glob("annotations/instances_*.json")]
    return sorted(names + [path.parent.name for path in root.glob("*/_annotations.coco.json")])


def read_coco(
    root: Path,
    split: str,
    classes: Sequence[str] | None = None,
    config: DatasetConfig | None = None,
    *,
    images: bool = True,
) -> Records:
    """Read a split. Arguments and errors are those of `voc.read_voc`.

    Without `classes`, all categories of the file, by number. Images are looked for, not opened: a
    broken one, or one of another size than written, shows when it is decoded.
    """
    path = root / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        path = root / split / "_annotations.coco.json"
    if not path.is_file():
        available = ", ".join(list_splits(root)) or "none"
        raise UsageError(f"{root} has no split {split!r}; it has {available}.")
    content = _read_content(path)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    name_of = {category["id"]: str(category["name"]) for category in categories}
    classes = tuple(classes or name_of.values())
    label_of = {name: label for label, name in enumerate(classes)}
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    objects: dict[Any, list[tuple[Box, int, bool, bool]]] = {image: [] for image in sizes}
    issues: list[DataIssue] = []
    for entry in content["annotations"]:
        box, kind, text = _read_box(entry, sizes, name_of, label_of)
        if kind is not None:
            issues.append(DataIssue(kind, f"{path}: annotation {entry.get('id', '?')}", text))
        if box is not None:
            label, crowd = label_of[name_of[entry["category_id"]]], bool(entry.get("iscrowd", 0))
            objects[entry["image_id"]].append((box, label, False, crowd))
    folders = [root / split, root / "images" / split, root / "images", root]
    records = []
    for image in content["images"]:
        name = image["file_name"]
        found = next((file for folder in folders if (file := folder / name).is_file()), None)
        if images and found is None:
            where = f"{path}: image {image['id']}"
            issues.append(DataIssue("no image", where, f"there is no {folders[0] / name}"))
            continue
        width, height = sizes[image["id"]]
        record = Record(image_id=image["id"], path=found or folders[0], width=width, height=height)
        records.append(record.with_objects(objects[image["id"]]))
    raise_for_issues(issues, f"{path}", config or DatasetConfig())
    if not records:
        raise UsageError(f"{path} lists no image that can be used.")
    ids = {name: number for number, name in name_of.items()}
    free = max(name_of, default=0) + 1
    return Records(
        classes=classes,
        images=tuple(records),
        category_ids=tuple(ids.get(name, free + k) for k, name in enumerate(classes)),
        issues=tuple(issues),
    )


def _read_content(path: Path) -> Mapping[str, Any]:
    content = read_json(path)
    for key, fields in _FIELDS.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UsageError(f"{path} is no instance file of MS-COCO's format: it has no {key!r}.")
        for number, entry in enumerate(entries):
            lacks = [f for f in fields if not isinstance(entry, dict) or f not in entry]
            if lacks:
                raise UsageError(f"{path}: number {number} of {key} has no {', '.join(lacks)}.")
    counts = Counter(image["id"] for image in content["images"])
    if twice := [image for image, count in counts.items() if count > 1]:
        raise UsageError(f"{path} lists image {twice[0]} twice.")
    return content


def _read_box(
    entry: Mapping[str, Any],
    sizes: Mapping[Any, tuple[int, int]],
    name_of: Mapping[Any, str],
    label_of: Mapping[str, int],
) -> tuple[Box | None, str | None, str]:
    """The box of an annotation, None where it is not used; what is wrong with it, and a text."""
    image, category = entry.get("image_id"), entry.get("category_id")
    if image not in sizes:
        return None, "broken annotation", f"there is no image {image!r}"
    if category not in name_of:
        return None, "unknown class", f"the file has no category {category!r}"
    if name_of[category] not in label_of:
        allowed = ", ".join(label_of)
        return None, "unknown class", f"{name_of[category]!r} is none of {allowed}"
    box: Any = entry.get("bbox")
    has_four = isinstance(box, list) and len(box) == 4
    if not has_four or not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
        return None, "broken annotation", f"bbox is {box!r}, not x, y, width, height"
    x, y, width, height = box
    size = sizes[image]
    # sums like 0.1 + 0.2 cross the edge by rounding alone
    clipped, kind = clip_box((x, y, x + width, y + height), size, tolerance=0.01)
    return clipped, kind, f"{x:g}, {y:g}, {width:g}, {height:g} of {size[0]} x {size[1]}"
