"""GridMask against dvlab-research/GridMask (commit b2439a7): draws and masks in gridmask.json."""

import json

import numpy as np
import pytest
import torch

from pretrain.errors import UsageError
from pretrain.mixing import GridMask
from pretrain.mixing.gridmask import grid_lines, on_lines
from tests.conftest import ROOT

FIXTURE = ROOT / "tests/fixtures/mixing/gridmask.json"
CASES = json.loads(FIXTURE.read_text(encoding="utf-8"))["cases"]


def test_equals_the_reference_under_the_same_draws():
    """Unrotated to the pixel; Pillow turns a mask with 16 bits behind the point."""
    differ = total = 0
    for case in CASES:
        height, width = case["shape"]
        period = np.array([case["period"]])
        line, start = np.ceil(period * case["ratio"]), np.array(case["start"])[:, None]
        lines = grid_lines(height, width, period, start, np.array([case["angle"]]), line)
        kept = on_lines(torch.from_numpy(lines), height)[0] == bool(case["mode"])
        packed = np.frombuffer(bytes.fromhex(case["mask"]), np.uint8)
        wanted = np.unpackbits(packed, count=height * width).reshape(height, width)
        wrong = int((kept.numpy() != wanted).sum())
        assert wrong == 0 or case["angle"] % 90
        differ, total = differ + wrong, total + height * width
    assert differ <= total / 1000


def share_kept(**options) -> float:
    images = torch.ones(200, 3, 64, 64)
    generator = torch.Generator().manual_seed(0)
    mixed = GridMask(period=(0.1, 0.2), **options)(images, torch.zeros(200).long(), 2, generator)
    assert (mixed.lam == 1).all()
    return float(mixed.images.mean())


def test_what_is_dropped():
    """Squares of (1 - ratio) of the period; in the other mode all but them."""
    squares = share_kept(ratio=0.5)
    assert squares == pytest.approx(1 - 0.5**2, abs=0.04)  # the line is rounded up
    assert share_kept(ratio=0.5, mode=0) == pytest.approx(1 - squares, abs=0.01)
    assert share_kept(ratio=1.0) == 1
    assert share_kept(ratio=0.0) == 0


def test_probability_is_that_of_an_image():
    images = torch.ones(200, 3, 16, 16)
    method = GridMask(probability=0.3)
    mixed = method(images, torch.zeros(200).long(), 2, torch.Generator().manual_seed(0))
    assert (mixed.images.amin((1, 2, 3)) == 0).float().mean() == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("wrong", [{"ratio": 1.5}, {"rotate": 0}, {"period": (0.5, 0.2)}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        GridMask(**wrong)
