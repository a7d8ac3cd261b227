"""Labels as users have them, and what training makes of targets that do not sum to one."""

import pytest
import torch
from torch.nn import functional

from pretrain.config import MixingConfig
from pretrain.engine import mixed_accuracy, train_step
from pretrain.mixing import SnapMix
from pretrain.mixing.decoupled import decoupled_loss
from pretrain.mixing.mixed import smooth_targets
from pretrain.setup import build, setup_training
from pretrain.training import make_fabric, micro_batches
from tests.mixing_proofs import CASES, parts, seeded, textured
from tests.pretrain.test_engine import config

METHODS = {case.method: case for case in CASES}
SIZE = (24, 24)


@pytest.mark.parametrize("case", METHODS.values(), ids=METHODS)
def test_labels_are_integers_of_any_type(case):
    mix, images, labels = case.make(SIZE), textured(4, SIZE), torch.tensor([3, 0, 1, 1])
    wanted = mix(images, labels, 7, seeded(1))
    for dtype in (torch.int32, torch.uint8):
        mixed = mix(images, labels.to(dtype), 7, seeded(1))
        assert torch.equal(mixed.targets, wanted.targets)
        assert torch.equal(mixed.images, wanted.images)


def test_decoupled_loss_of_any_integers():
    logits, labels = torch.randn(4, 7, generator=seeded(0)), torch.tensor([3, 0, 1, 1])
    partner, lam = torch.tensor([1, 0, 3, 2]), torch.full((4,), 0.3)
    wanted = decoupled_loss(logits, labels, partner, lam)
    assert torch.equal(decoupled_loss(logits, labels.byte(), partner, lam), wanted)


def test_smoothing_keeps_the_sum_of_a_row():
    """As labels that are smoothed before they are mixed; of sums of one, as torch's."""
    own, other = torch.eye(5)[[0, 3]], torch.eye(5)[[1, 3]]
    weights = torch.tensor([[0.7, 0.3], [0.9, 0.6]])

    def mixed(own, other):
        return weights[:, :1] * own + weights[:, 1:] * other

    smoothed = [0.9 * labels + 0.1 / 5 for labels in (own, other)]
    found = smooth_targets(mixed(own, other), 0.1)
    torch.testing.assert_close(found, mixed(*smoothed))
    logits = torch.randn(2, 5, generator=seeded(0))
    wanted = functional.cross_entropy(logits[:1], mixed(own, other)[:1], label_smoothing=0.1)
    torch.testing.assert_close(functional.cross_entropy(logits[:1], found[:1]), wanted)


def test_accuracy_is_at_most_one():
    """SnapMix counts a pair of one class twice."""
    network = parts("snapmix", "test_resnet", SIZE, "cpu")["network"]
    mix = SnapMix(network=network, granularity="sample")
    mixed = mix(textured(7, SIZE), torch.zeros(7, dtype=torch.long), 7, seeded(0))
    assert mixed.targets.sum() > 8
    assert float(mixed_accuracy(torch.eye(7)[[0] * 7], mixed.targets)) == pytest.approx(1)
    assert float(mixed_accuracy(torch.eye(7)[[1] * 7], mixed.targets)) == 0


def test_training_smooths_rows_by_their_sums(worlds, monkeypatch):
    mixing, seen = MixingConfig(method="snapmix"), []
    options = config(worlds["classification"], mixing=mixing, label_smoothing=0.5, accumulate=1)
    setup, fabric = build(options), make_fabric("cpu")
    state, loaders = setup_training(setup, options, fabric)

    def loss(logits, targets):
        seen.append(targets)
        return (logits * targets).sum()

    monkeypatch.setattr("pretrain.engine.smooth_targets", lambda targets, share: share + targets)
    monkeypatch.setattr("pretrain.engine.functional.cross_entropy", loss)
    parts = micro_batches(0, [next(iter(loaders.train.epoch(0)))], loaders.train, fabric, 0)
    train_step(state, loaders, setup, options, fabric, 0, parts)
    assert float(seen[0].min()) == 0.5
