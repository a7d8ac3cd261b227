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
class _Layout:
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: str
    names: str


LAYOUTS = (
    _Layout(
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        "labels",
        "label_names",
    ),
    _Layout("cifar-100-python", ("train",), ("test",), "meta", "fine_labels", "fine_label_names"),
)


def find_cifar(root: Path) -> tuple[Path, _Layout] | None:
    """The folder of CIFAR's pickles at or below `root`, or None."""
    for layout in LAYOUTS:
        for folder in (root / layout.folder, root):
            if (folder / layout.meta).is_file() and (folder / layout.train[0]).is_file():
                return folder, layout
    return None


def open_cifar(folder: Path, layout: _Layout) -> tuple[ImageArray, ImageArray]:
    """The training and test images.

    Raises:
        UsageError: a file is missing, damaged, holds code, or has other contents.
    """
    meta = safe_pickle.load(folder / layout.meta)
    classes = meta.get(layout.names) if isinstance(meta, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UsageError(f"{folder / layout.meta} has no list {layout.names!r}.")
    train, test = (
        _split(folder, names, layout, tuple(classes)) for names in (layout.train, layout.test)
    )
    return train, test


def _split(
    folder: Path, names: tuple[str, ...], layout: _Layout, classes: tuple[str, ...]
) -> ImageArray:
    pixels, labels = zip(
        *(_batch(folder / name, layout, len(classes)) for name in names), strict=True
    )
    rows = np.concatenate(pixels)
    return ImageArray(
        classes,
        torch.from_numpy(rows.reshape(len(rows), 3, 32, 32)),
        np.concatenate(labels),
    )


def _batch(path: Path, layout: _Layout, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    content: Any = safe_pickle.load(path)
    held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
    pixels = content.get("data") if isinstance(content, dict) else None
    labels = content.get(layout.labels) if isinstance(content, dict) else None
    if not isinstance(pixels, np.ndarray) or labels is None:
        raise UsageError(
            f"{path} is no CIFAR batch: it holds {held}, not data and {layout.labels}."
        )
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        raise UsageError(
            f"{path}: data is {pixels.dtype} {pixels.shape}; it must be uint8 (images, 3072)."
        )
    numbers = np.asarray(labels, dtype=np.int64)
    if numbers.shape != (len(pixels),) or not ((numbers >= 0) & (numbers < num_classes)).all():
        raise UsageError(
            f"{path}: {layout.labels} must be {len(pixels)} numbers below {num_classes}."
        )
    return pixels, numbers
