"""COCO-style results lists from disk, with categories by name or by number."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from transfer.detection.records import Records


def read_detections(
    path: Path, records: Records, names: Mapping[int, str] | None = None
) -> list[dict[str, Any]]:
    """The entries of a results list, each with its category's name and an image of the records.

    Args:
        path: JSON: a list of {"image_id", "category" or "category_id", "bbox", "score"}.
        records: the ground truth; an MS-COCO file numbers its categories itself.
        names: category number -> name, where entries have numbers.

    Raises:
        UsageError: no such file, no results list, or numbers that nothing explains.
    """
    rows = read_json(path)
    if isinstance(rows, dict) and isinstance(rows.get("annotations"), list):
        raise UsageError(f"{path} is an annotation file; a results list (of detections) is needed.")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} is no results list: it must be a JSON list of objects.")
    if any("category" not in row and "category_id" in row for row in rows):
        if not names and not records.category_ids:
            listed = ", ".join(f'"{k}": "{name}"' for k, name in enumerate(records.classes, 1))
            raise UsageError(
                "the detections have category_id, and Pascal VOC's classes have no numbers: say "
                f"which is which with --categories FILE, a JSON such as {{{listed[:120]}}}."
            )
        names = names or dict(zip(records.category_ids, records.classes, strict=True))
        for number, row in enumerate(rows):
            key = row.get("category_id")
            if "category" not in row and key not in names:
                known = ", ".join(f"{k} {name}" for k, name in list(names.items())[:20])
                raise UsageError(
                    f"{path}: number {number} has category_id {key!r}; known are {known}."
                )
            row.setdefault("category", names.get(key))
    ids = {record.image_id for record in records.images}
    if rows and rows[0].get("image_id") not in ids:  # 7 for "000007", "7" for 7
        by_number = {int(one): one for one in ids if str(one).isdigit()}
        if len(by_number) == sum(str(one).isdigit() for one in ids):  # "07" is not "007" as well
            for row in rows:
                text = str(row.get("image_id"))
                if text.isdigit():
                    row["image_id"] = by_number.get(int(text), row["image_id"])
    return rows


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


def read_json(path: Path) -> Any:
    """The content of a file; UsageError with file and line where it is none."""
    try:
        return json.loads(path.read_bytes())  # UTF-8, or 16 with its mark
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}.") from error
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise UsageError(f"{path}:{line}: it is no JSON ({error}).") from error
