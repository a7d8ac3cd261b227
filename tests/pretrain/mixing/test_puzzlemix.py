import itertools
import math

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.mixing import PuzzleMix, puzzlemix
from pretrain.mixing.mixed import MixPairs
from pretrain.mixing.network import gradient_saliency
from tests.conftest import ROOT

FIXTURE = np.load(ROOT / "tests" / "fixtures" / "mixing" / "puzzlemix.npz")
NOTHING = torch.nn.Identity()


@pytest.mark.parametrize("number", range(len(FIXTURE["cases"])))
def test_equals_the_reference(monkeypatch, number):
    """snu-mllab/PuzzleMix e2dbf3a, mixup.py, mixup_graph, with gco 3.0 of Borda/pyGCO.

    Pixels are in units of std 1/40, and stored once for each 2 x 2; `mixed` in sixths. The drawn:
    partner, and of each case block_num, n_labels, lam, transport, t_size; such that the swaps of
    gco end at the least energy, which they often do not.
    """
    block_num, n_labels, lam, transport, t_size = FIXTURE["cases"][number].tolist()
    images, saliency, wanted = (
        torch.from_numpy(FIXTURE[name].astype(np.float32)).repeat_interleave(2, -1)
        for name in ("images", "saliency", f"mixed{number}")
    )
    images, saliency, wanted = (x.repeat_interleave(2, -2) for x in (images, saliency, wanted))
    pairs = MixPairs(FIXTURE["partner"], np.zeros(4, int), np.array([True]), np.array([lam]))
    monkeypatch.setattr(PuzzleMix, "draw_pairs", lambda *_: pairs)
    monkeypatch.setattr(puzzlemix, "gradient_saliency", lambda *_: saliency)
    mix = PuzzleMix(
        network=NOTHING,
        block_num=int(block_num),
        n_labels=int(n_labels),
        transport=bool(transport),
        t_size=int(t_size) or None,
        std=(1 / 40,),
    )
    mixed = mix(images, torch.arange(4), 4, torch.Generator())
    torch.testing.assert_close(6 * mixed.images, wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(mixed.lam, torch.from_numpy(FIXTURE[f"lam{number}"]))
    assert len(mixed.lam.unique()) > 1


@pytest.mark.parametrize(
    ("rows", "columns", "n_labels"), [(2, 2, 3), (3, 3, 3), (2, 4, 3), (3, 2, 4)]
)
def test_no_mask_has_less_energy(rows, columns, n_labels):
    draw = torch.Generator().manual_seed(rows)
    share = torch.rand(20, rows, columns, generator=draw) ** 3
    share /= share.sum((1, 2), keepdim=True)
    colours = torch.rand(20, 3, 2 * rows, 2 * columns, generator=draw)
    lam = np.linspace(0, 1, 20)
    terms = share, colours, torch.arange(20).roll(1), lam, n_labels, 1.2, 0.5, 0.2
    unary, smooth = puzzlemix.energy_terms(*terms)
    found = puzzlemix.least_energy(unary, smooth)
    masks = torch.tensor(list(itertools.product(range(n_labels), repeat=rows * columns)))
    shown = functional.one_hot(masks, n_labels).float().view(-1, rows * columns * n_labels)
    energies = shown @ unary.permute(0, 2, 3, 1).reshape(20, -1).T
    masks = masks.view(-1, rows, columns) / (n_labels - 1)
    down, right = masks.diff(dim=1).square().flatten(1), masks.diff(dim=2).square().flatten(1)
    energies += down @ smooth[:, 0, :-1].reshape(20, -1).T
    energies += right @ smooth[:, 1, :, :-1].reshape(20, -1).T
    least = energies.min(0).values
    torch.testing.assert_close(puzzlemix.energy(unary, smooth, found), least, atol=2e-6, rtol=0)
    assert len(found.unique()) == n_labels


def test_blocks_of_any_size_move_whole():
    height, width = 7, 10
    image = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    stay = torch.arange(9)[None]
    assert torch.equal(puzzlemix.move_blocks(image, stay, (3, 3)), image)
    moved = puzzlemix.move_blocks(image, torch.tensor([[8, 1, 2, 3, 0, 5, 6, 7, 4]]), (3, 3))
    assert torch.equal(moved[..., :2, :3], image[..., 4:6, 6:9])  # blocks begin at 0, 2, 4; 0, 3, 6
    assert torch.equal(moved[..., 2:4, 3:6], image[..., :2, :3])
    assert torch.equal(moved[..., 4:, 6:], image[..., 2:5, 3:7])  # goes on beyond a smaller block


def test_what_nobody_wants_stays():
    mask = torch.tensor([[[1.0, 0.0], [0.5, 0.0]]])
    nothing = torch.zeros(1, 2, 2)
    assert puzzlemix.transport(mask, nothing).tolist() == [[0, 1, 2, 3]]
    one = torch.tensor([[[0.0, 0.9], [0.1, 0.0]]])
    assert puzzlemix.transport(mask, one).tolist() == [[1, 1, 2, 3]]
    assert puzzlemix.transport(mask, one, eps=1.0).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_saliency_that_says_nothing_is_the_same_everywhere(value):
    shares = puzzlemix.shares(torch.full((2, 6, 9), value), (2, 3))
    torch.testing.assert_close(shares, torch.full((2, 2, 3), 1 / 6))


def test_a_pair_that_is_not_mixed_stays():
    torch.manual_seed(0)
    images, labels = torch.randn(12, 3, 33, 20), torch.arange(12)
    network = timm.create_model("test_resnet", num_classes=12)
    options = {"granularity": "sample", "partner": "other", "probability": 0.5, "block_num": 4}
    mixed = PuzzleMix(network=network, **options)(images, labels, 12, torch.Generator())
    own = mixed.targets.diagonal() == 1
    same = (mixed.images == images).all(3).all(2).all(1)
    assert torch.equal(own, same)
    assert 0 < own.sum() < 12


def test_the_further_pass_leaves_no_trace():
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=5)
    network.bn1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    images, labels = torch.randn(3, 3, 24, 40), torch.tensor([1, 0, 4])
    with torch.no_grad():
        saliency = gradient_saliency(network, images, labels)
    assert [module.training for module in network.modules()] == flags
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not images.requires_grad
    network.eval()
    inputs = images.clone().requires_grad_()
    functional.cross_entropy(network(inputs), labels).backward()
    wanted = 3 * inputs.grad.square().mean(1).sqrt()
    torch.testing.assert_close(saliency, wanted)
    soft = functional.one_hot(labels, 5).float()
    torch.testing.assert_close(gradient_saliency(network, images, soft), wanted)


def test_mistakes():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    mix = PuzzleMix(network=torch.nn.Linear(1, 1))
    with pytest.raises(UsageError, match="normalised floats"):
        mix(images, torch.arange(2), 2, torch.Generator())
    with pytest.raises(UsageError, match=r"mixing.args.n_labels is 1; it must lie in \[2, 16\]"):
        PuzzleMix(network=NOTHING, n_labels=1)


def test_std_is_refused_unless_it_divides_every_channel():
    network = torch.nn.Conv2d(3, 2, 1)
    for std in ((), (0.0, 1.0, 1.0), (math.nan,), (-1.0, 1.0, 1.0)):
        with pytest.raises(UsageError, match=r"mixing\.args\.std"):
            PuzzleMix(network=network, std=std)
    mix = PuzzleMix(network=network, std=(1.0, 1.0))
    with pytest.raises(UsageError, match="2 numbers for images of 3 channels"):
        mix(torch.zeros(2, 3, 8, 8), torch.arange(2), 2, torch.Generator())
