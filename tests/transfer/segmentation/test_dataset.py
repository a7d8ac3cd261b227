"""Samples: image and mask through the same map, as torchvision and PyTorch compute it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2
from torchvision.tv_tensors import Mask

from transfer.segmentation.config import VOID, DatasetConfig
from transfer.segmentation.dataset import SegmentationDataset, collate_scored

BILINEAR, NEAREST = InterpolationMode.BILINEAR, InterpolationMode.NEAREST
STILL = {"scales": (1.0, 1.0), "flip": 0.0}


@dataclass
class Given:
    """A record that lies in memory."""

    image: Tensor
    mask: Tensor
    spacing: tuple[float, float] | None = None
    image_id: str = "a"
    case: str = ""

    def read_image(self) -> Tensor:
        return self.image

    def read_mask(self) -> Tensor:
        return self.mask


def photo(height: int = 61, width: int = 91, seed: int = 0) -> Given:
    """Blots, as photos have, and three classes.

    Of an odd number of pixels none has its centre between two others, which is rounded either way.
    """
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (7, 9, 3), np.uint8))
    image = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    return Given(torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(image[..., 0] // 86))


def columns(height: int = 40, width: int = 250, volume: bool = False) -> Given:
    """An image that is its own mask: each pixel says its column."""
    number = torch.arange(width, dtype=torch.uint8).expand(height, width)
    return Given(number.float()[None] if volume else number.expand(3, height, width), number)


def slice_of(height: int = 31, width: int = 41, spacing: tuple[float, float] = (1.5, 2.5)) -> Given:
    draw = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 4, (height, width), generator=draw, dtype=torch.uint8)
    return Given(torch.randn(1, height, width, generator=draw), mask, spacing)


def sample(record: Given, seed: int = 0, train: bool = True, **changes) -> tuple[Tensor, ...]:
    torch.manual_seed(seed)
    return SegmentationDataset([record], DatasetConfig(**changes), train)[0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("side", [32, 150])
def test_a_training_sample_is_what_torchvision_makes_of_the_draws(seed, side):
    """Resized whole, cropped, flipped; up to a level, as Pillow's box is a 32-bit float."""
    record = photo(seed=seed)
    image, mask = sample(record, seed, crop_size=side, flip=0.5, vertical_flip=0.5)
    torch.manual_seed(seed)
    scale, _, top, left, flip, vertical = torch.rand(6).tolist()
    size = [int(length * (0.5 + 1.5 * scale) + 0.5) for length in (61, 91)]
    pictures = [v2.to_pil_image(record.image), v2.to_pil_image(record.mask)]
    parts = [
        v2.resize(picture, size, mode)
        for picture, mode in zip(pictures, (BILINEAR, NEAREST), strict=True)
    ]
    starts = [
        int(draw * (length - side + 1)) if length > side else -((side - length) // 2)
        for draw, length in zip((top, left), size, strict=True)
    ]
    expected = []
    for part, fill in zip(parts, (0, VOID), strict=True):
        padded = v2.pad(v2.pil_to_tensor(part), [side] * 4, fill=fill)
        part = v2.crop(padded, starts[0] + side, starts[1] + side, side, side)
        part = v2.horizontal_flip(part) if flip < 0.5 else part
        expected.append(v2.vertical_flip(part) if vertical < 0.5 else part)
    assert image.dtype == mask.dtype == torch.uint8
    assert image.is_contiguous()  # with and without a border, so that batches are alike
    assert (image.int() - expected[0].int()).abs().max() <= 1
    assert torch.equal(mask, expected[1][0])


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.0, 1.5, 1.9])
def test_an_image_that_is_its_own_mask_stays_so(scale):
    """To half a pixel, less than which no mask can be off; torchvision's Resize is off by more."""
    record = columns(volume=True)
    image, mask = sample(record, crop_size=600, scales=(scale, scale), flip=0.5)
    off = (image[0] - mask)[mask != VOID].view(-1, int(250 * scale + 0.5))[:, 2:-2]
    assert len(off) == int(40 * scale + 0.5)
    assert off.abs().max() < 0.501
    theirs = v2.resize(Mask(record.mask[None]), [*off.shape[:1], off.shape[1] + 4])[0, :, 2:-2]
    resized = v2.resize(record.image, [*off.shape[:1], off.shape[1] + 4])[0, :, 2:-2]
    assert scale not in (0.77, 1.9) or (resized - theirs).abs().max() > 0.7


@pytest.mark.parametrize("degrees", [3.0, 30.0, 180.0])
def test_a_rotated_sample_is_what_torchvision_makes_of_the_angle(degrees):
    record = photo(61, 61)
    image, mask = sample(record, 3, crop_size=61, rotation=degrees, **STILL)
    torch.manual_seed(3)
    angle = degrees * (2 * torch.rand(6)[1].item() - 1)
    inside = v2.rotate(torch.ones(1, 61, 61), angle, BILINEAR)[0] == 1
    turned = v2.rotate(record.image, angle, BILINEAR)
    assert (image.int() - turned.int()).abs()[:, inside].max() <= 2
    labels = v2.rotate(record.mask[None], angle, NEAREST, fill=[VOID])[0]
    assert (labels != mask)[inside].float().mean() < 2e-3  # of ties
    assert ((mask == VOID) == (labels == VOID)).float().mean() > 0.998
    assert image[:, mask == VOID].max() == 0


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_a_rotated_image_that_is_its_own_mask_stays_so(scale):
    """Both the size and the angle take the nearest pixel: half a pixel of each, along a slope."""
    record = columns(200, volume=True)
    image, mask = sample(record, 1, crop_size=600, rotation=180, scales=(scale, scale))
    inside = (mask > 4) & (mask < 246) & (image[0] > 0)  # at the edge, one may be outside
    assert inside.sum() > 0.8 * 200 * 250 * scale**2
    off = (image[0] - mask)[inside]
    assert off.abs().max() < 0.5 + 0.71 / scale
    assert off.mean().abs() < 0.05


def test_a_crop_lies_anywhere_or_holds_the_image_in_its_middle():
    record = columns(40, 60)
    wide = [sample(record, seed, crop_size=56, **STILL)[1] for seed in range(80)]
    starts = [mask[28, 0].item() for mask in wide]
    assert {*starts} == {*range(5)}
    assert abs(np.mean(starts) - 2) < 0.5
    image, mask = sample(record, crop_size=71, **STILL)
    seen = torch.zeros(71, 71, dtype=torch.bool)
    seen[15:55, 5:65] = True
    assert torch.equal(mask != VOID, seen)
    assert torch.equal(mask[seen], record.mask.reshape(-1))
    assert image[:, ~seen].max() == 0


def test_flips_have_their_chance():
    record = columns(8, 8)
    still = sample(record, crop_size=8, **STILL)[1]
    flipped = sample(record, crop_size=8, scales=(1, 1), flip=1.0)[1]
    assert torch.equal(flipped, still.flip(1))
    record = Given(record.image.mT.contiguous(), record.mask.mT.contiguous())
    upside_down = sample(record, crop_size=8, vertical_flip=1.0, **STILL)
    assert torch.equal(upside_down[1], record.mask.flip(0))
    assert torch.equal(upside_down[0], record.image.flip(1))
    config = DatasetConfig(crop_size=8, scales=(1, 1), flip=0.3)
    dataset = SegmentationDataset([columns(8, 8)], config, train=True)
    share = np.mean([dataset[0][1][0, 0].item() == 7 for _ in range(300)])
    assert abs(share - 0.3) < 0.08


@pytest.mark.parametrize("spacing", [1.0, 1.37, 4.0])
def test_slices_are_resized_as_pytorch_does_with_antialiasing(spacing):
    record = slice_of()
    image, mask, index = sample(record, train=False, spacing=spacing)
    size = [int(31 * 1.5 / spacing + 0.5), int(41 * 2.5 / spacing + 0.5)]
    expected = functional.interpolate(
        record.image[None], size, mode="bilinear", antialias=True, align_corners=False
    )
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, expected[0], atol=1e-4, rtol=0)
    assert torch.equal(mask, record.mask)  # scored in its own size
    assert index.tolist() == [0]
    image, mask = sample(record, crop_size=16, spacing=spacing, **STILL)
    labels = functional.interpolate(record.mask[None, None], size, mode="nearest-exact")[0, 0]
    wide = functional.pad(torch.cat([expected[0], labels[None].float()]), (16,) * 4, value=99)
    places = wide.unfold(1, 16, 1).unfold(2, 16, 1)  # all crops
    seen = mask != VOID
    found = torch.cat([image, mask[None].float()])[:, None, None]
    off = torch.where(seen, (places - found).abs(), 0).amax((0, 3, 4))
    assert off.min() < 1e-5


def test_images_are_scored_at_their_short_side():
    record = photo(60, 90)
    image, mask, _ = sample(record, train=False, short_side=40)
    whole = v2.resize(v2.to_pil_image(record.image), [40])  # torchvision's rule, and Pillow
    assert torch.equal(image, v2.pil_to_tensor(whole))
    assert torch.equal(mask, record.mask)
    assert torch.equal(sample(record, train=False)[0], record.image)


def test_samples_depend_on_the_ambient_generator_alone():
    one, same, other = (sample(photo(), seed, crop_size=32, rotation=9) for seed in (5, 5, 6))
    assert all(map(torch.equal, one, same))
    assert not torch.equal(one[0], other[0])


def test_tiny_and_long_images_have_a_sample():
    for height, width in ((1, 1), (1, 150), (150, 1)):
        image, mask = sample(photo(height, width), crop_size=64, scales=(0.1, 0.1), rotation=45)
        assert image.shape == (3, 64, 64)
        assert mask.shape == (64, 64)


def test_scored_samples_stay_lists():
    dataset = SegmentationDataset([photo(20, 30), photo(40, 8)], DatasetConfig(), train=False)
    images, masks, indices = collate_scored([dataset[0], dataset[1]])
    assert [tuple(image.shape) for image in images] == [(3, 20, 30), (3, 40, 8)]
    assert [tuple(mask.shape) for mask in masks] == [(20, 30), (40, 8)]
    assert indices.tolist() == [0, 1]
