"""Is ImageNet, or CIFAR, on disk as training needs it? And the repairs that are usually needed."""

import os
import re
import shutil
import tarfile
from pathlib import Path

from pretrain.check_results import CheckResult, counted, decoded, note, ok, wrong
from pretrain.data.cifar import LAYOUTS, find_cifar, open_cifar
from pretrain.data.folders import class_folders, image_files, is_flat, validation_split
from pretrain.data.validation_labels import find_labels, read_labels
from pretrain.errors import UsageError
from pretrain.progress import bar

_TRAIN, _VAL, _CLASSES = 1_281_167, 50_000, 1_000


def check_imagenet(root: Path, sample: int) -> list[CheckResult]:
    """ILSVRC2012: train by synset, val by synset or flat with a label file.

    Args:
        root: the folder with train and val.
        sample: images of each split to decode.
    """
    _check_folder(root)
    results: list[CheckResult] = []
    train, val = root / "train", root / validation_split(root, None)
    classes: list[str] = []
    if not train.is_dir():
        results.append(wrong(f"there is no folder {train}: expected {train}/n01440764/*.JPEG"))
    elif archives := _class_archives(train):
        text = f"{train} holds {len(archives)} archives of classes: --repair unpacks them"
        results.append(wrong(text))
    else:
        classes, paths = _list_images(train)
        results.append(counted(len(classes), _CLASSES, f"classes in {train.name}"))
        results.append(counted(len(paths), _TRAIN, f"images in {train.name}"))
        if other := [name for name in classes if not re.fullmatch(r"n\d+", name)]:
            results.append(note(f"{len(other)} classes are no synsets, such as {other[0]}"))
        results += [decoded(paths, sample, train.name)] if paths else []
    if not val.is_dir():
        return [*results, wrong(f"there is no folder {val}")]
    if is_flat(val):
        paths = image_files(val)
        results.append(counted(len(paths), _VAL, f"images in {val.name}, without class folders"))
        try:
            labels = find_labels(root, val.name)
            val_classes = read_labels(labels, [Path(path).name for path in paths], classes)
        except UsageError as error:
            return [*results, wrong(str(error))]
        results.append(ok(f"their labels are in {labels}; --repair puts them into class folders"))
    else:
        val_classes, paths = _list_images(val)
        results.append(counted(len(paths), _VAL, f"images in {val.name}"))
    if classes and (only := sorted(set(val_classes) ^ set(classes))):
        text = f"{len(only)} classes are in one of train and {val.name} only, such as {only[0]}"
        results.append(wrong(text))
    return [*results, *([decoded(paths, sample, val.name)] if paths else [])]


def repair_imagenet(root: Path) -> list[CheckResult]:
    """Unpack class archives in train; move flat validation images into class folders.

    Each step can be interrupted and taken up again: an archive is removed when its images are
    there, an image is moved by renaming.
    """
    results: list[CheckResult] = []
    train, val = root / "train", root / validation_split(root, None)
    for incomplete in train.glob(".n*.tmp"):
        shutil.rmtree(incomplete)
    if archives := _class_archives(train):
        with bar("unpacking", len(archives), "classes") as advance:
            for path in archives:
                _unpack_class(path, path.with_suffix(""))
                path.unlink()
                advance(1)
        results.append(ok(f"{len(archives)} archives of {train} unpacked"))
    if val.is_dir() and (flat := image_files(val)):
        # a label file without names goes by all images, of which some may have been moved before
        names = sorted(Path(path).name for path in [*flat, *_list_images(val)[1]])
        classes = class_folders(train) if train.is_dir() else []
        synsets = read_labels(find_labels(root, val.name), names, classes)
        label_of = dict(zip(names, synsets, strict=True))
        for source in map(Path, flat):
            folder = val / label_of[source.name]
            folder.mkdir(exist_ok=True)
            os.replace(source, folder / source.name)
        results.append(ok(f"{len(flat):,} images of {val} moved into {len(set(synsets))} folders"))
    return results or [note("nothing to repair")]


def check_cifar(root: Path) -> list[CheckResult]:
    """The pickles of CIFAR-10 or CIFAR-100; every image and label is read."""
    _check_folder(root)
    cifar = find_cifar(root)
    if cifar is None:
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
        _extract(path, root)
        results.append(ok(f"{path} unpacked"))
    return results or [note("nothing to repair: there is no archive cifar-10-python.tar.gz")]


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")


def _class_archives(train: Path) -> list[Path]:
    return sorted(train.glob("n*.tar"))


def _cifar_archives(root: Path) -> list[Path]:
    paths = (root / f"cifar-{classes}-python.tar.gz" for classes in (10, 100))
    return [path for path in paths if path.is_file()]


def _list_images(folder: Path) -> tuple[list[str], list[str]]:
    """Class folders of `folder`, and every image in them."""
    classes = class_folders(folder)
    return classes, [path for name in classes for path in image_files(folder / name)]


def _unpack_class(path: Path, target: Path) -> None:
    """Unpack an archive into a folder that appears complete or not at all."""
    if target.is_dir():
        return  # a kill came between the folder's appearance and the archive's removal
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _extract(path, temporary)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(path: Path, folder: Path) -> None:
    """Unpack an archive; members that would leave `folder` are refused."""
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{path} cannot be unpacked: {error}. Download it again.") from error
