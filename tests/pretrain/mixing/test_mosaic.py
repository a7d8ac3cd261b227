"""Mosaic: the rule of AlexeyAB/darknet for classifiers (data.c), pixel by pixel."""

import numpy as np
import pytest
import torch

from pretrain.errors import UsageError
from pretrain.mixing import Mosaic
from pretrain.mixing.mixed import several_partners
from pretrain.mixing.mosaic import assemble


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_pixel_is_that_of_its_quarter_and_place():
    images, centre = torch.rand(5, 2, 7, 9), np.array([[3, 5], [7, 9]])
    partner = np.array([[2, 3, 4], [2, 3, 4]])
    mixed = assemble(images, centre, partner)
    for row in range(7):
        for column in range(9):
            who = 0 if row < 3 and column < 5 else 2 if row < 3 else 3 if column < 5 else 4
            assert torch.equal(mixed[0, :, row, column], images[who, :, row, column])
    assert torch.equal(mixed[1], images[1])  # the centre of what is not mixed


@pytest.mark.parametrize("granularity", ["batch", "pair", "half", "sample"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_labels_are_the_shares_of_the_four(count, granularity):
    images = torch.arange(float(count)).view(-1, 1, 1, 1).expand(count, 1, 20, 10)
    mixed = Mosaic(granularity=granularity)(images, torch.arange(count), count, seeded(count))
    rows = (count + 1) // 2 if granularity == "half" else count
    assert mixed.partner.shape == (rows, 3)
    for row in range(rows):
        seen = torch.bincount(mixed.images[row].flatten().long(), minlength=count) / 200
        torch.testing.assert_close(mixed.targets[row], seen)
        assert len({row, *mixed.partner[row].tolist()}) == min(4, count)
    if granularity == "batch":
        assert len(set(mixed.lam.tolist())) == 1
    elif count == 9:
        assert len(set(mixed.lam.tolist())) > 2
        if granularity == "pair":
            assert torch.equal(mixed.lam, mixed.lam.flip(0))


def test_partners_are_the_next_in_a_random_cycle():
    met = set()
    for seed in range(40):
        partner = several_partners(6, 6, 3, np.random.default_rng(seed))
        assert (partner[partner[:, 0], 0] == partner[:, 1]).all()
        assert (partner[partner[:, 1], 0] == partner[:, 2]).all()
        assert sorted(partner[:, 0]) == [*range(6)]
        met |= set(partner[0].tolist())
    assert met == {1, 2, 3, 4, 5}


def test_centres_and_the_mean_weight_of_the_own_label():
    images = torch.zeros(4000, 1, 40, 80)
    mixed = Mosaic(granularity="sample")(images, torch.zeros(4000, dtype=torch.long), 1, seeded(0))
    assert mixed.lam.mean() == pytest.approx(0.25, abs=0.01)
    assert mixed.lam.min() >= 0.2**2
    assert mixed.lam.max() <= 0.8**2
    middle = Mosaic(margin=0.5)(images[:4], torch.arange(4), 4, seeded(0))
    assert middle.lam.tolist() == [0.25] * 4
    assert (middle.targets == 0.25).all()


def test_a_part_is_not_mixed():
    images, labels = torch.rand(200, 1, 10, 10), torch.arange(200)
    mixed = Mosaic(granularity="sample", probability=0.3)(images, labels, 200, seeded(0))
    whole = mixed.lam == 1
    assert whole.float().mean() == pytest.approx(0.7, abs=0.1)
    assert torch.equal(mixed.images[whole], images[whole])
    assert torch.equal(mixed.targets[whole], torch.eye(200)[whole])


def test_a_centre_outside_is_refused():
    with pytest.raises(UsageError, match=r"mixing\.args\.margin"):
        Mosaic(margin=0.6)
