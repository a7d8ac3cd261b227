"""What a suite is given: the device, how images are loaded, and what is kept of finished parts.

N images, K outputs of the classifier. A part is what a killed run need not compute again: its plain
values lie in RUN/parts/SUITE/NAME.json, its tensors in RUN/parts/SUITE/NAME.pth, each with the key
of the run that it is of.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypedDict
from urllib.parse import unquote

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pretrain import torch_file
from pretrain.backbone import Backbone
from pretrain.backbone_evaluation import resizing
from pretrain.data import collate
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.progress import bar, log
from pretrain.reading import check, read_json
from pretrain.spec import BackboneSpec, evaluation_crop
from pretrain.training import Loader


class ReadableImages(Protocol):
    """Images that are read by number."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Tensor:
        """Image `index` as uint8 RGB (3, H, W)."""


class SuiteData(Protocol):
    """What `open_data` of a suite returns."""

    @property
    def files(self) -> DataFiles:
        """What is read, for the digest."""

    @property
    def summary(self) -> dict[str, Any]:
        """What the result says of the data: its name, sizes as integers, notes as a list."""


class _Part(TypedDict):
    run: str
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Session:
    """Of one run, and of one suite in it."""

    fabric: Fabric
    folder: Path
    """RUN."""
    key: str = ""
    """Over backbone, data and options: a part that was copied from another run is refused."""
    suite: str = ""
    by_pil: bool = True
    """Images are resized by PIL, as published figures are; otherwise as tensors."""
    batch_size: int = 64
    workers: int = 2
    max_corrupt: int = 0

    def of(self, suite: str) -> "Session":
        """For a suite."""
        return replace(self, suite=suite)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.fabric.device

    def part(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The plain values (JSON's) of a part: kept ones, or computed and kept."""
        path = self.folder / "parts" / self.suite / f"{name}.json"
        if os.path.lexists(path):
            return self._kept(path, read_json)
        values: dict[str, Any] = json.loads(json.dumps(compute()))
        write_text(path, json.dumps({"run": self.key, "values": values}) + "\n")
        return values

    def tensors(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of a part, on the CPU: kept ones, or computed and kept."""
        path = self.folder / "parts" / self.suite / f"{name}.pth"
        if os.path.lexists(path):
            return self._kept(path, torch_file.read)
        values = {key: value.cpu() for key, value in self._timed(name, compute).items()}
        torch_file.write(path, {"run": self.key, "values": values})
        return values

    def _kept(self, path: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
        try:
            part: _Part = check(read(path), _Part, str(path))
        except UsageError as error:
            raise UsageError(
                f"{path}, a finished part of this run, cannot be read. Remove it: the same command "
                "computes it again."
            ) from error
        if part["run"] != self.key:
            raise UsageError(
                f"{path} is a part of another run. Remove it: the same command computes it anew."
            )
        return part["values"]

    def _timed(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A part that is computed, with a line when it is done."""
        started = time.monotonic()
        values = compute()
        log(f"{self.suite}: {unquote(name)} ({time.monotonic() - started:.0f} s)")
        return values

    def picture(self, name: str) -> Path:
        """The path of a picture."""
        return self.folder / "pictures" / name

    def network(self, backbone: Backbone) -> nn.Module:
        """The backbone with its classifier, in evaluation, its weights wanting no gradient."""
        return self.place(backbone.build())

    def place(self, network: nn.Module) -> nn.Module:
        """A network on the device, in evaluation, its weights wanting no gradient."""
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.eval().requires_grad_(False)

    def batches(
        self,
        images: ReadableImages,
        spec: BackboneSpec,
        title: str,
        order: Sequence[int] | np.ndarray | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as the network sees them, but for normalisation, each once, with a progress bar.

        Args:
            images: to be read; those that cannot be are left out, up to `max_corrupt`.
            spec: the size, crop and interpolation.
            title: of the bar.
            order: of the images; as they are without it.
            transform: uint8 (3, H, W) -> uint8 of one size, in place of that of `spec`.

        Yields:
            uint8 images (B, 3, H, W) in channels_last memory on the device, and their numbers (B,)
            on the CPU.
        """
        if transform is None:
            _, height, width = spec.input_size
            crop = evaluation_crop(height, width, spec.crop_pct, spec.interpolation)
            transform = resizing(crop, self.by_pil)
        loader = Loader(
            _Numbered(images, transform, np.arange(len(images)) if order is None else order),
            batch_size=self.batch_size,
            workers=self.workers,
            collate=collate,
            max_corrupt=self.max_corrupt,
            max_corrupt_option="--max-corrupt",
            pin_memory=self.device.type == "cuda",
        )
        with bar(title, loader.batches.count, "images") as advance:
            for batch, numbers in loader.epoch(0):
                yield self.fabric.to_device(batch), numbers
                advance(len(numbers))


@dataclass(frozen=True, eq=False)
class _Numbered:
    """What the loader reads: (transformed image, its number)."""

    images: ReadableImages
    transform: Callable[[Tensor], Tensor]
    order: Sequence[int] | np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        index = int(self.order[place])
        return self.transform(self.images.read(index)), index


def to_unit(images: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) as float32 in [0, 1]."""
    return images.float().div_(255)


def normalise(pixels: Tensor, spec: BackboneSpec) -> Tensor:
    """Pixels in [0, 1] (..., 3, H, W) as the network wants them; gradients pass."""
    mean, std = (
        torch.tensor(values, dtype=pixels.dtype, device=pixels.device)[:, None, None]
        for values in (spec.mean, spec.std)
    )
    return (pixels - mean) / std
