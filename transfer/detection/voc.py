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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pretrain.errors import UsageError
from transfer.detection.annotations import Annotation, object_lines, read_annotations
from transfer.detection.records import Box, DataIssue, Record, Records, clip_box, raise_for_issues

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp")


class _Entry(NamedTuple):
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
        cached: see annotations.read_annotations.

    Raises:
        UsageError: what the rules of `records.RULES` refuse, with file and line.
    """
    entries, issues = _read_split(root, split)
    paths = _find_images(entries) if images else [None] * len(entries)
    annotations = read_annotations([entry.annotation for entry in entries], paths, cached)
    usable: list[tuple[_Entry, Path, Annotation]] = []
    for entry, path, annotation in zip(entries, paths, annotations, strict=True):
        if issue := _image_issue(entry, path, annotation, images):
            issues.append(issue)
        elif annotation is not None:
            usable.append((entry, path or entry.tree / "JPEGImages" / entry.image_id, annotation))
    if classes is None:
        classes = sorted({one.name for *_, annotation in usable for one in annotation.objects})
    label_of = {name: label for label, name in enumerate(classes)}
    ambiguous = len({entry.image_id for entry in entries}) < len(entries)
    records = [_make_record(*one, label_of, ambiguous, issues) for one in usable]
    source = f"{root}, split {split},"
    raise_for_issues(issues, source, max_corrupt=max_corrupt, other_classes=other_classes)
    if not records:
        raise UsageError(f"{root}, split {split}: no image is left, all {len(entries)} are broken.")
    return Records(classes=tuple(classes), images=tuple(records), issues=tuple(issues))


def choose_splits(names: Sequence[str], train: str | None, test: str | None) -> tuple[str, str]:
    """The splits to train and to score on, out of `names`; what is given stands.

    Otherwise (trainval, test) where there is a test split, or else (train, val); of MS-COCO's names
    the one that begins so.
    """

    def find(name: str) -> str | None:
        years = sorted(n for n in names if n.startswith(name) and n[len(name) :].isdigit())
        return name if name in names else next(iter(years), None)

    if train is None:
        with_test = find("trainval") and (test or find("test")) and test != "val"
        train = find("trainval" if with_test else "train")
    test = test or find("test") or find("val") or find("valid")
    if train is None or test is None:
        raise UsageError(
            f"there are the splits {', '.join(names) or 'none'}: say which to train on and which "
            "to score on with --dataset.train and --dataset.test (several are joined by +)."
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
    remedies = {
        "Annotations": "",
        "ImageSets/Main": " Make ImageSets/Main/train.txt and val.txt with one image name, without "
        "its ending, in each line.",
    }
    for folder, remedy in remedies.items():
        if not (root / folder).is_dir():
            content = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
            raise UsageError(
                f"{root} is no Pascal VOC tree: it has no {folder} (it holds {content}).{remedy}"
            )
    names = sorted(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt"))
    usual = {"train", "val", "trainval", "test"}
    return [n for n in names if "_" not in n or n.rsplit("_", 1)[1] not in usual] or names


def _read_split(root: Path, split: str) -> tuple[list[_Entry], list[DataIssue]]:
    """The images of a split, each once."""
    available = list_splits(root)
    entries: dict[tuple[Path, str], _Entry] = {}
    issues: list[DataIssue] = []
    for part in split.split("+"):
        tree, name = (root, part) if is_tree(root) else (root / Path(part).parent, Path(part).name)
        path = tree / "ImageSets" / "Main" / f"{name}.txt"
        if not path.is_file():
            near = difflib.get_close_matches(part, available, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            names = ", ".join(available) or "none"
            raise UsageError(f"{root} has no split {part!r}; it has {names}.{hint}")
        lines, folder = list(_read_lines(path)), str(tree / "Annotations")
        if not lines:
            raise UsageError(f"{path} is empty.")
        for where, image_id in lines:
            entry = _Entry(tree, image_id, where, f"{folder}/{image_id}.xml")
            first = entries.setdefault((tree, image_id), entry)
            if first is not entry:
                text = f"{image_id}, as in {first.where}"
                issues.append(DataIssue("image listed twice", where, text))
    return list(entries.values()), issues


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file:line, image). Names may hold spaces; a class-wise list has -1, 0 or 1 behind each."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.split()
        if len(words) == 2 and words[1] in ("-1", "0", "1"):
            if words[1] == "-1":
                continue
            words.pop()
        if words:
            yield f"{path}:{number}", " ".join(words)


def _find_images(entries: Sequence[_Entry]) -> list[Path | None]:
    """The image file of each entry, by one look at each folder."""
    files = {}
    for tree in {entry.tree for entry in entries}:
        if not (tree / "JPEGImages").is_dir():
            raise UsageError(f"{tree} is no Pascal VOC tree: it has no JPEGImages.")
        files[tree] = set(os.listdir(tree / "JPEGImages"))
    paths = []
    for entry in entries:
        names = (f"{entry.image_id}{suffix}" for suffix in _SUFFIXES)
        name = next((name for name in names if name in files[entry.tree]), None)
        paths.append(None if name is None else entry.tree / "JPEGImages" / name)
    return paths


def _image_issue(
    entry: _Entry, path: Path | None, annotation: Annotation | None, images: bool
) -> DataIssue | None:
    """What keeps an image out altogether."""
    if annotation is None:
        return DataIssue("no annotation", entry.where, f"there is no {entry.annotation}")
    if annotation.error is not None:
        line, _, text = annotation.error.partition(": ")
        return DataIssue("broken annotation", f"{entry.annotation}:{line}", text)
    if images and path is None:
        missing = entry.tree / "JPEGImages" / f"{entry.image_id}.jpg"
        return DataIssue("no image", entry.where, f"there is no {missing}")
    if images and annotation.image_size is None:
        return DataIssue("unreadable image", str(path), "it is no image, or cut short")
    return None


def _make_record(
    entry: _Entry,
    path: Path,
    annotation: Annotation,
    label_of: dict[str, int],
    ambiguous: bool,
    issues: list[DataIssue],
) -> Record:
    """The record; what is wrong with its objects is added to `issues`.

    Args:
        entry: its line of the split.
        path: the image.
        annotation: the content of the XML file.
        label_of: class name -> label.
        ambiguous: image names need their tree's in front.
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
    lines: list[int] = []

    def report(number: int, kind: str, text: str) -> None:
        if not lines:
            lines.extend(object_lines(Path(entry.annotation).read_bytes()))
        issues.append(DataIssue(kind, f"{entry.annotation}:{lines[number]}", text))

    for number, one in enumerate(annotation.objects):
        if one.name not in label_of:
            near = difflib.get_close_matches(one.name, label_of, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            allowed = ", ".join(label_of) or "nothing"
            report(number, "unknown class", f"{one.name!r} is none of {allowed}{hint}")
            continue
        # the first pixel is 1 on disk and 0 here; the last one covered ends at its own number
        box = (one.xmin - 1, one.ymin - 1, one.xmax, one.ymax)
        clipped, kind = clip_box(box, size if width and height else None)
        if kind is not None:
            report(number, kind, f"{one} of {width} x {height}")
        if clipped is not None:
            if (one.name, box) in seen:
                report(number, "object twice", f"{one}")
            seen.add((one.name, box))
            objects.append((clipped, label_of[one.name], one.difficult, False))
    return Record(
        image_id=f"{entry.tree.name}/{entry.image_id}" if ambiguous else entry.image_id,
        path=path,
        width=width,
        height=height,
    ).with_objects(objects)
