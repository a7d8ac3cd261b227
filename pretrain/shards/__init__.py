"""Samples in tar files that are read by index: a store of shards.

    STORE/_info.json          splits, shards and counts, as timm's reader takes them
    STORE/train.index         where each sample lies: see `index`
    STORE/train-000000.tar    WebDataset's layout: NAME.jpg and NAME.cls (or NAME.json) side by side
    STORE/val.index ...

What is read when is not the store's matter: `order` makes an epoch's order from a seed, and any
process reads any sample by its number.
"""

from pretrain.shards.index import Member, ShardIndex
from pretrain.shards.order import WindowOrder
from pretrain.shards.reader import ShardReader
from pretrain.shards.source import ShardedImage
from pretrain.shards.store import Store, find_store, is_url

__all__ = [
    "Member",
    "ShardIndex",
    "ShardReader",
    "ShardedImage",
    "Store",
    "WindowOrder",
    "find_store",
    "is_url",
]
