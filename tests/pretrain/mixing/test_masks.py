"""Pasting and blending by masks."""

from unittest import mock

import numpy as np
import pytest
import torch

from pretrain.mixing import masks as module
from pretrain.mixing.masks import fill_boxes, mix_by_masks
from pretrain.mixing.mixed import MixPairs

SIZE = (5, 7)


def pairs_of(partner, group, mixed) -> MixPairs:
    return MixPairs(np.array(partner), np.array(group), np.array(mixed), np.zeros(len(mixed)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("slices", [True, False])
@pytest.mark.parametrize("group", [[0, 0, 0, 0], [0, 1, 2, 1]])
def test_partner_shows_where_the_mask_says_so(dtype, slices, group):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (5, 3, *SIZE), generator=generator).to(dtype)
    masks = torch.rand(max(group) + 1, *SIZE, generator=generator) < 0.4
    mixed = np.arange(max(group) + 1) != 2  # the third draw does not mix
    pairs = pairs_of([3, 4, 0, 1], group, mixed)
    lam = 1 - masks.float().mean((1, 2)).numpy()
    with mock.patch.object(module, "by_slices", return_value=slices):
        result = mix_by_masks(images, torch.arange(5), 5, pairs, masks, lam)
    for row in range(4):
        mask = masks[group[row]] & bool(mixed[group[row]])
        for channel in range(3):
            own, other = images[row, channel], images[pairs.partner[row], channel]
            assert (result.images[row, channel][mask] == other[mask]).all()
            assert (result.images[row, channel][~mask] == own[~mask]).all()
        share = float(mask.float().mean())
        assert float(result.targets[row, row]) == pytest.approx(1 - share)
        assert float(result.targets[row, pairs.partner[row]]) == pytest.approx(share)


def test_bytes_are_blended_in_float_and_rounded_to_nearest():
    images = torch.tensor([101, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, *SIZE)
    weights = torch.full((1, *SIZE), 0.3)
    pairs = pairs_of([1, 0], [0, 0], [True])
    mixed = mix_by_masks(images, torch.arange(2), 2, pairs, weights, np.array([0.7])).images
    assert mixed[0].unique().tolist() == [147]  # 147.2
    assert mixed[1].unique().tolist() == [209]  # 208.8


@pytest.mark.parametrize("slices", [True, False])
def test_boxes_show_their_part_of_the_fill(slices):
    images = torch.zeros(2, 3, *SIZE)
    fill = torch.arange(1.0, 106).view(1, 3, *SIZE)
    boxes = np.array([[1, 2, 4, 7], [0, 0, 0, 0]])
    with mock.patch.object(module, "by_slices", return_value=slices):
        filled = fill_boxes(images, boxes, fill)
    assert torch.equal(filled[0, :, 1:4, 2:7], fill[0, :, 1:4, 2:7])
    assert (filled[0] != 0).sum() == 3 * 3 * 5
    assert (filled[1] == 0).all()
    assert (images == 0).all()
