"""Cut-Thumbnail against TianshuXie/Cut-Thumbnail (cut_thumbnail.json: its draws and results)."""

import json

import numpy as np
import pytest
import torch

from pretrain.errors import UsageError
from pretrain.mixing import CutThumbnail
from pretrain.mixing.boxes import inside_boxes
from pretrain.mixing.cut_thumbnail import visible_shares
from pretrain.mixing.resizemix import paste_resized
from tests.conftest import ROOT

CASES = json.loads((ROOT / "tests/fixtures/mixing/cut_thumbnail.json").read_text(encoding="utf-8"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["seed"])
def test_equals_the_reference_under_the_same_draws(case):
    images = torch.randint(256, (2, 1, 16, 16), generator=seeded(case["seed"])).float()
    top, left = case["corner"]
    boxes = np.array([[[top, left, top + 8, left + 8]] * 2])
    mixed = paste_resized(images, boxes, np.array(case["partner"])[:, None], "nearest")
    assert mixed.flatten().tolist() == case["images"]


def test_a_thumbnail_of_half_the_side_is_a_quarter_of_the_label():
    """The paper's fixed 0.25, at 112 of 224."""
    images, labels = torch.zeros(4, 1, 224, 224), torch.arange(4)
    mixed = CutThumbnail(partner="other")(images, labels, 4, seeded(0))
    assert mixed.lam.tolist() == [0.75] * 4
    assert mixed.targets[range(4), mixed.partner].tolist() == [0.25] * 4


def test_places_are_all_those_inside():
    """As the reference's randint(0, size - thumbnail), both ends included."""
    boxes = inside_boxes(np.full(5000, 0.5), 6, 4, np.random.default_rng(0))
    assert {tuple(box) for box in boxes.tolist()} == {
        (top, left, top + 3, left + 2) for top in range(4) for left in range(3)
    }
    counts = np.bincount(boxes[:, 0])
    np.testing.assert_allclose(counts, 1250, atol=120)


def test_self_keeps_label_and_partner():
    images, labels = torch.rand(5, 3, 16, 16), torch.arange(5)
    mixed = CutThumbnail(mode="self", granularity="sample")(images, labels, 5, seeded(0))
    assert torch.equal(mixed.targets, torch.eye(5))
    assert mixed.partner.tolist() == [*range(5)]
    for before, after in zip(images, mixed.images, strict=True):
        changed = (before != after).any(0).nonzero()
        (top, left), (bottom, right) = changed.min(0).values, changed.max(0).values + 1
        assert (bottom - top, right - left) == (8, 8)
        assert torch.equal(after[:, top:bottom, left:right], before[:, ::2, ::2])


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_double_has_two_partners_and_the_share_that_is_seen(count):
    images = torch.arange(float(count)).view(-1, 1, 1, 1).expand(count, 1, 12, 20)
    overlapped = 0
    for seed in range(6):
        method = CutThumbnail(mode="double", granularity="sample")
        mixed = method(images, torch.arange(count), count, seeded(seed))
        assert mixed.partner.shape == (count, 2)
        for row in range(count):
            owners = [row, *mixed.partner[row].tolist()]
            assert len(set(owners)) == min(3, count)
            seen = torch.bincount(mixed.images[row].flatten().long(), minlength=count) / 240
            torch.testing.assert_close(mixed.targets[row], seen)
        overlapped += int((mixed.lam > 0.5).sum())
    assert overlapped > 0


def test_mean_weight_of_the_own_label():
    draw = np.random.default_rng(0)
    boxes = np.stack([inside_boxes(np.full(100_000, 0.5), 224, 224, draw) for _ in range(2)])
    shares = visible_shares(boxes, 224, 224)
    np.testing.assert_allclose(shares.mean(0), [0.61, 0.14, 0.25], atol=0.002)
    np.testing.assert_allclose(shares.sum(1), 1)


def test_a_thumbnail_larger_than_the_image_is_refused():
    with pytest.raises(UsageError, match=r"mixing\.side"):
        CutThumbnail(side=1.5)


def test_small_thumbnails_can_lie_apart():
    apart = np.array([[[0, 0, 2, 2]], [[4, 4, 6, 6]]])
    assert (visible_shares(apart, 8, 8) * 64).tolist() == [[56, 4, 4]]
    assert (visible_shares(apart[:1], 8, 8) * 64).tolist() == [[60, 4]]
