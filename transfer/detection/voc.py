"""Pascal VOC trees as records: a pure function from folder and split to what a detector needs.

    ROOT/JPEGImages/ID.jpg   ROOT/Annotations/ID.xml   ROOT/ImageSets/Main/SPLIT.txt

or a folder of such trees (a VOCdevkit), whose splits are called TREE/SPLIT. Splits are joined by
`+`: VOC2007/trainval+VOC2012/trainval. Where two trees give one name to two images, the images of
that union are named TREE/ID.

Boxes on disk are 1-based and inclusive: xmin = 1 is the first pixel and xmax the last one covered.
In a record they are continuous and 0-based, so xmin and ymin move by one and xmax and ymax stay.
"""

import os
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UsageError
from transfer.detection.annotations import Annotation, object_lines, read_annotations
from transfer.detection.config import DatasetConfig
from transfer.detection.records import Box, DataIssue, Record, Records, clip_box, raise_for_issues

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp")
_MAKE_SPLITS = (
    " Make ImageSets/Main/train.txt and val.txt with one image name, without its ending, in each "
    "line."
)


class _Entry(NamedTuple):
    """A line of a split."""

    image_id: str
    """Its name, with the tree's in front where two trees share one."""
    where: str
    """The split's file and the line."""
    annotation: str
    """Its XML file; no Path, of which twenty thousand take a tenth of a second."""
    image: Path
    has_image: bool
    """It was looked for and is there."""


def read_voc(
    root: Path,
    split: str,
    classes: Sequence[str] | None = None,
    config: DatasetConfig | None = None,
    *,
    images: bool = True,
    cached: bool = True,
) -> Records:
    """Read a split, or several joined by `+`.

    Args:
        root: the folder with JPEGImages, Annotations and ImageSets/Main, or with such trees.
        split: the name of a file in ImageSets/Main, without .txt.
        classes: class names in order of their labels; None takes the sorted names of this split.
        config: `max_corrupt` and `other_classes` are read; None takes the defaults.
        images: look for each image and its size; scoring alone needs none.
        cached: see annotations.read_annotations.

    Raises:
        UsageError: what the rules of `records.RULES` refuse, with file and line.
    """
    entries, issues = _read_split(root, split, images)
    files = [entry.annotation for entry in entries]
    paths = [entry.image if entry.has_image else None for entry in entries]
    usable: list[tuple[_Entry, Annotation]] = []
    for entry, annotation in zip(entries, read_annotations(files, paths, cached), strict=True):
        if issue := _image_issue(entry, annotation, images):
            issues.append(issue)
        elif annotation is not None:
            usable.append((entry, annotation))
    if classes is None:
        classes = sorted({one.name for _, annotation in usable for one in annotation.objects})
    label_of = {name: label for label, name in enumerate(classes)}
    records = [_make_record(*one, label_of, issues) for one in usable]
    raise_for_issues(issues, f"{root}, split {split},", config or DatasetConfig())
    if not records:
        raise UsageError(f"{root}, split {split}: no image is left, all {len(entries)} are broken.")
    return Records(classes=tuple(classes), images=tuple(records), issues=tuple(issues))


def choose_splits(
    names: Sequence[str], train: str | None, test: str | None, draw: str = ""
) -> tuple[str, str]:
    """The splits to train and to score on, out of `names`; what is given stands.

    Otherwise (trainval, test) where there is a test split, or else (train, val); of MS-COCO's names
    the one that begins so. `draw` is the command that makes splits, for the message.
    """

    def find(name: str) -> str | None:
        return min((n for n in names if re.fullmatch(rf"{name}\d*", n)), default=None)

    if train is None:
        with_test = find("trainval") and (test or find("test")) and test != "val"
        train = find("trainval" if with_test else "train")
    test = test or find("test") or find("val") or find("valid")
    if train is None or test is None:
        raise UsageError(
            f"there are the splits {', '.join(names) or 'none'}: say which to train on and which "
            "to score on with --dataset.train and --dataset.test (several are joined by +)"
            + (f", or draw them: {draw}." if draw and len(names) < 2 else ".")
        )
    return train, test


def is_tree(folder: Path) -> bool:
    """True for a folder with annotations and splits in Pascal VOC's places."""
    return all((folder / name).is_dir() for name in ("Annotations", "ImageSets/Main"))


def find_trees(root: Path) -> list[Path]:
    """`root` where it is a tree, otherwise the trees in that folder."""
    return [root] if is_tree(root) else [path for path in sorted(root.iterdir()) if is_tree(path)]


def list_splits(root: Path) -> list[str]:
    """Names of the splits, with TREE/ in front in a folder of trees.

    Class-wise lists (cat_train.txt) are left out; UsageError where this is no Pascal VOC tree.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; a Pascal VOC tree is needed.")
    if not is_tree(root) and (trees := find_trees(root)):
        return [f"{tree.name}/{name}" for tree in trees for name in list_splits(tree)]
    for folder, remedy in (("Annotations", ""), ("ImageSets/Main", _MAKE_SPLITS)):
        if not (root / folder).is_dir():
            content = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
            raise UsageError(
                f"{root} is no Pascal VOC tree: it has no {folder} (it holds {content}).{remedy}"
            )
    names = sorted(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt"))
    return [n for n in names if not re.search("_(train|val|trainval|test)$", n)] or names


def _read_split(root: Path, split: str, images: bool) -> tuple[list[_Entry], list[DataIssue]]:
    """The entries of a split, each once; where `images`, with their files."""
    available = list_splits(root)
    entries: dict[tuple[Path, str], _Entry] = {}
    issues: list[DataIssue] = []
    for part in split.split("+"):
        tree, name = (root, part) if is_tree(root) else (root / Path(part).parent, Path(part).name)
        path = tree / "ImageSets" / "Main" / f"{name}.txt"
        if not path.is_file():
            hint = "".join(f" Did you mean {s}?" for s in get_close_matches(part, available, 1))
            splits = ", ".join(available) or "none"
            raise UsageError(f"{root} has no split {part!r}; it has {splits}.{hint}")
        folder = tree / "JPEGImages"
        if images and not folder.is_dir():
            raise UsageError(f"{tree} is no Pascal VOC tree: it has no JPEGImages.")
        # one look at the folder, not one for each image
        files = set(os.listdir(folder)) if images else set()
        lines, annotations = list(_read_lines(path)), str(tree / "Annotations")
        if not lines:
            raise UsageError(f"{path} is empty.")
        for where, image_id in lines:
            names = [image_id + suffix for suffix in _SUFFIXES]
            file = next((name for name in names if name in files), names[0])
            annotation = f"{annotations}/{image_id}.xml"
            entry = _Entry(image_id, where, annotation, folder / file, file in files)
            if (first := entries.setdefault((tree, image_id), entry)) is not entry:
                text = f"{image_id}, as in {first.where}"
                issues.append(DataIssue("image listed twice", where, text))
    if len({image_id for _, image_id in entries}) < len(entries):  # two trees share a name
        for (tree, image_id), entry in entries.items():
            entries[tree, image_id] = entry._replace(image_id=f"{tree.name}/{image_id}")
    return list(entries.values()), issues


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file:line, image). Names may hold spaces; a class-wise list has -1, 0 or 1 behind each."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.split()
        has_class = words.pop() if len(words) == 2 and words[1] in ("-1", "0", "1") else "1"
        if words and has_class != "-1":
            yield f"{path}:{number}", " ".join(words)


def _image_issue(entry: _Entry, annotation: Annotation | None, images: bool) -> DataIssue | None:
    """What keeps an image out altogether."""
    if annotation is None:
        return DataIssue("no annotation", entry.where, f"there is no {entry.annotation}")
    if annotation.error is not None:
        line, _, text = annotation.error.partition(": ")
        return DataIssue("broken annotation", f"{entry.annotation}:{line}", text)
    if images and not entry.has_image:
        return DataIssue("no image", entry.where, f"there is no {entry.image}")
    if images and annotation.image_size is None:
        return DataIssue("unreadable image", str(entry.image), "it is no image, or cut short")
    return None


def _make_record(
    entry: _Entry, annotation: Annotation, label_of: dict[str, int], issues: list[DataIssue]
) -> Record:
    """The record; what is wrong with its objects is added to `issues`.

    Args:
        entry: its line of the split.
        annotation: the content of the XML file.
        label_of: class name -> label.
        issues: of the split.
    """
    width, height = size = annotation.image_size or annotation.size
    if annotation.size not in (size, (0, 0)):
        turned = " (turned: are the boxes those of the turned image?)"
        text = "{} x {} is written, the image is {} x {}".format(*annotation.size, *size)
        text += turned if annotation.size == (height, width) else ""
        issues.append(DataIssue("size of another image", entry.annotation, text))
    objects: list[tuple[Box, int, bool, bool]] = []
    seen: set[tuple[str, Box]] = set()
    found: list[tuple[int, str, str]] = []  # number of the object, kind, text
    for number, one in enumerate(annotation.objects):
        if one.name not in label_of:
            near = get_close_matches(one.name, label_of, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            allowed = ", ".join(label_of) or "nothing"
            found.append((number, "unknown class", f"{one.name!r} is none of {allowed}{hint}"))
            continue
        # the first pixel is 1 on disk and 0 here; the last one covered ends at its own number
        box = (one.xmin - 1, one.ymin - 1, one.xmax, one.ymax)
        clipped, kind = clip_box(box, size if width and height else None)
        if kind is not None:
            found.append((number, kind, f"{one} of {width} x {height}"))
        if clipped is not None:
            if (one.name, box) in seen:
                found.append((number, "object twice", str(one)))
            seen.add((one.name, box))
            objects.append((clipped, label_of[one.name], one.difficult, False))
    lines = object_lines(Path(entry.annotation).read_bytes()) if found else []
    for number, kind, text in found:
        issues.append(DataIssue(kind, f"{entry.annotation}:{lines[number]}", text))
    record = Record(image_id=entry.image_id, path=entry.image, width=width, height=height)
    return record.with_objects(objects)
