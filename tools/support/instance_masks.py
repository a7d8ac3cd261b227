"""Masks of classes from MS-COCO's instances, for segmentation.

A pixel has the category of the objects that cover it: 1 for that of the lowest id, and so on; 0 is
background. It is void (255) where objects of different categories overlap, in crowds, and in the
boxes of objects whose outline is missing. torchvision's reference (references/segmentation,
`ConvertCocoPolysToMask`) also makes void where two objects of one category overlap, and takes
crowds for objects.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pretrain.check_results import CheckResult, note, ok
from pretrain.errors import UsageError, shorten
from pretrain.files import write_text
from pretrain.images import list_images
from pretrain.progress import bar
from transfer.coco_masks import rasterize
from transfer.detection.coco import read_coco
from transfer.detection.coco_layout import list_splits
from transfer.detection.config import DatasetConfig
from transfer.detection.records import Record, Records, raise_for_issues
from transfer.segmentation.config import VOID
from transfer.segmentation.label_maps import write_label_map


def write_masks(
    root: Path, out: Path | None = None, classes: Sequence[str] = (), join: str | None = None
) -> list[CheckResult]:
    """Write masks/SPLIT/NAME.png and classes.txt, which segmentation reads with the images.

    What is there with the same content is left; so a run that was killed is continued.

    Args:
        root: an MS-COCO tree, with images in ROOT/SPLIT, or ROOT/images/SPLIT.
        out: the new tree, with links to the images; None writes beside them.
        classes: the categories that are kept, in this order; the others are background. Empty
            keeps all, in the order of their ids.
        join: what all of them are called, as one class; None keeps them apart.

    Raises:
        UsageError: no such tree, unreadable annotations, or a file with another content is there.
    """
    splits = sorted(list_splits(root), key=lambda name: (not name.startswith("train"), name))
    if not splits:
        raise UsageError(f"{root} has no instance file of MS-COCO, such as annotations/instances_*")
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise UsageError(f"--classes has {twice[0]} twice")
    config = DatasetConfig(other_classes="drop" if classes else "refuse")
    records_of: dict[str, Records] = {}
    names = tuple(classes)
    for split in splits:
        records = read_coco(root, split, names or None, config, check=False, masks=True)
        raise_for_issues(records.issues, f"{records.sources[0]}", config, None)
        records_of[split], names = records, records.classes
    seen = {
        label for records in records_of.values() for one in records.images for label in one.labels
    }
    if classes and (unseen := [name for k, name in enumerate(names) if k not in seen]):
        raise UsageError(
            f"{root} has no object of {' and of '.join(unseen)}: give names of its categories"
        )
    if join is not None:
        names = (join,)
        records_of = {split: _join(records) for split, records in records_of.items()}
    if len(names) >= VOID:
        raise UsageError(
            f"{root} has {len(names):,} categories, and masks hold {VOID - 1} beside background: "
            "name those to keep by --classes"
        )
    if not any(map(len, records_of.values())):
        raise UsageError(f"{root} has no image in its instance files: there is nothing to draw")
    _refuse_lost_names(names)
    for records in records_of.values():
        _refuse_shared_masks(records)
    target = root if out is None else out
    folders = {split: _image_folder(root, split, records_of[split]) for split in splits}
    _write_classes(target / "classes.txt", ("background", *names))
    results = [ok(f"{len(names)} classes and background: {target / 'classes.txt'}")]
    for split, records in records_of.items():
        images = folders[split]
        results += _write_split(records, images, target / "masks" / images.name)
        if out is not None:
            for path in (record.path for record in records.images):
                _link(out / images.name / path.relative_to(images), path)
        elif others := len({*list_images(images)[0]} - {str(one.path) for one in records.images}):
            text = f"{others:,} other images of {images} have no mask, and would be refused"
            results.append(note(f"{text}: --out NEW makes a tree without them"))
    return results


def _refuse_lost_names(names: Sequence[str]) -> None:
    """What classes.txt would not give back: there, a line is a class."""
    for name in names:
        lines = [line.strip() for line in name.splitlines()]
        if lines in ([], [""]) or len(lines) > 1 or name[0] == "#" or name == "background":
            raise UsageError(
                f"classes.txt cannot hold a class called {name!r}: rename it in the annotations, "
                "name the classes to keep by --classes, or make one class of all by --join NAME"
            )


def _refuse_shared_masks(records: Records) -> None:
    first = dict[Path, Path]()
    for path in (record.path for record in records.images):
        other = first.setdefault(path.with_suffix(""), path)
        if other != path:
            raise UsageError(f"{other} and {path} would have one mask: rename one of them")


def draw_mask(record: Record) -> np.ndarray:
    """The classes of an image's pixels, uint8 (H, W): 0 is background, 255 void."""
    segmentations = [one and json.loads(one) for one in record.segmentations]
    masks = rasterize(segmentations, record.height, record.width).numpy()
    mask = np.zeros((record.height, record.width), np.uint8)
    void = np.zeros(mask.shape, bool)
    for pixels, box, label, crowd in zip(
        masks, record.boxes, record.labels.tolist(), record.crowd.tolist(), strict=True
    ):
        if not pixels.any():
            left, top, right, bottom = box
            void[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
        elif crowd:
            void |= pixels
        else:
            void |= pixels & (mask != 0) & (mask != label + 1)
            mask[pixels] = label + 1
    mask[void] = VOID
    return mask


def _join(records: Records) -> Records:
    """The same objects, all of them of class 0."""
    images = (replace(one, labels=np.zeros_like(one.labels)) for one in records.images)
    return replace(records, images=tuple(images))


def _write_split(records: Records, images: Path, target: Path) -> list[CheckResult]:
    """Write the masks of a split, and say what they hold."""
    outlined, boxed, written = 0, 0, 0
    empty: list[str] = []
    with bar(f"masks of {images.name}", len(records), "images") as advance:
        for record in records.images:
            name = record.path.relative_to(images).with_suffix(".png")
            outlined += sum(one is not None for one in record.segmentations)
            boxed += sum(one is None for one in record.segmentations)
            empty += [str(name)] if not len(record.labels) else []
            written += _write_new(target / name, draw_mask(record))
            advance(1)
    text = f"{len(records):,} images, {outlined:,} outlines: {target}"
    there = len(records) - written
    results = [ok(text + (f" ({there:,} masks were there already)" if there else ""))]
    if boxed:
        results.append(note(f"{boxed:,} objects have no outline; their boxes are void"))
    if empty:
        results.append(note(f"{len(empty):,} images are background alone: {shorten(empty, 3)}"))
    return results


def _write_new(path: Path, mask: np.ndarray) -> bool:
    """Write a mask; False where the same is there, UsageError where it is another."""
    if not path.exists():
        write_label_map(path, mask)
        return True
    try:
        with Image.open(path) as image:
            same = image.mode == "P" and np.array_equal(np.asarray(image), mask)
    except (OSError, SyntaxError):
        same = False
    if not same:
        raise UsageError(
            f"{path} is there with another content, and is not replaced. Remove the folder of "
            "masks, or give another --out."
        )
    return False


def _write_classes(path: Path, names: Sequence[str]) -> None:
    text = "".join(f"{name}\n" for name in names)
    if not path.exists():
        write_text(path, text)
    elif not path.is_file() or path.read_bytes() != text.encode():
        raise UsageError(
            f"{path} is there with other classes, and is not replaced. Remove it and the folder of "
            "masks, or give another --out."
        )


def _image_folder(root: Path, split: str, records: Records) -> Path:
    """The folder of a split's images, from which masks are found: ROOT/SPLIT, or one below."""
    for folder in (root / split, *sorted(root.glob(f"*/{split}"))):
        if all(record.path.is_relative_to(folder) for record in records.images):
            return folder
    raise UsageError(
        f"the images of {split} do not lie in a folder {root / split} or {root / 'images' / split} "
        f"of their own, but for example at {records.images[0].path}: masks would not be found by "
        "their names. Move them there."
    )


def _link(path: Path, image: Path) -> None:
    """Let `path` lead to an image; UsageError where something else is there."""
    if path.exists() and path.resolve() == image.resolve():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(image.resolve())
    except OSError as error:
        raise UsageError(f"{path} cannot be made to lead to {image}: {error.strerror}.") from error
