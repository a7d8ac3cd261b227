"""Captions as they are on disk: MS-COCO, Karpathy's splits, Flickr, one file beside the images.

    coco       annotations/captions_SPLIT.json: {"images": [{"id", "file_name"}],
               "annotations": [{"image_id", "caption"}]}; images in SPLIT/ or images/SPLIT/.
               The 2014 release has train2014 (82,783 images) and val2014 (40,504), the 2017 release
               the same images as train2017 (118,287) and val2017 (5,000); the code of the CutMix
               paper trains on train2014 and scores val2014
    karpathy   dataset_coco.json: {"images": [{"filepath", "filename", "split", "cocoid",
               "sentences": [{"raw"}]}]}, split train, restval, val or test; restval is trained on
               (113,287 / 5,000 / 5,000 images of MS-COCO; Karpathy and Fei-Fei, CVPR 2015)
    flickr     Flickr8k.token.txt or results_20130124.token: NAME.jpg#0<tab>caption, and lists
               Flickr_8k.{train,dev,test}Images.txt
    folder     captions.json (or .jsonl, .csv, .tsv, as transfer.captioning.scores.files reads)

Data without splits of its own is divided by a hash of the image's id, the same on every machine.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES
from pretrain.progress import log
from transfer.captioning.config import DatasetConfig
from transfer.captioning.records import (
    CaptionDataset,
    CaptionedImage,
    Id,
    ImageFiles,
    assemble,
    log_skipped,
)
from transfer.captioning.scores.files import read_references

_KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_IMAGE_FOLDERS = ("images", "Images")
_FLICKR_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")
_CAPTION_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
_EXPECTED = (
    "annotations/captions_SPLIT.json (coco), dataset_*.json (karpathy; elsewhere: --dataset.splits "
    "FILE), *.token or *.token.txt (flickr), captions.json, .jsonl, .csv or .tsv beside the images "
    "(folder)"
)


def open_captions(root: Path, config: DatasetConfig) -> CaptionDataset:
    """The data set in a folder.

    Raises:
        UsageError: no such folder or layout, an entry that makes no sense, an empty split.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; images with captions are needed.")
    layout = "karpathy" if config.splits else config.layout
    for name, find, read in (
        ("karpathy", _karpathy_file, _read_karpathy),
        ("coco", _coco_folder, _read_coco_splits),
        ("flickr", _token_file, _read_flickr),
        ("folder", _captions_file, _read_folder),
    ):
        if layout in ("auto", name) and (path := find(root, config)) is not None:
            dataset = read(root, path, config)
            break
    else:
        known = "that are known" if layout == "auto" else f"of the layout {layout}"
        content = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
        raise UsageError(
            f"{root} has no captions {known} (it holds {content}). Expected one of: {_EXPECTED}."
        )
    for split in ("train", "val"):
        if not getattr(dataset, split):
            raise UsageError(f"{root}: the {split} split is empty.")
    return dataset


# ---------------------------------------------------------------------------------------- MS-COCO


def coco_splits(root: Path) -> list[str]:
    """The splits that have captions."""
    files = (root / "annotations").glob("captions_*.json")
    return sorted(path.stem.removeprefix("captions_") for path in files)


def choose_splits(root: Path, train: str | None, val: str | None) -> tuple[str, str]:
    """The splits to train and to score on; what is not given is found by its name's beginning."""
    return train or _only_split(root, "train"), val or _only_split(root, "val")


def _only_split(root: Path, beginning: str) -> str:
    splits = coco_splits(root)
    matching = [split for split in splits if split.startswith(beginning)]
    if len(matching) != 1:
        raise UsageError(
            f"{root}/annotations has {len(matching)} captions files whose split begins with "
            f"{beginning!r} ({', '.join(splits) or 'none at all'}); name one by "
            f"--dataset.{beginning} SPLIT."
        )
    return matching[0]


def _coco_folder(root: Path, _: DatasetConfig) -> Path | None:
    return root if coco_splits(root) else None


def _read_coco_splits(root: Path, _: Path, config: DatasetConfig) -> CaptionDataset:
    splits = [*choose_splits(root, config.train, config.val)]
    tests = [split for split in coco_splits(root) if split.startswith("test")]
    if test := config.test or (tests[0] if len(tests) == 1 else None):
        splits.append(test)
    if len(set(splits)) < len(splits):
        raise UsageError(f"the splits {', '.join(splits)} are not different ones.")
    images = (read_coco(root, split, config.max_corrupt) for split in splits)
    return CaptionDataset(root.name, *images)


def read_coco(
    root: Path, split: str, max_corrupt: int = 0, log: Callable[[str], None] = log
) -> tuple[CaptionedImage, ...]:
    """The images of a split that have captions, in the order of the file.

    Args:
        root: see the head of this file.
        split: such as train2017.
        max_corrupt: images that may be missing.
        log: takes a line for each kind of entry that is left out.

    Raises:
        UsageError: the file is missing, broken or not of this layout, or images are missing.
    """
    path = root / "annotations" / f"captions_{split}.json"
    if split not in (splits := coco_splits(root)):
        raise UsageError(
            f"there is no file {path}; the splits there are {', '.join(splits) or 'none'}."
        )
    images, annotations = _read_lists(
        path,
        ("images", "annotations"),
        'COCO captions file; expected {"images": [{"id", "file_name"}], '
        '"annotations": [{"image_id", "caption"}]}',
    )
    skipped: dict[str, list[object]] = defaultdict(list)
    folder = _first_folder(root / split, root / "images" / split)
    paths: dict[Id, Path] = {}
    for entry in images:
        if _has(entry, "id", "file_name"):
            paths[entry["id"]] = folder / str(entry["file_name"])
        else:
            skipped["entries under images without id or file_name"].append(entry)
    captions: dict[Id, list[object]] = defaultdict(list)
    for entry in annotations:
        if not _has(entry, "image_id", "caption"):
            skipped["annotations without image_id or caption"].append(entry)
        elif entry["image_id"] not in paths:
            skipped["annotations of images that are not listed"].append(entry)
        else:
            captions[entry["image_id"]].append(entry["caption"])
    return assemble(path, captions, paths, skipped, max_corrupt=max_corrupt, log=log)


def _has(entry: Any, key: str, value: str) -> bool:
    """Whether an entry has an id under `key`, and a value."""
    return isinstance(entry, dict) and isinstance(entry.get(key), int | str) and value in entry


# --------------------------------------------------------------------------------------- Karpathy


def _karpathy_file(root: Path, config: DatasetConfig) -> Path | None:
    if config.splits:
        return Path(config.splits)
    files = [*sorted(root.glob("dataset_*.json")), *sorted(root.glob("annotations/dataset_*.json"))]
    return files[0] if files else None


def _read_karpathy(root: Path, path: Path, config: DatasetConfig) -> CaptionDataset:
    """Karpathy's split of the images in `root`, of MS-COCO 2014 or 2017, or of Flickr."""
    expected = 'split of Karpathy\'s; expected {"images": [{"filename", "split", "sentences": '
    (entries,) = _read_lists(path, ("images",), expected + '[{"raw"}]}]}')
    files, invalid = ImageFiles(), []
    paths: dict[str, dict[Id, Path]] = {"train": {}, "val": {}, "test": {}}
    captions: dict[Id, list[object]] = {}
    for number, entry in enumerate(entries):
        try:
            split = _KARPATHY_SPLITS[entry["split"]]
            image_id = entry.get("cocoid", entry.get("imgid", entry["filename"]))
            texts = [sentence["raw"] for sentence in entry["sentences"]]
            candidates = _karpathy_candidates(root, entry.get("filepath", ""), entry["filename"])
            captions[image_id] = texts
        except (KeyError, TypeError, AttributeError):
            invalid.append(f"number {number}: {entry!r:.60}")
            continue
        paths[split][image_id] = files.first(candidates)
    log_skipped(path, {"entries that are none of Karpathy's": invalid})
    splits = {
        split: assemble(f"{path}, {split}", captions, held, {}, max_corrupt=config.max_corrupt)
        for split, held in paths.items()
        if held or split != "test"
    }
    return CaptionDataset(path.stem.removeprefix("dataset_"), **splits)


def _karpathy_candidates(root: Path, folder: str, name: str) -> list[Path]:
    """Where an image may lie: as in 2014, in one folder, or under its 2017 name."""
    folders = (folder, f"images/{folder}", "", *_IMAGE_FOLDERS, *_FLICKR_FOLDERS)
    candidates = [root / group / name for group in folders]
    if name.startswith("COCO_"):  # COCO_val2014_000000391895.jpg -> 000000391895.jpg
        plain = name.rsplit("_", 1)[-1]
        candidates += [root / "train2017" / plain, root / "val2017" / plain]
    return candidates


# ----------------------------------------------------------------------------------------- Flickr


def _token_file(root: Path, _: DatasetConfig) -> Path | None:
    files = [*sorted(root.glob("*.token.txt")), *sorted(root.glob("*.token"))]
    # Flickr8k brings a lemmatised one too
    return next((path for path in files if "lemma" not in path.name), None)


def _read_flickr(root: Path, path: Path, config: DatasetConfig) -> CaptionDataset:
    """Flickr8k with its lists, Flickr30k divided by hash."""
    skipped: dict[str, list[object]] = defaultdict(list)
    captions: dict[Id, list[object]] = defaultdict(list)
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        label, tab, text = line.partition("\t")
        image, _, index = label.rpartition("#")
        if tab and image and index.isdigit():
            captions[image].append(text)
        elif line.strip():
            skipped["lines that are not NAME#NUMBER, tab, sentence"].append(
                f"line {number}: {line}"
            )
    folder = _images_folder(root, *_FLICKR_FOLDERS)
    paths = {image: folder / str(image) for image in captions}
    images = assemble(path, captions, paths, skipped, max_corrupt=config.max_corrupt)
    lists = {
        split: sorted(root.glob(f"*{word}Images.txt"))
        for split, word in (("train", "train"), ("val", "dev"), ("test", "test"))
    }
    if not all(lists.values()):
        return split_by_hash(root.name, images, config.val_fraction)
    by_name = {image.image_id: image for image in images}
    splits = {}
    for split, (file, *_) in lists.items():
        names = _read_text(file).split()
        unknown = [name for name in names if name not in by_name]
        log_skipped(file, {"names without an image or captions": unknown})
        splits[split] = tuple(by_name[name] for name in names if name in by_name)
    return CaptionDataset(root.name, **splits)


# ----------------------------------------------------------------------------------------- folder


def _captions_file(root: Path, _: DatasetConfig) -> Path | None:
    """captions.*, or the only file that may hold captions."""
    named = [root / f"captions{suffix}" for suffix in _CAPTION_SUFFIXES]
    others = [path for path in root.iterdir() if path.suffix in _CAPTION_SUFFIXES]
    return next(filter(Path.is_file, named), others[0] if len(others) == 1 else None)


def _read_folder(root: Path, path: Path, config: DatasetConfig) -> CaptionDataset:
    """One captions file beside the images, divided by hash."""
    references = read_references(path)
    folder, files = _images_folder(root), ImageFiles()
    paths: dict[Id, Path] = {}
    for image_id in references.captions:
        name = references.file_names.get(image_id, image_id)
        names = [name, *(f"{image_id}{suffix}" for suffix in SUFFIXES)]
        paths[image_id] = files.first([folder / name for name in names])
    captions: dict[Id, Sequence[object]] = {**references.captions}
    images = assemble(path, captions, paths, {}, max_corrupt=config.max_corrupt)
    return split_by_hash(root.name, images, config.val_fraction)


# ----------------------------------------------------------------------------------------- shared


def split_by_hash(
    name: str, images: Sequence[CaptionedImage], val_fraction: float
) -> CaptionDataset:
    """Train and val by a hash of the id: the same images whatever else is in the folder."""
    splits: dict[bool, list[CaptionedImage]] = {False: [], True: []}
    for image in images:
        digest = hashlib.sha256(str(image.image_id).encode("utf-8", "surrogatepass")).digest()
        in_val = int.from_bytes(digest[:8], "big") < val_fraction * 2**64
        splits[in_val].append(image)
    train, val = splits[False], splits[True]
    if not train or not val:
        raise UsageError(
            f"{name}: of {len(images)} images, {len(val)} would be held out by "
            f"--dataset.val_fraction {val_fraction}. Give another share, or more images."
        )
    log(f"{name} has no splits of its own: {len(val):,} of {len(images):,} images are held out")
    return CaptionDataset(name, tuple(train), tuple(val))


def _first_folder(*folders: Path) -> Path:
    return next(filter(Path.is_dir, folders), folders[0])


def _images_folder(root: Path, *names: str) -> Path:
    return _first_folder(*(root / name for name in (*names, *_IMAGE_FOLDERS)), root)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8: {error}.") from error


def _read_lists(path: Path, keys: tuple[str, ...], expected: str) -> list[list[Any]]:
    """The lists under keys of a JSON file."""
    text = _read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}. It may be cut short.") from error
    lists = [content.get(key) if isinstance(content, dict) else None for key in keys]
    if not all(isinstance(entries, list) for entries in lists):
        raise UsageError(f"{path} is no {expected}.")
    return lists
