"""CutMix's variants: section 4.1.3 of the paper, and timm's cutmix_minmax."""

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup as TimmMixup
from timm.data.mixup import cutmix_bbox_and_lam, rand_bbox_minmax

from pretrain.errors import UsageError
from pretrain.mixing import CutMix, paper_boxes, paste
from pretrain.mixing.boxes import own_share
from pretrain.mixing.cutmix import label_weights

CLASSES = 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes_of(method: CutMix, count: int, height: int, width: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    return method.draw_boxes(draw.beta(1, 1, count), height, width, draw)


@pytest.mark.parametrize(
    ("options", "partner", "cut"),
    [
        ({}, [1, 0, 4, 3, 2], [21042, 21042, 21042, 0, 21042]),
        ({"box": "official"}, [1, 0, 4, 3, 2], [67326, 67326, 67326, 0, 67326]),
        ({"granularity": "sample", "probability": 0.5}, [1, 0, 4, 3, 2], [0, 197880, 0, 0, 201550]),
        (
            {"granularity": "pair", "partner": "other", "alpha": 0.4},
            [4, 3, 2, 1, 0],
            [215740, 1772, 0, 1772, 215740],
        ),
    ],
)
def test_draws_of_before_the_variants_are_the_same(options, partner, cut):
    """Runs that were begun then can be resumed: `cut` sums the places of the pixels pasted."""
    place = torch.arange(40 * 24).view(1, 1, 40, 24)
    images = (place + 10_000 * torch.arange(5).view(5, 1, 1, 1)).float()
    mixed = CutMix(**options)(images, torch.arange(5), CLASSES, seeded(3))
    assert mixed.partner.tolist() == partner
    assert ((mixed.images != images) * place).sum((1, 2, 3)).tolist() == cut


@pytest.mark.parametrize("seed", range(10))
def test_sides_equal_timm_s_minmax_under_the_same_draws(seed):
    images, labels = torch.randn(6, 3, 33, 20), torch.arange(6) % CLASSES
    theirs = TimmMixup(
        mixup_alpha=0, cutmix_minmax=(0.2, 0.8), label_smoothing=0, num_classes=CLASSES
    )
    np.random.seed(seed)
    wanted, targets = theirs(images.clone(), labels)
    np.random.seed(seed)
    lam, _ = theirs._params_per_batch()
    (top, bottom, left, right), _ = cutmix_bbox_and_lam(images.shape, lam, (0.2, 0.8))
    boxes = np.array([[top, left, bottom, right]] * 6)
    mixed = paste(images, labels, CLASSES, boxes, torch.arange(6).flip(0))
    assert torch.equal(mixed.images, wanted)
    torch.testing.assert_close(mixed.targets, targets.float(), atol=1e-6, rtol=0)


def test_sides_inside_are_drawn_as_timm_s_minmax():
    """Its sides are rounded down, and never the largest: about a pixel less than ours."""
    ours = boxes_of(CutMix(sides=(0.2, 0.8), inside=True), 100_000, 224, 96)
    np.random.seed(0)
    top, bottom, left, right = rand_bbox_minmax((3, 224, 96), (0.2, 0.8), 100_000)
    theirs = np.stack([top, left, bottom, right], 1)
    for boxes in (ours, theirs):
        size = (boxes[:, 2:] - boxes[:, :2]) / [224, 96]
        assert size.min() == pytest.approx(0.2, abs=0.012)
        assert size.max() == pytest.approx(0.8, abs=0.012)
        assert abs(np.corrcoef(size.T)[0, 1]) < 0.02
        assert (boxes >= 0).all()
        assert (boxes <= [224, 96, 224, 96]).all()
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=1)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.03)


@pytest.mark.parametrize(
    ("options", "mean"),
    [
        ({}, 0.679),
        ({"inside": True}, 0.5),
        ({"centre": "gaussian"}, 0.574),
        ({"aspect": (0.33, 3.0)}, 0.682),
        ({"aspect": (0.33, 3.0), "inside": True}, 0.5),
        ({"lam": 0.75}, 0.809),
        ({"lam": 0.75, "box": "official"}, 0.809),
        ({"lam": 0.75, "inside": True}, 0.75),
        ({"sides": (0.2, 0.8)}, 0.815),
        ({"sides": (0.2, 0.8), "inside": True}, 0.75),
        ({"label": "one_hot"}, 0.82),
        ({"label": "complete"}, 0.5),
    ],
    ids=str,
)
def test_mean_weight_of_the_own_label(options, mean):
    """At alpha 1 and 224 pixels, as the module's table has it."""
    method = CutMix(**options)
    share = own_share(boxes_of(method, 100_000, 224, 224), 224, 224)
    assert label_weights(share, method.label).mean() == pytest.approx(mean, abs=0.003)


def test_fixed_size_is_16_of_32_and_stays_inside():
    boxes = boxes_of(CutMix(lam=0.75, inside=True), 1000, 32, 32)
    assert set((boxes[:, 2:] - boxes[:, :2]).flatten().tolist()) == {16}
    assert boxes.min() == 0
    assert boxes.max() == 32
    assert boxes_of(CutMix(lam=0.0), 1, 32, 32).tolist() != [[0, 0, 32, 32]]
    assert boxes_of(CutMix(lam=0.0, inside=True), 1, 32, 32).tolist() == [[0, 0, 32, 32]]


def test_a_gaussian_centre_is_about_the_middle():
    boxes = boxes_of(CutMix(centre="gaussian", lam=0.99), 20_000, 60, 120)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 / [60, 120]
    np.testing.assert_allclose(middle.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(middle.std(0), 1 / 6, atol=0.01)


def test_aspect_is_log_uniform_and_keeps_the_area():
    boxes = boxes_of(CutMix(lam=0.91, inside=True, aspect=(0.25, 4.0)), 20_000, 1000, 500)
    height, width = ((boxes[:, 2:] - boxes[:, :2]) / [1000, 500]).T
    np.testing.assert_allclose(height * width, 0.09, atol=0.003)
    ratio = np.log(width / height) / np.log(4)
    np.testing.assert_allclose(
        np.quantile(ratio, [0, 0.25, 0.5, 0.75, 1]), [-1, -0.5, 0, 0.5, 1], atol=0.03
    )
    oblong = boxes_of(CutMix(lam=0.19, inside=True, aspect=(4.0, 4.0)), 100, 1000, 1000)
    assert set(map(tuple, (oblong[:, 2:] - oblong[:, :2]).tolist())) == {(810, 1000)}


@pytest.mark.parametrize("lam", [0.75, 0.25])
def test_label_rules(lam):
    images, labels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 32, 32), torch.arange(4)
    for label, weight in (("area", lam), ("one_hot", round(lam)), ("complete", 0.5)):
        method = CutMix(lam=lam, inside=True, label=label, partner="other")
        mixed = method(images, labels, CLASSES, seeded(0))
        assert mixed.lam.tolist() == pytest.approx([weight] * 4, abs=0.02)
        assert mixed.targets[range(4), mixed.partner].tolist() == pytest.approx(
            [1 - weight] * 4, abs=0.02
        )
        never = CutMix(lam=lam, label=label, probability=0.0)(images, labels, CLASSES, seeded(0))
        assert never.lam.tolist() == [1] * 4


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"lam": 1.5}, "mixing.args.lam"),
        ({"lam": float("nan")}, "mixing.args.lam"),
        ({"sides": (0.8, 0.2)}, "smaller first"),
        ({"sides": (0.0, 0.5)}, "above 0"),
        ({"sides": (0.5, 1.5)}, "at most 1"),
        ({"aspect": (0.0, 1.0)}, "above 0"),
        ({"aspect": (1.0, float("nan"))}, "smaller first"),
        ({"sides": (0.2, 0.8), "lam": 0.5}, "give one of them"),
        ({"sides": (0.2, 0.8), "aspect": (0.5, 2.0)}, "give one of them"),
        ({"box": "official", "inside": True}, "give mixing.box paper"),
        ({"box": "official", "centre": "gaussian", "aspect": (0.5, 2.0)}, "centre or aspect"),
    ],
    ids=str,
)
def test_what_contradicts_is_refused(options, remedy):
    with pytest.raises(UsageError, match=remedy):
        CutMix(**options)


def test_degenerate_lam_is_drawn_without_a_warning():
    with np.errstate(all="raise"):
        boxes = paper_boxes(
            np.array([0.0, 1.0]), 9, 9, np.random.default_rng(0), aspect=(0.5, 2.0), inside=True
        )
    assert own_share(boxes, 9, 9).tolist() == [0, 1]
