"""Attentive CutMix against openmixup (commit 37e1372): attentive_cutmix.npz."""

import numpy as np
import pytest
import torch
from torch import nn

from pretrain.errors import UsageError
from pretrain.mixing import AttentiveCutMix
from pretrain.mixing.attentive_cutmix import paste_cells
from tests.conftest import ROOT

REFERENCE = dict(np.load(ROOT / "tests/fixtures/mixing/attentive_cutmix.npz"))


class Brightness(nn.Module):
    """Its features are the image, averaged to a grid."""

    def __init__(self, grid):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.scale = nn.Parameter(torch.ones(()))

    def forward_features(self, images):
        return self.scale * self.pool(images)


def mix(images, grid=(7, 7), seed=0, **options):
    count = len(images)
    method = AttentiveCutMix(guide=Brightness(grid), partner="other", **options)
    return method(images, torch.arange(count), count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", [0, 1])
def test_equals_openmixup_under_the_same_draws(case):
    """There the cells are kept and the partner is all around them."""
    keys = ("images", "features", "partner", "mixed")
    images, features, partner, wanted = (
        torch.from_numpy(REFERENCE[f"{key}{case}"]) for key in keys
    )
    around, count = images[partner], np.full(4, REFERENCE[f"cells{case}"])
    attention = features.mean(1)
    found = paste_cells(around, images, partner, 4, attention, count, torch.argsort(partner))
    assert torch.equal(found.images, wanted)
    kept = float(REFERENCE[f"lam{case}"])
    torch.testing.assert_close(1 - found.lam, torch.full((4,), kept))


def test_six_brightest_of_49_cells_at_their_own_place():
    images = torch.rand(3, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    mixed = mix(images)
    torch.testing.assert_close(mixed.lam, torch.full((3,), 1 - 6 / 49))
    for row, other in enumerate(mixed.partner.tolist()):
        cells = images[other].mean(0).view(7, 4, 7, 6).mean((1, 3))
        brightest = cells >= cells.flatten().sort().values[-6]
        pasted = brightest.repeat_interleave(4, 0).repeat_interleave(6, 1)
        assert torch.equal(mixed.images[row], torch.where(pasted, images[other], images[row]))


@pytest.mark.parametrize(("grid", "pasted"), [((4, 4), 2), ((3, 2), 1), ((14, 14), 24)])
def test_other_maps_lend_the_same_share_of_cells(grid, pasted):
    mixed = mix(torch.rand(4, 3, 3 * grid[0], 5 * grid[1]), grid)
    torch.testing.assert_close(mixed.lam, torch.full((4,), 1 - pasted / (grid[0] * grid[1])))


def test_the_number_of_cells_follows_lam():
    images = torch.rand(64, 1, 14, 14)
    mixed = mix(images, cells=None, granularity="sample", alpha=1.0)
    cells = (49 * (1 - mixed.lam)).round()
    assert cells.min() >= 1
    assert len(cells.unique()) > 20
    assert 0.3 < mixed.lam.mean() < 0.7


def test_refuses_what_chooses_nothing():
    with pytest.raises(UsageError, match=r"20 x 20 pixels .* one cell"):
        mix(torch.rand(2, 3, 20, 20), (1, 1))
    with pytest.raises(UsageError, match=r"mixing.args.cells is 50"):
        mix(torch.rand(2, 3, 20, 20), cells=50)


def test_no_pass_where_nothing_mixes():
    images = torch.rand(2, 3, 8, 8)
    method = AttentiveCutMix(guide=nn.Identity(), probability=0.0)  # has no features
    mixed = method(images, torch.arange(2), 2, torch.Generator())
    assert torch.equal(mixed.images, images)
