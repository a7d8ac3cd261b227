"""Further passes of a network leave no trace in it, and see the image the right way up."""

import copy

import pytest
import timm
import torch
from torch import nn

from pretrain.errors import UsageError
from pretrain.mixing import SnapMix
from pretrain.mixing.network import evaluating, feature_map

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def network(arch="test_resnet", **options):
    torch.manual_seed(0)
    return timm.create_model(arch, num_classes=5, **options)


def test_a_pass_leaves_no_trace():
    model = network(drop_rate=0.5)
    model.layer1.eval()  # a frozen part
    model(IMAGES).sum().backward()
    flags = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    seed = torch.get_rng_state()
    assert not feature_map(model, IMAGES).requires_grad
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
        assert parameter.requires_grad
    assert torch.equal(torch.get_rng_state(), seed)


def test_flags_come_back_after_an_error():
    model = network()
    with pytest.raises(RuntimeError), evaluating(model):
        model(IMAGES[:, :, 0])
    assert all(module.training for module in model.modules())


def test_compiled_network_is_not_compiled_anew():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    class Network(torch.nn.Sequential):
        def forward(self, images):
            return super().forward(images)

        forward_features = forward

    model = Network(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    model.compile(backend=backend)
    for _ in range(3):
        before = model(IMAGES)
        feature_map(model, IMAGES)
    assert len(compiled) == 1
    assert torch.equal(model(IMAGES), before)


@pytest.mark.parametrize(
    ("arch", "options", "shape"),
    [
        ("test_resnet", {}, (2, 96, 2, 3)),
        ("test_convnext", {}, (2, 64, 2, 3)),
        ("test_vit", {"img_size": (64, 96)}, (2, 64, 4, 6)),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": (64, 96), "embed_dim": 24, "depths": (1, 1), "num_heads": (1, 1)},
            (2, 48, 8, 12),
        ),
    ],
)
def test_features_are_a_grid_over_the_image(arch, options, shape):
    """A change of the lower right corner changes the lower right of the map most."""
    model = network(arch, **options)
    changed = IMAGES.clone()
    changed[:, :, -8:, -8:] += 10
    features = feature_map(model, IMAGES)
    assert features.shape == shape
    change = (feature_map(model, changed) - features).norm(dim=1).flatten(1)
    assert (change.argmax(1) == change.shape[1] - 1).all()


def test_refuses_bytes_and_features_without_a_place():
    with pytest.raises(UsageError, match=r"torch.uint8.*normalised floats"):
        feature_map(network(), IMAGES.byte())
    model = network()
    model.forward_features = lambda images: images.flatten(1)
    with pytest.raises(UsageError, match=r"ResNet are no grid over the image.*resnet50"):
        feature_map(model, IMAGES)


def test_refuses_networks_that_are_not_of_timm():
    for wrong in (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 96, 5)), Wrapped(network())):
        with pytest.raises(UsageError, match=f"{type(wrong).__name__} are no grid.*timm's"):
            feature_map(wrong, IMAGES)
        with pytest.raises(UsageError, match=f"{type(wrong).__name__} has .*timm's.*itself"):
            SnapMix(network=wrong)


class Wrapped(nn.Module):
    """As DistributedDataParallel."""

    def __init__(self, module):
        super().__init__()
        self.module = module
