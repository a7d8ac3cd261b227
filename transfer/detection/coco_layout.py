"""Where MS-COCO's instance files and their images lie in a folder.

    annotations/instances_SPLIT.json    MS-COCO, CVAT, datumaro (SPLIT is often default)
    SPLIT/_annotations.coco.json        Roboflow

Where there is none of these, and no Pascal VOC tree, other JSON files are looked into:

    annotations/SPLIT.json              many
    SPLIT/annotations.json              also labels.json, instances.json, coco.json
    SPLIT.json                          labels.json of FiftyOne, result.json of Label Studio

An image is looked for in the folder of its split, beside the file, and in the usual folders.
"""

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from pretrain.errors import UsageError

_IN_SPLIT = ("annotations", "labels", "instances", "coco", "result", "_annotations")
_OTHER_TASKS = ("panoptic_", "stuff_")
_IMAGES = ("images", "image", "imgs", "img", "data", "jpegimages")
_MOST_FILES = 50  # a folder with more JSON files has one for each image


def find_splits(root: Path) -> dict[str, Path]:
    """{split: its file}; empty where there is no instance file."""
    found: dict[str, Path] = {}
    for path in sorted(root.glob("annotations/instances_*.json")):
        found[path.stem.removeprefix("instances_")] = path
    for path in sorted(root.glob("*/_annotations.coco.json")):
        found.setdefault(path.parent.name, path)
    if not found and not (root / "JPEGImages").is_dir():
        for name, path in _other_files(root):
            if name not in found and _is_instance_file(path):
                found[name] = path
    return found


def list_splits(root: Path) -> list[str]:
    """Names of the splits; none where this is no MS-COCO tree."""
    return sorted(find_splits(root))


def is_yolo(root: Path) -> bool:
    """Whether a folder is in YOLO's layout: data.yaml or classes.txt with labels, no XML."""
    places = ("labels/*.txt", "labels/*/*.txt", "*/labels/*.txt")
    has_labels = any(any(root.glob(place)) for place in places)
    described = any((root / name).is_file() for name in ("data.yaml", "data.yml", "classes.txt"))
    return described and has_labels and not (root / "Annotations").is_dir()


def split_file(root: Path, split: str) -> Path:
    """The instance file of a split; UsageError where there is none."""
    splits = find_splits(root)
    if split not in splits:
        near = "".join(f" Did you mean {one}?" for one in get_close_matches(split, splits, 1))
        available = ", ".join(sorted(splits)) or "none"
        raise UsageError(f"{root} has no split {split!r}; it has {available}.{near}")
    return splits[split]


def _other_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Name of the split and path of what may be an instance file."""
    for pattern in ("[Aa]nnotations/*.json", "*.json"):
        paths = sorted(root.glob(pattern))
        if len(paths) <= _MOST_FILES:
            yield from ((p.stem, p) for p in paths if not p.name.startswith(_OTHER_TASKS))
    for name in _IN_SPLIT:
        yield from ((path.parent.name, path) for path in sorted(root.glob(f"*/{name}.json")))


def _is_instance_file(path: Path) -> bool:
    """By the keys alone; whether it can be read, the reader says."""
    try:
        content = path.read_bytes() if path.is_file() else b""  # a pipe would block
    except OSError:
        return False
    return all(key in content for key in (b'"images"', b'"annotations"', b'"categories"'))


class ImageFinder:
    """Looks for the images of one instance file."""

    def __init__(self, root: Path, split: str, file: Path) -> None:
        usual = _usual_folders(root)
        folders = [root / split, file.parent, *(folder / split for folder in usual)]
        folders += [*_usual_folders(root / split), *usual, root]
        self.folders = [str(folder) for folder in dict.fromkeys(folders) if folder.is_dir()]
        self._root, self._split, self._file = os.path.abspath(root), split, file

    def find(self, name: str) -> tuple[str | None, tuple[int, int] | None, bool]:
        """The image of a file name.

        Names that lead out of the tree (/home/me/x.jpg, ../../x.jpg) are those of another machine:
        their last part is looked for.

        Returns:
            Its path, None where it is not there; what is equal for two names of one file; whether
            it was found by its last part alone.
        """
        name = name.replace("\\", "/")
        if (found := _look(self._inside(name))) is not None:
            return *found, False
        last = name.rpartition("/")[2]
        leads_out = name.startswith(("/", "../")) or "/../" in name or name[1:2] == ":"
        if leads_out and last and (found := _look(f"{f}/{last}" for f in self.folders)):
            return *found, True
        return None, None, False

    @property
    def places(self) -> str:
        """The folders that are looked into, for a message."""
        names = [os.path.relpath(folder, self._root) for folder in self.folders]
        return ", ".join("the tree itself" if name == "." else name for name in names)

    def raise_if_none(self, paths: Collection[str | None], names: Iterable[str]) -> None:
        """Raise UsageError where not one of several images was found."""
        if len(paths) > 1 and not any(paths):
            raise UsageError(
                f"{self._file}: none of its {len(paths):,} images is there, such as "
                f"{next(iter(names))}. Looked in {self.places} of {self._root}. Put the images "
                f"into {os.path.join(self._root, self._split)}, or mend file_name."
            )

    def _inside(self, name: str) -> Iterator[str]:
        """The places of a name, less those outside the tree."""
        for folder in self.folders:
            path = os.path.join(folder, name)
            if ".." in name or name[0] == "/":
                path = os.path.normpath(path)
                if not os.path.abspath(path).startswith(f"{self._root}{os.sep}"):
                    continue
            yield path


def _usual_folders(root: Path) -> list[Path]:
    """Folders of images in a folder, by their names in any case."""
    entries = sorted(os.listdir(root)) if root.is_dir() else []
    return [root / entry for entry in entries if entry.lower() in _IMAGES]


def _look(paths: Iterator[str]) -> tuple[str, tuple[int, int]] | None:
    """The first that is a file, and its identity."""
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode):
            return path, (status.st_dev, status.st_ino)
    return None
