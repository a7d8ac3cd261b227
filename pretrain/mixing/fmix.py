"""FMix (Harris et al., 2020, arXiv 2002.12047, section 4): masks of thresholded Fourier noise.

Gaussian noise whose amplitude falls with 1 / frequency^decay_power; where it is highest, on a share
lam ~ Beta(alpha, alpha) of the pixels, the image stays, elsewhere the partner shows.
Label rule: the exact share of pixels (with soft edges the mean of the mask), which is the drawn lam
to the nearest pixel; the reference takes lam itself and rounds the pixels up or down at random.
The network makes no further pass.

Differs from ecs-vlc/FMix (fmix.py; openmixup has a copy): there the two parts of a complex number
are taken from the wrong axis, so that across the image there are but the frequencies 0 and 1, and
no row of a mask changes sides more than twice. Here the noise is alike in all directions, as in the
paper. From the same spectrum come the same masks, to the pixel. Frequencies weaker than 1/10000 of
the strongest are left out: at 224 pixels and decay_power 3 that moves one pixel in 3000, and takes
2 x 43 x 22 random numbers for a mask in place of 2 x 224 x 113.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import check_ranges
from pretrain.mixing.masks import mix_by_masks
from pretrain.mixing.mixed import Mixed, PairedMix, Read, by_slices, numpy_generator, to_device

WEAKEST = 1e-4
"""Amplitude of a frequency that is left out, over that of the strongest."""


@dataclass(frozen=True, kw_only=True)
class FMix(PairedMix):
    """FMix; one mask for the batch is the reference's."""

    decay_power: float = 3.0
    """The higher, the smoother and fewer the patches."""
    max_soft: float = 0.0
    """Half the share of pixels over which an edge is blended; 0 pastes."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        super().__post_init__()
        check_ranges("mixing.args", self, decay_power="[0.1, 100]", max_soft="[0, 0.5]")

    @property
    def on_bytes(self) -> bool:  # type: ignore[override]
        """Whether it only moves pixels."""
        return self.max_soft == 0

    reads = on_bytes  # type: ignore[assignment]

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        generator: torch.Generator,
        read: Read | None = None,
    ) -> Mixed:
        """See Mix."""
        rng = numpy_generator(generator)
        pairs = self.draw_pairs(len(images), rng)
        height, width = images.shape[-2:]
        amplitude = amplitudes(height, width, self.decay_power)
        drawn = rng.standard_normal((2, len(pairs.lam), *amplitude.shape))
        drawn[..., 0] *= np.sqrt(2)  # the other columns stand for their mirror images too
        spectrum = torch.from_numpy((drawn[0] + 1j * drawn[1]) * amplitude)
        if images.device.type == "mps":  # which knows no double precision
            spectrum = spectrum.to(torch.complex64)
        noise = fourier_noise(to_device(spectrum, images.device), height, width)
        size = height * width
        kept = np.rint(pairs.lam * size).astype(np.int64)
        edge = np.minimum(self.max_soft, np.minimum(pairs.lam, 1 - pairs.lam))
        masks = rank_masks(noise, kept, (size * edge).astype(np.int64))
        return mix_by_masks(images, labels, num_classes, pairs, masks, kept / size, read)


def amplitudes(height: int, width: int, decay_power: float) -> np.ndarray:
    """Amplitudes (R, S) of the frequencies of the noise, without those that are too weak.

    Rows are laid out as NumPy's fft has them, 0 first and the negative ones last, columns as its
    rfft.
    """
    lowest = 1 / max(height, width)
    highest = lowest * WEAKEST ** (-1 / decay_power)
    rows, columns = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    rows, columns = rows[abs(rows) <= highest], columns[columns <= highest]
    weights: np.ndarray = np.maximum(np.hypot(rows[:, None], columns), lowest) ** -decay_power
    return weights / weights.max()


def fourier_noise(spectrum: Tensor, height: int, width: int) -> Tensor:
    """Noise (G, H, W) of spectra (G, R, S), laid out as `amplitudes`.

    In double precision no two pixels are equal, and every device puts them into the same order.
    """
    count, rows, columns = spectrum.shape
    first = (rows + 1) // 2
    whole = spectrum.new_zeros(count, height, columns)
    whole[:, :first] = spectrum[:, :first]
    whole[:, height - (rows - first) :] = spectrum[:, first:]
    return torch.fft.irfft(torch.fft.ifft(whole, dim=1), n=width, dim=2)


def rank_masks(noise: Tensor, kept: np.ndarray, soft: np.ndarray) -> Tensor:
    """Masks for `mix_by_masks`: the partner shows but in the `kept` (G,) highest pixels of noise.

    `soft` (G,): so many pixels on either side of the edge are blended, linearly in their rank;
    where all are 0 the masks are bool, else float32.
    """
    size = noise[0].numel()
    if by_slices(noise) and not soft.any():  # selected, which is 8 times as fast as sorted
        padded = [np.append(row, np.inf) for row in noise.flatten(1).numpy()]
        low = [np.partition(row, size - n)[size - n] for row, n in zip(padded, kept, strict=True)]
        return noise < torch.tensor(np.array(low))[:, None, None]
    order = noise.flatten(1).argsort(dim=1, descending=True)
    rank = torch.arange(size, device=noise.device)
    kept_soft = torch.from_numpy(np.stack([kept, soft]))[:, :, None]
    middle, half = to_device(kept_soft, noise.device)
    weight = rank >= middle
    if soft.any():
        weight = (rank - middle + half + (half == 0)) / (2 * half - 1).clamp(min=1)
        weight = weight.clamp(0, 1)
    return torch.empty_like(weight).scatter_(1, order, weight).view(noise.shape)
