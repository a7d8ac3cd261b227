"""What happens to pixels: against torchvision, and against the official code written out here."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from pretrain.data.crops import RandomResizedCrop, Square, centre_crop
from pretrain.data.pixels import Pixels, _flip, padded_crop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(count: int = 4, height: int = 24, width: int = 20, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize("given", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation_is_torchvision_s(layout, given):
    """In the layout that is asked for, whatever that of the bytes, which loaders give last."""
    images = noise().contiguous(memory_format=given)
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    found = Pixels(mean=MEAN, std=STD, memory_format=layout).normalised(images)
    torch.testing.assert_close(found, theirs(images), atol=2e-6, rtol=0)
    assert found.is_contiguous(memory_format=layout)


def official(image: Tensor, order: list[str], amounts: dict[str, float], alpha: Tensor) -> Tensor:
    """utils.py of clovaai/CutMix-PyTorch: lerps by ColorJitter in a given order, then Lighting."""

    def grey(pixels: Tensor) -> Tensor:
        return (0.299 * pixels[0] + 0.587 * pixels[1] + 0.114 * pixels[2]).expand(3, -1, -1)

    for step in order:
        target = {
            "brightness": torch.zeros_like(image),
            "contrast": torch.full_like(image, float(grey(image).mean())),
            "saturation": grey(image),
        }[step]
        image = image.lerp(target, amounts[step])
    eigenvalues = torch.tensor([0.2175, 0.0188, 0.0045])
    eigenvectors = torch.tensor(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    rgb = (eigenvectors * alpha.expand(3, 3) * eigenvalues.expand(3, 3)).sum(1)
    return image + rgb[:, None, None]


@pytest.mark.parametrize("seed", range(6))
def test_colours_are_the_official_code_s_in_any_order(seed):
    images = noise(5, seed=seed)
    pixels = Pixels(mean=MEAN, std=STD, color_jitter=0.4, lighting=0.1)
    found = pixels.augmented(images, np.random.default_rng(seed))
    again = np.random.default_rng(seed)
    changes, alphas = again.uniform(-0.4, 0.4, (3, 5)), again.normal(0, 0.1, (5, 3))
    shuffle = random.Random(seed)
    for place, image in enumerate(images):
        order = ["brightness", "contrast", "saturation"]
        shuffle.shuffle(order)
        amounts = dict(
            zip(("brightness", "contrast", "saturation"), changes[:, place], strict=True)
        )
        coloured = official(image / 255, order, amounts, torch.from_numpy(alphas[place]).float())
        wanted = F.normalize(coloured, MEAN, STD)
        torch.testing.assert_close(found[place], wanted, atol=3e-5, rtol=0)


def test_padded_crops_are_windows_of_the_padded_image():
    images, pad = noise(50), 3
    cropped = padded_crop(images, pad, np.random.default_rng(0))
    corners = np.random.default_rng(0).integers(0, 2 * pad + 1, (50, 2))
    assert {tuple(c) for c in corners} >= {(0, 3), (6, 1)} or len({tuple(c) for c in corners}) > 20
    for image, crop, (top, left) in zip(images, cropped, corners.tolist(), strict=True):
        assert torch.equal(crop, F.crop(F.pad(image, [pad] * 4), top, left, 24, 20))


def test_accelerators_crop_and_flip_as_the_cpu(monkeypatch):
    """The vectorised branches, run on a CPU tensor that says it is elsewhere."""
    images = noise(9)
    flipped = np.arange(9) % 2 == 0

    class Elsewhere(Tensor):
        @property
        def device(self):  # type: ignore[override]
            return torch.device("meta")

    wanted = padded_crop(images, 2, np.random.default_rng(1)), _flip(images, flipped)
    monkeypatch.setattr(Tensor, "to", lambda self, *_, **__: self)
    monkeypatch.setattr(torch, "arange", lambda n, device=None: torch.tensor(list(range(n))))
    there = images.as_subclass(Elsewhere)
    assert torch.equal(
        padded_crop(there, 2, np.random.default_rng(1)).as_subclass(Tensor), wanted[0]
    )
    assert torch.equal(_flip(there, flipped).as_subclass(Tensor), wanted[1])


def test_flips_are_of_chosen_images_only():
    images = noise(6)
    found = _flip(images, np.array([True, False] * 3))
    assert torch.equal(found[::2], images[::2].flip(3))
    assert torch.equal(found[1::2], images[1::2])


def test_the_same_draw_gives_the_same_batch_and_another_another():
    pixels = Pixels(mean=MEAN, std=STD, pad=2, flip=0.5, color_jitter=0.4, lighting=0.1)
    images = noise(8)
    kept = images.clone()
    one, two = (pixels.augmented(images, np.random.default_rng(3)) for _ in range(2))
    other = pixels.augmented(images, np.random.default_rng(4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(images, kept)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (40, 400), (400, 40), (33, 33)])
def test_resized_crops_lie_in_the_image_and_follow_torchvision_s_distribution(size):
    """Area, aspect and place of 4,000 boxes, ours and torchvision's: equal quantiles."""
    height, width = size
    ours, theirs = [], []
    torch.manual_seed(0)
    crop = RandomResizedCrop(32)
    image = torch.zeros(3, height, width)
    reference = v2.RandomResizedCrop(32)
    for _ in range(4000):
        top, left, tall, wide = crop.box(height, width)
        assert 0 <= top <= height - tall
        assert 0 <= left <= width - wide
        ours.append((tall * wide, wide / tall, top / max(1, height - tall), left))
        drawn = reference.make_params([image])
        box = drawn["top"], drawn["left"], drawn["height"], drawn["width"]
        theirs.append((box[2] * box[3], box[3] / box[2], box[0] / max(1, height - box[2]), box[1]))
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    for one, two in zip(np.array(ours).T, np.array(theirs).T, strict=True):
        difference = np.abs(np.quantile(one, quantiles) - np.quantile(two, quantiles))
        assert difference.max() <= max(1, 0.05 * np.ptp(two))


def test_a_crop_is_resized_as_torchvision_does():
    image = noise(1, 70, 50)[0]
    torch.manual_seed(5)
    found = RandomResizedCrop(32)(image)
    torch.manual_seed(5)
    top, left, tall, wide = RandomResizedCrop(32).box(70, 50)
    wanted = F.resized_crop(image, top, left, tall, wide, [32, 32], antialias=True)
    assert torch.equal(found, wanted)
    assert found.dtype == torch.uint8


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (48, 48), (100, 30)])
def test_squares_are_torchvision_s(size):
    image = noise(1, *size)[0]
    wanted = v2.Compose([v2.Resize(48, antialias=True), v2.CenterCrop(48)])(image)
    found = Square(48)(image)
    assert found.shape == (3, 48, 48)
    # half a pixel of the longer side may be cut on the other side
    assert (found.float() - wanted.float()).abs().mean() < 40
    if size[0] == size[1]:
        assert torch.equal(found, wanted)


def test_evaluation_crop_is_timm_s():
    from PIL import Image
    from timm.data import create_transform

    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    theirs = create_transform(
        (3, 64, 64), crop_pct=0.875, interpolation="bilinear", mean=MEAN, std=STD
    )
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    found = Pixels(mean=MEAN, std=STD).normalised(centre_crop(64, 0.875)(image)[None])[0]
    away = (found - theirs(Image.fromarray(pixels))).abs() * min(STD) * 255
    assert away.max() < 2.5


def test_of_large_images_those_are_flipped_that_are_to_be():
    """They are normalised one by one."""
    images, flipped = noise(3, 300, 310), np.array([False, True, False])
    found = Pixels(mean=MEAN, std=STD).normalised(images, flipped)
    wanted = Pixels(mean=MEAN, std=STD).normalised(_flip(images, flipped))
    assert torch.equal(found, wanted)
