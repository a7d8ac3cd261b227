"""SaliencyMix against OpenCV 5.0.0 (the same bytes as 4.11.0) and afm-shahab-uddin/SaliencyMix
(commit 9ee02b8), whose results for these images are in saliencymix.npz."""

from unittest import mock

import numpy as np
import pytest
import torch

from pretrain.mixing import SaliencyMix
from pretrain.mixing.mixed import MixPairs
from pretrain.mixing.saliencymix import fine_grained_saliency, saliency_peaks
from tests.conftest import ROOT

REFERENCE = dict(np.load(ROOT / "tests/fixtures/mixing/saliencymix.npz"))


def picture(number: int) -> torch.Tensor:
    return torch.from_numpy(REFERENCE[f"image{number}"]).permute(2, 0, 1)[None]


@pytest.mark.parametrize("number", range(5))
def test_saliency_is_opencvs(number):
    saliency = fine_grained_saliency(picture(number))[0]
    assert torch.equal(saliency % 256, torch.from_numpy(REFERENCE[f"saliency{number}"]).int())
    assert (saliency > 255).sum() == (number == 4)  # where OpenCV's byte wraps


def test_saliency_of_a_batch_is_that_of_each():
    """So an image is looked at in its own range: white is all the same."""
    batch = torch.cat([picture(1), picture(2)])
    assert torch.equal(fine_grained_saliency(batch)[1:], fine_grained_saliency(picture(2)))
    assert not fine_grained_saliency(batch)[0].any()


def test_floats_are_stretched_to_bytes():
    full = picture(3)
    full[0, :, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)
    floats = (full / 255 - 0.45) / 0.225
    assert torch.equal(fine_grained_saliency(floats), fine_grained_saliency(full))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 1), (2, 2)])
def test_the_smallest_images(height, width):
    saliency = fine_grained_saliency(torch.randint(256, (2, 1, height, width)))
    assert saliency.shape == (2, height, width)


@pytest.mark.parametrize("draw", range(5))
def test_equals_the_reference_under_the_same_draws(draw):
    images = torch.cat([picture(1), picture(2), picture(1).flip(1), picture(2).flip(1)])
    partner, lam = np.array([1, 3, 0, 2]), REFERENCE["lams"][draw : draw + 1]
    pairs = MixPairs(partner, np.zeros(4, np.int64), np.ones(1, bool), lam)
    mix = SaliencyMix(box="official", peak="first")
    with mock.patch.object(SaliencyMix, "draw_pairs", return_value=pairs):
        mixed = mix(images, torch.arange(4), 4, torch.Generator())
    top, left, bottom, right = REFERENCE["boxes"][draw]  # of the first partner, picture 2
    wanted = images.clone()
    wanted[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    assert torch.equal(mixed.images, wanted)
    area = (bottom - top) * (right - left) / (17 * 31)
    torch.testing.assert_close(mixed.lam, torch.full((4,), 1 - area, dtype=torch.float32))


@pytest.mark.parametrize("box", ["paper", "official"])
def test_every_box_holds_the_peak_of_its_own_partner(box):
    images = torch.randint(256, (9, 3, 40, 28), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    peaks = saliency_peaks(images)
    mix = SaliencyMix(box=box, granularity="sample", partner="other")
    seen = 0
    for seed in range(5):
        mixed = mix(images, torch.arange(9), 9, torch.Generator().manual_seed(seed))
        for row, other in enumerate(mixed.partner.tolist()):
            top, left = peaks[other].tolist()
            if mixed.lam[row] < 1:
                assert torch.equal(mixed.images[row, :, top, left], images[other, :, top, left])
                seen += 1
    assert seen > 30


def test_nothing_is_computed_where_nothing_mixes():
    with mock.patch("pretrain.mixing.saliencymix.saliency_peaks", side_effect=AssertionError):
        mixed = SaliencyMix(probability=0.0)(
            picture(2), torch.zeros(1).long(), 1, torch.Generator()
        )
    assert torch.equal(mixed.images, picture(2))
