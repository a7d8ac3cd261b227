"""Whether shards that are fetched all have room here, for what reads them in any order."""

import math
from collections.abc import Iterable

from pretrain.errors import UsageError
from pretrain.images import ImageSource
from pretrain.shards import ShardedImage


def require_room(images: Iterable[ImageSource], cache_gib: float, use: str) -> None:
    """Raise UsageError where shards must be fetched and all of them do not stay here.

    A folder and its store train on the same batches, whose images are in any of the shards.

    Args:
        images: that are read in any order, epoch after epoch.
        cache_gib: what may be kept of remote shards on this machine.
        use: what reads them so, and how to do without.
    """
    readers = {image.reader for image in images if isinstance(image, ShardedImage)}
    remote = [reader for reader in readers if hasattr(reader.locate, "expect")]
    needed = sum(shard.bytes for reader in remote for shard in reader.index.shards) / 2**30
    if needed > cache_gib:
        raise UsageError(
            f"loader.shard_cache is {cache_gib:.4g} GiB, and the training shards have "
            f"{needed:.4g}: {use}. Give --loader.shard_cache {math.ceil(100 * needed) / 100:g}, or "
            "copy the store to a disk."
        )
