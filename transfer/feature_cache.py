"""Features of a frozen encoder, each image encoded once and kept on disk.

    CACHE/files.json                   what each file held when it was last read (size, times, hash)
    CACHE/FINGERPRINT-HxW-VIEW/
        meta.json                      what the rows are
        rows.bin                       features, row behind row
        index.bin                      16 bytes a row: hash of the image file it was made from

A row is found by the content of the image file; the folder's name by the backbone's fingerprint
(weights and preprocessing), the input size and the view. So anything that changes, changes the row
that is asked for. Rows reach the disk before their index entries: a kill loses the rows of the last
moments, and rows.bin being shorter than index.bin says that the file has been cut.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.images import decode
from pretrain.progress import bar, log
from pretrain.run import write_text
from pretrain.training import Loader
from transfer.encoder import Encoder, View

_DIGEST = 16
_SAVE_EVERY = 20.0  # seconds between two savings on the way
_SETTLED = 2_000_000_000  # ns: a file younger than that may change within its time stamp


@dataclass(frozen=True, eq=False)
class Features:
    """Rows of a cache, and which of them are those of the images asked for."""

    rows: NDArray[Any]
    """(R, F) float32 or (R, P, F) float16, mapped from the file."""
    places: NDArray[np.int64]
    """Row of each image; -1 where the image cannot be read."""
    broken: dict[int, str]
    """Number of an image that cannot be read -> why."""

    def of(self, images: NDArray[np.int64]) -> Tensor:
        """The features of images by their number, float32, in memory of their own."""
        return torch.from_numpy(self.rows[self.places[images]].astype(np.float32, copy=False))

    def allow_corrupt(self, most: int, tell: bool) -> None:
        """Raise UsageError where more than `most` images cannot be read; or tell which are left out.

        Args:
            most: dataset.max_corrupt.
            tell: whether this process speaks.
        """
        if len(self.broken) > most:
            raise UsageError(
                f"{len(self.broken):,} of {len(self.places):,} images cannot be read. The first: "
                f"{next(iter(self.broken.values()))} The features of the others are kept; "
                f"--dataset.max_corrupt {len(self.broken)} goes on without these."
            )
        for message in self.broken.values() if tell else ():
            log(f"left out ({len(self.broken)} of at most {most}): {message}")


@dataclass(frozen=True)
class Pictures:
    """What a loader reads: (number, normalised image) of image files."""

    paths: Sequence[Path]
    transform: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, self.transform(decode(self.paths[index]))


@dataclass(frozen=True)
class ReadablePictures:
    """The same, where a file that cannot be read is (number, why)."""

    pictures: Pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        try:
            return self.pictures[index]
        except UsageError as error:
            return index, str(error)


Readable = tuple[list[int], Tensor | None, dict[int, str]]


def readable(samples: list[tuple[int, Tensor | str]]) -> Readable:
    """Numbers and images (N, 3, H, W) of what can be read, and why the rest cannot."""
    good = [(number, image) for number, image in samples if not isinstance(image, str)]
    broken = {number: why for number, why in samples if isinstance(why, str)}
    images = torch.stack([image for _, image in good]) if good else None
    return [number for number, _ in good], images, broken


class FeatureCache:
    """The features of one encoder at one input size."""

    def __init__(self, root: Path, backbone: Backbone, view: View) -> None:
        """Nothing is read or written yet.

        Args:
            root: the cache's folder, for encoders of all kinds.
            backbone: with the input size it is to have.
            view: see Encoder.
        """
        _, height, width = backbone.spec.input_size
        self.root, self.backbone, self.view = root, backbone, view
        self.folder = root / f"{backbone.fingerprint()}-{height}x{width}-{view}"
        self.dtype = np.dtype(np.float32 if view == "pooled" else np.float16)

    def features(
        self, paths: Sequence[Path], fabric: Fabric, *, workers: int, batch_size: int = 50
    ) -> Features:
        """The features of image files; those that are not in the cache yet are encoded.

        Args:
            paths: of the images.
            fabric: the device.
            workers: loader processes.
            batch_size: images at once.
        """
        digests = digests_of(paths, self.root / "files.json")
        encoder = Encoder(self.backbone, self.view)
        shape = encoder.shape(self.backbone)
        broken: dict[int, str] = {}
        with self._alone():
            known = self._known(shape)
            first: dict[bytes, int] = {}
            for number, digest in enumerate(digests):
                if digest is not None and digest not in known:
                    first.setdefault(digest, number)
            if first:
                images = list(first.values())
                self._encode(
                    encoder, [paths[i] for i in images], [digests[i] for i in images], shape,
                    fabric, workers, batch_size,
                )  # fmt: skip
                known = self._known(shape)
        for number, digest in enumerate(digests):
            if digest is None or digest not in known:
                try:
                    decode(paths[number])
                except UsageError as error:
                    broken[number] = str(error)
        places = np.array([known.get(d, -1) if d else -1 for d in digests], np.int64)
        rows = self._mapped(shape, len(known))
        return Features(rows, places, broken)

    def _mapped(self, shape: tuple[int, ...], count: int) -> NDArray[Any]:
        if not count:
            return np.zeros((0, *shape), self.dtype)
        return np.memmap(self._rows, self.dtype, "r", shape=(count, *shape))

    @property
    def _rows(self) -> Path:
        return self.folder / "rows.bin"

    @property
    def _index(self) -> Path:
        return self.folder / "index.bin"

    def _known(self, shape: tuple[int, ...]) -> dict[bytes, int]:
        """Hash of an image -> its row, of the rows that are whole."""
        meta = {"format": "features/1", "backbone": self.backbone.fingerprint(),
                "input_size": list(self.backbone.spec.input_size), "view": self.view,
                "shape": list(shape), "dtype": self.dtype.name}  # fmt: skip
        path = self.folder / "meta.json"
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            held = None
        if held != meta:
            if self._rows.exists():
                log(f"{self.folder} is damaged (meta.json); its images are encoded again")
            for old in (self._rows, self._index):
                old.unlink(missing_ok=True)
            write_text(path, json.dumps(meta))
            return {}
        size = int(np.prod(shape)) * self.dtype.itemsize
        index = self._index.read_bytes() if self._index.exists() else b""
        promised = len(index) // _DIGEST
        whole = min(promised, (self._rows.stat().st_size if self._rows.exists() else 0) // size)
        if whole < promised:
            log(
                f"{self._rows} is cut short: {promised - whole:,} of {promised:,} rows are gone "
                "and are encoded again"
            )
        # what lies behind the whole rows is of a run that was killed, or torn
        for file, length in ((self._index, whole * _DIGEST), (self._rows, whole * size)):
            if file.exists() and file.stat().st_size > length:
                os.truncate(file, length)
        return {index[_DIGEST * row : _DIGEST * (row + 1)]: row for row in range(whole)}

    @torch.inference_mode()
    def _encode(
        self,
        encoder: Encoder,
        paths: Sequence[Path],
        digests: Sequence[bytes | None],
        shape: tuple[int, ...],
        fabric: Fabric,
        workers: int,
        batch_size: int,
    ) -> None:
        """Append the rows of images; what is done by then is kept, however it ends."""
        network = encoder.to(fabric.device)
        loader = Loader(
            ReadablePictures(Pictures(paths, self.backbone.preprocess())),
            batch_size=batch_size,
            seed=0,
            workers=workers,
            shuffle=False,
            collate=readable,
        )
        waiting: list[tuple[bytes, bytes]] = []
        saved = time.monotonic()
        try:
            with bar(f"encoding images with {self.backbone.name}", len(paths), "images") as advance:
                for numbers, images, _ in loader.epoch(0):
                    if images is None:
                        continue
                    # always as many: an image's last bits depend on the size of its batch
                    missing = batch_size - len(images)
                    filled = torch.cat([images, images[:1].expand(missing, *images.shape[1:])])
                    told = network(filled.to(fabric.device))[: len(images)]
                    features = told.float().cpu().numpy()
                    assert features.shape[1:] == shape
                    names = [digests[number] or b"" for number in numbers]
                    rows = features.astype(self.dtype)
                    waiting += [
                        (name, row.tobytes()) for name, row in zip(names, rows, strict=True)
                    ]
                    advance(len(names))
                    if time.monotonic() - saved > _SAVE_EVERY:
                        self._append(waiting)
                        waiting, saved = [], time.monotonic()
        finally:
            self._append(waiting)

    def _append(self, entries: list[tuple[bytes, bytes]]) -> None:
        """Rows first, then what makes them valid."""
        for path, column in ((self._rows, 1), (self._index, 0)):
            with open(path, "ab") as handle:
                handle.write(b"".join(entry[column] for entry in entries))
                handle.flush()
                os.fsync(handle.fileno())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time reads the index and appends; the lock ends with the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "ab") as handle:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                log(f"waiting for another process that encodes into {self.folder} ...")
                fcntl.lockf(handle, fcntl.LOCK_EX)
            yield


def digests_of(paths: Sequence[Path], memory: Path) -> list[bytes | None]:
    """A hash of each file's content, None for a file that cannot be read.

    A file whose size and times of change are as they were is not read again, unless it had been
    changed so shortly before it was read that a second change might bear the same time.

    Args:
        paths: the files.
        memory: a JSON file that remembers; made anew where it is damaged.
    """
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
        known = known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        known = {}
    names = [str(path.absolute()) for path in paths]

    def read(place: int) -> tuple[bytes | None, list[Any] | None]:
        try:
            stat = os.stat(names[place])
            held = known.get(names[place])
            # the second time is the file system's own: a copy that keeps its age has another
            seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            if isinstance(held, list) and held[:-1] == seen:
                return bytes.fromhex(held[-1]), None
            content = paths[place].read_bytes()
        except OSError:
            return None, None
        digest = hashlib.blake2b(content, digest_size=_DIGEST).digest()
        settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED
        return digest, [*seen, digest.hex()] if settled else None

    found: list[bytes | None] = []
    new = {}
    with (
        bar("reading images", len(paths), "files") as advance,
        ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool,
    ):
        for place, (digest, entry) in enumerate(pool.map(read, range(len(paths)), chunksize=64)):
            found.append(digest)
            advance(1)
            if entry is not None:
                new[names[place]] = entry
    if new:
        write_text(memory, json.dumps(known | new))
    return found
