"""Captions beside their images: MS-COCO, Karpathy's splits, Flickr, or files of captions.

    coco       annotations/captions_SPLIT.json; images in SPLIT/ or images/SPLIT/.
               The 2014 release has train2014 (82,783 images) and val2014 (40,504), the 2017 release
               the same images as train2017 (118,287) and val2017 (5,000); the code of the CutMix
               paper trains on train2014 and scores val2014
    karpathy   dataset_coco.json, split train, restval, val or test; restval is trained on
               (113,287 / 5,000 / 5,000 images of MS-COCO; Karpathy and Fei-Fei, CVPR 2015)
    flickr     Flickr8k.token.txt or results_20130124.token, and lists
               Flickr_8k.{train,dev,test}Images.txt
    shards     tar files with an index, see `transfer.captioning.shards`
    folder     captions.* or metadata.*, in train/, validation/, test/ too; a file a split
               (*_train.json, *_val.json, *_test.json); or any one file of captions

What stands in the files is read by `transfer.captioning.scores.layouts`. Data without splits of its
own is divided by a hash of the image's id, the same on every machine.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pretrain.errors import UsageError, shorten
from pretrain.progress import log
from pretrain.shards import Store, find_store
from transfer.captioning.config import DatasetConfig
from transfer.captioning.image_files import CaptionedImage as CaptionedImage
from transfer.captioning.image_files import assemble, image_folders, overlap
from transfer.captioning.scores.layouts import Id as Id
from transfer.captioning.scores.layouts import (
    ImageCaptions,
    Log,
    log_left_out,
    read_images,
    read_text,
    unpacked,
)
from transfer.captioning.shards import read_shards

_SPLITS = {"train": "train", "restval": "train", "val": "val", "valid": "val", "validation": "val",
           "dev": "val", "test": "test"}  # fmt: skip
_CAPTION_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
_OTHER_ANNOTATIONS = ("instances", "person_keypoints", "image_info", "panoptic", "stuff")
_SPLIT_NAME = re.compile(rf"(?:.*[^a-z])?(({'|'.join(_SPLITS)})(?:\d{{4}})?)")
_EXPECTED = (
    "annotations/captions_SPLIT.json (coco), dataset_*.json or --dataset.splits FILE (karpathy), "
    "*.token or *.token.txt (flickr), captions.json, .jsonl, .csv, .tsv or .txt, metadata.jsonl or "
    ".csv, results.csv, or *_train.json and *_val.json (folder)"
)

_FILES = {
    "coco": 'COCO captions file; expected {"images": [{"id", "file_name"}], "annotations": '
    '[{"image_id", "caption"}]}',
    "karpathy": 'split of Karpathy\'s; expected {"images": [{"filename", "split", "sentences": '
    '[{"raw"}]}]}',
}


@dataclass(frozen=True)
class CaptionDataset:
    """A data set in its splits; without a `test` split, `val` is all that is not trained on."""

    name: str
    train: tuple[CaptionedImage, ...]
    val: tuple[CaptionedImage, ...]
    test: tuple[CaptionedImage, ...] = ()
    notes: tuple[str, ...] = ()
    """What is odd about the splits, such as images that are trained on and scored."""
    files: tuple[Path, ...] = ()
    """What captions and splits were read from, or where they lie in shards."""


def open_captions(
    root: str | Path, config: DatasetConfig, log: Log = log, cache_gib: float = 64.0
) -> CaptionDataset:
    """The data set in a folder, or in shards.

    Args:
        root: see the head of this file; or the address of shards.
        config: which layout and splits, and where the images are.
        log: takes a line for each kind of thing that is left out.
        cache_gib: what may be kept of remote shards on this machine.

    Raises:
        UsageError: no such folder or layout, an entry that makes no sense, an empty split.
    """
    if not isinstance(root, str | Path):
        got = f"{type(root).__name__}, {root!r:.60}"
        raise UsageError(f"a data set is opened by the path of its folder; this is a {got}.")
    if not isinstance(config, DatasetConfig):
        raise UsageError(f"expected a DatasetConfig; this is a {type(config).__name__}.")
    if (store := find_store(root, cache_gib)) is not None:
        return _checked(_read_store(store, config, log), store.location)
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; images with captions are needed.")
    if config.images is not None and not Path(config.images).is_dir():
        raise UsageError(f"there is no folder {config.images}, which --dataset.images names.")
    layout = "karpathy" if config.splits else config.layout
    readers = {
        "karpathy": _read_karpathy,
        "coco": _read_coco,
        "flickr": _read_flickr,
        "folder": _read_folder,
    }
    chosen = [read for name, read in readers.items() if layout in ("auto", name)]
    dataset = next(filter(None, (read(root, config, log) for read in chosen)), None)
    if dataset is None:
        known = "that are known" if layout == "auto" else f"of the layout {layout}"
        content = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
        raise UsageError(
            f"{root} has no captions {known} (it holds {content}). Expected one of: {_EXPECTED}."
        )
    return _checked(dataset, root)


def _checked(dataset: CaptionDataset, root: object) -> CaptionDataset:
    """With notes on what is trained on and scored; UsageError for an empty split."""
    for split in ("train", "val"):
        if not getattr(dataset, split):
            raise UsageError(f"{root}: the {split} split is empty.")
    notes = [
        f"{dataset.name}, {split}: {line}"
        for split in ("val", "test")
        for line in overlap(dataset.train, getattr(dataset, split))
    ]
    return replace(dataset, notes=(*dataset.notes, *notes))


def _read_store(store: Store, config: DatasetConfig, log: Log) -> CaptionDataset:
    splits = read_shards(store, config, log)
    if len(splits) > 1:
        dataset = _of_splits(store.name, splits)
    else:
        dataset = split_by_hash(store.name, splits["train"], config.val_fraction, log)
    notes = (*store.notes, *dataset.notes)
    return replace(dataset, notes=notes, files=tuple(store.index_files))


# ---------------------------------------------------------------------------------------- MS-COCO


def coco_splits(root: Path) -> list[str]:
    """The splits that have captions."""
    files = (root / "annotations").glob("captions_*.json")
    return sorted(path.stem.removeprefix("captions_") for path in files)


def choose_splits(root: Path, splits: Sequence[str], config: DatasetConfig) -> tuple[str, ...]:
    """Splits to train on, to score on and, where there is one, to test on.

    What the configuration does not name is found by its name's beginning.
    """
    chosen: list[str] = []
    for beginning in ("train", "val", "test"):
        named = getattr(config, beginning)
        matching = [named] if named else [s for s in splits if s.startswith(beginning)]
        if len(matching) == 1:
            chosen += matching
        elif beginning != "test":
            raise UsageError(
                f"{root}/annotations has {len(matching)} captions files whose split begins with "
                f"{beginning!r} ({', '.join(splits)}); name one by --dataset.{beginning} SPLIT."
            )
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"the splits {', '.join(chosen)} are not different ones.")
    return tuple(chosen)


def _read_coco(root: Path, config: DatasetConfig, log: Log) -> CaptionDataset | None:
    if not (splits := coco_splits(root)):
        return None
    chosen = choose_splits(root, splits, config)
    read = [read_coco(root, split, config.max_corrupt, log, config.images) for split in chosen]
    dataset = _of_splits(root.name, dict(zip(("train", "val", "test"), read, strict=False)))
    return replace(dataset, files=tuple(_coco_file(root, split) for split in chosen))


def _coco_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"captions_{split}.json"


def read_coco(
    root: Path,
    split: str,
    max_corrupt: int = 0,
    log: Log = log,
    images: str | None = None,
) -> tuple[CaptionedImage, ...]:
    """The images of a split that have captions, in the order of the file.

    Args:
        root: see the head of this file.
        split: such as train2017.
        max_corrupt: images that may be missing.
        log: takes a line for each kind of entry that is left out.
        images: the folder of the images, where it is not within `root`.

    Raises:
        UsageError: the file is missing, corrupt or not of this layout, or images are missing.
    """
    path = _coco_file(root, split)
    if split not in (splits := coco_splits(root)):
        there = ", ".join(splits) or "none"
        raise UsageError(f"there is no file {path}; the splits there are {there}.")
    content = _read(path, log, "coco")
    listed = [image for image in content if image.file_name]
    nameless = [image for image in content if not image.file_name]
    lone = [f"{image.image_id}: {text}" for image in nameless for text in image.captions]
    log_left_out(log, path, lone, "annotations of images that are not listed")
    folders = image_folders(root, images, split)
    return assemble(path, listed, folders, max_corrupt=max_corrupt, log=log)


# --------------------------------------------------------------------------------------- Karpathy


def _read_karpathy(root: Path, config: DatasetConfig, log: Log) -> CaptionDataset | None:
    """Karpathy's split of the images in `root`, of MS-COCO 2014 or 2017, or of Flickr."""
    files = [*sorted(root.glob("dataset_*.json")), *sorted(root.glob("annotations/dataset_*.json"))]
    file = config.splits or _only(root, files, "name one by --dataset.splits FILE")
    if not file:
        return None
    path = Path(file)
    images, folders = _read(path, log, "karpathy"), image_folders(root, config.images)
    return _by_split(path.stem.removeprefix("dataset_"), path, images, folders, config, log)


# ----------------------------------------------------------------------------------------- Flickr


def _read_flickr(root: Path, config: DatasetConfig, log: Log) -> CaptionDataset | None:
    """Flickr8k with its lists, Flickr30k divided by hash."""
    files = [*sorted(root.glob("*.token.txt")), *sorted(root.glob("*.token"))]
    # Flickr8k brings a lemmatised one too
    path = _only(root, [path for path in files if "lemma" not in path.name])
    if path is None:
        return None
    folders = image_folders(root, config.images)
    images = assemble(path, _read(path, log), folders, max_corrupt=config.max_corrupt, log=log)
    words = {"train": "train", "val": "dev", "test": "test"}
    lists = {
        split: file
        for split, word in words.items()
        if (file := _only(root, sorted(root.glob(f"*{word}Images.txt"))))
    }
    if not lists:
        dataset = split_by_hash(root.name, images, config.val_fraction, log)
        return replace(dataset, files=(path,))
    if lone := {"train", "val"} - lists.keys():
        there = ", ".join(file.name for file in lists.values())
        missing = " and ".join(f"*{words[split]}Images.txt" for split in sorted(lone))
        raise UsageError(f"{root} has {there}, but no {missing}; add it, or remove these lists.")
    by_name = {image.image_id: image for image in images}
    splits = {}
    for split, file in lists.items():
        names = [line.strip() for line in read_text(file).split("\n") if line.strip()]
        name, count = next(iter(Counter(names).most_common(1)), ("", 1))
        if count > 1:
            raise UsageError(f"{file}: {name!r} stands {count} times; each image has one line.")
        unknown = [name for name in names if name not in by_name]
        log_left_out(log, file, unknown, "names without an image or captions")
        splits[split] = tuple(by_name[name] for name in names if name in by_name)
    return replace(_of_splits(root.name, splits), files=(path, *lists.values()))


# ----------------------------------------------------------------------------------------- folder


def _caption_files(root: Path) -> dict[str, Path] | None:
    """One file under "", or a file a split, by its name or folder."""
    places = [folder for folder in (root, root / "annotations") if folder.is_dir()]
    files = [
        path
        for folder in places
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith((".", *_OTHER_ANNOTATIONS))
        if unpacked(path).suffix in _CAPTION_SUFFIXES or unpacked(path).name == "captions.txt"
    ]
    for name in ("captions", "metadata"):
        named = [path for path in files if unpacked(path).stem == name]
        if path := _only(root, named):
            return {"": path}
    by_split: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.glob("*/metadata.*")):
        if (folder := path.parent.name.lower()) in _SPLITS and path.is_file():
            by_split[_SPLITS[folder]].append(path)
    if not by_split:
        for path in files:
            if match := _SPLIT_NAME.fullmatch(unpacked(path).stem.lower()):
                by_split[_SPLITS[match[2]]].append(path)
    if len(by_split) > 1:
        return {split: path for split, paths in by_split.items() if (path := _only(root, paths))}
    alone = [path for path in files if path.parent == root]
    return {"": alone[0]} if len(alone) == 1 else None


def _read_folder(root: Path, config: DatasetConfig, log: Log) -> CaptionDataset | None:
    """By the splits of the files, of the images in a file, or by hash."""
    if (files := _caption_files(root)) is None:
        return None
    splits: dict[str, tuple[CaptionedImage, ...]] = {}
    for split, path in files.items():
        images = _read(path, log)
        stem = unpacked(path).stem
        match = _SPLIT_NAME.fullmatch(stem.lower())
        inside = [path.parent.name] if path.parent != root else []
        folders = image_folders(root, config.images, *inside, *([match[1]] if match else []))
        if not split and stem == "metadata":  # Hugging Face: the first folder is the split
            for image in images:
                first, slash, _ = (image.file_name or "").partition("/")
                if slash and not image.splits:
                    image.splits.append(first.lower())
        known = {_SPLITS[name] for image in images for name in image.splits if name in _SPLITS}
        if not split and len(known) > 1:
            return _by_split(root.name, path, images, folders, config, log)
        splits[split] = assemble(path, images, folders, max_corrupt=config.max_corrupt, log=log)
    if "" in splits:
        dataset = split_by_hash(root.name, splits[""], config.val_fraction, log)
    else:
        dataset = _of_splits(root.name, splits)
    return replace(dataset, files=tuple(files.values()))


# ----------------------------------------------------------------------------------------- shared


def _read(path: Path, log: Log, layout: str = "") -> list[ImageCaptions]:
    """The images of a file, which may have to be of a layout; faulty entries are logged."""
    faults: list[str] = []
    found, by_id = read_images(path, log, faults)
    images = [*by_id.values()]
    if layout not in ("", found):
        raise UsageError(f"{path} is no {_FILES[layout]}.")
    if layout == "coco":
        nameless = [image for image in images if image.is_listed and not image.file_name]
        faults += [f"{image.where} has no file_name" for image in nameless]
    log_left_out(log, path, faults, "entries that make no sense")
    return images


def _by_split(
    name: str,
    path: Path,
    images: Sequence[ImageCaptions],
    folders: Sequence[Path],
    config: DatasetConfig,
    log: Log,
) -> CaptionDataset:
    """Images by the split that the file has them in."""
    chosen: dict[str, list[ImageCaptions]] = {"train": [], "val": [], "test": []}
    lone = []
    for image in images:
        splits = {_SPLITS[split] for split in image.splits if split in _SPLITS}
        for split in splits:
            chosen[split].append(image)
        if not splits:
            lone.append(f"{image.image_id}: {', '.join(image.splits) or 'none'}")
    log_left_out(log, path, lone, f"images of no split that is known ({', '.join(_SPLITS)})")
    read = {
        split: assemble(
            f"{path}, {split}", members, folders, max_corrupt=config.max_corrupt, log=log
        )
        for split, members in chosen.items()
        if members
    }
    return replace(_of_splits(name, read), files=(path,))


def _of_splits(name: str, splits: Mapping[str, tuple[CaptionedImage, ...]]) -> CaptionDataset:
    """Where only train and test are given, test is all that is not trained on."""
    train, val, test = (splits.get(split, ()) for split in ("train", "val", "test"))
    if "val" in splits or not test:
        return CaptionDataset(name, train, val, test)
    note = f"{name} has no validation split: the epoch is chosen, and scored, on the test images"
    return CaptionDataset(name, train, test, notes=(note,))


def _only(root: Path, files: Sequence[Path], remedy: str = "leave only one there") -> Path | None:
    """The one file there is, if any."""
    if len(files) > 1:
        names = shorten([str(path.relative_to(root)) for path in files])
        raise UsageError(f"{root} has {len(files)} files of captions, {names}; {remedy}.")
    return files[0] if files else None


def split_by_hash(
    name: str, images: Sequence[CaptionedImage], fraction: float, log: Log = log
) -> CaptionDataset:
    """Train and val by a hash of the id: the same images whatever else is in the folder."""
    train: list[CaptionedImage] = []
    val: list[CaptionedImage] = []
    for image in images:
        digest = hashlib.sha256(str(image.image_id).encode("utf-8", "surrogatepass")).digest()
        is_val = int.from_bytes(digest[:8], "big") < fraction * 2**64
        (val if is_val else train).append(image)
    if not train or not val:
        raise UsageError(
            f"{name}: of {len(images)} images, {len(val)} would be held out by "
            f"--dataset.val_fraction {fraction}. Give another share, or more images."
        )
    log(f"{name} has no splits of its own: {len(val):,} of {len(images):,} images are held out")
    return CaptionDataset(name, tuple(train), tuple(val))
