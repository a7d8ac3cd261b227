"""The attacks against torchattacks and foolbox, and what an attack may do."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pretrain.spec import BackboneSpec
from tests.conftest import FIXTURES
from transfer.evaluation.attacks import fgsm, input_gradient, pgd, uniform_start
from transfer.evaluation.session import normalise

EPS = 8 / 255


@pytest.fixture(scope="module")
def case():
    """A small network, pixels, labels, a start, and both packages' images: peers/attacks.py."""
    with np.load(FIXTURES / "evaluation" / "attacks.npz") as file:
        given = {name: torch.from_numpy(file[name]) for name in file.files}
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(72, 5))
    network.load_state_dict({key: given.pop(key) for key in network.state_dict()})
    return network.requires_grad_(False), given


def test_attacks_are_those_of_torchattacks_and_foolbox(case):
    network, given = case
    pixels, labels, start = (given[name] for name in ("pixels", "labels", "start"))
    logits, gradient = input_gradient(network, pixels, labels)
    torch.testing.assert_close(logits, network(pixels))
    made = {
        "fgsm": fgsm(pixels, gradient, EPS),
        "pgd": pgd(network, pixels, labels, start, eps=EPS, step_size=2 / 255, steps=10),
    }
    for name, images in made.items():
        torch.testing.assert_close(images, given[name], atol=1e-6, rtol=0)
        assert images.min() >= 0
        assert images.max() <= 1
        assert (images - pixels).abs().max() <= EPS + 1e-7
        theirs = network(given[name]).argmax(1)
        assert network(images).argmax(1).tolist() == theirs.tolist()


def test_normalised_values_change_by_eps(case):
    """As the paper's code would attack what it normalised, where eps is one of each channel."""
    network, given = case
    spec = BackboneSpec(arch="resnet10t", input_size=(3, 8, 8), num_classes=5)
    normalised = normalise(given["pixels"], spec).requires_grad_()
    loss = functional.cross_entropy(network(normalised), given["labels"])
    (theirs,) = torch.autograd.grad(loss, normalised)
    attacked = normalised + EPS * theirs.sign()

    def classify(pixels):
        return network(normalise(pixels, spec))

    _, gradient = input_gradient(classify, given["pixels"], given["labels"])
    eps = EPS * torch.tensor(spec.std)[:, None, None]
    made = fgsm(given["pixels"], gradient, eps, clamp=False)
    torch.testing.assert_close(normalise(made, spec), attacked.detach(), atol=2e-6, rtol=0)
    assert made.min() < 0 < fgsm(given["pixels"], gradient, eps).min() + 1e-9


def test_gradients_of_images_do_not_depend_on_their_batch(case):
    network, given = case
    _, together = input_gradient(network, given["pixels"], given["labels"])
    _, alone = input_gradient(network, given["pixels"][2:3], given["labels"][2:3])
    torch.testing.assert_close(together[2:3], alone)
    assert not given["pixels"].requires_grad


def test_start_is_a_function_of_seed_and_number():
    like = torch.empty(3, 3, 32, 32)
    start = uniform_start(5, [7, 2, 9], like, EPS)
    assert start.shape == like.shape
    assert start.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(uniform_start(5, [2], like[:1], EPS)[0], start[1])
    assert not torch.equal(start[0], start[1])
    assert not torch.equal(uniform_start(6, [2], like[:1], EPS)[0], start[1])
    assert start.abs().max() <= EPS
    # uniform: mean 0 and deviation eps / sqrt(3), here to four standard errors
    assert abs(start.mean()) < 4 * EPS / 3**0.5 / 9216**0.5
    assert start.std() == pytest.approx(EPS / 3**0.5, rel=0.02)
