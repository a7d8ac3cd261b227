"""The decoupled loss against its formula and against the reference's values."""

import json

import pytest
import torch
from torch.nn import functional

from pretrain.config import MethodConfig, MixingConfig
from pretrain.errors import UsageError
from pretrain.mixing.decoupled import decoupled_loss
from pretrain.mixing.mixed import blend_labels
from tests.conftest import FIXTURES

# Westlake-AI/openmixup 37e1372, soft_mix_cross_entropy with eta_weight [eta, eta] on these logits
CASES = json.loads((FIXTURES / "mixing" / "decoupled.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"lam {case['lam']}, eta {case['eta']}")
def test_loss_and_gradient_are_the_reference_s(case):
    """Eight pairs of seven classes, of which three or four are of one class."""
    logits = torch.tensor(case["logits"], requires_grad=True)
    labels, partner = torch.tensor(case["labels"]), torch.tensor(case["partner"])
    lam = torch.full((len(logits),), case["lam"])
    targets = blend_labels(labels, logits.shape[1], partner, lam)
    loss = functional.cross_entropy(logits, targets)
    loss = loss + case["eta"] * decoupled_loss(logits, labels, partner, lam)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(case["loss"], rel=1e-6)
    torch.testing.assert_close(logits.grad, torch.tensor(case["grad"]), atol=1e-6, rtol=1e-5)


def test_equals_its_formula_with_a_lam_for_each_row():
    logits = torch.randn(4, 3, dtype=torch.float64)
    labels, partner = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 2, 3, 0])
    lam = torch.tensor([0.5, 0.2, 0.4, 1.0])
    (a, b, c), (d, e, f) = logits[:2].exp()
    wanted = -(a / (a + c)).log() - (b / (b + c)).log()  # classes 0 and 1
    wanted += -(e / (d + e)).log() - (f / (d + f)).log()  # classes 1 and 2
    # row 2 is of one class, row 3 is not mixed
    torch.testing.assert_close(decoupled_loss(logits, labels, partner, lam), wanted / 4)
    whole = decoupled_loss(logits[:2], labels, partner[:2], lam[:2])  # the rest only lends
    torch.testing.assert_close(whole, wanted / 2)


def test_of_two_classes_nothing_is_left_to_compare():
    logits = torch.randn(5, 2, requires_grad=True)
    labels, partner = torch.tensor([0, 1, 0, 1, 1]), torch.tensor([1, 2, 2, 4, 0])
    loss = decoupled_loss(logits, labels, partner, torch.full((5,), 0.3))
    loss.backward()
    assert float(loss.detach()) == 0
    assert (logits.grad == 0).all()


def test_what_is_not_of_two_classes_is_refused():
    logits, labels, lam = torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2)
    with pytest.raises(UsageError, match=r"two classes.*--mixing\.decoupled 0"):
        decoupled_loss(logits, torch.eye(2, 3), torch.tensor([1, 0]), lam)
    with pytest.raises(UsageError, match=r"partners \(2, 3\)"):
        decoupled_loss(logits, labels, torch.zeros(2, 3, dtype=torch.long), lam)
    for method in ("snapmix", "transmix", "mosaic"):
        with pytest.raises(UsageError, match=rf"mixing\.decoupled is 0\.1 .* {method}"):
            MixingConfig(decoupled=0.1, others=[MethodConfig(method=method)])
    with pytest.raises(UsageError, match="nothing is mixed in pairs by none, cutout"):
        MixingConfig(method="none", others=[MethodConfig(method="cutout")], decoupled=0.1)
    with pytest.raises(UsageError, match="nothing is mixed in pairs by cut_thumbnail"):
        MixingConfig(method="cut_thumbnail", args={"mode": "self"}, decoupled=0.1)
    MixingConfig(decoupled=0.1, others=[MethodConfig(method="none")])
    with pytest.raises(UsageError, match="decoupled"):
        MixingConfig(decoupled=-0.1)
