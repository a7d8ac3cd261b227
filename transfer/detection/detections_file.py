"""COCO-style results lists from disk, with categories by name or by number."""

import math
import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES
from transfer.detection.coco_file import check_box_form, read_box, read_id, read_json
from transfer.detection.records import Records, label_names


def read_detections(
    path: Path, records: Records, names: Mapping[int, str] | None = None, join: bool = False
) -> list[dict[str, Any]]:
    """The entries of a results list, each with its category's name and an image of the records.

    An image may be called by its id, or as one image alone could be: by its file's name, with or
    without folder and ending, or by the number that id or name are.

    Args:
        path: JSON: a list of {"image_id", "category" or "category_id", "bbox", "score"}.
        records: the ground truth; an MS-COCO file numbers its categories itself.
        names: category number -> name, where entries have numbers.
        join: names that differ from a class by space or case alone mean it.

    Raises:
        UsageError: no such file, no results list, numbers that nothing explains, an entry without
            box or score, or boxes that are no x, y, width, height in pixels of their images.
    """
    rows = read_json(path)
    if isinstance(rows, dict) and isinstance(rows.get("annotations"), list):
        raise UsageError(f"{path} is an annotation file; a results list (of detections) is needed.")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} is no results list: it must be a JSON list of objects.")
    _name_categories(path, rows, records, names, join)
    _name_images(path, rows, records)
    boxes = np.array([_read_box(path, number, row) for number, row in enumerate(rows)])
    size_of = {record.image_id: (record.width, record.height) for record in records.images}
    sizes = np.array([size_of.get(row["image_id"], (0, 0)) for row in rows])
    if len(rows):
        check_box_form(boxes, sizes, f"{path}", lambda number: f"number {number}", detections=True)
    return rows


def _name_categories(
    path: Path,
    rows: list[dict[str, Any]],
    records: Records,
    names: Mapping[int, str] | None,
    join: bool,
) -> None:
    """Give each entry the name of its category; names must be those of the records."""
    if any("category" not in row and "category_id" in row for row in rows):
        if not names and not records.category_ids:
            listed = ", ".join(f'"{k}": "{name}"' for k, name in enumerate(records.classes, 1))
            raise UsageError(
                "the detections have category_id, and Pascal VOC's classes have no numbers: say "
                f"which is which with --categories FILE, a JSON such as {{{listed[:120]}}}."
            )
        names = names or dict(zip(records.category_ids, records.classes, strict=True))
        for number, row in enumerate(rows):
            key = _number(row.get("category_id"))
            if "category" not in row and key not in names:
                known = ", ".join(f"{k} {name}" for k, name in list(names.items())[:20])
                raise UsageError(
                    f"{path}: number {number} has category_id {row.get('category_id')!r}; known "
                    f"are {known}. --categories FILE, such as the annotation file, names others."
                )
            row.setdefault("category", names.get(key))
    written = {name for row in rows if isinstance(name := row.get("category"), str)}
    joined = label_names(sorted(written), records.classes)[2]
    for row in rows if joined and join else ():
        if isinstance(name := row.get("category"), str):
            row["category"] = joined.get(name, name)
    if joined and not join:
        listed = ", ".join(f"{name!r} for {one!r}" for name, one in joined.items())
        raise UsageError(
            f"{path} names classes in another spelling than the ground truth: {listed}. Write them "
            "as it does, or --similar-names join."
        )


def _name_images(path: Path, rows: list[dict[str, Any]], records: Records) -> None:
    """Give each entry the id of its image; what is called otherwise stays as it is."""
    ids = {record.image_id for record in records.images}
    if all(_is_one_of(row.get("image_id"), ids) for row in rows):
        return
    called: dict[str | int, set[str | int]] = {}
    for record in records.images:
        for form in chain(_forms(str(record.image_id)), _forms(str(record.path))):
            called.setdefault(form, set()).add(record.image_id)
    for number, row in enumerate(rows):
        value = row.get("image_id")
        if _is_one_of(value, ids):
            continue
        if isinstance(value, list | dict):
            text = f"has the image_id {value!r:.80}; it must be a number or a name."
            raise UsageError(f"{path}: number {number} {text}")
        forms = _forms(str(_number(value)))
        # with an image's ending it is a file before all
        as_file = [form for form in forms[:2] if form in called and forms[1] != forms[2]]
        found = set().union(*(called.get(form, set()) for form in as_file[:1] or forms))
        if len(found) > 1:
            listed = ", ".join(map(repr, sorted(found, key=str)[:4]))
            raise UsageError(
                f"{path}: number {number} names image {value!r}, which may be any of {listed}. "
                "Give the ids of the ground truth."
            )
        row["image_id"] = next(iter(found), value)


def _is_one_of(value: Any, ids: set[str | int]) -> bool:
    return isinstance(value, str | int) and value in ids


def _forms(name: str) -> list[str | int]:
    """What an image of this id or file may be called: train/000007.jpg, 000007.jpg, 000007, 7."""
    parts = name.replace("\\", "/").split("/")
    last = parts[-1]
    stem = last.rpartition(".")[0] if last.lower().endswith(SUFFIXES) else last
    number = [int(stem)] if re.fullmatch("[0-9]{1,18}", stem) else []
    return ["/".join(parts[-2:]), last, stem, *number]


def _number(value: Any) -> Any:
    """A number that is written as text or as 7.0; anything else as it is."""
    if isinstance(value, str) and re.fullmatch("[1-9][0-9]{0,17}|0", value):
        return int(value)
    return value if isinstance(value, bool) or value == "" else read_id(value)


def _read_box(path: Path, number: int, row: Mapping[str, Any]) -> tuple[float, ...]:
    """The four numbers of an entry's box; UsageError where they, or its score, are none."""
    box, score = read_box(row.get("bbox")), row.get("score")
    if box is None:
        text = f"has the bbox {row.get('bbox')!r:.80}; it must be x, y, width, height in pixels."
        raise UsageError(f"{path}: number {number} {text}")
    if not _is_number(score):
        raise UsageError(f"{path}: number {number} has the score {score!r}; it must be a number.")
    return box


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def read_names(path: Path) -> dict[int, str]:
    """{number: name} from a JSON object, or from the `categories` of an MS-COCO file."""
    content = read_json(path)
    try:
        if isinstance(content, dict) and "categories" in content:
            content = {one["id"]: one["name"] for one in content["categories"]}
        return {int(number): str(name) for number, name in content.items()}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UsageError(
            f'{path} is no map of categories: {{"1": "cat", "2": "dog"}} or an MS-COCO file.'
        ) from error
