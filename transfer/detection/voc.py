"""Pascal VOC trees as records: a pure function from folder and split to what a detector needs.

    ROOT/JPEGImages/ID.jpg   ROOT/Annotations/ID.xml   ROOT/ImageSets/Main/SPLIT.txt

or a folder of such trees (a VOCdevkit), whose splits are called TREE/SPLIT. Splits are joined by
`+`: VOC2007/trainval+VOC2012/trainval. Where two trees give one name to two images, the images of
that union are named TREE/ID.

Boxes on disk are 1-based and inclusive: xmin = 1 is the first pixel and xmax the last one covered.
In a record they are continuous and 0-based, so xmin and ymin move by one and xmax and ymax stay.
"""

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pretrain.errors import UsageError
from transfer.detection.annotations import Annotation, ObjectAnnotation, lines_of_objects, read_all
from transfer.detection.records import DataIssue, Kind, Record, Records, refuse

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp")


@dataclass(frozen=True)
class _Entry:
    """A line of a split."""

    tree: Path
    image_id: str
    where: str
    """The split's file and the line."""
    annotation: str
    """Its XML file; no Path, of which twenty thousand take a tenth of a second."""


def read_voc(
    root: Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    images: bool = True,
    max_corrupt: int = 0,
    other_classes: Literal["refuse", "drop"] = "refuse",
    cached: bool = True,
) -> Records:
    """Read a split, or several joined by `+`.

    Args:
        root: the folder with JPEGImages, Annotations and ImageSets/Main, or with such trees.
        split: the name of a file in ImageSets/Main, without .txt.
        classes: class names in order of their labels; None takes the sorted names of this split.
        images: look for each image and its size; scoring alone needs none.
        max_corrupt: images that may be broken and are then left out.
        other_classes: what to do with objects that are of none of `classes`.
        cached: see annotations.read_all.

    Raises:
        UsageError: what the rules of `records.RULES` refuse, with file and line.
    """
    entries, problems = _listed(root, split)
    pictures = _pictures(entries) if images else {}
    paths = [pictures.get((entry.tree, entry.image_id)) for entry in entries]
    files = [entry.annotation for entry in entries]
    read = read_all(files, paths, cached)
    whole: list[tuple[_Entry, Path, Annotation]] = []
    for entry, path, annotation in zip(entries, paths, read, strict=True):
        trouble = _trouble(entry, path, annotation, images)
        problems += trouble
        if annotation is not None and not trouble:
            whole.append((entry, path or entry.tree / "JPEGImages" / entry.image_id, annotation))
    if classes is None:
        classes = sorted({thing.name for *_, annotation in whole for thing in annotation.things})
    label_of = {name: label for label, name in enumerate(classes)}
    records = []
    clash = _clash(entries)
    for entry, path, annotation in whole:
        record, met = _record(entry, path, annotation, label_of, clash)
        records.append(record)
        problems += met
    dropped: tuple[Kind, ...] = ("unknown class",) if other_classes == "drop" else ()
    refuse(problems, f"{root}, split {split},", max_corrupt=max_corrupt, dropped=dropped)
    if not records:
        raise UsageError(f"{root}, split {split}: no image is left, all {len(entries)} are broken.")
    return Records(classes=tuple(classes), images=tuple(records), problems=tuple(problems))


def choose_splits(names: Sequence[str], train: str | None, test: str | None) -> tuple[str, str]:
    """The splits to train and to score on, out of `names`; what is given stands.

    Otherwise (trainval, test) where there is a test split, or else (train, val); of MS-COCO's names
    the one that begins so.
    """

    def called(name: str) -> str | None:
        exact = [found for found in names if found == name]
        years = [f for f in names if f.startswith(name) and f[len(name) :].isdigit()]
        return next(iter(exact + sorted(years)), None)

    if train is None:
        with_test = called("trainval") and (test or called("test")) and test != "val"
        train = called("trainval" if with_test else "train")
    test = test or called("test") or called("val") or called("valid")
    if train is None or test is None:
        said = ", ".join(names) or "none"
        raise UsageError(
            f"there are the splits {said}: say which to train on and which to score on with "
            "--voc.train and --voc.test (several are joined by +)."
        )
    return train, test


def is_tree(folder: Path) -> bool:
    """True for a folder with annotations and splits in Pascal VOC's places."""
    return all((folder / name).is_dir() for name in ("Annotations", "ImageSets/Main"))


def trees_in(root: Path) -> list[Path]:
    """`root` where it is a tree, otherwise the trees in that folder."""
    return [root] if is_tree(root) else [path for path in sorted(root.iterdir()) if is_tree(path)]


def splits(root: Path) -> list[str]:
    """Names of the splits, with TREE/ in front in a folder of trees.

    Class-wise lists (cat_train.txt) are left out; UsageError where this is no Pascal VOC tree.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; a Pascal VOC tree is needed.")
    if not is_tree(root) and (trees := trees_in(root)):
        return [f"{tree.name}/{name}" for tree in trees for name in splits(tree)]
    for needed in ("Annotations", "ImageSets/Main"):
        if not (root / needed).is_dir():
            held = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
            raise UsageError(
                f"{root} is no Pascal VOC tree: it has no {needed} (it holds {held}). "
                f"{_REMEDY.get(needed, '')}".rstrip()
            )
    names = sorted(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt"))
    whole = {"train", "val", "trainval", "test"}
    return [n for n in names if "_" not in n or n.rsplit("_", 1)[1] not in whole] or names


_REMEDY = {
    "ImageSets/Main": "Make ImageSets/Main/train.txt and val.txt with one image name, without its "
    "ending, in each line.",
}


def _listed(root: Path, split: str) -> tuple[list[_Entry], list[DataIssue]]:
    """The images of a split, each once."""
    there = splits(root)
    entries: dict[tuple[Path, str], _Entry] = {}
    problems: list[DataIssue] = []
    for part in split.split("+"):
        tree, name = (root, part) if is_tree(root) else (root / Path(part).parent, Path(part).name)
        path = tree / "ImageSets" / "Main" / f"{name}.txt"
        if not path.is_file():
            near = difflib.get_close_matches(part, there, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"{root} has no split {part!r}; it has {', '.join(there) or 'none'}.{hint}"
            )
        before, folder = len(entries) + len(problems), str(tree / "Annotations")
        for where, image_id in _lines(path):
            entry = _Entry(tree, image_id, where, f"{folder}/{image_id}.xml")
            if (tree, image_id) in entries:
                first = entries[tree, image_id].where
                problems.append(
                    DataIssue("image listed twice", where, f"{image_id}, as in {first}")
                )
            else:
                entries[tree, image_id] = entry
        if len(entries) + len(problems) == before:
            raise UsageError(f"{path} is empty.")
    return list(entries.values()), problems


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file:line, image). Names may hold spaces; a class-wise list has -1, 0 or 1 behind each."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.split()
        if len(words) == 2 and words[1] in ("-1", "0", "1"):
            if words[1] == "-1":
                continue
            words.pop()
        if words:
            yield f"{path}:{number}", " ".join(words)


def _pictures(entries: Sequence[_Entry]) -> dict[tuple[Path, str], Path]:
    """The image file of each (tree, name), by one look at each folder."""
    found = {}
    for tree in {entry.tree for entry in entries}:
        folder = tree / "JPEGImages"
        if not folder.is_dir():
            raise UsageError(f"{tree} is no Pascal VOC tree: it has no JPEGImages.")
        there = set(os.listdir(folder))
        for entry in entries:
            names = (f"{entry.image_id}{suffix}" for suffix in _SUFFIXES)
            name = next((name for name in names if name in there), None)
            if entry.tree == tree and name is not None:
                found[tree, entry.image_id] = folder / name
    return found


def _trouble(
    entry: _Entry, path: Path | None, annotation: Annotation | None, images: bool
) -> list[DataIssue]:
    """What keeps an image out altogether."""
    if annotation is None:
        return [DataIssue("no annotation", entry.where, f"there is no {entry.annotation}")]
    if annotation.trouble is not None:
        line, _, text = annotation.trouble.partition(": ")
        return [DataIssue("broken annotation", f"{entry.annotation}:{line}", text)]
    if images and path is None:
        wanted = entry.tree / "JPEGImages" / f"{entry.image_id}.jpg"
        return [DataIssue("no image", entry.where, f"there is no {wanted}")]
    if images and annotation.image is None:
        return [DataIssue("unreadable image", str(path), "it is no image, or cut short")]
    return []


def _clash(entries: Sequence[_Entry]) -> bool:
    return max(Counter(entry.image_id for entry in entries).values()) > 1


def _record(
    entry: _Entry, path: Path, annotation: Annotation, label_of: dict[str, int], clash: bool
) -> tuple[Record, list[DataIssue]]:
    """The record, and what its objects lack."""
    problems: list[DataIssue] = []
    written = (annotation.width, annotation.height)
    width, height = annotation.image or written
    lines: list[int] = []

    def met(kind: Kind, number: int, text: str) -> None:
        nonlocal lines
        lines = lines or lines_of_objects(Path(entry.annotation).read_bytes())
        problems.append(DataIssue(kind, f"{entry.annotation}:{lines[number]}", text))

    if annotation.image is not None and written not in ((width, height), (0, 0)):
        turned = " (turned: are the boxes those of the turned image?)"
        problems.append(
            DataIssue(
                "size of another image",
                entry.annotation,
                f"{written[0]} x {written[1]} is written, the image is {width} x {height}"
                + (turned if written == (height, width) else ""),
            )
        )
    kept: list[tuple[tuple[float, ...], ObjectAnnotation]] = []
    seen: set[tuple] = set()
    for number, thing in enumerate(annotation.things):
        box = (thing.xmin - 1, thing.ymin - 1, thing.xmax, thing.ymax)
        cut = _cut(box, width, height)
        if thing.name not in label_of:
            near = difflib.get_close_matches(thing.name, label_of, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            allowed = ", ".join(label_of) or "nothing"
            met("unknown class", number, f"{thing.name!r} is none of {allowed}{hint}")
        elif box[2] <= box[0] or box[3] <= box[1]:
            met("box without area", number, f"{thing}")
        elif cut[2] <= cut[0] or cut[3] <= cut[1]:
            met("box outside the image", number, f"{thing} of {width} x {height}")
        else:
            if cut != box:
                met("box over the edge", number, f"{thing} of {width} x {height}")
            if (thing.name, *box) in seen:
                met("object twice", number, f"{thing}")
            seen.add((thing.name, *box))
            kept.append((cut, thing))
    record = Record(
        image_id=f"{entry.tree.name}/{entry.image_id}" if clash else entry.image_id,
        path=path,
        width=width,
        height=height,
        boxes=np.array([box for box, _ in kept], dtype=np.float64).reshape(-1, 4),
        labels=np.array([label_of[thing.name] for _, thing in kept], dtype=np.int64),
        difficult=np.array([thing.difficult for _, thing in kept], dtype=bool),
        truncated=np.array([thing.truncated for _, thing in kept], dtype=bool),
        crowd=np.zeros(len(kept), dtype=bool),
    )
    return record, problems


def _cut(box: tuple[float, ...], width: int, height: int) -> tuple[float, ...]:
    """The part of a box inside the image; all of it where nothing tells the image's size."""
    if not width or not height:
        return box
    left, top, right, bottom = box
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
