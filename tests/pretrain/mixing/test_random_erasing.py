"""Random Erasing against timm's and torchvision's under the same draws."""

import random

import numpy as np
import pytest
import torch
from timm.data.random_erasing import RandomErasing as TimmRandomErasing
from torchvision.transforms import v2

from pretrain.errors import UsageError
from pretrain.mixing import RandomErasing
from pretrain.mixing.masks import fill_boxes
from pretrain.mixing.random_erasing import erasing_boxes

HEIGHT, WIDTH = 33, 20


def boxes_of(area: list[float], aspect: list[float], corner: tuple[int, int]) -> np.ndarray:
    """Ours from the attempts of one image and from where the other put the box."""
    attempts = [np.array(drawn)[:, None] for drawn in (area, aspect)]
    top, left, bottom, right = erasing_boxes(*attempts, np.zeros((2, 1)), HEIGHT, WIDTH)[0]
    fits = np.array([[HEIGHT - (bottom - top) + 1], [WIDTH - (right - left) + 1]])
    place = (np.array(corner)[:, None] + 0.5) / fits
    return erasing_boxes(*attempts, place, HEIGHT, WIDTH)


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
@pytest.mark.parametrize("seed", range(8))
def test_equals_timm_under_the_same_draws(seed, mode, monkeypatch):
    image = torch.randn(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    drawn: dict[str, list[float]] = {"uniform": [], "randint": []}
    for name, values in drawn.items():
        original = getattr(random, name)

        def recorded(*arguments, original=original, values=values):
            values.append(original(*arguments))
            return values[-1]

        monkeypatch.setattr(f"timm.data.random_erasing.random.{name}", recorded)
    random.seed(seed)
    torch.manual_seed(seed)
    # areas of which some do not fit, so that there is a second attempt
    theirs = TimmRandomErasing(probability=1, max_area=0.9, mode=mode, device="cpu")
    wanted = theirs(image.clone())
    area, log_aspect = drawn["uniform"][::2], drawn["uniform"][1::2]
    boxes = boxes_of(area, [np.exp(value) for value in log_aspect], tuple(drawn["randint"]))
    top, left, bottom, right = boxes[0]
    torch.manual_seed(seed)
    shape = {"const": (0,), "rand": (3, 1, 1), "pixel": (3, bottom - top, right - left)}[mode]
    fill = torch.zeros(1, 3, HEIGHT, WIDTH)
    if mode != "const":
        fill[0, :, top:bottom, left:right] = torch.empty(shape).normal_()
    assert torch.equal(fill_boxes(image[None], boxes, fill)[0], wanted)
    assert (wanted != image).any()


@pytest.mark.parametrize("seed", range(8))
def test_equals_torchvision_under_the_same_draws(seed, monkeypatch):
    image = torch.randn(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    area, aspect = [], []
    original = torch.Tensor.uniform_

    def recorded(tensor, low, high):
        value = original(tensor, low, high)
        (aspect if len(aspect) < len(area) else area).append(float(value))
        return value

    monkeypatch.setattr(torch.Tensor, "uniform_", recorded)
    theirs = v2.RandomErasing(p=1, scale=(0.02, 0.9), value="random")
    torch.manual_seed(seed)
    drawn = theirs.make_params([image])
    wanted = theirs.transform(image, drawn)
    top, left = drawn["i"], drawn["j"]
    boxes = boxes_of(area, np.exp(aspect).tolist(), (top, left))
    assert boxes[0].tolist() == [top, left, top + drawn["h"], left + drawn["w"]]
    fill = torch.zeros(1, 3, HEIGHT, WIDTH)
    fill[0, :, top : boxes[0, 2], left : boxes[0, 3]] = drawn["v"]
    assert torch.equal(fill_boxes(image[None], boxes, fill)[0], wanted)


def test_boxes_have_the_asked_area_and_aspect():
    rng = np.random.default_rng(0)
    area, aspect = rng.uniform(0.02, 0.3, (10, 3000)), np.exp(rng.uniform(-0.5, 0.5, (10, 3000)))
    boxes = erasing_boxes(area, aspect, rng.random((2, 3000)), 400, 600)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert boxes.min() == 0
    assert boxes[:, 2].max() == 400
    assert boxes[:, 3].max() == 600
    np.testing.assert_allclose(sides.prod(1) / 240_000, area[0], rtol=0.02)
    np.testing.assert_allclose(sides[:, 0] / sides[:, 1], aspect[0], rtol=0.03)


def test_no_box_where_no_attempt_fits():
    boxes = erasing_boxes(np.full((10, 3), 0.4), np.ones((10, 3)), np.zeros((2, 3)), 2, 40)
    assert (boxes == 0).all()


@pytest.mark.parametrize("fill", ["const", "rand", "pixel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_fill(fill, dtype):
    images = torch.full((40, 3, 32, 32), 77, dtype=dtype)
    labels = torch.zeros(40, dtype=torch.long)
    method = RandomErasing(fill=fill, area=(0.3, 0.4), aspect=(1.0, 1.0))
    mixed = method(images, labels, 2, torch.Generator().manual_seed(0))
    assert mixed.images.dtype == dtype
    assert (mixed.lam == 1).all()
    erased = [image[:, (image != 77).any(0)].double() for image in mixed.images]
    values = torch.cat(erased, 1)
    assert 0.25 < values.shape[1] / (40 * 32 * 32) < 0.45
    if fill == "const":
        assert (values == 0).all()
        return
    colours = [len(image[0].unique()) for image in erased]
    assert all((count == 1) == (fill == "rand") for count in colours)
    mean, deviation = (127.5, 74) if dtype == torch.uint8 else (0, 1)
    assert float(values.mean()) == pytest.approx(mean, abs=deviation / 5)
    assert float(values.std()) == pytest.approx(deviation, rel=0.15)


def test_probability_is_that_of_an_image():
    images = torch.ones(300, 3, 16, 16)
    method = RandomErasing(probability=0.3, fill="const")
    mixed = method(images, torch.zeros(300).long(), 2, torch.Generator().manual_seed(0))
    assert (mixed.images.amin((1, 2, 3)) == 0).float().mean() == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("wrong", [{"area": (0.5, 0.4)}, {"aspect": (0.0, 1.0)}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        RandomErasing(**wrong)
