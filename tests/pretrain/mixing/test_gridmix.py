"""GridMix against openmixup (commit 37e1372), whose draws and masks are in gridmix.json."""

import json
import math

import numpy as np
import pytest
import torch

from pretrain.errors import UsageError
from pretrain.mixing import GridMix, patch_targets
from pretrain.mixing.gridmix import cell_masks, hole_line, hole_side
from pretrain.mixing.mixed import numpy_generator
from tests.conftest import ROOT

FIXTURE = ROOT / "tests/fixtures/mixing/gridmix.json"
CASES = json.loads(FIXTURE.read_text(encoding="utf-8"))["cases"]


def ramp(height: int, width: int) -> torch.Tensor:
    """Two images, of zeros and of ones."""
    return torch.arange(2.0)[:, None, None, None].expand(2, 3, height, width)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['holes']} {case['lam']}")
def test_holes_equal_the_reference_s_under_the_same_draws(case):
    size, cell = case["size"], math.ceil(case["width"] / case["holes"])
    hole = hole_side(cell, case["lam"])
    lines = [
        hole_line(size, case[start], case[start] + case[length], cell, hole)
        for start, length in (("top", "height"), ("left", "width"))
    ]
    mask = lines[0][:, None] & lines[1]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(case["mask"]), np.uint8), count=size**2)
    assert mask.ravel().tolist() == bits.tolist()
    assert 1 - mask.mean() == pytest.approx(case["share"], abs=1e-6)


def test_number_of_holes_across_the_crop():
    found = set()
    for seed in range(60):
        method = GridMix(holes=(2, 4), area=(1.0, 1.0), aspect=(1.0, 1.0), partner="other")
        mask = method(ramp(48, 48), torch.arange(2), 2, seeded(seed)).images[0, 0]
        line = mask[mask.any(1)][0]
        found.add(int(line[0]) + int((line.diff() == 1).sum()))
    assert found == {2, 3, 4}


def test_a_crop_that_does_not_fit_is_cut_down():
    for seed in range(40):
        method = GridMix(area=(1.0, 1.0), aspect=(2.0, 2.0), partner="other")
        mask = method(ramp(40, 40), torch.arange(2), 2, seeded(seed)).images[0, 0]
        rows = mask.any(1).nonzero()[:, 0]
        assert rows[0] == 0  # the crop is as high as the image
        assert rows[-1] >= 20


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 40)])
def test_tiny_images_have_a_grid_too(size):
    for rule in ("grid", "cells"):
        for seed in range(10):
            mixed = GridMix(rule=rule)(ramp(*size), torch.arange(2), 2, seeded(seed))
            assert mixed.images.shape == (2, 3, *size)


def test_cells_are_as_equal_as_pixels_allow():
    cells = np.arange(12).reshape(1, 3, 4)
    mask = cell_masks(cells, 7, 10)[0]
    rows, columns = mask[:, 0] // 4, mask[0] % 4
    assert rows.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert columns.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert (mask == rows[:, None] * 4 + columns).all()


def test_a_cell_is_the_image_s_own_with_probability_lam():
    labels = torch.arange(200) % 2
    method = GridMix(rule="cells", cells=8, granularity="sample")
    mixed = method(labels.float()[:, None, None, None].expand(-1, 1, 8, 8), labels, 2, seeded(0))
    drawn = method.draw_pairs(200, numpy_generator(seeded(0))).lam
    error = (mixed.lam.numpy() - drawn) / np.sqrt(drawn * (1 - drawn) / 64)  # 64 coins
    assert error.mean() == pytest.approx(0, abs=0.3)
    assert error.std() == pytest.approx(1, abs=0.2)


def test_patch_labels_average_to_the_image_s():
    cells = torch.rand(2, 4, 4, generator=seeded(0)) < 0.5
    partner, labels = torch.tensor([2, 0]), torch.tensor([0, 1, 2])
    patches = patch_targets(labels, 3, partner, cells)
    assert patches.shape == (2, 3, 4, 4)
    assert torch.equal(patches[0, 2], cells[0].float())
    assert torch.equal(patches[1, 1], (~cells[1]).float())
    assert torch.equal(patches.sum(1), torch.ones(2, 4, 4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"holes": (0, 3)},
        {"holes": (4, 3)},
        {"holes": (1, 2**70)},
        {"area": (0.5, 1.5)},
        {"cells": 0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        GridMix(**wrong)
