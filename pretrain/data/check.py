"""Is ImageNet, or CIFAR, on disk as training needs it? And the repairs that are usually needed."""

import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pretrain.check_results import CheckResult, counted, decoded, note, ok, wrong
from pretrain.data.cifar import LAYOUTS, find_cifar, open_cifar
from pretrain.data.folders import is_flat, validation_split
from pretrain.data.unpack import (
    TRAIN,
    extract,
    in_threads,
    sync,
    unpack_beside,
    unpack_devkit,
    unpack_imagenet,
)
from pretrain.data.validation_labels import find_labels, read_labels
from pretrain.data_hints import describe
from pretrain.errors import UsageError, shorten
from pretrain.files import draft, draft_folder, lock
from pretrain.images import (
    class_folders,
    describe_others,
    list_classes,
    list_images,
)

SIZES = {"ImageNet": (1_000, 1_281_167, 50_000), "Tiny ImageNet": (200, 100_000, 10_000)}
"""Classes, images of train, images of val."""


def check_imagenet(root: Path, sample: int) -> Iterator[CheckResult]:
    """ILSVRC2012, or Tiny ImageNet: train by synset, val by synset or with a label file.

    Args:
        root: the folder with train and val.
        sample: images of each split to decode.
    """
    train, val = root / "train", root / validation_split(root)
    num_classes, num_train, num_val = SIZES[
        "Tiny ImageNet" if (root / "wnids.txt").is_file() else "ImageNet"
    ]
    classes: list[str] = []
    if not train.is_dir():
        hint = describe(root) or f" Expected {train}/n01440764/*.JPEG."
        yield wrong(f"there is no folder {train}.{hint}")
    elif archives := _class_archives(train):
        yield wrong(f"{train} holds {len(archives)} archives of classes: --repair unpacks them")
    else:
        listed = list_classes(train)
        classes, paths = [*listed.images], listed.paths
        yield counted(len(classes), num_classes, "classes in train")
        yield counted(len(paths), num_train, "images in train")
        if len(paths) < num_train and (root / TRAIN).is_file():
            yield note(f"{root / TRAIN} is there: --repair unpacks it where {train} is removed")
        if other := [name for name in classes if not re.fullmatch(r"n\d+", name)]:
            yield note(f"{len(other)} classes are no synsets, such as {other[0]}")
        yield from map(note, listed.notes())
        yield decoded(paths, sample, "train")
    if not val.is_dir():
        yield wrong(f"there is no folder {val}.{describe(root)}")
        return
    if is_flat(val):
        paths, others = list_images(val)
        yield counted(len(paths), num_val, f"images in {val.name}, without class folders")
        yield from map(note, describe_others(val, others))
        try:
            labels = find_labels(root, val.name)
            val_classes = read_labels(labels, [Path(path).name for path in paths], classes)
        except UsageError as error:
            yield wrong(str(error))
            return
        yield ok(f"their labels are in {labels}; --repair puts them into class folders")
    else:
        listed = list_classes(val)
        val_classes, paths = [*listed.images], listed.paths
        yield counted(len(paths), num_val, f"images in {val.name}")
        yield from map(note, listed.notes())
    if classes and (only := sorted(set(val_classes) ^ set(classes))):
        yield wrong(f"{len(only)} classes are in one of train and {val.name} only: {shorten(only)}")
    yield decoded(paths, sample, val.name)


def repair_imagenet(root: Path) -> list[CheckResult]:
    """Unpack what was downloaded; move flat validation images into class folders.

    Each step can be interrupted and taken up again (see unpack): an archive of a class in train is
    removed when its images are there, an image is moved by renaming.
    """
    with lock(root / ".repair.lock", f"another repair works in {root}", wait=True):
        results = unpack_imagenet(root)
        train, val = root / "train", root / validation_split(root)
        for incomplete in train.glob(".n*.tmp"):
            shutil.rmtree(incomplete)
        if archives := _class_archives(train):
            tasks = [(partial(_unpack_class, path), path.stat().st_size) for path in archives]
            in_threads("unpacking", tasks)
            results.append(ok(f"{len(archives)} archives of {train} unpacked"))
        if val.is_dir() and (flat := list_classes(val).beside):
            # a label file without names goes by all images, of which some may have been moved
            names = sorted(Path(path).name for path in list_images(val)[0])
            classes = class_folders(train) if train.is_dir() else []
            unpack_devkit(root)
            synsets = read_labels(find_labels(root, val.name), names, classes)
            label_of = dict(zip(names, synsets, strict=True))
            for source in map(Path, flat):
                target = val / label_of[source.name] / source.name
                with draft(target):
                    os.replace(source, target)
            count = len(set(synsets))
            results.append(ok(f"{len(flat):,} images of {val} moved into {count} folders"))
    return results or [note("nothing to repair")]


def check_cifar(root: Path) -> list[CheckResult]:
    """The pickles of CIFAR-10 or CIFAR-100; every image and label is read."""
    if (cifar := find_cifar(root)) is None:
        if archives := _cifar_archives(root):
            return [wrong(f"{archives[0]} is not unpacked: --repair does it")]
        names = " or ".join(layout.folder for layout in LAYOUTS)
        return [wrong(f"{root} holds no {names} (image folders need no preparation)")]
    folder, layout = cifar
    files = (*layout.train, layout.test, layout.meta)
    if missing := [name for name in files if not (folder / name).is_file()]:
        return [wrong(f"{folder} lacks {', '.join(missing)}")]
    try:
        train, test = open_cifar(folder, layout)
    except UsageError as error:
        return [wrong(str(error))]
    return [
        counted(len(train.classes), 100 if "100" in layout.folder else 10, "classes"),
        counted(len(train), 50_000, "training images, all read"),
        counted(len(test), 10_000, "test images, all read"),
    ]


def repair_cifar(root: Path) -> list[CheckResult]:
    """Unpack the archive that the files come in."""
    if find_cifar(root) is not None:
        return [note("nothing to repair")]
    results = []
    for path in _cifar_archives(root):
        unpack_beside(path)
        results.append(ok(f"{path} unpacked"))
    return results or [note("nothing to repair: there is no archive cifar-10-python.tar.gz")]


def _class_archives(train: Path) -> list[Path]:
    return sorted(train.glob("n*.tar"))


def _cifar_archives(root: Path) -> list[Path]:
    return sorted(root.glob("cifar-10*-python.tar.gz"))


def _unpack_class(path: Path) -> None:
    """Unpack an archive into a folder that appears complete or not at all, and remove it."""
    target = path.with_suffix("")
    if not target.is_dir():  # else a kill came between the folder's appearance and the removal
        with draft_folder(target) as folder:
            extract(path, folder)
            sync()
            os.replace(folder, target)
    path.unlink()
