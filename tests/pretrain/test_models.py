"""Architectures that timm lacks, rebuilt from a spec like any other."""

import pytest
import timm
import torch

from pretrain.backbone import Backbone, BackboneSpec, Provenance

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
