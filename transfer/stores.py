"""--data as it is given: a folder, or the address of a store of shards. No torch at import."""

import os
from pathlib import Path

from pretrain.address import check_address
from pretrain.errors import UsageError

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
        if "://" in str(data):
            check_address(str(data))
        raise UsageError(
            f"{data} is a store of shards, which holds images with classes or captions; {wanted}. "
            "Give the folder that it was packed of."
        )
