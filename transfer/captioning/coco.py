"""MS-COCO captions as they are on disk, and the choice among the layouts of the field.

ROOT/annotations/captions_SPLIT.json   {"images": [{"id", "file_name"}],
                                        "annotations": [{"image_id", "caption"}]}
ROOT/SPLIT/FILE_NAME                   or ROOT/images/SPLIT/FILE_NAME

The 2014 release has train2014 (82,783 images) and val2014 (40,504), the 2017 release the same
images as train2017 (118,287) and val2017 (5,000). The code of the CutMix paper trains on train2014
and scores val2014; Karpathy's split cuts val2014 in three (see `layouts`).
"""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from pretrain.progress import log
from transfer.captioning.config import DatasetConfig
from transfer.captioning.layouts import (
    captions_file,
    karpathy_file,
    open_flickr,
    open_folder,
    open_karpathy,
    token_file,
)
from transfer.captioning.records import CaptionedImage, Captions, Id, LeftOut, assemble

__all__ = ["CaptionedImage", "Captions", "choose_splits", "open_captions", "read_coco", "splits"]


def open_captions(root: Path, config: DatasetConfig) -> Captions:
    """The data set in a folder.

    Raises:
        UsageError: no such folder or layout, an entry that makes no sense, an empty split.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; images with captions are needed.")
    layout = _layout(root) if config.layout == "auto" else config.layout
    if config.splits is not None:
        layout = "karpathy"
    readers: dict[str, Callable[[Path, DatasetConfig], Captions]] = {
        "coco": _open_coco,
        "karpathy": open_karpathy,
        "flickr": open_flickr,
        "folder": open_folder,
    }
    found = readers[layout](root, config)
    for split in ("train", "val"):
        if not getattr(found, split):
            raise UsageError(f"{root}: the {split} split is empty.")
    return found


def _layout(root: Path) -> str:
    if karpathy_file(root) is not None:
        return "karpathy"
    if (root / "annotations").is_dir() and splits(root):
        return "coco"
    if token_file(root) is not None:
        return "flickr"
    if captions_file(root) is not None:
        return "folder"
    held = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
    raise UsageError(
        f"{root} has no captions that are known (it holds {held}). Expected one of: "
        "annotations/captions_SPLIT.json (MS-COCO), dataset_*.json (Karpathy), "
        "*.token or *.token.txt (Flickr), captions.json beside the images."
    )


def _open_coco(root: Path, config: DatasetConfig) -> Captions:
    train, val = choose_splits(root, config.train, config.val)
    tests = [split for split in splits(root) if split.startswith("test")]
    test = config.test or (tests[0] if len(tests) == 1 else None)
    names = (train, val, *([test] if test else []))
    if len(set(names)) < len(names):
        raise UsageError(f"the splits {', '.join(names)} are not different ones.")
    return Captions(root.name, *(read_coco(root, name, config.max_corrupt) for name in names))


def choose_splits(root: Path, train: str | None, val: str | None) -> tuple[str, str]:
    """The splits to train and to score on; what is not given is found by its name's beginning."""
    return train or _only(root, "train"), val or _only(root, "val")


def read_coco(
    root: Path, split: str, max_corrupt: int = 0, tell: Callable[[str], None] = log
) -> tuple[CaptionedImage, ...]:
    """The images of a split that have captions, in the order of the file.

    Args:
        root: see the head of this file.
        split: such as train2017.
        max_corrupt: images that may be missing.
        tell: takes a line for each kind of entry that is left out.

    Raises:
        UsageError: the file is missing, broken or not of this layout, or images are missing.
    """
    path = root / "annotations" / f"captions_{split}.json"
    if split not in splits(root):
        raise UsageError(
            f"there is no file {path}; the splits there are {', '.join(splits(root)) or 'none'}."
        )
    content = _content(path)
    left_out = LeftOut(path)
    folder = next(
        (place for place in (root / split, root / "images" / split) if place.is_dir()), root / split
    )
    places: dict[Id, Path] = {}
    for entry in content["images"]:
        if _has(entry, "id", "file_name"):
            places[entry["id"]] = folder / str(entry["file_name"])
        else:
            left_out.add("entries under images without id or file_name", entry)
    sentences: dict[Id, list[object]] = defaultdict(list)
    for entry in content["annotations"]:
        if not _has(entry, "image_id", "caption"):
            left_out.add("annotations without image_id or caption", entry)
        elif entry["image_id"] not in places:
            left_out.add("annotations of images that are not listed", entry)
        else:
            sentences[entry["image_id"]].append(entry["caption"])
    return assemble(path, sentences, places, left_out, max_corrupt=max_corrupt, tell=tell)


def _has(entry: Any, key: str, value: str) -> bool:
    """Whether an entry has an id under `key`, and a value."""
    return isinstance(entry, dict) and isinstance(entry.get(key), int | str) and value in entry


def _content(path: Path) -> dict[str, list[Any]]:
    expected = '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}. It may be cut short.") from error
    lists = [content.get(key) if isinstance(content, dict) else None
             for key in ("images", "annotations")]  # fmt: skip
    if not all(isinstance(held, list) for held in lists):
        raise UsageError(f"{path} is no COCO captions file; expected {expected}.")
    return content


def splits(root: Path) -> list[str]:
    """Splits that have captions; UsageError where this is no MS-COCO tree."""
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; an MS-COCO tree is needed.")
    folder = root / "annotations"
    if not folder.is_dir():
        held = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
        raise UsageError(f"{root} is no MS-COCO tree: it has no annotations (it holds {held}).")
    return sorted(path.stem.removeprefix("captions_") for path in folder.glob("captions_*.json"))


def _only(root: Path, beginning: str) -> str:
    found = [split for split in splits(root) if split.startswith(beginning)]
    if len(found) != 1:
        raise UsageError(
            f"{root}/annotations has {len(found)} captions files whose split begins with "
            f"{beginning!r} ({', '.join(splits(root)) or 'none at all'}); name one by "
            f"--dataset.{beginning} SPLIT."
        )
    return found[0]
