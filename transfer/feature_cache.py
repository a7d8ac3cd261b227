"""The backbone as a frozen encoder; its features, each image encoded once and kept on disk.

    CACHE/files.json                   of each file as last read: size, times, hash of the content
    CACHE/shards.json                  of each shard: hashes of the images in it
    CACHE/FINGERPRINT-HxW-KIND/
        meta.json                      what the rows are
        rows.bin                       features, row behind row
        index.bin                      16 bytes a row: hash of the image file it was made from

A row is found by the content of the image file; the folder's name by the backbone's fingerprint
(weights and preprocessing), the input size and the kind. So anything that changes, changes the row
that is asked for. Rows reach the disk before their index entries: a kill loses the rows of the last
moments, and rows.bin being shorter than index.bin says that the file has been cut.

N images, F channels, P positions of the grid, R rows.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from pretrain.backbone import Backbone
from pretrain.cache import read_object
from pretrain.errors import UsageError
from pretrain.files import append, lock, write_text
from pretrain.images import ImageSource, decode
from pretrain.progress import bar, log
from pretrain.training import Loader
from transfer.image_hashes import hash_images, in_order_of_shards

FeatureKind = Literal["pooled", "grid"]
_DIGEST_SIZE = 16
_SAVE_EVERY = 20.0  # seconds between two writes while encoding


def with_image_size(backbone: Backbone, image_size: int | None) -> Backbone:
    """The same backbone for square inputs of another size; None leaves it as it is."""
    if image_size is None or backbone.spec.input_size == (3, image_size, image_size):
        return backbone
    return replace(backbone, spec=replace(backbone.spec, input_size=(3, image_size, image_size)))


def last_level(backbone: Backbone) -> int:
    """The number of the level that is attended to; UsageError where there is none."""
    levels = backbone.spec.levels()
    if not levels:
        raise UsageError(
            f"{backbone.spec.arch} has no feature maps to attend to. Use --model.kind nic."
        )
    return levels[-1].index


def is_numbered_apart(backbone: Backbone) -> bool:
    """Whether levels have other numbers than 0, 1, 2, ...: a vision transformer's are blocks.

    What was written before these numbers were read (2026-11-29) holds a block near the input.
    """
    return any(level.index != place for place, level in enumerate(backbone.spec.levels()))


class Encoder(nn.Module):
    """Normalised images (N, 3, H, W) to features (N, F), or (N, P, F) of the last level's grid.

    The pooled feature is what the backbone's own classifier saw.
    """

    def __init__(self, backbone: Backbone, kind: FeatureKind) -> None:
        super().__init__()
        if kind == "pooled":
            self.network = backbone.build(num_classes=0)
        else:
            self.network = backbone.feature_network([last_level(backbone)])
        self.kind = kind
        # the values of a pixel side by side: faster, other rounding
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        if self.kind == "pooled":
            return self.network(images)
        (level,) = self.network(images)
        return level.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> "Encoder":
        """Normalisation layers keep their statistics: a batch of captions repeats few images."""
        return super().train(False)

    @torch.inference_mode()
    def feature_shape(self, backbone: Backbone) -> tuple[int, ...]:
        """(F,) or (P, F): of one image of the backbone's input size."""
        return tuple(self(torch.zeros(1, *backbone.spec.input_size))[0].shape)


@dataclass(frozen=True, eq=False)
class Features:
    """Rows of a cache, and which of them are those of the images asked for."""

    rows: NDArray[Any]
    """(R, F) float32 or (R, P, F) float16, mapped from the file."""
    row_of: NDArray[np.int64]
    """Row of each image; -1 where the image cannot be read."""
    corrupt: dict[int, str]
    """Index of an image that cannot be read -> why."""

    def select(self, images: NDArray[np.int64]) -> Tensor:
        """The features of images by their index, float32, in memory of their own."""
        return torch.from_numpy(self.rows[self.row_of[images]].astype(np.float32, copy=False))

    def check_corrupt(
        self, max_corrupt: int, verbose: bool, option: str = "--dataset.max_corrupt"
    ) -> None:
        """Raise UsageError where more than `max_corrupt` images cannot be read.

        Args:
            max_corrupt: how many may be left out.
            verbose: log which are left out.
            option: how a user says how many.
        """
        count = len(self.corrupt)
        if count > max_corrupt:
            raise UsageError(
                f"{count:,} of {len(self.row_of):,} images cannot be read. The first: "
                f"{next(iter(self.corrupt.values()))} The features of the others are kept; "
                f"{option} {count} goes on without these."
            )
        for message in self.corrupt.values() if verbose else ():
            log(f"left out ({count} of at most {max_corrupt}): {message}")


@dataclass(frozen=True)
class ImageDataset:
    """(index, normalised image) of image files, or (label, normalised image) where there are."""

    paths: Sequence[ImageSource]
    transform: Callable[[Tensor], Any]
    labels: NDArray[np.int64] | None = None
    keep_corrupt: bool = False
    """A file that cannot be read is (index, why) and not a UsageError; see collate_readable."""
    apply_exif: bool = False
    """Photos as their EXIF orientation says, and not as they are stored."""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        number = index if self.labels is None else int(self.labels[index])
        try:
            return number, self.transform(decode(self.paths[index], self.apply_exif))
        except UsageError as error:
            if not self.keep_corrupt:
                raise
            return number, str(error)


def collate_readable(
    samples: list[tuple[int, Any]],
) -> tuple[list[int], Any, dict[int, str]]:
    """Indices, images (N, 3, H, W), or a dictionary of such, and why the rest cannot be read."""
    images = {index: image for index, image in samples if not isinstance(image, str)}
    corrupt = {index: why for index, why in samples if isinstance(why, str)}
    return list(images), default_collate([*images.values()]) if images else None, corrupt


class FeatureCache:
    """The features of one encoder at one input size."""

    def __init__(self, root: Path, backbone: Backbone, kind: FeatureKind) -> None:
        """Nothing is read or written yet.

        Args:
            root: the cache's folder, for encoders of all kinds.
            backbone: with the input size it is to have.
            kind: see Encoder.
        """
        self.root, self.backbone, self.kind = root, backbone, kind
        _, height, width = backbone.spec.input_size
        level = f"{last_level(backbone)}" if kind == "grid" and is_numbered_apart(backbone) else ""
        self.folder = root / f"{backbone.fingerprint()}-{height}x{width}-{kind}{level}"
        self.dtype = np.dtype(np.float32 if kind == "pooled" else np.float16)
        self._rows, self._index = self.folder / "rows.bin", self.folder / "index.bin"

    def features(
        self, paths: Sequence[ImageSource], fabric: Fabric, *, workers: int, batch_size: int = 50
    ) -> Features:
        """The features of images; those that are not in the cache yet are encoded.

        Args:
            paths: of the images, or where they lie in shards.
            fabric: the device.
            workers: loader processes.
            batch_size: images at once.
        """
        digests, unreadable = hash_images(paths, self.root)
        encoder = Encoder(self.backbone, self.kind)
        shape = encoder.feature_shape(self.backbone)
        busy = f"another process encodes into {self.folder}"
        with lock(self.folder / ".lock", busy, wait=True):
            self._rows.touch()
            self._index.touch()
            row_of = self._read_index(shape)
            missing = {
                digest: paths[number]
                for number in in_order_of_shards(paths)
                if (digest := digests[number]) is not None and digest not in row_of
            }
            if missing:
                self._encode(encoder, missing, fabric, workers, batch_size)
                row_of = self._read_index(shape)
        rows: NDArray[Any] = np.zeros((0, *shape), self.dtype)
        if row_of:
            rows = np.memmap(self._rows, self.dtype, "r", shape=(len(row_of), *shape))
        features = Features(rows, np.array([row_of.get(d, -1) for d in digests], np.int64), {})
        for image in np.flatnonzero(features.row_of < 0).tolist():
            if (message := unreadable.get(image)) is not None:
                features.corrupt[image] = message
                continue
            try:
                decode(paths[image])
            except UsageError as error:
                features.corrupt[image] = str(error)
        return features

    def _read_index(self, shape: tuple[int, ...]) -> dict[bytes | None, int]:
        """Hash of an image -> its row, of the rows that are complete; what lies behind is cut."""
        meta = {"format": "features/1", "backbone": self.backbone.fingerprint(),
                "input_size": list(self.backbone.spec.input_size), "view": self.kind,
                "shape": list(shape), "dtype": self.dtype.name}  # fmt: skip
        path = self.folder / "meta.json"
        if read_object(path) != meta:
            if self._rows.stat().st_size:
                log(f"{self.folder} is damaged (meta.json); its images are encoded again")
            for file in (self._rows, self._index):
                file.unlink()  # and not truncated: another process may have it mapped
                file.touch()
            write_text(path, json.dumps(meta))
        size = int(np.prod(shape)) * self.dtype.itemsize
        digests = np.fromfile(self._index, f"V{_DIGEST_SIZE}").tolist()
        complete = min(len(digests), self._rows.stat().st_size // size)
        if lost := len(digests) - complete:
            log(
                f"{self._rows} is cut short: {lost:,} of {len(digests):,} rows are gone "
                "and are encoded again"
            )
        # what lies behind the complete rows is of a run that was killed, or torn
        os.truncate(self._index, complete * _DIGEST_SIZE)
        os.truncate(self._rows, complete * size)
        return {digest: row for row, digest in enumerate(digests[:complete])}

    @torch.inference_mode()
    def _encode(
        self,
        encoder: Encoder,
        missing: Mapping[bytes, ImageSource],
        fabric: Fabric,
        workers: int,
        batch_size: int,
    ) -> None:
        """Append the rows of images; what is encoded by then is kept, however it ends."""
        digests, paths = list(missing), list(missing.values())
        network = encoder.to(fabric.device)
        loader = Loader(
            ImageDataset(paths, self.backbone.preprocess(), keep_corrupt=True),
            batch_size=batch_size,
            workers=workers,
            collate=collate_readable,
        )
        entries, saved = dict[bytes, bytes](), time.monotonic()

        def save() -> None:
            nonlocal entries, saved
            done, entries = entries, {}  # where that fails it is not tried again
            self._append(done)
            saved = time.monotonic()

        try:
            with bar(f"encoding images with {self.backbone.name}", len(paths), "images") as advance:
                for indices, images, _ in loader.epoch(0):
                    if images is None:
                        continue
                    # always as many: an image's last bits depend on the size of its batch
                    padding = images[:1].expand(batch_size - len(images), -1, -1, -1)
                    features = network(torch.cat([images, padding]).to(fabric.device))
                    rows = features[: len(images)].float().cpu().numpy().astype(self.dtype)
                    for index, row in zip(indices, rows, strict=True):
                        entries[digests[index]] = row.tobytes()
                    advance(len(indices))
                    if time.monotonic() - saved > _SAVE_EVERY:
                        save()
        finally:
            save()

    def _append(self, entries: dict[bytes, bytes]) -> None:
        """Rows (the values) first, then what makes them valid: the hashes of their images."""
        append(self._rows, b"".join(entries.values()))
        append(self._index, b"".join(entries))
