"""Hashes of the bytes of images, in files or in shards: the same image has the same hash in both.

    FOLDER/files.json     of each file as last read: size, times, hash
    FOLDER/shards.json    of each shard the hashes of all its images

A shard is remembered by its size and by what its index says of each sample (place, size, crc32):
these are checked whenever a sample is read, so a shard of the same samples has the same hashes
wherever it lies, and one that is far away is not fetched to be hashed again.
"""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrain.cache import hash_files, new_hash, read_object
from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.images import ImageSource
from pretrain.progress import bar
from pretrain.shards import ShardedImage, ShardIndex, ShardReader

_AT_ONCE = 64  # images of a shard in memory
_DIGITS = 32

_Hashes = list[str | UsageError]


def hash_images(
    images: Sequence[ImageSource], folder: Path
) -> tuple[list[bytes | None], dict[int, str]]:
    """BLAKE2b, 16 bytes, of each image's file; None for one that cannot be read.

    Args:
        images: paths, or places in shards.
        folder: where hashes are remembered.

    Returns:
        The hashes, and of what cannot be read in a shard why, by its place in `images`.
    """
    names, of_reader = dict[int, str](), defaultdict[ShardReader, list[int]](list)
    here = os.getcwd()
    for place, image in enumerate(images):
        if isinstance(image, ShardedImage):
            of_reader[image.reader].append(place)
        else:
            names[place] = os.path.join(here, str(image))  # not normalised: x/.. may be a link
    files = hash_files({name: name for name in names.values()}, folder / "files.json")
    hashes: dict[int, str | UsageError | None] = {n: files[name] for n, name in names.items()}
    for reader, places in of_reader.items():
        numbers = np.array([images[place].number for place in places])  # type: ignore[attr-defined]
        hashes |= zip(places, _hash_samples(reader, numbers, folder / "shards.json"), strict=True)
    unreadable = {n: str(error) for n, error in hashes.items() if isinstance(error, UsageError)}
    found = (hashes[place] for place in range(len(images)))
    return [bytes.fromhex(one) if isinstance(one, str) else None for one in found], unreadable


def in_order_of_shards(images: Sequence[ImageSource]) -> list[int]:
    """Places in `images`: files as they come, what lies in shards one shard after another."""

    def key(place: int) -> tuple[str, int]:
        image = images[place]
        if isinstance(image, ShardedImage):
            return str(image.reader.index.path), image.number
        return "", 0

    return sorted(range(len(images)), key=key)


def _hash_samples(reader: ShardReader, numbers: NDArray[np.int64], memory: Path) -> _Hashes:
    """Of samples; the shards that they are in are read whole."""
    starts = reader.index.starts
    shard_of = (np.searchsorted(starts, numbers, side="right") - 1).tolist()
    keys = {shard: _key(reader.index, shard) for shard in sorted(set(shard_of))}
    known, hashes = read_object(memory), dict[int, _Hashes]()
    for shard, key in keys.items():
        digits = known.get(key)
        if isinstance(digits, str) and len(digits) == _DIGITS * reader.index.shards[shard].samples:
            hashes[shard] = [digits[n : n + _DIGITS] for n in range(0, len(digits), _DIGITS)]
    if unread := [shard for shard in keys if shard not in hashes]:
        with (
            bar("reading shards", len(unread), "shards") as advance,
            ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool,
        ):
            for shard, found in zip(unread, pool.map(partial(_read, reader), unread), strict=True):
                hashes[shard] = found
                if all(isinstance(one, str) for one in found):
                    known[keys[shard]] = "".join(map(str, found))
                advance(1)
        with suppress(UsageError):  # without a writable place they are read again
            write_text(memory, json.dumps(known))
    places = zip(shard_of, numbers.tolist(), strict=True)
    return [hashes[shard][number - int(starts[shard])] for shard, number in places]


def _key(index: ShardIndex, shard: int) -> str:
    """What the hashes of a shard are remembered under."""
    return new_hash(b"%d " % index.shards[shard].bytes + index.rows(shard).tobytes()).hexdigest()


def _read(reader: ShardReader, shard: int) -> _Hashes:
    """Of all samples of a shard."""
    own = ShardReader(reader.index, reader.locate)  # of this thread
    first, end = own.index.starts[shard : shard + 2].tolist()
    found = _Hashes()
    try:
        own.locate(shard)
    except UsageError as error:  # once, and not for each of its samples
        return [error] * (end - first)
    for start in range(first, end, _AT_ONCE):
        for content in own.read_many(range(start, min(start + _AT_ONCE, end))):
            if isinstance(content, bytes):
                found.append(new_hash(content).hexdigest())
            else:
                found.append(content)
    return found
