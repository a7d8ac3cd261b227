"""MS-COCO captions as they are on disk.

ROOT/annotations/captions_SPLIT.json   {"images": [{"id", "file_name"}],
                                        "annotations": [{"image_id", "caption"}]}
ROOT/SPLIT/FILE_NAME
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pretrain.errors import UserError


@dataclass(frozen=True)
class CaptionedImage:
    """An image with all its sentences."""

    image_id: int | str
    path: Path
    captions: tuple[str, ...]


def choose_splits(root: Path, train: str | None, val: str | None) -> tuple[str, str]:
    """The splits to train and to score on; what is not given is found by its name's beginning."""
    return train or _only(root, "train"), val or _only(root, "val")


def read_coco(root: Path, split: str) -> tuple[CaptionedImage, ...]:
    """The images of a split that have captions, in the order of the file.

    Raises:
        UserError: a file or image is missing, broken, or not of this layout.
    """
    path = root / "annotations" / f"captions_{split}.json"
    if split not in splits(root):
        raise UserError(
            f"there is no file {path}; the splits there are {', '.join(splits(root)) or 'none'}."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sentences: dict[int | str, list[str]] = defaultdict(list)
        for annotation in content["annotations"]:
            sentences[annotation["image_id"]].append(str(annotation["caption"]))
        names = {image["id"]: image["file_name"] for image in content["images"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no COCO captions file ({type(error).__name__}: {error}); expected "
            '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}.'
        ) from error
    if unknown := [image_id for image_id in sentences if image_id not in names]:
        raise UserError(
            f"{path}: {len(unknown)} images have captions but no entry under images, "
            f"the first has id {unknown[0]}."
        )
    images = tuple(
        CaptionedImage(image_id, root / split / name, tuple(sentences[image_id]))
        for image_id, name in names.items()
        if sentences.get(image_id)
    )
    if not images:
        raise UserError(f"{path} has no image with a caption.")
    if missing := [image.path for image in images if not image.path.exists()]:
        raise UserError(
            f"{len(missing)} of {len(images)} images of {path.name} are not there, the first is "
            f"{missing[0]}."
        )
    return images


def splits(root: Path) -> list[str]:
    """Splits that have captions; UserError where this is no MS-COCO tree."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; an MS-COCO tree is needed.")
    folder = root / "annotations"
    if not folder.is_dir():
        held = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
        raise UserError(f"{root} is no MS-COCO tree: it has no annotations (it holds {held}).")
    return sorted(path.stem.removeprefix("captions_") for path in folder.glob("captions_*.json"))


def _only(root: Path, beginning: str) -> str:
    found = [split for split in splits(root) if split.startswith(beginning)]
    if len(found) != 1:
        raise UserError(
            f"{root}/annotations has {len(found)} captions files whose split begins with "
            f"{beginning!r} ({', '.join(splits(root)) or 'none at all'}); name one by "
            f"--coco.{beginning} SPLIT."
        )
    return found[0]
