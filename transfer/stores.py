"""--data as it is given: a folder, or the address of a store of shards. No torch at import."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.errors import UsageError

if TYPE_CHECKING:
    from pretrain.images import ImageSource

_FILES = ("_info.json", "train.index", "val.index", "test.index")


def is_there(data: str) -> bool:
    """Whether there is such a file or folder; an address is looked at when it is opened."""
    return "://" in data or os.path.exists(data)


def data_name(data: str | Path) -> str:
    """What data is called: as its folder, or as the last part of its address."""
    if "://" in str(data):
        return str(data).partition("?")[0].rstrip("/").rpartition("/")[2]
    return Path(data).resolve().name


def is_store(data: str | Path) -> bool:
    """Whether --data is a store: nothing is opened, and no tar file in a folder makes it one."""
    return "://" in str(data) or any(os.path.isfile(os.path.join(data, name)) for name in _FILES)


def refuse_store(data: str | Path, wanted: str) -> None:
    """Raise UsageError where --data is a store of shards, which lacks what is `wanted`."""
    if is_store(data):
        raise UsageError(
            f"{data} is a store of shards, which holds images with classes or captions; {wanted}. "
            "Give the folder that it was packed of."
        )


def require_room(images: "Iterable[ImageSource]", cache_gib: float, use: str) -> None:
    """Raise UsageError where shards must be fetched and all of them do not stay here.

    A folder and its store train on the same batches, whose images are in any of the shards.

    Args:
        images: that are read in any order, epoch after epoch.
        cache_gib: what may be kept of remote shards on this machine.
        use: what reads them so, and how to do without.
    """
    from pretrain.shards import ShardedImage

    readers = {image.reader for image in images if isinstance(image, ShardedImage)}
    remote = [reader for reader in readers if hasattr(reader.locate, "expect")]
    needed = sum(shard.bytes for reader in remote for shard in reader.index.shards) / 2**30
    if needed > cache_gib:
        raise UsageError(
            f"loader.shard_cache is {cache_gib:.4g} GiB, and the training shards have "
            f"{needed:.4g}: {use}. Give --loader.shard_cache {math.ceil(100 * needed) / 100:g}, or "
            "copy the store to a disk."
        )
