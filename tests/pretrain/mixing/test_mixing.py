"""Mixing against timm, torchvision v2 and the paper's own formula."""

from typing import Literal

import numpy as np
import pytest
import torch
from timm.data.mixup import FastCollateMixup, cutmix_bbox_and_lam
from timm.data.mixup import Mixup as TimmMixup
from torch.nn import functional
from torchvision.transforms import v2

from pretrain.config import MethodConfig, MixingConfig
from pretrain.errors import UsageError
from pretrain.mixing import (
    Choice,
    CutMix,
    Cutout,
    FeatureLevels,
    ManifoldMixup,
    Mixup,
    mix_at,
    official_boxes,
    paper_boxes,
    paste,
)
from pretrain.mixing.mixed import MixPairs, PairedMix, numpy_generator
from pretrain.mixing.schedule import _fits, _in_words, unused_options
from pretrain.spec import create_model

CLASSES = 5


def batch(count: int, height: int = 20, width: int = 28):
    """Images whose every pixel says which image it is from."""
    images = torch.arange(count).float()[:, None, None, None].expand(count, 3, height, width)
    return images.clone(), torch.arange(count) % CLASSES


def draw_pairs(count: int, granularity: str, partner: str, seed: int) -> MixPairs:
    method = PairedMix(granularity=granularity, partner=partner)
    return method.draw_pairs(count, np.random.default_rng(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(20))
def test_equals_torchvision_under_the_same_draws(seed):
    images, labels = torch.randn(6, 3, 33, 20), torch.arange(6) % CLASSES
    torch.manual_seed(seed)
    theirs = v2.CutMix(alpha=1.0, num_classes=CLASSES)
    wanted, targets = theirs(images, labels)
    torch.manual_seed(seed)
    drawn = theirs.make_params([images])
    left, top, right, bottom = drawn["box"]
    boxes = np.array([[top, left, bottom, right]] * 6)
    mixed = paste(images, labels, CLASSES, boxes, torch.arange(6).roll(1))
    assert torch.equal(mixed.images, wanted)
    torch.testing.assert_close(mixed.targets, targets, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(20))
def test_equals_timm_under_the_same_draws(seed):
    images, labels = torch.randn(6, 3, 33, 20), torch.arange(6) % CLASSES
    theirs = TimmMixup(mixup_alpha=0, cutmix_alpha=1.0, label_smoothing=0, num_classes=CLASSES)
    np.random.seed(seed)
    wanted, targets = theirs(images.clone(), labels)
    np.random.seed(seed)
    lam, _ = theirs._params_per_batch()
    (top, bottom, left, right), _ = cutmix_bbox_and_lam(images.shape, lam)
    boxes = np.array([[top, left, bottom, right]] * 6)
    mixed = paste(images, labels, CLASSES, boxes, torch.arange(6).flip(0))
    assert torch.equal(mixed.images, wanted)
    torch.testing.assert_close(mixed.targets, targets.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("granularity", ["batch", "pair", "half", "sample"])
def test_who_meets_whom_is_timm_s(granularity, count, monkeypatch):
    """timm's modes batch, pair, half and elem with its own boxes; ours paired by its rule, flip."""
    boxes = []

    def recorded(*arguments, **options):
        box, lam = cutmix_bbox_and_lam(*arguments, **options)
        top, bottom, left, right = box
        boxes.append((top, left, bottom, right))
        return box, lam

    monkeypatch.setattr("timm.data.mixup.cutmix_bbox_and_lam", recorded)
    np.random.seed(count)
    images = torch.randint(0, 256, (count, 3, 33, 20), dtype=torch.uint8)
    labels = torch.arange(count) % CLASSES
    mode = "elem" if granularity == "sample" else granularity
    theirs = FastCollateMixup(
        mixup_alpha=0, cutmix_alpha=1.0, mode=mode, label_smoothing=0, num_classes=CLASSES
    )
    pairs = [
        (image.numpy().copy(), int(label)) for image, label in zip(images, labels, strict=True)
    ]
    wanted, targets = theirs(pairs)
    who = draw_pairs(count, granularity, "any", 0)
    flip = torch.arange(count).flip(0)[: len(wanted)]
    if granularity in ("pair", "half"):  # otherwise ours is a permutation, theirs the flip
        assert who.partner.tolist() == flip.tolist()
    mixed = paste(images, labels, CLASSES, np.array(boxes)[who.group], flip)
    assert torch.equal(mixed.images, wanted)
    torch.testing.assert_close(mixed.targets, targets[: len(wanted)].float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_nobody_meets_himself_where_that_is_asked(count):
    met = set()
    for seed in range(60):
        for granularity in ("batch", "sample"):
            who = draw_pairs(count, granularity, "other", seed)
            assert sorted(who.partner.tolist()) == list(range(count))
            assert (who.partner != np.arange(count)).all()
            met.add(int(who.partner[0]))
    assert met == set(range(1, count))
    alone = draw_pairs(1, "batch", "other", 0)
    assert alone.partner.tolist() == [0]


def test_pairs_are_each_other_s_partners_and_half_has_no_image_twice():
    for count in (1, 2, 7, 8):
        pair = draw_pairs(count, "pair", "any", 0)
        assert (pair.partner[pair.partner] == np.arange(count)).all()
        assert (pair.group[pair.partner] == pair.group).all()
        half = draw_pairs(count, "half", "any", 0)
        assert len(half.partner) == (count + 1) // 2
        seen = [*range(len(half.partner)), *half.partner[: count // 2]]
        assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("seed", range(8))
def test_official_box_is_the_official_code_s(seed):
    """clovaai's rand_bbox, written out here with the NumPy of today."""
    draw, again = np.random.default_rng(seed), np.random.default_rng(seed)
    lam, height, width = 0.37, 33, 20
    half_h = int(height * np.sqrt(1 - lam)) // 2
    half_w = int(width * np.sqrt(1 - lam)) // 2
    y, x = again.integers(0, np.array([[height], [width]]), (2, 1))[:, 0]
    wanted = [
        max(y - half_h, 0),
        max(x - half_w, 0),
        min(y + half_h, height),
        min(x + half_w, width),
    ]
    assert official_boxes(np.array([lam]), height, width, draw)[0].tolist() == wanted


@pytest.mark.parametrize(
    ("rule", "size", "mean"),
    [
        (paper_boxes, 32, 0.679),
        (paper_boxes, 224, 0.679),
        (official_boxes, 32, 0.701),
        (official_boxes, 64, 0.690),
        (official_boxes, 224, 0.682),
    ],
)
def test_mean_lam_at_alpha_one(rule, size, mean):
    """The paper's box keeps the exact expectation 1 - E[(u - u^2/4)^2]; the other loses pixels."""
    draw = np.random.default_rng(0)
    boxes = rule(draw.beta(1, 1, 1_000_000), size, size, draw)
    lam = 1 - (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / size**2
    assert lam.mean() == pytest.approx(mean, abs=0.001)


def test_boxes_do_not_swap_height_and_width():
    draw = np.random.default_rng(0)
    for rule in (paper_boxes, official_boxes):
        boxes = rule(draw.beta(1, 1, 1000), 10, 40, draw)
        assert boxes[:, 2].max() == 10
        assert boxes[:, 3].max() == 40


def test_soft_loss_is_the_two_term_loss():
    """The official code's lam * CE(a) + (1 - lam) * CE(b)."""
    images, labels = batch(6)
    mixed = CutMix()(images, labels, CLASSES, seeded(1))
    logits = torch.randn(6, CLASSES)
    lam = float(mixed.lam[0])
    wanted = lam * functional.cross_entropy(logits, labels) + (1 - lam) * functional.cross_entropy(
        logits, labels[mixed.partner]
    )
    torch.testing.assert_close(functional.cross_entropy(logits, mixed.targets), wanted)


def test_soft_labels_are_mixed_as_they_are():
    images, _ = batch(4)
    labels = torch.rand(4, CLASSES).softmax(1)
    mixed = Mixup()(images, labels, CLASSES, seeded(2))
    lam = float(mixed.lam[0])
    torch.testing.assert_close(mixed.targets, lam * labels + (1 - lam) * labels[mixed.partner])


def test_one_of_several_methods_for_each_batch():
    images, labels = batch(4)
    chosen = Choice(mixes=(CutMix(), Mixup(), Cutout()), weights=(2.0, 1.0, 1.0))
    kinds = {"cutmix": 0, "mixup": 0, "cutout": 0}
    for seed in range(600):
        mixed = chosen(images, labels, CLASSES, seeded(seed))
        whole = mixed.images == mixed.images.round()
        kind = "cutout" if (mixed.lam == 1).all() else "cutmix" if whole.all() else "mixup"
        kinds[kind] += 1
    # a CutMix box or a Mixup partner may leave a batch as it was, so these are a little few
    assert kinds["cutmix"] / 600 == pytest.approx(0.5, abs=0.06)
    assert kinds["mixup"] / 600 == pytest.approx(0.25, abs=0.06)
    with pytest.raises(UsageError, match="weights"):
        Choice(mixes=(CutMix(),), weights=(0.0,))


def share_mixed(options: MixingConfig, epoch: float) -> float:
    images, labels = batch(64)
    mixed = mix_at(options, epoch)(images, labels, CLASSES, seeded(int(epoch * 10)))
    return float((mixed.lam < 1).float().mean())


def test_a_schedule_is_a_function_of_the_epoch():
    ramp = MixingConfig(granularity="sample", ramp=10, off_after=18)
    assert share_mixed(ramp, 0) == 0
    assert share_mixed(ramp, 5) == pytest.approx(0.5, abs=0.15)
    assert share_mixed(ramp, 10) > 0.9
    assert share_mixed(ramp, 17.9) > 0.9
    assert share_mixed(ramp, 18) == 0
    both = MixingConfig(others=[MethodConfig(method="mixup", weight=3.0)])
    assert mix_at(both, 0.0).weights == (1.0, 3.0)
    for wrong in ({"ramp": -1.0}, {"off_after": -1.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            MixingConfig(**wrong)


def test_cutout_zeroes_a_square_of_each_image():
    images = torch.ones(200, 3, 32, 32)
    mixed = Cutout(side=0.5)(images, torch.zeros(200, dtype=torch.long), CLASSES, seeded(0))
    holes = (mixed.images[:, 0] == 0).sum((1, 2))
    assert holes.max() == 16 * 16
    assert holes.min() >= 8 * 8  # a centre in the corner leaves a quarter
    assert (mixed.lam == 1).all()


def test_probability_is_a_chance_per_batch():
    images, labels = batch(4)
    method = CutMix(probability=0.3)
    lams = [method(images, labels, CLASSES, seeded(seed)).lam[0] for seed in range(500)]
    assert 0.6 < np.mean([float(lam) == 1 for lam in lams]) < 0.8


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": -1.0}, {"probability": 1.5}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CutMix(**wrong)
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Mixup(**wrong)


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (3, float, True),
        (True, float, False),
        ("3", float, False),
        (2.5, int, False),
        (None, float | None, True),
        ((0.1, 0.8), tuple[float, float], True),
        ((0.1,), tuple[float, float], False),
        (0.1, tuple[float, float], False),
        (("layer1", 2), tuple[str | int, ...], True),
        ((), tuple[str | int, ...], True),
        ("area", Literal["area", "one_hot"], True),
        ("both", Literal["area", "one_hot"], False),
    ],
)
def test_arguments_have_the_types_of_the_fields(value, hint, fits):
    assert _fits(value, hint) == fits


def test_an_argument_that_a_method_lacks_is_refused():
    with pytest.raises(UsageError, match=r"mixing.args has sides; .* cutout are none"):
        mix_at(MixingConfig(method="cutout", args={"sides": 3}), 0)
    mix_at(MixingConfig(method="none", args={"sides": 3}), 0)  # a recipe of which nothing is mixed


@pytest.mark.parametrize(
    ("method", "args", "words"),
    [
        (
            "fmix",
            {"alpha": 3},
            r"decay_power, max_soft; alpha is an option of its own: mixing.alpha",
        ),
        ("manifold_mixup", {"guide": "x"}, r"arguments of manifold_mixup are at"),
        ("cutmix", {"sides": [0.2]}, r"cutmix takes a list \[a number, a number\] or null"),
        ("cutmix", {"label": "onehot"}, r"cutmix takes area or one_hot or complete"),
        ("cutmix", {"inside": "yes"}, r"cutmix takes true or false"),
        ("gridmix", {"holes": [2.5, 6]}, r"takes a list \[a whole number, a whole number\]"),
    ],
)
def test_wrong_arguments_name_a_remedy(method, args, words):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))
    parts = {"levels": FeatureLevels(network, ["0"])} if method == "manifold_mixup" else {}
    with pytest.raises(UsageError, match=words):
        mix_at(MixingConfig(method=method, args=args), 0, parts=parts)


def test_types_in_words():
    assert _in_words(tuple[str | int, ...]) == "a list [a name or a whole number, ...]"
    assert _in_words(int | None) == "a whole number or null"


def test_what_is_of_no_use_is_noted():
    """One recipe serves several methods, so it is no error."""
    assert unused_options(MixingConfig(alpha=0.2, box="official", partner="other")) == []
    given = {"side": 0.3, "alpha": 0.2, "granularity": "pair"}
    both = MixingConfig(guide="x", **given, others=[MethodConfig(method="cutout", **given)])
    cutmix, cutout, guide = unused_options(both)
    assert cutmix == "cutmix has no use for mixing.side"
    assert cutout == "cutout has no use for mixing.alpha, mixing.granularity"
    assert "mixing.guide is of no use" in guide
    attentive = MethodConfig(method="attentive_cutmix")
    assert unused_options(MixingConfig(guide="x", others=[attentive])) == []
    assert unused_options(MixingConfig(method="none", **given)) == []


def test_decoupled_loss_is_refused_where_an_image_has_two_partners():
    with pytest.raises(UsageError, match=r"decoupled is 0.1 with the method cut_thumbnail"):
        MixingConfig(method="cut_thumbnail", args={"mode": "double"}, decoupled=0.1)
    MixingConfig(method="cut_thumbnail", decoupled=0.1)


def test_parts_fill_the_fields_of_their_names_and_arguments_come_first():
    parts = {"network": torch.nn.Identity(), "std": (0.1, 0.2, 0.3)}
    recipe = MixingConfig(method="puzzlemix")
    assert mix_at(recipe, 0, parts=parts).std == (0.1, 0.2, 0.3)
    given = MixingConfig(method="puzzlemix", args={"std": [0.5, 0.5, 0.5]})
    assert mix_at(given, 0, parts=parts).std == (0.5, 0.5, 0.5)
    mix_at(MixingConfig(method="fmix"), 0, parts=parts)


@pytest.mark.parametrize(
    "method",
    [
        "cutmix",
        "mixup",
        "fmix",
        "smoothmix",
        "saliencymix",
        "mosaic",
        "resizemix",
        "cut_thumbnail",
        "random_erasing",
    ],
)
def test_a_gradient_comes_through_to_the_images(method):
    images, labels = torch.rand(5, 3, 20, 28), torch.arange(5)
    mix = mix_at(MixingConfig(method=method), 0)
    wanted = mix(images, labels, 5, seeded(0))
    followed = images.clone().requires_grad_()
    mixed = mix(followed, labels, 5, seeded(0))
    torch.testing.assert_close(mixed.images, wanted.images)
    mixed.images.sum().backward()
    assert followed.grad.sum() > 0


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_cutout_and_mixup(granularity):
    """Squares by hand, from the draws that follow those of the pairs; labels as without them."""
    images, labels = torch.randn(6, 3, 20, 28), torch.arange(6) % CLASSES
    mix = Mixup(cutout=0.5, granularity=granularity)
    assert not mix.reads  # no image by itself
    found = mix(images, labels, CLASSES, seeded(3))
    plain = Mixup(granularity=granularity)(images, labels, CLASSES, seeded(3))
    assert torch.equal(found.targets, plain.targets)
    rng = numpy_generator(seeded(3))
    mix.draw_pairs(6, rng)
    cut, centres = images.clone(), rng.integers(0, [20, 28], (6, 2))
    for image, (row, column) in zip(cut, centres, strict=True):
        rows = slice(max(0, row - 5), max(0, row + 5))
        columns = slice(max(0, column - 7), max(0, column + 7))
        image[:, rows, columns] = 0
    lam = found.lam[:, None, None, None]
    expected = lam * cut + (1 - lam) * cut[found.partner]
    torch.testing.assert_close(found.images, expected)
    assert not torch.allclose(found.images, plain.images)
    with pytest.raises(UsageError, match=r"mixing.args.cutout is 1.5"):
        Mixup(cutout=1.5)


def test_cutout_and_manifold_mixup():
    """The images are cut once, whatever the level; the features are those of cut images."""
    levels = FeatureLevels(create_model("test_resnet", num_classes=CLASSES))
    images, labels, seen = torch.rand(4, 3, 32, 32) + 1, torch.arange(4), set()
    for seed in range(8):
        found = ManifoldMixup(cutout=0.5, levels=levels)(images, labels, CLASSES, seeded(seed))
        seen.add(found.note)
        if found.inside is not None:
            zeros = (found.images == 0).float().mean((1, 2, 3))
            assert (zeros > 0.05).all()  # a quarter, clipped
            assert (zeros <= 0.25).all()
            assert torch.equal(found.images[found.images != 0], images[found.images != 0])
            del found
    assert len(seen) > 1
