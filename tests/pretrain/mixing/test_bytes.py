"""Bytes that are mixed before they are normalised: the same bits as floats mixed after it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pretrain.data.pixels import Pixels
from pretrain.mixing import Choice, CutMix, Mixup
from pretrain.mixing.mixed import mix_rows, unmixed
from tests.mixing_proofs import CASES, GRANULARITIES, Case, seeded

LAST, FIRST = torch.channels_last, torch.contiguous_format
SIZE, COUNT = (33, 20), 7


def pixels(**options):
    return Pixels(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), **options)


def batch(layout=LAST):
    images = torch.randint(0, 256, (COUNT, 3, *SIZE), dtype=torch.uint8, generator=seeded(0))
    return images.contiguous(memory_format=layout), torch.arange(COUNT)


def both_orders(mix, options, images, labels, seed=1):
    """Mixed by `mixed`, and normalised floats that are mixed."""
    draws = [np.random.default_rng(seed) for _ in range(2)]
    found = options.mixed(mix, images, labels, COUNT, draws[0], seeded(seed))
    return found, mix(options.augmented(images, draws[1]), labels, COUNT, seeded(seed))


def same(found, wanted):
    assert torch.equal(found.images, wanted.images)
    assert found.images.stride() == wanted.images.stride()
    assert torch.equal(found.targets, wanted.targets)
    assert torch.equal(found.lam, wanted.lam)
    assert torch.equal(found.partner, wanted.partner)


MOVES = [case for case in CASES if not case.looks]


@pytest.mark.parametrize("case", MOVES, ids=lambda case: case.title)
def test_bytes_first_are_the_same_bits(case: Case):
    (images, labels), options = batch(), pixels(pad=2, flip=0.5, memory_format=LAST)
    for granularity in GRANULARITIES if case.pairs else ("batch",):
        mix = case.make(SIZE, granularity=granularity)
        kept = images.clone()
        found, wanted = both_orders(mix, options, images, labels)
        same(found, wanted)
        assert torch.equal(images, kept)


@pytest.mark.parametrize("layout", [LAST, FIRST])
@pytest.mark.parametrize("given", [LAST, FIRST])
@pytest.mark.parametrize("mix", [CutMix(granularity="sample"), Mixup(), Mixup(probability=0.0)])
def test_in_both_memory_layouts(layout, given, mix):
    images, labels = batch(given)
    same(*both_orders(mix, pixels(flip=0.5, memory_format=layout), images, labels))
    same(*both_orders(mix, pixels(memory_format=layout), images, labels))


def test_colours_come_between():
    options = pixels(flip=0.5, color_jitter=0.4, lighting=0.1)
    same(*both_orders(CutMix(), options, *batch()))


def test_of_several_methods_the_one_that_is_drawn():
    mix = Choice(mixes=(CutMix(), Mixup()), weights=(1, 1))
    for seed in range(6):
        same(*both_orders(mix, pixels(flip=0.5, memory_format=LAST), *batch(), seed))


def test_the_drawn_one_gets_bytes_whatever_the_others_need():
    seen = []

    class Mover:
        on_bytes = True

        def __call__(self, images, labels, num_classes, generator):
            seen.append(images.dtype)
            return unmixed(images, labels, num_classes)

    mix = Choice(mixes=(Mover(), Mixup()), weights=(1, 0))
    same(*both_orders(mix, pixels(flip=0.5, memory_format=LAST), *batch()))
    assert seen == [torch.uint8, torch.float32]


def test_accelerators_mix_bytes_too(monkeypatch):
    (images, labels), options = batch(), pixels(flip=0.5, memory_format=LAST)
    wanted, _ = both_orders(CutMix(), options, images, labels)
    for module in ("data.pixels", "mixing.cutmix"):
        monkeypatch.setattr(f"pretrain.{module}.by_slices", lambda images: False)
    found, _ = both_orders(CutMix(), options, images, labels)
    # there one kernel normalises, which rounds once where a CPU rounds twice
    torch.testing.assert_close(found.images, wanted.images, atol=5e-7, rtol=0)
    same(replace(found, images=wanted.images), wanted)


@pytest.mark.parametrize("partner", [[1, 2, 0, 3], [3, 2, 1, 0], [4, 3], [1, 2, 3, 1], [0, 0, 0]])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_rows_meet_their_partners_and_images_are_read_once(partner, dtype):
    images = torch.arange(5).view(5, 1, 1, 1).expand(5, 3, 2, 2).to(dtype)
    every, seen = images.numpy() if dtype == torch.uint8 else images, []

    def read(order):
        for index in order:
            seen.append(index)
            yield every[index]

    def write(row, target, own, theirs):
        target[...] = 10 * own + theirs

    found = mix_rows(images, partner, write, read)
    assert found.dtype == dtype
    assert found[:, 0, 0, 0].tolist() == [10 * row + other for row, other in enumerate(partner)]
    if len(set(partner)) == len(partner):
        assert len(seen) == len({*range(len(partner)), *partner})
