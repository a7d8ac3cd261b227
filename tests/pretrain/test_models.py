"""Architectures that timm lacks, rebuilt from a spec like any other."""

import pytest
import timm
import torch

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError

# (architecture, parameters at 10 classes as the CIFAR literature states them, MACs of an image)
CIFAR = [
    ("resnet18_cifar", 11_173_962),
    ("resnet34_cifar", 21_282_122),
    ("resnet50_cifar", 23_520_842),
]


@pytest.mark.parametrize(("arch", "parameters"), CIFAR)
def test_cifar_resnets(arch, parameters):
    spec = BackboneSpec(arch=arch, input_size=(3, 32, 32), num_classes=10)
    model = spec.create(10, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert [level.stride for level in spec.levels()] == [1, 1, 2, 4, 8]


def test_only_the_stem_differs_from_the_stock_network():
    ours = BackboneSpec(arch="resnet18_cifar", num_classes=1000).create(1000, seed=0).state_dict()
    stock = timm.create_model("resnet18").state_dict()
    assert list(ours) == list(stock)
    assert [name for name in ours if ours[name].shape != stock[name].shape] == ["conv1.weight"]


def test_a_spec_rebuilds_them(tmp_path):
    spec = BackboneSpec(arch="resnet18_cifar", input_size=(3, 32, 32), num_classes=10)
    backbone = Backbone.of(spec.create(10, seed=1), spec, Provenance(classes=list("abcdefghij")))
    backbone.save(tmp_path / "b.pth")
    again = Backbone.load(tmp_path / "b.pth")
    assert again.fingerprint() == backbone.fingerprint()
    assert again.provenance.classes == list("abcdefghij")
    images = torch.randn(1, 3, 32, 32)
    for level, feature in zip(spec.levels(), again.features(images), strict=True):
        assert feature.shape == (1, level.channels, 32 // level.stride, 32 // level.stride)


def test_what_surrounds_a_cifar_stem_is_an_argument():
    plain = BackboneSpec(arch="resnet18_cifar", input_size=(3, 32, 32), num_classes=10)
    pooled, padded = (
        BackboneSpec(arch="resnet18_cifar", model_args=arguments)
        for arguments in ({"stem_pool": "max"}, {"stem_padding": 2})
    )
    assert [level.stride for level in pooled.levels()] == [1, 2, 4, 8, 16]
    assert [level.stride for level in padded.levels()] == [1, 1, 2, 4, 8]
    images = torch.randn(1, 3, 32, 32)
    networks = [spec.create(10, seed=0).eval() for spec in (plain, pooled, padded)]
    assert all(
        torch.equal(weights, networks[0].state_dict()[name])
        for network in networks
        for name, weights in network.state_dict().items()
    )
    outputs = [network(images) for network in networks]
    assert not any(torch.allclose(outputs[0], output) for output in outputs[1:])
    explicit = {"stem_pool": "none", "stem_padding": 1}
    same = BackboneSpec(arch="resnet18_cifar", model_args=explicit).create(10, seed=0).eval()
    assert torch.equal(same(images), outputs[0])
    for wrong in ({"stem_pool": "mean"}, {"stem_padding": 3}):
        with pytest.raises(UsageError, match="none or max"):
            BackboneSpec(arch="resnet18_cifar", model_args=wrong).create(10, seed=0)


def test_fingerprints_of_before_these_arguments(tmp_path):
    """The network of today is the default, under the spec that old files have."""
    spec = BackboneSpec(arch="resnet18_cifar", input_size=(3, 32, 32), num_classes=10)
    with torch.device("meta"):
        names = spec.create(10, seed=0).state_dict()
    weights = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in names.items()}
    backbone = Backbone(spec=spec, provenance=Provenance(), weights=weights)
    assert backbone.fingerprint() == "09c87de3628e4ec4"


def same_by_hand(images, weight, kernel):
    """TensorFlow's rule for SAME: ceil(size / 2) outputs, the odd pixel right and below."""
    _, _, *sides = images.shape
    total = [max(0, (-(-side // 2) - 1) * 2 + kernel - side) for side in sides]
    around = [part for t in reversed(total) for part in (t // 2, t - t // 2)]
    value = 0.0 if weight is not None else float("-inf")
    padded = torch.nn.functional.pad(images, around, value=value)
    if weight is None:
        return torch.nn.functional.max_pool2d(padded, kernel, 2)
    return torch.nn.functional.conv2d(padded, weight, stride=2)


@pytest.mark.parametrize("size", [32, 37])
@pytest.mark.parametrize("arch", ["tf_resnet18", "tf_resnet50"])
def test_resnets_that_pad_as_tensorflow(arch, size):
    spec = BackboneSpec(arch=arch, num_classes=10)
    model = spec.create(10, seed=0).eval()
    images = torch.randn(1, 3, size, size)
    stem = same_by_hand(images, model.conv1.weight, 7)
    torch.testing.assert_close(model.conv1(images), stem)
    torch.testing.assert_close(model.maxpool(stem), same_by_hand(stem, None, 3))
    conv = model.layer2[0].conv1 if arch == "tf_resnet18" else model.layer2[0].conv2
    inner = torch.randn(1, conv.in_channels, size, size)
    torch.testing.assert_close(conv(inner), same_by_hand(inner, conv.weight, 3))
    stock = timm.create_model(arch.removeprefix("tf_"), num_classes=10)
    assert {n: t.shape for n, t in stock.state_dict().items()} == {
        n: t.shape for n, t in model.state_dict().items()
    }
    assert [level.stride for level in spec.levels()] == [2, 4, 8, 16, 32]


def test_the_encoder_of_a_u_net():
    """Ronneberger et al.'s widths, CycleMix's order; counted by hand, with a bias in each layer."""
    widths = (64, 128, 256, 512, 1024)
    pairs = [(a, b) for i, b in enumerate(widths) for a in ((3, *widths)[i], b)]
    spec = BackboneSpec(arch="unet_encoder", num_classes=10)
    with torch.device("meta"):
        model = spec.create(10, seed=0)
    counted = sum(9 * a * b + b + 2 * b for a, b in pairs) + 1024 * 10 + 10
    assert sum(parameter.numel() for parameter in model.parameters()) == counted
    assert [(level.stride, level.channels) for level in spec.levels()] == [
        (2**number, width) for number, width in enumerate(widths)
    ]
    names = [type(layer).__name__ for layer in model.stages[1]]
    assert names == ["MaxPool2d", *["Conv2d", "ReLU", "BatchNorm2d"] * 2]


def test_levels_of_a_narrow_encoder_of_a_u_net():
    arguments = {"widths": [4, 8, 8, 16, 16]}
    spec = BackboneSpec(arch="unet_encoder", model_args=arguments, num_classes=10)
    model = spec.create(10, seed=0).eval()
    images = torch.randn(2, 3, 53, 37)
    expected, x = [], images
    for stage in model.stages:
        expected.append(x := stage(x))
    features = Backbone.of(model, spec, Provenance()).features(images)
    for level, feature, by_hand in zip(spec.levels(), features, expected, strict=True):
        assert feature.shape[2:] == (53 // level.stride, 37 // level.stride)
        assert torch.equal(feature, by_hand)
    torch.testing.assert_close(model(images), model.fc(x.mean((2, 3))))
