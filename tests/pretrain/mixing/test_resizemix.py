"""ResizeMix against the authors' code, openmixup's and mmpretrain's.

Their draws and results are in resizemix.json, with the commits.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.mixing import ResizeMix
from pretrain.mixing.boxes import own_share
from pretrain.mixing.resizemix import paste_resized
from tests.conftest import ROOT

REFERENCES = json.loads((ROOT / "tests/fixtures/mixing/resizemix.json").read_text(encoding="utf-8"))


def cases(name):
    return pytest.mark.parametrize("case", REFERENCES[name]["cases"], ids=lambda case: case["seed"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def given(case) -> torch.Tensor:
    """The images that the reference was given."""
    size = (len(case["partner"]), 1, *case["size"])
    return torch.randint(256, size, generator=seeded(case["seed"])).float()


def draws(*integers, uniform: float = 0.0) -> SimpleNamespace:
    """A generator that gives a reference's draws."""
    return SimpleNamespace(
        integers=lambda *_, **__: np.array(integers), uniform=lambda *_: np.array([uniform])
    )


def mix(case, images, boxes, interpolation="nearest"):
    boxes = np.broadcast_to(boxes, (len(images), 4))
    return paste_resized(images, boxes[None], np.array(case["partner"])[:, None], interpolation)


@cases("JayQine/ResizeMix")
def test_equals_the_authors_code(case):
    """One tau for the batch and a place for each image: two calls of ours."""
    height, width = case["size"]
    official = ResizeMix(place="official")
    centres = np.array(case["centre"])
    boxes = np.concatenate(
        [
            official.draw_boxes(
                np.ones(1), height, width, draws(*centres[:, [row]], uniform=case["rate"])
            )
            for row in range(4)
        ]
    )
    assert boxes.tolist() == case["boxes"]
    assert own_share(boxes, height, width).tolist() == pytest.approx([case["lam"]] * 4)
    mixed = mix(case, given(case), boxes)
    assert mixed[:2].flatten().tolist() == case["first"]


@cases("openmixup")
def test_equals_openmixup(case):
    """Clipped: the whole partner is squeezed into what the border leaves."""
    column, row = case["centre"]
    clipped = ResizeMix(place="clipped")
    boxes = clipped.draw_boxes(
        np.ones(1), *case["size"], draws([row], [column], uniform=case["tau"])
    )
    assert own_share(boxes, *case["size"]).tolist() == pytest.approx([case["lam"]])
    assert mix(case, given(case), boxes)[:2].flatten().tolist() == case["first"]


@cases("mmpretrain")
def test_equals_mmpretrain(case):
    row, column = case["centre"]
    theirs = ResizeMix(place="clipped", draws="share", interpolation="bilinear")
    boxes = theirs.draw_boxes(np.array([case["beta"]]), *case["size"], draws([row], [column]))
    lam = own_share(boxes, *case["size"])[0]
    eye = np.eye(len(case["partner"]))
    np.testing.assert_allclose(
        lam * eye + (1 - lam) * eye[case["partner"]], case["targets"], atol=1e-6
    )
    mixed = mix(case, given(case), boxes, "bilinear")
    torch.testing.assert_close(mixed[0].flatten(), torch.tensor(case["first"]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "mean"),
    [
        ({}, 0.757),
        ({"place": "official"}, 0.757),
        ({"place": "clipped"}, 0.827),
        ({"draws": "share"}, 0.45),
        ({"draws": "share", "place": "clipped"}, 0.647),
    ],
    ids=str,
)
def test_mean_weight_of_the_own_label(options, mean):
    draw = np.random.default_rng(0)
    boxes = ResizeMix(**options).draw_boxes(draw.beta(1, 1, 100_000), 224, 224, draw)
    assert own_share(boxes, 224, 224).mean() == pytest.approx(mean, abs=0.003)


@pytest.mark.parametrize("place", ["inside", "official"])
def test_the_whole_partner_is_inside_at_its_own_proportions(place):
    draw = np.random.default_rng(0)
    boxes = ResizeMix(place=place).draw_boxes(np.ones(20_000), 40, 80, draw)
    height, width = (boxes[:, 2:] - boxes[:, :2]).T
    np.testing.assert_allclose(width, 2 * height, atol=1.01)
    assert height.min() == 4
    assert height.max() == 32
    assert boxes.min() == 0
    assert boxes[:, 2].max() == 40
    assert boxes[:, 3].max() == 80
    at_a_border = ((boxes[:, 0] == 0) | (boxes[:, 2] == 40)).mean()
    assert at_a_border == pytest.approx(0.47 if place == "official" else 0.10, abs=0.02)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_nearest_pixel_is_torch_s(layout):
    """Also where the step is no whole number, and a product could fall on either side of one."""
    for whole in (7, 31, 49, 61):
        images = torch.arange(3.0 * whole * 5).view(1, 3, whole, 5).contiguous(memory_format=layout)
        for side in range(1, whole + 1):
            boxes = np.array([[[0, 1, side, 4]]])
            wanted = functional.interpolate(images, (side, 3))
            mixed = paste_resized(images, boxes, np.array([[0]]), "nearest")
            assert torch.equal(mixed[:, :, :side, 1:4], wanted)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_slices_and_masks_are_equal(interpolation, monkeypatch):
    """At every size: the general proofs draw a few."""
    images, partner = torch.rand(30, 3, 31, 18), np.arange(30)[::-1, None].copy()
    top, left = np.zeros(30, int), np.arange(30) % 5
    boxes = np.stack([top, left, np.arange(30) + 1, left + 13], 1)[None]
    wanted = paste_resized(images, boxes, partner, interpolation)
    monkeypatch.setattr("pretrain.mixing.resizemix.by_slices", lambda images: False)
    mixed = paste_resized(images, boxes, partner, interpolation)
    torch.testing.assert_close(
        mixed, wanted, atol=0 if interpolation == "nearest" else 1e-5, rtol=0
    )


def test_bytes_are_moved_or_rounded():
    assert ResizeMix().on_bytes
    assert not ResizeMix(interpolation="bilinear").on_bytes
    images = torch.tensor([0, 3], dtype=torch.uint8).view(1, 1, 1, 2).repeat(1, 1, 2, 2)
    mixed = paste_resized(images, np.array([[[0, 0, 1, 1]]]), np.array([[0]]), "bilinear")
    assert mixed[0, 0, 0, 0] == 2  # 1.5, to the even one


@pytest.mark.parametrize("scale", [(0.0, 0.5), (0.5, 0.1), (0.5, 1.1)])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(UsageError, match=r"mixing\.args\.scale"):
        ResizeMix(scale=scale)
