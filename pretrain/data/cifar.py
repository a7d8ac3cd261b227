"""CIFAR-10 and CIFAR-100 as they are distributed: pickles of Python 2, read without running code.

DIR/cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta} or
DIR/cifar-100-python/{train,test,meta} (fine labels), or DIR being that folder itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pretrain import safe_pickle
from pretrain.data.images import ImageArray
from pretrain.errors import UsageError


@dataclass(frozen=True)
class CifarLayout:
    """Files of a data set, and the keys of what is in them."""

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
LAYOUTS = (
    CifarLayout(
        "cifar-10-batches-py", _BATCHES, "test_batch", "batches.meta", "labels", "label_names"
    ),
    CifarLayout("cifar-100-python", ("train",), "test", "meta", "fine_labels", "fine_label_names"),
)


def find_cifar(root: Path) -> tuple[Path, CifarLayout] | None:
    """The folder of CIFAR's pickles at or below `root`, or None."""
    for layout in LAYOUTS:
        for folder in (root / layout.folder, root):
            if (folder / layout.meta).is_file() and (folder / layout.train[0]).is_file():
                return folder, layout
    return None


def open_cifar(folder: Path, layout: CifarLayout) -> tuple[ImageArray, ImageArray]:
    """The training and test images.

    Raises:
        UsageError: a file is missing, damaged, holds code, or has other contents.
    """
    meta = safe_pickle.load(folder / layout.meta)
    classes = meta.get(layout.names) if isinstance(meta, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UsageError(f"{folder / layout.meta} has no list {layout.names!r}.")

    def read(*names: str) -> ImageArray:
        batches = [_read_batch(folder / name, layout, len(classes)) for name in names]
        pixels, labels = map(np.concatenate, zip(*batches, strict=True))
        files = tuple(folder / name for name in (layout.meta, *names))
        return ImageArray(tuple(classes), labels, torch.from_numpy(pixels), annotations=files)

    return read(*layout.train), read(layout.test)


def _read_batch(path: Path, layout: CifarLayout, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3, 32, 32) and labels (N,) of a file."""
    content: Any = safe_pickle.load(path)
    entries = content if isinstance(content, dict) else {}
    pixels, labels = entries.get("data"), entries.get(layout.labels)
    if not isinstance(pixels, np.ndarray) or labels is None:
        keys = sorted(map(str, content)) if entries else type(content).__name__
        raise UsageError(
            f"{path} is no CIFAR batch: it holds {keys}, not data and {layout.labels}."
        )
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        raise UsageError(
            f"{path}: data is {pixels.dtype} {pixels.shape}; it must be uint8 (images, 3072)."
        )
    numbers, count = np.asarray(labels, dtype=np.int64), len(pixels)
    if numbers.shape != (count,) or not ((numbers >= 0) & (numbers < num_classes)).all():
        raise UsageError(f"{path}: {layout.labels} must be {count} numbers below {num_classes}.")
    return pixels.reshape(-1, 3, 32, 32), numbers
