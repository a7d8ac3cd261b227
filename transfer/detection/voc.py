"""Pascal VOC trees as records: a pure function from folder and split to what a detector needs.

    ROOT/JPEGImages/ID.jpg   ROOT/Annotations/ID.xml   ROOT/ImageSets/Main/SPLIT.txt

Boxes on disk are 1-based and inclusive: xmin = 1 is the first pixel and xmax the last one covered.
In a record they are continuous and 0-based, so xmin and ymin move by one and xmax and ymax stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from pretrain.errors import UserError

Thing = tuple[str, tuple[float, float, float, float], bool]  # class, box, difficult
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG")


@dataclass(frozen=True)
class Record:
    """One image and its K objects."""

    image_id: str
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    """(K, 4) float64: left, top, right, bottom in pixels, continuous, 0-based."""
    labels: np.ndarray
    """(K,) int64, positions in the class list."""
    difficult: np.ndarray
    """(K,) bool: trained on, but neither hit nor miss in scoring."""


@dataclass(frozen=True)
class Records:
    """The images of a split."""

    classes: tuple[str, ...]
    images: tuple[Record, ...]
    dropped: int
    """Boxes without area, left out."""

    def __len__(self) -> int:
        return len(self.images)


def read_voc(root: Path, split: str, classes: Sequence[str] | None = None) -> Records:
    """Read a split of a Pascal VOC tree.

    Args:
        root: the folder with JPEGImages, Annotations and ImageSets/Main.
        split: the name of a file in ImageSets/Main, without .txt.
        classes: class names in order of their labels; None takes the sorted names of this split.

    Raises:
        UserError: something is missing or broken, with the file's name; a class not in `classes`.
    """
    ids = _image_ids(root, split)
    parsed = [_annotation(root / "Annotations" / f"{image_id}.xml") for image_id in ids]
    named = sorted({name for _, _, things in parsed for name, _, _ in things})
    if classes is None:
        classes = named
    if unknown := sorted(set(named) - set(classes)):
        first = next(
            image_id
            for image_id, (_, _, things) in zip(ids, parsed, strict=True)
            if any(name in unknown for name, _, _ in things)
        )
        raise UserError(
            f"{root}, split {split}: class {', '.join(unknown)} is not among "
            f"{', '.join(classes)} (first in Annotations/{first}.xml)"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    images, dropped = [], 0
    for image_id, (width, height, things) in zip(ids, parsed, strict=True):
        kept = [
            thing for thing in things if thing[1][2] > thing[1][0] and thing[1][3] > thing[1][1]
        ]
        dropped += len(things) - len(kept)
        images.append(
            Record(
                image_id=image_id,
                path=_image_path(root, image_id),
                width=width,
                height=height,
                boxes=np.array([box for _, box, _ in kept], dtype=np.float64).reshape(-1, 4),
                labels=np.array([label_of[name] for name, _, _ in kept], dtype=np.int64),
                difficult=np.array([difficult for _, _, difficult in kept], dtype=bool),
            )
        )
    return Records(tuple(classes), tuple(images), dropped)


def choose_splits(root: Path, train: str | None, test: str | None) -> tuple[str, str]:
    """The splits to train and to score on; what is given stands.

    Otherwise (trainval, test) where there is a test split, or else (train, val).
    """
    there = set(splits(root))
    if train is None:
        with_test = "trainval" in there and (test or "test") in there and test != "val"
        train = "trainval" if with_test else "train"
    return train, test or ("test" if "test" in there else "val")


def splits(root: Path) -> list[str]:
    """Names of the files in ImageSets/Main; UserError where this is no Pascal VOC tree."""
    folder = root / "ImageSets" / "Main"
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; a Pascal VOC tree is needed.")
    for needed in ("Annotations", "JPEGImages", "ImageSets/Main"):
        if not (root / needed).is_dir():
            held = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
            raise UserError(f"{root} is no Pascal VOC tree: it has no {needed} (it holds {held}).")
    return sorted(path.stem for path in folder.glob("*.txt"))


def _image_ids(root: Path, split: str) -> list[str]:
    there = splits(root)
    if split not in there:
        raise UserError(
            f"{root}/ImageSets/Main has no split {split!r}; it has {', '.join(there) or 'none'}."
        )
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    ids = [line.split()[0] for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{path} is empty.")
    if len(set(ids)) < len(ids):
        twice = next(image_id for place, image_id in enumerate(ids) if image_id in ids[:place])
        raise UserError(f"{path} names {twice} twice.")
    return ids


def _image_path(root: Path, image_id: str) -> Path:
    candidates = [root / "JPEGImages" / f"{image_id}{suffix}" for suffix in _SUFFIXES]
    for path in candidates:
        if path.exists():
            return path
    raise UserError(f"there is no image {candidates[0]}.")


def _annotation(path: Path) -> tuple[int, int, list[Thing]]:
    """Width, height, and (class name, box, difficult) of each object."""
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise UserError(f"there is no annotation {path}.") from error
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is broken XML: {error}.") from error
    try:
        width, height = (int(float(root.find(f"size/{tag}").text)) for tag in ("width", "height"))  # type: ignore[union-attr, arg-type]
        things: list[Thing] = []
        for thing in root.iter("object"):
            box = [float(thing.find(f"bndbox/{tag}").text) for tag in _CORNERS]  # type: ignore[union-attr, arg-type]
            name = thing.find("name").text.strip()  # type: ignore[union-attr]
            difficult = (thing.findtext("difficult") or "0").strip() not in ("0", "")
            things.append((name, (box[0] - 1, box[1] - 1, box[2], box[3]), difficult))
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} lacks a size, a name or a box, or has words for numbers."
        ) from error
    return width, height, things


_CORNERS = ("xmin", "ymin", "xmax", "ymax")
