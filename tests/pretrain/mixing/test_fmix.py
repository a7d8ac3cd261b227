"""FMix against ecs-vlc/FMix (commit e5991dc), whose draws and masks are in fmix.json."""

import json

import numpy as np
import pytest
import torch

from pretrain.errors import UsageError
from pretrain.mixing import FMix
from pretrain.mixing.fmix import amplitudes, fourier_noise, rank_masks
from tests.conftest import ROOT

CASES = json.loads((ROOT / "tests/fixtures/mixing/fmix.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['shape']} {case['max_soft']}")
def test_equals_the_reference_under_the_same_draws(case):
    """Its spectrum: along the image all frequencies from 0 on, across it 0 and 1."""
    height, width = case["shape"]
    drawn = np.array(case["draws"])  # (real or imaginary, frequency along, frequency across)
    weights = amplitudes(height, width, case["decay_power"])
    assert weights.shape == (height, width // 2 + 1)
    spectrum = np.zeros((1, *weights.shape), complex)
    for along in range(drawn.shape[1]):
        column = min(along, width - along)
        real, imaginary = drawn[:, along] * weights[:2, column][:, None]
        spectrum[0, along, :2] = real + 1j * imaginary
    size, lam = height * width, case["lam"]
    soft = int(size * min(case["max_soft"], lam, 1 - lam))
    noise = fourier_noise(torch.from_numpy(spectrum), height, width)
    mask = 1 - rank_masks(noise, np.array([case["kept"]]), np.array([soft]))[0].float()
    if "weights" in case:
        wanted = torch.tensor(case["weights"]).view(height, width)
        torch.testing.assert_close(mask, wanted, atol=1e-5, rtol=0)
    else:
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(case["mask"]), np.uint8), count=size)
        assert mask.flatten().tolist() == bits.tolist()


def test_amplitude_falls_with_the_power_of_the_frequency():
    weights = amplitudes(40, 64, 3.0)
    assert weights.max() == weights[0, 0] == weights[0, 1]
    assert weights[0, 2] == pytest.approx(1 / 8)
    assert weights[0, 6] == pytest.approx(6**-3)
    assert weights[1, 0] == pytest.approx((64 / 40) ** -3)  # cycles a pixel, not an image
    assert weights[-1, 0] == weights[1, 0]
    assert weights[3, 4] == pytest.approx(np.hypot(3 * 64 / 40, 4) ** -3)


def test_what_is_left_out_moves_one_pixel_in_a_thousand():
    weights = amplitudes(224, 224, 3.0)
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((224, 113)) + 1j * rng.standard_normal((224, 113))
    rows, columns = np.fft.fftfreq(224)[:, None], np.fft.rfftfreq(224)
    whole *= np.maximum(np.hypot(rows, columns), 1 / 224) ** -3.0
    first = weights.shape[0] // 2 + 1
    kept = np.concatenate([whole[:first], whole[first - weights.shape[0] :]])[:, : weights.shape[1]]
    low = (abs(rows) * 224 < first - 0.5) & (columns * 224 < weights.shape[1] - 0.5)
    noise = torch.cat(
        [
            fourier_noise(torch.from_numpy(part[None]), 224, 224)
            for part in (kept, whole, whole * low)
        ]
    )
    torch.testing.assert_close(noise[0], noise[2])
    masks = rank_masks(noise, np.array([20_000] * 3), np.array([0] * 3))
    assert kept.size < whole.size / 20
    assert (masks[0] != masks[1]).float().mean() < 1e-3


@pytest.mark.parametrize("soft", [[0, 0, 0, 0, 0], [0, 3, 0, 0, 1]])
def test_selected_and_sorted_masks_are_equal(soft, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(5, 6, 7, generator=generator, dtype=torch.float64)
    kept = np.array([0, 5, 20, 42, 41])
    masks = rank_masks(noise, kept, np.array(soft))
    assert (42 - masks.sum((1, 2))).tolist() == pytest.approx(kept.tolist(), abs=1e-4)
    monkeypatch.setattr("pretrain.mixing.fmix.by_slices", lambda _: False)
    assert torch.equal(rank_masks(noise, kept, np.array(soft)), masks)
    assert masks.dtype == (torch.float32 if any(soft) else torch.bool)


def test_masks_are_alike_in_both_directions():
    """A reference's row never changes sides more than twice; ours does, as a column does."""
    labels = torch.arange(1000) % 2  # image i is paired with 999 - i, zeros with ones
    images = labels.float()[:, None, None, None].expand(-1, 1, 48, 48)
    method = FMix(granularity="half")
    masks = method(images, labels, 2, torch.Generator().manual_seed(0)).images[:, 0]
    edges = [float((masks.diff(dim=axis) != 0).sum()) for axis in (1, 2)]
    assert edges[0] / edges[1] == pytest.approx(1, abs=0.05)
    assert max((masks.diff(dim=axis) != 0).sum(axis).max() for axis in (1, 2)) > 2


@pytest.mark.parametrize("wrong", [{"decay_power": 0.0}, {"max_soft": 0.6}, {"alpha": 0.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        FMix(**wrong)
