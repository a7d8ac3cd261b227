"""Captioned images in shards: beside each image its captions, as JSON or as a text.

    json   {"image_id", "file_name", "captions": [...]}, as tools/pack.py writes it, with "number",
           the image's place in the files that were packed; or {"caption": "..."}, as img2dataset
    txt    the caption

Where nothing else is said an image's id is its key in WebDataset, with its tar's name before it
where keys repeat.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from pretrain.errors import UsageError, shorten
from pretrain.shards import ShardedImage, ShardIndex, Store
from transfer.captioning.config import DatasetConfig
from transfer.captioning.image_files import CaptionedImage
from transfer.captioning.scores.layouts import Id, Log, log_left_out

_EXPECTED = 'expected {"captions": ["...", ...]} or {"caption": "..."}'


def read_shards(
    store: Store, config: DatasetConfig, log: Log
) -> dict[str, tuple[CaptionedImage, ...]]:
    """The images of train, val and test that have captions, in the order that was packed.

    Raises:
        UsageError: a split that is named and not there, samples without captions, captions that
            cannot be read, an id that stands for two images, options of folders.
    """
    for name, default in (("layout", "auto"), ("splits", None), ("images", None)):
        if (value := getattr(config, name)) != default:
            raise UsageError(
                f"dataset.{name} is {value}, but {store.location} is a store of shards, which has "
                f"images and captions in it. Give --dataset.{name} {default or 'null'}."
            )
    splits = {}
    for split in ("train", "val", "test"):
        name = getattr(config, split) or split
        if name in store.splits:
            splits[split] = _read_split(store, name, log)
        elif name != split or split == "train":
            raise UsageError(
                f"{store.location} has no shards of {name} (it has {shorten([*store.splits])}). "
                f"Name a split by --dataset.{split}, or pack one."
            )
    return splits


def _read_split(store: Store, split: str, log: Log) -> tuple[CaptionedImage, ...]:
    reader, place = store.splits[split], f"{store.location}, {split}"
    index = reader.index
    if not index.has_texts:
        raise UsageError(
            f"the samples of {place} have no captions (no member .json or .txt). Pack a folder of "
            "images with captions."
        )
    found, without, numbers = list[CaptionedImage](), list[Id](), list[Any]()
    seen, ids = dict[str, str](), _keys(index)
    for number, content in enumerate(reader.read_many(range(len(index)), text=True)):
        if isinstance(content, UsageError):
            raise content
        name = index.name(number)
        entry = _parse(content, index.text == "json", f"{place}, {name}")
        image_id = entry.get("image_id", ids[number])
        if not isinstance(image_id, int | str):
            raise UsageError(f"{place}, {name}: the image_id is {image_id!r:.60}; {_EXPECTED}.")
        if (other := seen.setdefault(str(image_id), name)) != name:
            raise UsageError(f"{place}: the images {other} and {name} have one id, {image_id!r}.")
        captions = entry.get("captions", entry.get("caption"))
        texts = captions if isinstance(captions, list) else [captions]
        if kept := tuple(text for text in texts if isinstance(text, str) and text.strip()):
            found.append(CaptionedImage(image_id, ShardedImage(reader, number), kept))
            numbers.append(entry.get("number"))
        else:
            without.append(image_id)
    log_left_out(log, place, without, "images without captions")
    if not found:
        raise UsageError(f"{place} has no image with a caption; {_EXPECTED}.")
    if all(isinstance(number, int) for number in numbers):
        found = [found[n] for n in sorted(range(len(found)), key=numbers.__getitem__)]
    return tuple(found)


def _keys(index: ShardIndex) -> list[str]:
    """Of samples whose names are TAR/KEY.jpg, as of shards that came without an index."""
    names = [os.path.splitext(index.name(number))[0] for number in range(len(index))]
    keys = [name.partition("/")[2] or name for name in names]
    return keys if len({*keys}) == len(keys) else names


def _parse(content: bytes, is_json: bool, where: str) -> Mapping[str, Any]:
    """What stands beside an image."""
    try:
        text = content.decode("utf-8")
        entry = json.loads(text) if is_json else {"caption": text.strip()}
        said = (
            [entry.get(key) for key in ("caption", "captions")] if isinstance(entry, dict) else []
        )
        # half of a surrogate pair passes for JSON, and no file can hold it
        json.dumps(said, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: its captions cannot be read ({error}); {_EXPECTED}.") from error
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: its captions are {text!r:.60}; {_EXPECTED}.")
    return entry
