"""What `tools/pack.py` packs: image folders, CIFAR, a tar of such a tree, shards, captioned images.

Each becomes splits of plain records: nothing is read here but lists, labels and captions.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pretrain.config import DatasetConfig
from pretrain.data import open_data
from pretrain.data.cifar import find_cifar, open_cifar
from pretrain.data.folders import open_folder, validation_split
from pretrain.data.images import ImageArray, Images
from pretrain.errors import UsageError, shorten
from pretrain.images import class_folders, list_classes
from pretrain.progress import bar, log
from pretrain.shards import ShardReader, find_store
from pretrain.shards.pack import PackSplit
from tools.support.pack_archives import open_archive

Kind = Literal["auto", "classes", "captions"]
SPLITS = ("train", "val", "test")
_OPTIONS = {
    "val_labels": "val-labels",
    "val_fraction": "val-fraction",
    "splits": "split-file",
    "max_corrupt": "max-corrupt",
    "": "",
}
"""Of the trainers' data sets -> of packing."""
_FOLDERS = ("train", "val", "valid", "validation", "test")
_CAPTION_FILES = ("annotations/captions_*.json", "dataset_*.json", "annotations/dataset_*.json",
                  "*.token", "*.token.txt", "captions.*", "metadata.*", "*/metadata.*")  # fmt: skip


@dataclass(frozen=True)
class SourceOptions:
    """Where in a folder its splits are."""

    kind: Kind = "auto"
    train: str | None = None
    val: str | None = None
    test: str | None = None
    val_labels: str | None = None
    layout: Any = "auto"
    split_file: str | None = None
    images: str | None = None
    val_fraction: float = 0.1
    max_corrupt: int = 0
    """Images that captions name and that are not there."""


@dataclass(frozen=True, eq=False)
class FileContents:
    """Reads files by their numbers."""

    paths: NDArray[np.bytes_]

    def __call__(self, number: int) -> bytes:
        """UsageError where it is no file: a pipe would block."""
        path = os.fsdecode(self.paths[number])
        if not os.path.isfile(path):
            raise UsageError(f"there is no file {path}.")
        return Path(path).read_bytes()


@dataclass(frozen=True, eq=False)
class PixelContents:
    """Writes images in memory, (N, 3, H, W) uint8, as PNG files."""

    pixels: Tensor

    def __call__(self, number: int) -> bytes:
        """Lossless."""
        buffer = BytesIO()
        pixels = self.pixels[number].permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()


def open_sources(root: str, options: SourceOptions, work: Path) -> list[PackSplit]:
    """The splits of a data set, in the order train, val, test.

    Args:
        root: a folder, a tar file, or the address of a store.
        options: what is where in it.
        work: for a copy of a compressed tar file that can be read at any place.

    Raises:
        UsageError: no such place, classes and captions both, or what the trainers refuse.
    """
    try:
        found = _open(root, options, work)
    except UsageError as error:  # of the trainers' readers
        text = str(error)
        for theirs, ours in _OPTIONS.items():
            text = text.replace(f"--dataset.{theirs}", f"--{ours}")
        raise UsageError(text) from error
    for split in found:
        if not len(split.names):
            log(f"note: {split.split} of {root} has no images and is left out")
    splits = [split for split in found if len(split.names)]
    for split in splits[1:]:
        if difference := sorted({*splits[0].classes} ^ {*split.classes})[:6]:
            raise UsageError(
                f"{splits[0].split} and {split.split} of {root} name different classes: "
                f"{shorten(difference)} are on one side only."
            )
    return splits


def _open(root: str, options: SourceOptions, work: Path) -> list[PackSplit]:
    if (store := find_store(root)) is not None:
        _refuse_others(options, "shards", ())
        for note in store.notes:
            log(f"note: {note}")
        return [_of_store(split, reader) for split, reader in store.splits.items()]
    path = Path(root)
    if path.is_file():
        _refuse_others(options, "a tar file, which can be unpacked", ())
        return open_archive(path, work)
    if not path.is_dir():
        raise UsageError(f"there is no folder or tar file {root}.")
    kind = options.kind
    if kind == "auto":
        captions = [file for pattern in _CAPTION_FILES for file in sorted(path.glob(pattern))]
        folders = [path / name for name in _FOLDERS if (path / name).is_dir()]
        if captions and (find_cifar(path) or any(map(class_folders, folders))):
            raise UsageError(
                f"{path} holds class folders and captions ({captions[0].relative_to(path)}). Say "
                "by --kind classes or --kind captions which is to be packed."
            )
        kind = "captions" if captions else "classes"
    if kind == "captions":
        own = ("layout", "split_file", "images", "val_fraction")
        _refuse_others(options, "a folder of captions", ("kind", "train", "val", "test", *own))
        return _open_captions(path, options)
    is_cifar = find_cifar(path) is not None
    if is_cifar:
        _refuse_others(options, "CIFAR", ("kind",))
    else:
        what = "a folder of classes"
        _refuse_others(options, what, ("kind", "train", "val", "test", "val_labels"))
    return _open_classes(path, options)


def _refuse_others(options: SourceOptions, what: str, own: Sequence[str]) -> None:
    """Raise UsageError for options that a kind of source has no use for."""
    for name, value in vars(options).items():
        if name not in (*own, "max_corrupt") and value != getattr(SourceOptions, name):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is {value}, but --data is {what}. Leave --{flag} out.")


class _Facts(NamedTuple):
    sizes: NDArray[np.int64]
    changed: float
    newest: str


def _look_at(paths: Sequence[str]) -> _Facts:
    """Sizes and last change of files, by threads: a disk that is shared takes its time for each."""

    def look(path: str) -> tuple[int, float]:
        try:
            status = os.stat(path)
        except OSError:  # a link that leads nowhere is named when it is read
            return 0, 0.0
        return status.st_size, max(status.st_mtime, status.st_ctime)

    facts = []
    with ThreadPoolExecutor(16) as pool, bar("listing", len(paths), "files") as advance:
        for fact in pool.map(look, paths):
            facts.append(fact)
            advance(1)
    last = max(range(len(facts)), key=lambda number: facts[number][1], default=None)
    sizes = np.array([size for size, _ in facts], np.int64)
    return _Facts(sizes, 0.0, "") if last is None else _Facts(sizes, facts[last][1], paths[last])


# ---- image folders, CIFAR


def _open_classes(root: Path, options: SourceOptions) -> list[PackSplit]:
    if (cifar := find_cifar(root)) is not None:
        pairs = zip(("train", "test"), open_cifar(*cifar), strict=True)
        return [_of_pixels(split, images) for split, images in pairs]
    train, val, test = options.train or "train", options.val, options.test or "test"
    data = open_data(root, DatasetConfig(train=train, val=val, val_labels=options.val_labels))
    for note in data.notes:
        log(f"note: {note}")
    if not (root / train).is_dir():  # held out of folders without splits
        if options.test is not None:
            raise UsageError(f"--test is {test}, but {root} has no splits. Leave it out.")
        return [_of_files("train", data.train, root), _of_files("val", data.val, root)]
    val = val or validation_split(root)
    found = {"train": (data.train, train), "test" if val == test else "val": (data.val, val)}
    if val != test and (options.test is not None or (root / test).is_dir()):
        if options.test is not None or any(list_classes(root / test).images.values()):
            found["test"] = (open_folder(root, test, "--test"), test)
        else:
            log(f"note: {root / test} has no images in class folders and is left out")
    return [_of_files(split, images, root / name) for split, (images, name) in found.items()]


def _of_files(split: str, images: Images, folder: Path) -> PackSplit:
    paths, below = [*images.paths], len(os.path.join(folder, ""))
    return PackSplit(
        split=split,
        names=[path[below:].replace(os.sep, "/") for path in paths],
        read=FileContents(np.array([os.fsencode(path) for path in paths], np.bytes_)),
        classes=images.classes,
        labels=images.labels.astype(np.int64),
        **_look_at(paths)._asdict(),
    )


def _of_pixels(split: str, images: ImageArray) -> PackSplit:
    """CLASS/NUMBER.png, numbered as they lie in the pickles."""
    facts = _look_at([*map(str, images.annotations)])
    labels = images.labels.tolist()
    return PackSplit(
        split=split,
        names=[f"{images.classes[label]}/{n:05d}.png" for n, label in enumerate(labels)],
        read=PixelContents(images.pixels),
        classes=images.classes,
        labels=images.labels.astype(np.int64),
        **facts._replace(sizes=np.full(len(labels), images.pixels[0].numel(), np.int64))._asdict(),
    )


# ---- captions, shards


def _open_captions(root: Path, options: SourceOptions) -> list[PackSplit]:
    from transfer.captioning.config import DatasetConfig as CaptionData
    from transfer.captioning.dataset import open_captions

    config = CaptionData(
        layout=options.layout,
        train=options.train,
        val=options.val,
        test=options.test,
        splits=options.split_file,
        images=options.images,
        val_fraction=options.val_fraction,
        max_corrupt=options.max_corrupt,
    )
    data = open_captions(root, config)
    log(f"captions of {data.name}: {', '.join(map(str, data.files))}")
    for note in data.notes:
        log(f"note: {note}")
    return [_of_captions(split, getattr(data, split)) for split in SPLITS if getattr(data, split)]


def _of_captions(split: str, images: Sequence[Any]) -> PackSplit:
    paths = [str(image.path) for image in images]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]
    texts = [
        {
            "image_id": image.image_id,
            "file_name": name,
            "captions": [*image.captions],
            "number": number,  # in the files of captions: training draws in their order
        }
        for number, (name, image) in enumerate(zip(names, images, strict=True))
    ]
    return PackSplit(
        split=split,
        names=names,
        read=FileContents(np.array([os.fsencode(path) for path in paths], np.bytes_)),
        # what is no UTF-8 in a file's name becomes JSON's own escape
        texts=[
            json.dumps(t, ensure_ascii=False).encode("utf-8", "backslashreplace") for t in texts
        ],
        **_look_at(paths)._asdict(),
    )


def _of_store(split: str, reader: ShardReader) -> PackSplit:
    index = reader.index
    numbers = range(len(index))
    return PackSplit(
        split=split,
        names=[*map(index.name, numbers)],
        read=reader.read,
        sizes=index.columns["size"].astype(np.int64),
        changed=index.path.stat().st_mtime,
        newest=str(index.path),
        classes=index.classes,
        labels=index.labels.astype(np.int64) if index.classes else None,
        texts=[_json_text(reader, number) for number in numbers] if index.has_texts else (),
    )


def _json_text(reader: ShardReader, number: int) -> bytes:
    """What stands beside an image, as a .json: a .txt is its caption."""
    content = reader.read(number, text=True)
    if reader.index.text == "json":
        return content
    try:
        caption = content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        name = reader.index.name(number)
        raise UsageError(f"the caption of {name} is no text in UTF-8 ({error}).") from error
    return json.dumps({"caption": caption, "number": number}, ensure_ascii=False).encode()
