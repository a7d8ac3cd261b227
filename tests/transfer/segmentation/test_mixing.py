"""Every pixel of image and mask is that of one source, at its own place."""

from collections import Counter

import numpy as np
import pytest
import torch

from pretrain.mixing import CutMix, Mosaic
from transfer.segmentation.config import VOID, MixingConfig
from transfer.segmentation.mixing import mix

CUTMIX, MOSAIC = MixingConfig(cutmix=1.0), MixingConfig(mosaic=1.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose channels are source, row and column; masks that hash the three."""
    places = torch.meshgrid(
        torch.arange(count), torch.arange(height), torch.arange(width), indexing="ij"
    )
    return torch.stack(places, dim=1).byte(), hashed(torch.stack(places, dim=1))


def hashed(images: torch.Tensor) -> torch.Tensor:
    """Masks of the images of `batch`: 7 classes, and VOID in places."""
    source, row, column = images.long().unbind(1)
    number = (source * 31 + row * 7 + column * 3) % 8
    return torch.where(number == 7, VOID, number).byte()


@pytest.mark.parametrize("config", [CUTMIX, MOSAIC], ids=["cutmix", "mosaic"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_pixels_and_masks_come_from_one_source_and_place(config, dtype):
    images, masks = batch(5, 18, 23)
    before = images.to(dtype), masks.clone()
    given = before[0].clone(), masks
    for seed in range(20):
        mixed, mixed_masks = mix(*given, config, seeded(seed))
        assert (mixed.dtype, mixed_masks.dtype) == (dtype, torch.uint8)
        assert torch.equal(mixed[:, 1:], before[0][:, 1:])  # rows and columns stay
        assert torch.equal(mixed_masks, hashed(mixed))
        assert (mixed_masks == VOID).any()
        for number, image in enumerate(mixed[:, 0].long()):
            sources = [*image.unique().tolist()]
            assert len(sources) <= (2 if config is CUTMIX else 4)
            if config is CUTMIX:  # what is not its own is a full rectangle
                rows, columns = (image != number).nonzero(as_tuple=True)
                if len(rows):
                    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
                    assert len(rows) == height * width
    assert torch.equal(given[0], before[0])
    assert torch.equal(given[1], before[1])


@pytest.mark.parametrize("config", [CUTMIX, MOSAIC], ids=["cutmix", "mosaic"])
def test_boxes_and_centres_are_those_of_pretraining(config):
    """The same draws paste images as for classification, one box for each."""
    images, masks = batch(6, 20, 31)
    options = {"granularity": "sample", "partner": "other"}
    method = CutMix(**options) if config is CUTMIX else Mosaic(**options)
    for seed in range(10):
        draws = seeded(seed)
        torch.rand((), generator=draws, dtype=torch.float64)  # which method
        wanted = method(images, torch.arange(6), 6, draws)
        mixed, mixed_masks = mix(images, masks, config, seeded(seed))
        assert torch.equal(mixed, wanted.images)
        own = (mixed[:, 0] == torch.arange(6)[:, None, None]).float().mean((1, 2))
        torch.testing.assert_close(own, wanted.lam)
        assert torch.equal(mixed_masks, hashed(mixed))


@pytest.mark.parametrize("config", [CUTMIX, MOSAIC], ids=["cutmix", "mosaic"])
def test_a_gpu_mixes_alike(config, monkeypatch):
    images, masks = batch(6, 20, 31)
    wanted = [mix(images, masks, config, seeded(seed)) for seed in range(10)]
    for module in ("cutmix", "mosaic"):
        monkeypatch.setattr(f"pretrain.mixing.{module}.by_slices", lambda _: False)
    for seed, pair in enumerate(wanted):
        for one, other in zip(mix(images, masks, config, seeded(seed)), pair, strict=True):
            assert torch.equal(one, other)


def test_the_chances_are_those_of_batches():
    images, masks = batch(4, 6, 6)
    config, met = MixingConfig(cutmix=0.3, mosaic=0.5), Counter()
    for seed in range(300):
        mixed, _ = mix(images, masks, config, seeded(seed))
        if mixed is images:
            met["none"] += 1
        else:
            met["mosaic" if any(len(one.unique()) > 2 for one in mixed[:, 0]) else "cutmix"] += 1
    shares = [met[name] / 300 for name in ("cutmix", "mosaic", "none")]
    np.testing.assert_allclose(shares, [0.3, 0.5, 0.2], atol=0.08)


def test_the_mean_share_of_the_partner_is_the_papers():
    """Each image has a box of its own, and another partner than itself."""
    count = 2500
    images = torch.arange(count, dtype=torch.int16).view(-1, 1, 1, 1).repeat(1, 1, 12, 12)
    mixed, masks = mix(images, images[:, 0], CUTMIX, seeded(0))
    assert torch.equal(mixed[:, 0], masks)
    is_pasted = masks != images[:, 0]
    share = is_pasted.double().mean((1, 2))
    assert share.mean() == pytest.approx(0.321, abs=0.015)
    assert share.std() > 0.15
    partners = torch.where(is_pasted, masks, -1).flatten(1).amax(1)
    partners = partners[partners >= 0]
    assert len(partners.unique()) == len(partners) > 0.9 * count  # a permutation
    small = mix(images, images[:, 0], MixingConfig(cutmix=1.0, alpha=0.2), seeded(0))[1]
    halves = (small != images[:, 0]).double().mean((1, 2))
    assert halves.std() > share.std() + 0.05  # all or nothing


@pytest.mark.parametrize("config", [MixingConfig(), CUTMIX, MOSAIC])
def test_one_image_is_itself(config):
    images, masks = batch(1, 8, 9)
    mixed, mixed_masks = mix(images, masks, config, seeded(0))
    assert torch.equal(mixed, images)
    assert torch.equal(mixed_masks, masks)
