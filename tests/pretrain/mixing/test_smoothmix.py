"""SmoothMix against openmixup (commit 37e1372), whose draws and masks are in smoothmix.json."""

import json

import numpy as np
import pytest
import torch

from pretrain.errors import UsageError
from pretrain.mixing import SmoothMix
from pretrain.mixing.smoothmix import bump, soft_box
from tests.conftest import ROOT

FIXTURE = ROOT / "tests/fixtures/mixing/smoothmix.json"
CASES = json.loads(FIXTURE.read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["shift"]))
def test_circle_equals_the_reference_under_the_same_draws(case):
    size, sigma = case["size"], np.array([case["sigma"]])
    across, along = (size / 2 + np.array([shift]) for shift in case["shift"])
    mask = bump(size, along, sigma)[0][:, None] * bump(size, across, sigma)[0]
    np.testing.assert_allclose(mask.ravel(), case["mask"], atol=6e-5)
    assert mask.mean() == pytest.approx(case["mean"], abs=1e-6)


def test_square_is_the_blurred_box():
    """Of a thin edge it is the box, and at any edge half of the way at the box's border."""
    box = soft_box(20, np.array([8.0, 0.0]), np.array([4.0, 4.0]), 1e-3)
    assert box[0].round().tolist() == [0] * 4 + [1] * 8 + [0] * 8
    assert box[1].round().tolist() == [1] * 4 + [0] * 16
    blurred = soft_box(20, np.array([8.5]), np.array([5.0]), 1.0)[0]
    assert blurred[3] == pytest.approx(0.5, abs=1e-6)  # the middle of pixel 3 is the border
    assert (np.diff(blurred[:8]) > 0).all()
    np.testing.assert_allclose(blurred[:17], blurred[16::-1])


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_partner_s_weight_is_the_mean_of_the_mask(shape):
    images = torch.arange(2.0)[:, None, None, None].expand(2, 3, 24, 40)
    for seed in range(20):
        method = SmoothMix(shape=shape, partner="other")
        mixed = method(images, torch.arange(2), 2, torch.Generator().manual_seed(seed))
        mask = mixed.images[0, 0]
        assert float(mixed.targets[0, 1]) == pytest.approx(float(mask.mean()), abs=1e-6)
        assert len(mask.unique()) > 24  # no plateau of the hard box alone


def test_sigma_is_a_share_of_the_shorter_side():
    images = torch.arange(2.0)[:, None, None, None].expand(2, 1, 64, 32)
    method = SmoothMix(sigma=(0.25, 0.25), partner="other")
    for seed in range(10):
        mixed = method(images, torch.arange(2), 2, torch.Generator().manual_seed(seed))
        logs = mixed.images[0, 0].double().log()
        for axis in (0, 1):
            curvature = logs.diff(n=2, dim=axis)
            torch.testing.assert_close(
                curvature, torch.full_like(curvature, -1 / 8**2), atol=1e-3, rtol=0
            )


@pytest.mark.parametrize("wrong", [{"sigma": (0.5, 0.25)}, {"edge": 0.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SmoothMix(**wrong)
