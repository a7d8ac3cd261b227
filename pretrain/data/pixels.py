"""What happens to a training batch on the device: padded crop, flip, colour, normalisation, mixing.

N images, H height, W width. All random numbers are drawn on the host from a given generator.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pretrain.mixing.mixed import Mix, Mixed, Read, by_slices, to_device
from pretrain.mixing.schedule import Choice

# of the RGB pixels of ImageNet in [0, 1] (Krizhevsky et al., 2012), as in the official code
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """From uint8 (N, 3, H, W) to the network's floats, in training or in evaluation."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad: int = 0
    """Training: crop anew from the image with so many black pixels around it."""
    flip: float = 0.0
    """Training: chance of a horizontal flip."""
    color_jitter: float = 0.0
    """Training: largest change of brightness, contrast and saturation."""
    lighting: float = 0.0
    """Training: standard deviation of the PCA noise."""
    memory_format: torch.memory_format = torch.contiguous_format

    def augmented(self, images: Tensor, draw: np.random.Generator) -> Tensor:
        """A training batch: float32 (N, 3, H, W)."""
        images, flipped = self._drawn(images, draw)
        floats = self.normalised(images, flipped)
        return self._coloured(floats, draw) if self.color_jitter or self.lighting else floats

    def mixed(
        self,
        mix: Mix,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        draw: np.random.Generator,
        generator: torch.Generator,
    ) -> Mixed:
        """A training batch, mixed: what `mix` makes of `augmented`, to the bit, in less time.

        A method that only moves pixels gets bytes, and what it returns is normalised. One that
        reads image by image gets each when it needs it, so that it is still in a CPU's cache.
        """
        if isinstance(mix, Choice):
            mix = mix.choose(generator)
        if self.color_jitter or self.lighting:
            return mix(self.augmented(images, draw), labels, num_classes, generator)
        images, flipped = self._drawn(images, draw)
        if by_slices(images) and getattr(mix, "reads", False):
            read: Any = {"read": self._reader(images, flipped, as_bytes=mix.on_bytes)}
            mixed = mix(images, labels, num_classes, generator, **read)
            if not mix.on_bytes and self._by_rows:
                mixed = replace(mixed, images=_from_rows(mixed.images))
        else:
            moved = _flip(images, flipped) if mix.on_bytes else self.normalised(images, flipped)
            mixed = mix(moved, labels, num_classes, generator)
        return replace(mixed, images=self.normalised(mixed.images)) if mix.on_bytes else mixed

    def normalised(self, images: Tensor, flipped: np.ndarray | None = None) -> Tensor:
        """(x / 255 - mean) / std of the images, those turned that are `flipped` (N,).

        One multiplication and one addition; on an accelerator one kernel, with the flips two.
        """
        flipped = np.zeros(len(images), bool) if flipped is None else flipped
        scale, shift = self._factors(images)
        if not by_slices(images):
            images = _flip(images, flipped)
            source = images.float() if images.device.type == "mps" else images  # others cast inside
            layout = self.memory_format
            floats = torch.empty_like(images, dtype=torch.float32, memory_format=layout)
            return torch.addcmul(shift, source, scale, out=floats)
        arrange = _to_rows if self._by_rows else Tensor.contiguous
        sources = arrange(images)
        floats = torch.empty(sources.shape)
        # so many images at a time that their floats stay in the cache of a CPU's core
        count = max(1, 2**18 // images.shape[1:].numel())
        for first in range(0, len(images), count):
            part = slice(first, first + count)
            source = sources[part]
            if flipped[part].any():
                source = arrange(_flip(images[part], flipped[part]))
            floats[part].copy_(source).mul_(scale).add_(shift)
        return _from_rows(floats) if self._by_rows else floats

    @property
    def _by_rows(self) -> bool:
        """Whether the result is in channels_last memory, of which whole rows can be vectorised."""
        return self.memory_format == torch.channels_last

    def _factors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What bytes are multiplied by, and what is added: to a channel, to a row on a CPU."""
        width = images.shape[-1] if self._by_rows and by_slices(images) else None
        return _factors(tuple(self.mean), tuple(self.std), images.device, width)

    def _reader(self, images: Tensor, flipped: np.ndarray, as_bytes: bool) -> Read:
        """Makes images, flipped where they are to be.

        They are bytes (3, H, W), or normalised floats, and these rows (H, 3 W) where `_by_rows`.
        """
        every, flips = images.unbind(), flipped.tolist()
        if as_bytes:
            arrays = images.numpy()
            return partial(map, lambda i: every[i].flip(2).numpy() if flips[i] else arrays[i])
        rows, (scale, shift) = self._by_rows, self._factors(images)
        unflipped = (_to_rows(images) if rows else images).unbind()
        buffers = torch.empty((3, *unflipped[0].shape)).unbind()

        def normalised(order: Sequence[int]) -> Iterator[Tensor]:
            for index, buffer in zip(order, cycle(buffers), strict=False):
                source = unflipped[index]
                if flips[index]:
                    source = every[index].flip(2)
                    source = _to_rows(source) if rows else source
                yield buffer.copy_(source).mul_(scale).add_(shift)

        return normalised

    def _drawn(self, images: Tensor, draw: np.random.Generator) -> tuple[Tensor, np.ndarray]:
        """The batch, cropped, and which of its images are to be flipped."""
        if self.pad:
            images = padded_crop(images, self.pad, draw)
        drawn = draw.random(len(images)) if self.flip else np.ones(len(images))
        return images, drawn < self.flip

    def _coloured(self, images: Tensor, draw: np.random.Generator) -> Tensor:
        """Colour jitter and PCA lighting of the official code (clovaai, utils.py).

        There brightness (towards black), contrast (towards the mean grey) and saturation (towards
        each pixel's grey) are linear steps by a random amount each, in random order, nothing being
        clipped between them. Such steps commute, so there is no order here: with changes b, c, s

            y = (1 - b) [(1 - c) ((1 - s) x + s grey(x)) + c mean grey(x)] + lighting
        """

        def send(values: np.ndarray) -> Tensor:
            return to_device(torch.from_numpy(values.astype(np.float32)), images.device)

        mean, std, weights = (_column(v, images.device) for v in (self.mean, self.std, _GREY))
        changes = draw.uniform(-self.color_jitter, self.color_jitter, (3, len(images)))
        bright, contrast, saturation = send(changes)[:, :, None, None, None]
        pixels = images.mul(std).add_(mean)
        grey = (pixels * weights).sum(1, keepdim=True)
        level = grey.mean((2, 3), keepdim=True)
        kept, dimmed = (1 - bright) * (1 - contrast), (1 - bright) * contrast
        pixels = kept * ((1 - saturation) * pixels + saturation * grey) + dimmed * level
        if self.lighting:
            noise = draw.normal(0, self.lighting, (len(images), 3))
            pixels += send(noise * _EIGENVALUES @ _EIGENVECTORS.T)[:, :, None, None]
        return pixels.sub_(mean).div_(std).contiguous(memory_format=self.memory_format)


def _to_rows(images: Tensor) -> Tensor:
    """Images (..., 3, H, W) as rows of pixels (..., H, 3 W)."""
    return images.movedim(-3, -1).flatten(-2)


def _from_rows(rows: Tensor) -> Tensor:
    """Images (..., 3, H, W), in channels_last memory."""
    return rows.unflatten(-1, (-1, 3)).movedim(-1, -3)


@lru_cache(maxsize=16)  # sizes of images
@torch.inference_mode(False)
def _factors(
    mean: Sequence[float], std: Sequence[float], device: torch.device, width: int | None
) -> tuple[Tensor, Tensor]:
    """Factors and summands of bytes (3, 1, 1), or (3 * width,) of rows of pixels."""
    pairs = list(zip(mean, std, strict=True))
    scale = _column([1 / (255 * std) for _, std in pairs], device)
    shift = _column([-mean / std for mean, std in pairs], device)
    if width is not None:
        return scale.flatten().repeat(width), shift.flatten().repeat(width)
    return scale, shift


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return to_device(torch.tensor(values, dtype=torch.float32), device)[:, None, None]


def padded_crop(images: Tensor, pad: int, draw: np.random.Generator) -> Tensor:
    """A crop of the own size from each image with `pad` black pixels around it."""
    count, _, height, width = images.shape
    corners = draw.integers(0, 2 * pad + 1, (count, 2))
    padded = functional.pad(images, (pad, pad, pad, pad))
    if by_slices(images):
        cropped = torch.empty_like(images)
        for index, (top, left) in enumerate(corners.tolist()):
            cropped[index] = padded[index, :, top : top + height, left : left + width]
        return cropped
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, 3, tops, lefts, H, W), a view
    top, left = to_device(torch.from_numpy(corners.T.copy()), images.device)
    return windows[torch.arange(count, device=images.device), :, top, left]


def _flip(images: Tensor, flipped: np.ndarray) -> Tensor:
    if not flipped.any():
        return images
    if by_slices(images):
        if flipped.all():
            return images.flip(3)
        result = torch.empty_like(images)
        for target, image, flip in zip(result, images, flipped.tolist(), strict=True):
            target.copy_(image.flip(2) if flip else image)
        return result
    mask = to_device(torch.from_numpy(flipped), images.device)[:, None, None, None]
    return torch.where(mask, images.flip(3), images)
