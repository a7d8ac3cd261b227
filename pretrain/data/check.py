"""Is ImageNet, or CIFAR, on disk as training needs it? And the repairs that are usually wanted."""

import os
import shutil
import tarfile
from collections.abc import Iterator
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
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    found: list[CheckResult] = []
    train, val = root / "train", root / validation_split(root, None)
    tars = sorted(train.glob("n*.tar")) if train.is_dir() else []
    classes: list[str] = []
    if not train.is_dir():
        found.append(wrong(f"there is no folder {train}: expected {train}/n01440764/*.JPEG"))
    elif tars:
        found.append(wrong(f"{train} holds {len(tars)} archives of classes: --repair unpacks them"))
    else:
        classes, paths = _listed(train)
        found.append(counted(len(classes), _CLASSES, f"classes in {train.name}"))
        found.append(counted(len(paths), _TRAIN, f"images in {train.name}"))
        if other := [name for name in classes if not (name[0] == "n" and name[1:].isdigit())]:
            found.append(note(f"{len(other)} classes are no synsets, such as {other[0]}"))
        if paths:
            found.append(decoded(paths, sample, train.name))
    if not val.is_dir():
        return [*found, wrong(f"there is no folder {val}")]
    if is_flat(val):
        flat = image_files(val)
        found.append(counted(len(flat), _VAL, f"images in {val.name}, without class folders"))
        try:
            labels = find_labels(root, val.name)
            synsets = read_labels(labels, [Path(path).name for path in flat], classes)
        except UsageError as error:
            return [*found, wrong(str(error))]
        found.append(ok(f"their labels stand in {labels}; --repair puts them into class folders"))
        val_classes, paths = sorted(set(synsets)), flat
    else:
        val_classes, paths = _listed(val)
        found.append(counted(len(paths), _VAL, f"images in {val.name}"))
    if classes and set(val_classes) != set(classes):
        only = sorted(set(val_classes) ^ set(classes))
        found.append(
            wrong(f"{len(only)} classes are in one of train and {val.name} only, such as {only[0]}")
        )
    if paths:
        found.append(decoded(paths, sample, val.name))
    return found


def repair_imagenet(root: Path) -> list[CheckResult]:
    """Unpack class archives in train; move flat validation images into class folders.

    Each step can be interrupted and taken up again: an archive is removed when its images are
    there, an image is moved by renaming.
    """
    done: list[CheckResult] = []
    train, val = root / "train", root / validation_split(root, None)
    tars = sorted(train.glob("n*.tar")) if train.is_dir() else []
    for torn in train.glob(".n*.tmp"):
        shutil.rmtree(torn)
    if tars:
        with bar("unpacking", len(tars), "classes") as advance:
            for path in tars:
                _unpack(path, path.with_suffix(""))
                path.unlink()
                advance(1)
        done.append(ok(f"{len(tars)} archives of {train} unpacked"))
    if val.is_dir() and (flat := image_files(val)):
        names = [Path(path).name for path in flat]
        classes = _listed(train)[0] if train.is_dir() else []
        # a label file without names goes by all images, of which some may have been moved before
        everywhere = sorted([*names, *(Path(path).name for path in _listed(val)[1])])
        labels = dict(
            zip(
                everywhere,
                read_labels(find_labels(root, val.name), everywhere, classes),
                strict=True,
            )
        )
        for name in names:
            (val / labels[name]).mkdir(exist_ok=True)
            os.replace(val / name, val / labels[name] / name)
        done.append(
            ok(f"{len(names):,} images of {val} moved into {len(set(labels.values()))} folders")
        )
    return done or [note("nothing to repair")]


def check_cifar(root: Path) -> list[CheckResult]:
    """The pickles of CIFAR-10 or CIFAR-100; every image and label is read."""
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    held = find_cifar(root)
    if held is None:
        archives = list(_cifar_archives(root))
        if archives:
            return [wrong(f"{archives[0]} is not unpacked: --repair does it")]
        names = " or ".join(layout.folder for layout in LAYOUTS)
        return [wrong(f"{root} holds no {names} (image folders need no preparation)")]
    folder, layout = held
    lacking = [
        name for name in (*layout.train, *layout.test, layout.meta) if not (folder / name).is_file()
    ]
    if lacking:
        return [wrong(f"{folder} lacks {', '.join(lacking)}")]
    try:
        train, test = open_cifar(folder, layout)
    except UsageError as error:
        return [wrong(str(error))]
    classes = 100 if "100" in layout.folder else 10
    return [
        counted(len(train.classes), classes, "classes"),
        counted(len(train), 50_000, "training images, all read"),
        counted(len(test), 10_000, "test images, all read"),
    ]


def repair_cifar(root: Path) -> list[CheckResult]:
    """Unpack the archive that the files come in."""
    if find_cifar(root) is not None:
        return [note("nothing to repair")]
    done = []
    for path in _cifar_archives(root):
        _unpack(path, root, whole=False)
        done.append(ok(f"{path} unpacked"))
    return done or [note("nothing to repair: there is no archive cifar-10-python.tar.gz")]


def _cifar_archives(root: Path) -> Iterator[Path]:
    for name in ("cifar-10-python.tar.gz", "cifar-100-python.tar.gz"):
        if (root / name).is_file():
            yield root / name


def _unpack(path: Path, target: Path, whole: bool = True) -> None:
    """Unpack an archive, members that would leave `target` refused; whole: appear at once."""
    into = target.with_name(f".{target.name}.{os.getpid()}.tmp") if whole else target
    if whole and target.is_dir():
        return  # a kill came between the folder's appearance and the archive's removal
    try:
        with tarfile.open(path) as archive:
            archive.extractall(into, filter="data")
        if whole:
            os.replace(into, target)
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{path} cannot be unpacked: {error}. Download it again.") from error
    finally:
        if whole:
            shutil.rmtree(into, ignore_errors=True)


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Class folders of `folder`, and every image in them."""
    classes = class_folders(folder)
    return classes, [path for name in classes for path in image_files(folder / name)]
