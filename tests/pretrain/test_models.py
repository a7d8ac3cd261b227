"""Architectures that timm lacks, rebuilt from a spec like any other."""

import pytest
import timm
import torch

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from tests.transfer.formats.making import tame

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


@torch.inference_mode()
def test_vgg_gap_is_torchvision_s_vgg_with_another_end():
    import torchvision

    spec = BackboneSpec(arch="vgg16_gap", num_classes=10)
    model = spec.create(10, seed=0).eval()
    assert (
        sum(p.numel() for p in model.parameters()) == 14_714_688 + 9 * 512 * 1024 + 1024 * 11 + 10
    )
    with torch.device("meta"):
        vgg = torchvision.models.vgg16()
    known = {n: w for n, w in model.state_dict().items() if n.startswith("features.")}
    vgg.load_state_dict(known, strict=False, assign=True)
    vgg.features.load_state_dict(model.features.state_dict())  # all of them
    images = torch.randn(2, 3, 64, 80)
    ends = (3, 8, 15, 22)  # the last ReLU of each stage but the fifth
    expected, x = [], images
    for number, layer in enumerate(vgg.features[:-1]):
        x = layer(x)
        expected += [x.clone()] if number in ends else []
    last = torch.nn.functional.conv2d(x, model.conv6.weight, model.conv6.bias, padding=1).relu()
    expected.append(last)
    features = Backbone.of(model, spec, Provenance()).features(images)
    for level, feature, by_hand in zip(spec.levels(), features, expected, strict=True):
        assert feature.shape[1:] == (level.channels, 64 // level.stride, 80 // level.stride)
        torch.testing.assert_close(feature, by_hand)
    torch.testing.assert_close(model(images), model.fc(last.mean((2, 3))))
    assert [level.stride for level in spec.levels()] == [1, 2, 4, 8, 16]


# (architecture, arguments, parameters at 100 classes as the paper prints them, channels)
THREE_STAGES = [
    ("resnet110_cifar_bottleneck", {}, 1_170_868, [64, 128, 256]),  # table 6: 1.1 M
    ("resnet110_cifar", {}, 1_733_812, [16, 32, 64]),
    ("resnet_cifar", {"depth": 110}, 1_736_564, [16, 32, 64]),
]


@pytest.mark.parametrize(("arch", "arguments", "parameters", "channels"), THREE_STAGES)
def test_resnets_of_three_stages(arch, arguments, parameters, channels):
    spec = BackboneSpec(arch=arch, model_args=arguments, input_size=(3, 32, 32), num_classes=100)
    with torch.device("meta"):
        model = spec.create(100, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert [(level.stride, level.channels) for level in spec.levels()] == [
        (1, channels[0]), (2, channels[1]), (4, channels[2])
    ]  # fmt: skip


@torch.inference_mode()
@pytest.mark.parametrize(("depth", "bottleneck"), [(14, False), (20, True)])
def test_the_release_s_resnets_for_cifar_by_hand(depth, bottleneck):
    """Forward pass of resnet.py, written out over its names."""
    functional = torch.nn.functional
    arguments = {"depth": depth, "bottleneck": bottleneck}
    net = tame("resnet_cifar", model_args=arguments, input_size=(3, 32, 32))
    weights = dict(net.weights)

    def conv_norm(x, conv, norm, stride=1):
        kernel = weights[f"{conv}.weight"]
        parts = (weights[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        return functional.batch_norm(x, *parts)

    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    convs = 3 if bottleneck else 2
    x = conv_norm(images, "conv1", "bn1").clamp(min=0)
    for stage in (1, 2, 3):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = x
            if block == 0 and (stage > 1 or bottleneck):
                shortcut = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            for place in range(1, convs + 1):
                own = stride if place == (2 if bottleneck else 1) else 1
                x = conv_norm(x, f"{name}.conv{place}", f"{name}.bn{place}", own)
                x = x.clamp(min=0) if place < convs else x
            x = (x + shortcut).clamp(min=0)
    logits = functional.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])
    torch.testing.assert_close(net.build().eval()(images), logits, rtol=1e-4, atol=1e-5)
