"""Karpathy's splits, Flickr's token files, and a captions file beside its images.

    Karpathy   dataset_coco.json: {"images": [{"filepath", "filename", "split", "cocoid",
               "sentences": [{"raw"}]}]}, split train, restval, val or test; restval is trained on
               (113,287 / 5,000 / 5,000 images of MS-COCO; Karpathy and Fei-Fei, CVPR 2015)
    Flickr     Flickr8k.token.txt or results_20130124.token: NAME.jpg#0<tab>sentence, and lists
               Flickr_8k.{train,dev,test}Images.txt
    folder     captions.json (or .jsonl, .csv, .tsv, as transfer.captioning.scores.files reads)

Data without splits of its own is cut by a hash of the image's id, the same on every machine.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from pretrain.images import SUFFIXES
from pretrain.progress import log
from transfer.captioning.config import DatasetConfig
from transfer.captioning.records import (
    CaptionedImage,
    Captions,
    Folders,
    Id,
    LeftOut,
    assemble,
)
from transfer.captioning.scores.files import read_references

_KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
_FLICKR_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")
_IMAGE_FOLDERS = ("images", "Images")
_CAPTION_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")


def karpathy_file(root: Path) -> Path | None:
    """Karpathy's JSON in a folder or its annotations, if there is one."""
    found = [*sorted(root.glob("dataset_*.json")), *sorted(root.glob("annotations/dataset_*.json"))]
    return found[0] if found else None


def token_file(root: Path) -> Path | None:
    """Flickr's token file in a folder, if there is one."""
    found = [*sorted(root.glob("*.token.txt")), *sorted(root.glob("*.token"))]
    # Flickr8k brings a lemmatised one too
    return next((path for path in found if "lemma" not in path.name), None)


def captions_file(root: Path) -> Path | None:
    """The captions file of a folder: captions.*, or the only file that may be one."""
    for suffix in _CAPTION_SUFFIXES:
        if (path := root / f"captions{suffix}").is_file():
            return path
    found = [path for path in sorted(root.iterdir()) if path.suffix in _CAPTION_SUFFIXES]
    return found[0] if len(found) == 1 else None


def open_karpathy(root: Path, config: DatasetConfig) -> Captions:
    """Karpathy's split of the images in `root`, of MS-COCO 2014 or 2017, or of Flickr."""
    path = Path(config.splits) if config.splits else karpathy_file(root)
    if path is None:
        raise UsageError(
            f"{root} has no dataset_*.json of Karpathy's. Name it by --dataset.splits FILE."
        )
    content = _json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UsageError(
            f"{path} is no split of Karpathy's; expected "
            '{"images": [{"filename", "split", "sentences": [{"raw"}]}]}.'
        )
    left_out, folders = LeftOut(path), Folders()
    places: dict[str, dict[Id, Path]] = {"train": {}, "val": {}, "test": {}}
    sentences: dict[Id, list[object]] = {}
    for number, entry in enumerate(entries):
        try:
            split = _KARPATHY_SPLITS[entry["split"]]
            image_id = entry.get("cocoid", entry.get("imgid", entry["filename"]))
            texts = [sentence["raw"] for sentence in entry["sentences"]]
            candidates = _karpathy_places(root, entry.get("filepath", ""), entry["filename"])
            sentences[image_id] = texts
        except (KeyError, TypeError, AttributeError):
            left_out.add("entries that are none of Karpathy's", f"number {number}: {entry!r:.60}")
            continue
        places[split][image_id] = folders.first(candidates) or candidates[0]
    found = {}
    for split, held in places.items():
        if held or split != "test":
            found[split] = assemble(
                f"{path}, {split}", sentences, held, left_out, max_corrupt=config.max_corrupt
            )
            left_out = LeftOut(path)
    return Captions(path.stem.removeprefix("dataset_"), **found)


def _karpathy_places(root: Path, folder: str, name: str) -> list[Path]:
    """Where an image may lie: as in 2014, under its 2017 name, or in one folder."""
    plain = name.rsplit("_", 1)[-1]  # COCO_val2014_000000391895.jpg -> 000000391895.jpg
    groups = [root / folder, root / "images" / folder, root, *(root / n for n in _IMAGE_FOLDERS)]
    groups += [root / n for n in _FLICKR_FOLDERS]
    years = [root / "train2017", root / "val2017"] if name.startswith("COCO_") else []
    return [*(group / name for group in groups), *(year / plain for year in years)]


def open_flickr(root: Path, config: DatasetConfig) -> Captions:
    """Flickr8k with its lists, Flickr30k cut by hash."""
    path = token_file(root)
    if path is None:
        raise UsageError(f"{root} has no token file (*.token, *.token.txt).")
    left_out = LeftOut(path)
    sentences: dict[Id, list[object]] = defaultdict(list)
    for number, line in enumerate(_text(path).splitlines(), 1):
        name, tab, text = line.partition("\t")
        image, _, place = name.rpartition("#")
        if tab and image and place.isdigit():
            sentences[image].append(text)
        elif line.strip():
            left_out.add("lines that are not NAME#NUMBER, tab, sentence", f"line {number}: {line}")
    folder = _images_of(root, _FLICKR_FOLDERS)
    places: dict[Id, Path] = {image: folder / str(image) for image in sentences}
    images = assemble(path, sentences, places, left_out, max_corrupt=config.max_corrupt)
    lists = {
        split: sorted(root.glob(f"*{word}Images.txt"))
        for split, word in (("train", "train"), ("val", "dev"), ("test", "test"))
    }
    if not all(lists.values()):
        return _cut(root.name, images, config.val_fraction)
    by_name = {str(image.image_id): image for image in images}
    chosen: dict[str, tuple[CaptionedImage, ...]] = {}
    for split, (found, *_) in lists.items():
        names = _text(found).split()
        unknown = LeftOut(found)
        for name in names:
            if name not in by_name:
                unknown.add("names without an image or captions", name)
        for line in unknown.lines():
            log(line)
        chosen[split] = tuple(by_name[name] for name in names if name in by_name)
    return Captions(root.name, **chosen)


def open_folder(root: Path, config: DatasetConfig) -> Captions:
    """One captions file beside the images, cut by hash."""
    path = captions_file(root)
    if path is None:
        raise UsageError(
            f"{root} has no captions file: captions.json (or .jsonl, .csv, .tsv) is needed."
        )
    found = read_references(path)
    folder, folders = _images_of(root, ()), Folders()
    places: dict[Id, Path] = {}
    for image_id in found.captions:
        name = found.file_names.get(image_id, image_id)
        names = [name, *(f"{image_id}{suffix}" for suffix in SUFFIXES)]
        places[image_id] = folders.first([folder / name for name in names]) or folder / name
    sentences: dict[Id, Sequence[object]] = {i: found.captions[i] for i in found.captions}
    images = assemble(path, sentences, places, LeftOut(path), max_corrupt=config.max_corrupt)
    return _cut(root.name, images, config.val_fraction)


def _images_of(root: Path, more: tuple[str, ...]) -> Path:
    folders = (root / name for name in (*more, *_IMAGE_FOLDERS))
    return next((folder for folder in folders if folder.is_dir()), root)


def _cut(name: str, images: tuple[CaptionedImage, ...], share: float) -> Captions:
    """Train and val by a hash of the id: the same images whatever else is in the folder."""

    def hold_out(image: CaptionedImage) -> bool:
        digest = hashlib.sha256(str(image.image_id).encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    val = tuple(filter(hold_out, images))
    train = tuple(image for image in images if not hold_out(image))
    if not train or not val:
        raise UsageError(
            f"{name}: of {len(images)} images, {len(val)} would be held out by "
            f"--dataset.val_fraction {share}. Give another share, or more images."
        )
    log(f"{name} has no splits of its own: {len(val):,} of {len(images):,} images are held out")
    return Captions(name, train, val)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8: {error}.") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}. It may be cut short.") from error
