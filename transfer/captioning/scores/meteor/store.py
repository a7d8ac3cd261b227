"""Arrays in one file, written whole and read as memory maps.

A line of JSON (what the caller likes, and under "arrays" each name with type, shape and place),
padded to 64 bytes, then the arrays one behind the other.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.run import atomic

_ALIGNMENT = 64
Arrays = dict[str, NDArray[Any]]


def write_arrays(path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write `path` whole or not at all; two processes may do so at the same time."""
    places, offset = {}, 0
    for name, array in arrays.items():
        places[name] = {"dtype": array.dtype.str, "shape": array.shape, "offset": offset}
        offset += _padded(array.nbytes)
    line = json.dumps({**about, "arrays": places}).encode()
    with atomic(path) as temporary, open(temporary, "wb") as handle:
        handle.write(line.ljust(_padded(len(line) + 1) - 1) + b"\n")
        for array in arrays.values():
            handle.write(np.ascontiguousarray(array).tobytes())
            handle.write(b"\0" * (_padded(array.nbytes) - array.nbytes))


def read_arrays(path: Path) -> tuple[dict[str, Any], Arrays]:
    """What `write_arrays` was given; the arrays are read from disk where they are touched.

    Raises:
        ValueError: the file is cut short or no such file.
    """
    with open(path, "rb") as handle:
        line = handle.readline()
    about = json.loads(line)
    places = about.pop("arrays")
    whole = np.memmap(path, np.uint8, "r", offset=len(line))
    arrays = {}
    for name, place in places.items():
        dtype, shape = np.dtype(place["dtype"]), tuple(place["shape"])
        begin = place["offset"]
        end = begin + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if end > len(whole):
            raise ValueError(f"it ends in the middle of {name}")
        arrays[name] = whole[begin:end].view(dtype).reshape(shape)
    return about, arrays


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
