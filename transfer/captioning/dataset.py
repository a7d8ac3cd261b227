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
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES
from pretrain.progress import log
from transfer.captioning.config import DatasetConfig
from transfer.captioning.scores.files import read_references, read_text

_KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_IMAGE_FOLDERS = ("images", "Images")
_FLICKR_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")
_CAPTION_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
_EXPECTED = (
    "annotations/captions_SPLIT.json (coco), dataset_*.json or --dataset.splits FILE (karpathy), "
    "*.token or *.token.txt (flickr), captions.json, .jsonl, .csv or .tsv beside images (folder)"
)

Id = int | str
Entries = dict[Id, tuple[Path, list[object]]]
"""By image, the file where it should lie, and its captions as they stand there."""
Skipped = Mapping[str, Sequence[object]]
"""What is wrong with entries -> those entries."""


@dataclass(frozen=True)
class CaptionedImage:
    """An image with all its captions."""

    image_id: Id
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionDataset:
    """A data set in its splits; without a `test` split, `val` is all that is not trained on."""

    name: str
    train: tuple[CaptionedImage, ...]
    val: tuple[CaptionedImage, ...]
    test: tuple[CaptionedImage, ...] = ()


def open_captions(root: Path, config: DatasetConfig) -> CaptionDataset:
    """The data set in a folder.

    Raises:
        UsageError: no such folder or layout, an entry that makes no sense, an empty split.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; images with captions are needed.")
    layout = "karpathy" if config.splits else config.layout
    layouts: dict[str, tuple[Callable[..., Any], Callable[..., CaptionDataset]]] = {
        "karpathy": (_karpathy_file, _read_karpathy),
        "coco": (coco_splits, _read_coco_splits),
        "flickr": (_token_file, _read_flickr),
        "folder": (_captions_file, _read_folder),
    }
    for name, (find, read) in layouts.items():
        if layout in ("auto", name) and (source := config.splits or find(root)):
            dataset = read(root, source, config)
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


def _read_coco_splits(root: Path, splits: list[str], config: DatasetConfig) -> CaptionDataset:
    chosen = choose_splits(root, splits, config)
    return CaptionDataset(root.name, *(read_coco(root, s, config.max_corrupt) for s in chosen))


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
        UsageError: the file is missing, corrupt or not of this layout, or images are missing.
    """
    path = root / "annotations" / f"captions_{split}.json"
    if split not in (splits := coco_splits(root)):
        there = ", ".join(splits) or "none"
        raise UsageError(f"there is no file {path}; the splits there are {there}.")
    expected = 'COCO captions file; expected {"images": [{"id", "file_name"}], "annotations": '
    expected += '[{"image_id", "caption"}]}'
    images, annotations = _read_lists(path, ("images", "annotations"), expected)
    skipped: dict[str, list[object]] = defaultdict(list)
    folders = (root / split, root / "images" / split)
    folder = next(filter(Path.is_dir, folders), folders[0])
    entries: Entries = {}
    for entry in images:
        if _has(entry, "id", "file_name"):
            entries[entry["id"]] = (folder / str(entry["file_name"]), [])
        else:
            skipped["entries under images without id or file_name"].append(entry)
    for entry in annotations:
        if not _has(entry, "image_id", "caption"):
            skipped["annotations without image_id or caption"].append(entry)
        elif entry["image_id"] not in entries:
            skipped["annotations of images that are not listed"].append(entry)
        else:
            entries[entry["image_id"]][1].append(entry["caption"])
    return assemble(path, entries, skipped, max_corrupt=max_corrupt, log=log)


def _has(entry: Any, key: str, value: str) -> bool:
    """Whether an entry has an id under `key`, and a value."""
    return isinstance(entry, dict) and isinstance(entry.get(key), int | str) and value in entry


# --------------------------------------------------------------------------------------- Karpathy


def _karpathy_file(root: Path) -> Path | None:
    files = [*sorted(root.glob("dataset_*.json")), *sorted(root.glob("annotations/dataset_*.json"))]
    return files[0] if files else None


def _read_karpathy(root: Path, file: Path | str, config: DatasetConfig) -> CaptionDataset:
    """Karpathy's split of the images in `root`, of MS-COCO 2014 or 2017, or of Flickr."""
    path = Path(file)
    expected = 'split of Karpathy\'s; expected {"images": [{"filename", "split", "sentences": '
    (images,) = _read_lists(path, ("images",), expected + '[{"raw"}]}]}')
    files, invalid = ImageFiles(), []
    entries: dict[str, Entries] = {"train": {}, "val": {}, "test": {}}
    for number, entry in enumerate(images):
        try:
            split = _KARPATHY_SPLITS[entry["split"]]
            image_id = entry.get("cocoid", entry.get("imgid", entry["filename"]))
            texts = [sentence["raw"] for sentence in entry["sentences"]]
            candidates = _karpathy_candidates(root, entry.get("filepath", ""), entry["filename"])
            entries[split][image_id] = (files.first(candidates), texts)
        except (KeyError, TypeError, AttributeError):
            invalid.append(f"number {number}: {entry!r:.60}")
    log_skipped(path, {"entries that are none of Karpathy's": invalid})
    splits = {
        split: assemble(f"{path}, {split}", chosen, {}, max_corrupt=config.max_corrupt)
        for split, chosen in entries.items()
        if chosen or split != "test"
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


def _token_file(root: Path) -> Path | None:
    files = [*sorted(root.glob("*.token.txt")), *sorted(root.glob("*.token"))]
    # Flickr8k brings a lemmatised one too
    return next((path for path in files if "lemma" not in path.name), None)


def _read_flickr(root: Path, path: Path, config: DatasetConfig) -> CaptionDataset:
    """Flickr8k with its lists, Flickr30k divided by hash."""
    invalid: list[str] = []
    captions: dict[str, list[object]] = defaultdict(list)
    for number, line in enumerate(read_text(path).splitlines(), 1):
        label, tab, text = line.partition("\t")
        image, _, index = label.rpartition("#")
        if tab and image and index.isdigit():
            captions[image].append(text)
        elif line.strip():
            invalid.append(f"line {number}: {line}")
    folder = _images_folder(root, *_FLICKR_FOLDERS)
    entries: Entries = {image: (folder / image, texts) for image, texts in captions.items()}
    skipped = {"lines that are not NAME#NUMBER, tab, sentence": invalid}
    images = assemble(path, entries, skipped, max_corrupt=config.max_corrupt)
    words = {"train": "train", "val": "dev", "test": "test"}
    lists = {split: sorted(root.glob(f"*{word}Images.txt")) for split, word in words.items()}
    if not all(lists.values()):
        return split_by_hash(root.name, images, config.val_fraction)
    by_name = {image.image_id: image for image in images}
    splits = {}
    for split, (file, *_) in lists.items():
        names = read_text(file).split()
        unknown = [name for name in names if name not in by_name]
        log_skipped(file, {"names without an image or captions": unknown})
        splits[split] = tuple(by_name[name] for name in names if name in by_name)
    return CaptionDataset(root.name, **splits)


# ----------------------------------------------------------------------------------------- folder


def _captions_file(root: Path) -> Path | None:
    """captions.*, or the only file that may hold captions."""
    named = [root / f"captions{suffix}" for suffix in _CAPTION_SUFFIXES]
    others = [path for path in root.iterdir() if path.suffix in _CAPTION_SUFFIXES]
    return next(filter(Path.is_file, named), others[0] if len(others) == 1 else None)


def _read_folder(root: Path, path: Path, config: DatasetConfig) -> CaptionDataset:
    """One captions file beside the images, divided by hash."""
    references = read_references(path)
    folder, files = _images_folder(root), ImageFiles()
    entries: Entries = {}
    for image_id, texts in references.captions.items():
        name = references.file_names.get(image_id, image_id)
        names = [name, *(f"{image_id}{suffix}" for suffix in SUFFIXES)]
        entries[image_id] = (files.first([folder / name for name in names]), [*texts])
    images = assemble(path, entries, {}, max_corrupt=config.max_corrupt)
    return split_by_hash(root.name, images, config.val_fraction)


# ----------------------------------------------------------------------------------------- shared


class ImageFiles(dict[Path, frozenset[str]]):
    """Which files there are, by one listing of each folder."""

    def __missing__(self, folder: Path) -> frozenset[str]:
        names = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
        return self.setdefault(folder, names)

    def has(self, path: Path) -> bool:
        """Whether there is a file of that name."""
        return path.name in self[path.parent]

    def first(self, candidates: Sequence[Path]) -> Path:
        """The first of the paths where there is a file; the first of all where there is none."""
        return next(filter(self.has, candidates), candidates[0])


def log_skipped(source: object, skipped: Skipped, log: Callable[[str], None] = log) -> None:
    """One line for each kind of entry that is left out, with the count and the first of them."""
    for problem, entries in skipped.items():
        if entries:
            log(f"{source}: left out {len(entries):,} {problem}, the first is {entries[0]!r:.80}")


def assemble(
    source: object,
    entries: Entries,
    skipped: Skipped,
    *,
    max_corrupt: int,
    log: Callable[[str], None] = log,
) -> tuple[CaptionedImage, ...]:
    """The images that have captions, in the order of `entries`; what is left out is logged.

    Args:
        source: the file the entries are from.
        entries: captions that are no text or empty are left out.
        skipped: what the reader of the file has left out already.
        max_corrupt: how many of the image files may be missing.
        log: takes a line for each kind of entry that is left out.

    Raises:
        UsageError: no image with a caption, or too many images missing.
    """
    files = ImageFiles()
    images, empty, without, missing = [], [], [], []
    for image_id, (path, captions) in entries.items():
        texts = [text for text in captions if isinstance(text, str) and text.strip()]
        empty += [f"image {image_id}: {text!r}" for text in captions if text not in texts]
        if not texts:
            without.append(image_id)
        elif files.has(path):
            images.append(CaptionedImage(image_id, path, tuple(texts)))
        else:
            missing.append(str(path))
    log_skipped(source, skipped, log)
    log_skipped(source, {"captions that are empty or no text": empty}, log)
    log_skipped(source, {"images without captions": without}, log)
    log_skipped(source, {"images whose file is missing": missing}, log)
    if not images and not missing:
        raise UsageError(f"{source} has no image with a caption.")
    if missing and (len(missing) > max_corrupt or not images):
        raise UsageError(
            f"{len(missing):,} of {len(images) + len(missing):,} images of {source} are not "
            f"there, the first is {missing[0]}. Complete them, or give --dataset.max_corrupt "
            f"{len(missing)} to train and score without them."
        )
    return tuple(images)


def split_by_hash(name: str, images: Sequence[CaptionedImage], fraction: float) -> CaptionDataset:
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


def _images_folder(root: Path, *names: str) -> Path:
    folders = (root / name for name in (*names, *_IMAGE_FOLDERS))
    return next(filter(Path.is_dir, folders), root)


def _read_lists(path: Path, keys: tuple[str, ...], expected: str) -> list[list[Any]]:
    """The lists under keys of a JSON file."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}. It may be cut short.") from error
    lists: list[Any] = [content.get(key) if isinstance(content, dict) else None for key in keys]
    if not all(isinstance(entries, list) for entries in lists):
        raise UsageError(f"{path} is no {expected}.")
    return lists
