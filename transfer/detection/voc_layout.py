"""Where the files of a Pascal VOC tree lie.

    Annotations    also annotation, xmls, or labels where it holds XML files; in any case
    JPEGImages     also images, imgs, in any case; else the tree itself, or beside the XML files
    ImageSets/Main also ImageSets alone, in any case

A name in a list may hold folders and an ending. Its XML file and its image are looked for under
that name, then anywhere in their folder by its last part, which must be the only one.
"""

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UsageError, shorten
from pretrain.images import SUFFIXES, list_images

_ANNOTATIONS = ("Annotations", "Annotation", "xmls", "xml", "labels")
_IMAGES = ("JPEGImages", "images", "image", "imgs", "img")
_LISTS = ("ImageSets", "ImageSet")
_SPLIT_FOLDER = re.compile(r"(train|trainval|val|valid|validation|test)\d*", re.IGNORECASE)
_ENDINGS = (*SUFFIXES, ".xml")


class VocTree(NamedTuple):
    """The parts of a tree; None for what is not there."""

    root: Path
    annotations: Path | None
    images: Path | None
    lists: Path | None


def lay_out(root: Path) -> VocTree:
    """Find the parts of a tree; UsageError where two folders could be one of them."""
    folders: dict[str, list[Path]] = {}
    has_xml = has_images = False
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        name = entry.name.lower()
        if name[0] == ".":
            continue
        if entry.is_dir():
            folders.setdefault(name, []).append(Path(entry.path))
        has_xml |= name.endswith(".xml")
        has_images |= name.endswith(SUFFIXES)
    annotations = _choose(root, folders, _ANNOTATIONS) or (root if has_xml else None)
    images = _choose(root, folders, _IMAGES) or (root if has_images else annotations)
    lists = _choose(root, folders, _LISTS)
    if lists is not None:
        main = [path for path in lists.iterdir() if path.is_dir() and path.name.lower() == "main"]
        lists = main[0] if main else lists if any(lists.glob("*.txt")) else None
    return VocTree(root, annotations, images, lists)


def _choose(root: Path, folders: dict[str, list[Path]], names: Sequence[str]) -> Path | None:
    """The folder of the first of these names in any case, that very name before all."""
    if root / names[0] in folders.get(names[0].lower(), ()):
        return root / names[0]
    found = [path for name in names for path in folders.get(name.lower(), ())]
    if names is _ANNOTATIONS:  # labels may be YOLO's
        found = [p for p in found if p.name.lower() != "labels" or _walk(p, ".xml")]
    if len(found) > 1:
        raise UsageError(
            f"{root} has the folders {' and '.join(path.name for path in found)}; which of them is "
            f"meant? Rename it to {names[0]}."
        )
    return found[0] if found else None


def is_tree(folder: Path) -> bool:
    """True for a folder with annotations and splits in Pascal VOC's places."""
    if not folder.is_dir():
        return False
    tree = lay_out(folder)
    return tree.annotations is not None and tree.lists is not None


def find_trees(root: Path) -> list[Path]:
    """`root` where it is a tree, otherwise the trees in that folder."""
    return [root] if is_tree(root) else [path for path in sorted(root.iterdir()) if is_tree(path)]


def list_splits(root: Path) -> list[str]:
    """Names of the splits, with TREE/ in front in a folder of trees.

    Class-wise lists (cat_train.txt) are left out; UsageError where this is no Pascal VOC tree.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; a Pascal VOC tree is needed.")
    tree = lay_out(root)
    if tree.annotations is None or tree.lists is None:
        if trees := find_trees(root):
            return [f"{path.name}/{name}" for path in trees for name in list_splits(path)]
        if folders := _split_folders(root):
            return folders
        raise UsageError(describe_missing(tree))
    names = sorted(path.stem for path in tree.lists.glob("*.txt") if path.name[0] != ".")
    return [n for n in names if not re.search("_(train|val|trainval|test)$", n)] or names


def _split_folders(root: Path) -> list[str]:
    """Folders that are splits by their names and hold XML files."""
    folders = [p for p in sorted(root.iterdir()) if p.is_dir() and _SPLIT_FOLDER.fullmatch(p.name)]
    return [path.name for path in folders if lay_out(path).annotations is not None]


def describe_missing(tree: VocTree) -> str:
    """All parts that a folder lacks, each with its remedy."""
    root = tree.root
    content = shorten(sorted(entry for entry in os.listdir(root) if entry[0] != "."), 6)
    lacks = []
    if tree.annotations is None:
        lacks.append("Annotations (put the XML files there)")
    beside = tree.images is not None and tree.images == tree.annotations
    if tree.images is None or (beside and not list_images(tree.images)[0]):
        lacks.append("JPEGImages (put the images there)")
    if tree.lists is None:
        lacks.append(
            "ImageSets/Main (make train.txt and val.txt there with one image name, without its "
            f"ending, in each line, or draw them: python tools/prepare_data.py voc --data {root} "
            "--val-fraction 0.2 --seed 0)"
        )
    text = f"{root} is no Pascal VOC tree: it has no {', no '.join(lacks)}"
    return f"{text}; it holds {content or 'nothing'}."


def split_source(root: Path, split: str) -> tuple[VocTree, Path]:
    """The tree of a split (one, not several), and its list; or its folder where that is it."""
    available = list_splits(root)
    part = Path(split)
    place, name = (root, split) if is_tree(root) else (root / part.parent, part.name)
    tree = lay_out(place) if is_tree(place) else None
    if tree is None and split in available:
        return lay_out(root / split), root / split
    if tree is not None and tree.lists is not None:
        file = tree.lists / f"{name}.txt"
        if file.is_file():
            return tree, file
    hint = "".join(f" Did you mean {s}?" for s in get_close_matches(split, available, 1))
    raise UsageError(f"{root} has no split {split!r}; it has {', '.join(available)}.{hint}")


def read_list(path: Path, files: "VocFiles") -> list[tuple[str, str]]:
    """(file:line, name) of each image in a list.

    Names may hold spaces. In a class-wise list each line ends with -1, 0 or 1: one such list is a
    file all of whose lines do, unless there are files of such names; -1 is left out.
    """
    data = path.read_bytes()
    try:
        is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
        if "\0" in text:
            raise ValueError
    except ValueError:
        raise UsageError(f"{path} is no text in UTF-8; save it so.") from None
    lines = [(f"{path}:{n}", line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(where, line) for where, line in lines if line]
    if not lines:
        raise UsageError(f"{path} is empty.")
    columns = [line.rsplit(None, 1) for _, line in lines]
    is_class_wise = all(len(one) == 2 and one[1] in ("-1", "0", "1") for one in columns)
    if not is_class_wise or any(files.has(line) for _, line in lines):
        return lines
    listed = zip(lines, columns, strict=True)
    return [(where, name) for (where, _), (name, column) in listed if column != "-1"]


class VocFiles:
    """The XML files and the images of a tree, by their names without ending."""

    def __init__(self, tree: VocTree, images: bool) -> None:
        """List the folders; `images` False leaves the images' out."""
        assert tree.annotations is not None
        self.tree, self.annotations = tree, tree.annotations
        self.xml = _index(_walk(tree.annotations, ".xml"), tree.annotations)
        self.images: dict[str, list[str]] = {}
        if images:
            if tree.images is None:
                raise UsageError(describe_missing(tree))
            self.images = _index(list_images(tree.images)[0], tree.images)

    @cached_property
    def _last_xml(self) -> dict[str, list[str]]:
        return _by_last_part(self.xml)

    @cached_property
    def _last_images(self) -> dict[str, list[str]]:
        return _by_last_part(self.images)

    def has(self, name: str) -> bool:
        """Whether an XML file or an image is called so."""
        return name in self.xml or name in self.images

    def find_xml(self, name: str) -> list[str]:
        """The XML files that a name in a list can mean."""
        if found := self.xml.get(name) or self.xml.get(without_ending(name)):
            return found
        return self._last_xml.get(_last_part(name), [])

    def find_images(self, name: str, xml: str | None, hint: str) -> tuple[list[str], bool]:
        """The images that a name in a list can mean.

        Args:
            name: as the list has it.
            xml: its XML file.
            hint: FOLDER/FILENAME, as written in there.

        Returns:
            Their paths, and whether they were found by a part of the name, or by the hint alone.
        """
        found = self.images.get(name) or self.images.get(without_ending(name)) or []
        if not found and xml is not None:
            found = self.images.get(without_ending(os.path.relpath(xml, self.annotations)), [])
        if len(found) == 1:
            return found, False
        is_guess = not found
        if not found:
            found = self._last_images.get(_last_part(name), [])
            found = found or self._last_images.get(_last_part(hint), [])
        if len(found) > 1:  # of the same name, what is written decides
            for end in (hint, hint.rpartition("/")[2]):
                named = [path for path in found if path.endswith(f"/{end}")]
                found = named if len(named) == 1 else found
        return found, is_guess


def without_ending(name: str) -> str:
    """A name less the ending of an image or an XML file."""
    return name.rpartition(".")[0] if name.lower().endswith(_ENDINGS) else name


def _last_part(name: str) -> str:
    return without_ending(name).replace("\\", "/").rpartition("/")[2]


def _walk(folder: Path, ending: str) -> list[str]:
    """Paths of the files of that ending, in folders below too."""
    return [path for path in list_images(folder)[1] if path.lower().endswith(ending)]


def _index(paths: Iterable[str], folder: Path) -> dict[str, list[str]]:
    """{path in the folder, without ending: the paths}."""
    start, index = len(os.path.join(folder, "")), dict[str, list[str]]()
    for path in paths:
        index.setdefault(path[start:].rpartition(".")[0], []).append(path)
    return index


def _by_last_part(index: dict[str, list[str]]) -> dict[str, list[str]]:
    last: dict[str, list[str]] = {}
    for name, paths in index.items():
        last.setdefault(name.rpartition("/")[2], []).extend(paths)
    return last
