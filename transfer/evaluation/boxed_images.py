"""Images that show objects of one class, with boxes: CUB-200-2011, ImageNet, Pascal VOC trees.

    ROOT/images.txt, bounding_boxes.txt, train_test_split.txt, images/      CUB-200-2011
    ROOT/JPEGImages, Annotations, ImageSets/Main/SPLIT.txt                  Pascal VOC
    ROOT[/ILSVRC]/Data/CLS-LOC/val or ROOT/val, with class folders or not   ImageNet, its boxes in
        LOC_val_solution.csv, Annotations/CLS-LOC/val/*.xml or val/*.xml

Images are counted as in their data set: an image of VOC with objects of several classes, or of
none, is left out. Boxes become left, top, right, bottom in pixels, continuous and 0-based: those of
VOC move by `first_pixel`, those of CUB and ImageNet stay as they are written, as in wsolevaluation.

A reader of its own: a detector's takes many dialects and repairs much; here what does not fit is an
error. Sizes and orientations come from the heads of the image files.
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.backbone_evaluation import order_classes, require_classifier
from pretrain.data.images import ImageFiles
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError, shorten
from pretrain.images import decode, list_images, read_header
from pretrain.reading import read_bytes, read_text
from transfer.evaluation.images import Labels

Box = tuple[float, float, float, float]
_LARGEST_TABLE = 256 * 2**20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Annotation(NamedTuple):
    """What is written of an image."""

    path: Path
    boxes: Sequence[tuple[str, Box]]
    """With the name of the class."""
    where: Path
    """The file that says it."""
    size: tuple[int, int] | None = None
    """Width and height, where they are written."""


@dataclass(frozen=True, eq=False)
class BoxedImages:
    """N images of one class each, K objects on one."""

    images: ImageFiles
    """Their labels are outputs of the classifier."""
    boxes: tuple[np.ndarray, ...]
    """(K, 4) float64 of each image."""
    sizes: np.ndarray
    """(N, 2) width and height of what `read` returns."""
    turned: np.ndarray
    """(N,) bool: boxes are of the photo turned as its EXIF orientation says."""
    matching: str
    """How the classes of the data were matched with the outputs."""
    files: DataFiles
    name: str

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Tensor:
        """Image `index` as uint8 RGB (3, H, W); UsageError where it cannot be decoded."""
        return decode(self.images.path(index), bool(self.turned[index]))

    @property
    def summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        return {
            "name": self.name,
            "images": len(self),
            "boxes": sum(map(len, self.boxes)),
            "classes": len(np.unique(self.images.labels)),
            "matching": self.matching,
            "notes": list(self.images.notes),
        }


def open_boxed(root: Path, backbone: Backbone, labels: Labels, first_pixel: int = 1) -> BoxedImages:
    """List the images that show one class, with their boxes.

    Args:
        root: see above.
        backbone: with its classifier.
        labels: the split (VOC: test, or else val; CUB: test), and which class is which output where
            the backbone's file does not name them.
        first_pixel: what VOC's boxes are counted from.

    Raises:
        UsageError: another layout, images without boxes, boxes outside the image, classes that are
            none of the classifier's, or no image of one class.
    """
    require_classifier(backbone)
    if (root / "bounding_boxes.txt").is_file():
        found, sources = _read_cub(root, labels.split or "test")
    elif (root / "JPEGImages").is_dir():
        found, sources = _read_voc(root, labels.split, first_pixel)
    else:
        found, sources = _read_imagenet(root, labels.split or "val")
    kept, several, none = [], 0, 0
    for one in found:
        names = {name for name, _ in one.boxes}
        several += len(names) > 1
        none += not names
        if len(names) == 1:
            kept.append(one)
    if not kept:
        raise UsageError(f"{root}: none of the {several + none:,} images shows one class alone.")
    notes = []
    if several or none:
        notes.append(
            f"{several:,} images with several classes and {none:,} without an object are left out"
        )
    output_of, matching = _match(sorted({one.boxes[0][0] for one in kept}), backbone, labels, root)
    sizes, turned, other = _read_sizes(kept)
    if other:
        notes.append(f"{other:,} images have another size than is written; their own is taken")
    images = ImageFiles.of(
        backbone.output_names or [f"output {k}" for k in range(backbone.spec.num_classes)],
        [str(one.path) for one in kept],
        [output_of[one.boxes[0][0]] for one in kept],
        notes,
        tuple(dict.fromkeys((*sources, *(one.where for one in kept)))),
    )
    boxes = tuple(np.array([box for _, box in one.boxes], np.float64) for one in kept)
    files = DataFiles((root,), images.paths, images.annotations)
    return BoxedImages(images, boxes, sizes, turned, matching, files, root.resolve().name)


def _match(
    names: Sequence[str], backbone: Backbone, labels: Labels, root: Path
) -> tuple[dict[str, int], str]:
    """Class -> output, and how they were matched."""
    outputs, count = backbone.output_names, backbone.spec.num_classes
    if labels.class_order is not None:
        numbers = order_classes(names, labels.class_order, count)
        how = f"{len(names)} of {count} classes, in {labels.class_order} order"
        return dict(zip(names, numbers, strict=True)), how
    if not outputs:
        raise UsageError(
            f"the backbone's file does not name its {count} outputs; give --class-order where the "
            f"{len(names)} classes of {root} are all of them."
        )
    if unknown := [name for name in names if outputs.count(name) != 1]:
        raise UsageError(
            f"{len(unknown)} of the {len(names)} classes in {root} are none of the classifier's "
            f"{count}: {shorten(unknown)}. Its own are {shorten(outputs)}. Train a classifier on "
            "them, for instance by tools/finetune_cls.py --mode full, and give its classifier.pth."
        )
    how = f"{len(names)} of {count} classes, by their names"
    return {name: outputs.index(name) for name in names}, how


def _read_sizes(found: Sequence[_Annotation]) -> tuple[np.ndarray, np.ndarray, int]:
    """Width and height of each image; whether it is turned; how many have another size written."""
    sizes, turned, other = np.zeros((len(found), 2), np.int64), np.zeros(len(found), bool), 0
    for number, one in enumerate(found):
        if (header := read_header(one.path)) is None:
            raise UsageError(f"{one.path} is no image, or cut short; replace it, or remove it.")
        size = header.size
        if one.size is not None and one.size != size:
            turned[number] = one.size == header.displayed_size
            size = header.displayed_size if turned[number] else size
            other += not turned[number]
        for name, (left, top, right, bottom) in one.boxes:
            if not (left < min(right, size[0]) and top < min(bottom, size[1])
                    and right > 0 and bottom > 0):  # fmt: skip
                box = ", ".join(f"{side:g}" for side in (left, top, right, bottom))
                raise UsageError(
                    f"{one.where}: the box of a {name} on {one.path.name} is {box} (left, top, "
                    f"right, bottom, 0-based); it has no area in an image of {size[0]} x {size[1]}."
                )
        sizes[number] = size
    return sizes, turned, other


def _read_cub(root: Path, split: str) -> tuple[list[_Annotation], list[Path]]:
    """CUB-200-2011: a class is the folder of its images."""
    if split not in ("train", "test"):
        raise UsageError(f"--split is {split}; CUB-200-2011 has train and test.")
    tables = [root / f"{name}.txt" for name in ("images", "bounding_boxes", "train_test_split")]
    paths, boxes, is_train = (_read_table(table) for table in tables)
    for named, (table, held) in ((paths, (tables[2], is_train)), (is_train, (tables[0], paths))):
        _refuse_missing([n for n in named if n not in held], len(named), "image number", table)
    numbers = [n for n in paths if is_train.get(n) == [str(int(split == "train"))]]
    _refuse_missing([n for n in numbers if n not in boxes], len(numbers), "image number", tables[1])
    found = []
    for number in numbers:
        x, y, width, height = _parse_box(boxes[number], f"{tables[1]}, image {number}")
        path = root / "images" / " ".join(paths[number])
        box = (path.parent.name, (x, y, x + width, y + height))
        found.append(_Annotation(path, [box], tables[1]))
    return found, tables


def _read_table(path: Path) -> dict[str, list[str]]:
    """Number -> the other words of its line."""
    lines = map(str.split, read_text(path, largest=_LARGEST_TABLE).splitlines())
    return {words[0]: words[1:] for words in lines if words}


def _read_voc(
    root: Path, split: str | None, first_pixel: int
) -> tuple[list[_Annotation], list[Path]]:
    """Pascal VOC: the images that a list names."""
    lists = root / "ImageSets" / "Main"
    if split is None:
        split = next((s for s in ("test", "val") if (lists / f"{s}.txt").is_file()), "test")
    if not (lists / f"{split}.txt").is_file():
        there = sorted(path.stem for path in lists.glob("*.txt"))
        raise UsageError(
            f"there is no split {split} in {lists}; it has {shorten(there) or 'none'}. Give one of "
            "them by --split."
        )
    lines = read_text(lists / f"{split}.txt", largest=_LARGEST_TABLE).splitlines()
    names = list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    paths = _by_stem(root / "JPEGImages")
    _refuse_missing([n for n in names if n not in paths], len(names), "image", root / "JPEGImages")
    read = _annotations_in(root / "Annotations", first_pixel)
    return _of_xml({name: paths[name] for name in names}, read), [lists / f"{split}.txt"]


def _read_imagenet(root: Path, split: str) -> tuple[list[_Annotation], list[Path]]:
    """ImageNet's images below a folder, by Kaggle's table or by an XML file each."""
    roots = [root, root / "ILSVRC"]
    folders = [base / inner / split for base in roots for inner in ("Data/CLS-LOC", ".")]
    folder = next((path for path in folders if path.is_dir()), None)
    table = root / f"LOC_{split}_solution.csv"
    inner = ("Annotations/CLS-LOC", "Annotations", "bbox", ".")
    places = [base / name / split for base in roots for name in inner]
    xml = next((path for path in places if path.is_dir() and any(path.glob("*.xml"))), None)
    if folder is None or not (table.is_file() or xml):
        raise UsageError(
            f"{root} holds no images with boxes of a known layout. Known are CUB-200-2011 "
            "(images.txt, bounding_boxes.txt, train_test_split.txt, images), Pascal VOC "
            f"(JPEGImages, Annotations, ImageSets/Main), and ImageNet ({split} or "
            f"Data/CLS-LOC/{split}, with {table.name} or Annotations/CLS-LOC/{split}/*.xml)."
        )
    paths = _by_stem(folder)
    if xml is None:
        boxes = _read_kaggle(table)
        _refuse_missing([n for n in paths if n not in boxes], len(paths), "image", table)
        return [_Annotation(path, boxes[n], table) for n, path in paths.items()], [table]
    return _of_xml(paths, _annotations_in(xml, 0)), []


def _read_kaggle(path: Path) -> dict[str, list[tuple[str, Box]]]:
    """Name -> objects, of lines ILSVRC2012_val_00048981,n03995372 85 1 499 272 n03995372 ..."""
    try:
        rows = list(csv.reader(read_text(path, largest=_LARGEST_TABLE).splitlines()))[1:]
    except csv.Error as error:
        raise UsageError(f"{path} is no table that can be read: {error}.") from error
    found = dict[str, list[tuple[str, Box]]]()
    for number, row in enumerate(filter(None, rows), 2):
        words, where = row[-1].split(), f"{path}, line {number}"
        if len(row) != 2 or not words or len(words) % 5:
            raise UsageError(f"{where}: {','.join(row)[:60]!r} is no name and classes with boxes.")
        objects = [words[start : start + 5] for start in range(0, len(words), 5)]
        found[row[0]] = [(name, _parse_box(box, where)) for name, *box in objects]
    return found


def _of_xml(
    paths: Mapping[str, Path], read: Callable[[str, Path], _Annotation | None]
) -> list[_Annotation]:
    found = {name: read(name, path) for name, path in paths.items()}
    missing = [name for name, one in found.items() if one is None]
    _refuse_missing(missing, len(found), "image", "any XML file of its name")
    return [one for one in found.values() if one is not None]


def _annotations_in(folder: Path, first_pixel: int) -> Callable[[str, Path], _Annotation | None]:
    """A function from an image's name and path to what NAME.xml says; None where there is none."""

    def read(name: str, image: Path) -> _Annotation | None:
        path = folder / f"{name}.xml"
        if not path.is_file():
            return None
        try:
            root = ElementTree.fromstring(read_bytes(path))
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise UsageError(f"{path} is no XML that can be read: {error}.") from error
        sides = [root.findtext(f"size/{side}") or "" for side in ("width", "height")]
        width, height = (int(side) if side.isdecimal() and len(side) < 10 else 0 for side in sides)
        boxes = list(_objects(root, path, first_pixel))
        return _Annotation(image, boxes, path, (width, height) if width and height else None)

    return read


def _objects(root: ElementTree.Element, path: Path, shift: int) -> Iterator[tuple[str, Box]]:
    for one in root.iter("object"):
        name, box = (one.findtext("name") or "").strip(), one.find("bndbox")
        if not name or box is None:
            raise UsageError(f"{path}: an object has no {'bndbox' if name else 'name'}.")
        texts = [box.findtext(corner) or "" for corner in _CORNERS]
        left, top, right, bottom = _parse_box(texts, f"{path}: the box of a {name}")
        yield name, (left - shift, top - shift, right, bottom)


def _parse_box(texts: Sequence[str], where: str) -> Box:
    try:
        one, two, three, four = map(float, texts)
    except ValueError:
        one = two = three = four = math.nan
    if not math.isfinite(one + two + three + four):
        raise UsageError(f"{where}: {' '.join(texts)[:60]!r} is no box of four numbers.")
    return one, two, three, four


def _by_stem(folder: Path) -> dict[str, Path]:
    """The images below a folder by their names without ending; UsageError where two share one."""
    found = dict[str, Path]()
    for path in map(Path, list_images(folder)[0]):
        if (other := found.setdefault(path.stem, path)) != path:
            raise UsageError(
                f"{other} and {path} have one name, and boxes are found by it. Rename one of them "
                "and its boxes, or take one away."
            )
    return found


def _refuse_missing(missing: Sequence[str], count: int, kind: str, where: Path | str) -> None:
    if missing:
        raise UsageError(
            f"{len(missing):,} of {count:,} have nothing in {where}: {kind} {shorten(missing)}. "
            "Add it, or take them away."
        )
