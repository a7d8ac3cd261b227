"""PyramidNets and Caffe's ResNets: parameters, levels, and the release's function by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pretrain.backbone import Backbone, BackboneSpec
from pretrain.errors import UsageError
from pretrain.models import NAMES, register
from pretrain.spec import create_model
from tests.transfer.formats.making import tame


@pytest.mark.parametrize(
    ("arch", "parameters", "channels"),
    [("pyramidnet200_a240", 26_844_952, 1024), ("pyramidnet110_a64", 1_725_300, 320)],
)
def test_the_paper_s_networks(arch, parameters, channels):
    """26.8 and 1.7 million parameters on CIFAR-100 (tables 5 and 6)."""
    spec = BackboneSpec(arch=arch, input_size=(3, 32, 32), num_classes=100)
    with torch.device("meta"):
        model = create_model(arch, num_classes=100)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    levels = spec.levels()
    assert [level.stride for level in levels] == [1, 2, 4]
    assert levels[-1].channels == channels


def by_hand(
    weights: dict, images: torch.Tensor, convs: int, blocks: int, shares: list[float] | None = None
) -> list[torch.Tensor]:
    """The release's forward pass, written out over its names; `shares` of the blocks' branches."""
    shares = list(shares or [1.0] * 3 * blocks)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        parts = (weights[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *parts)

    x = norm(functional.conv2d(images, weights["conv1.weight"], padding=1), "bn1")
    levels = []
    for stage in (1, 2, 3):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = functional.avg_pool2d(x, 2, 2, ceil_mode=True) if stride == 2 else x
            for place in range(1, convs + 1):
                kernel = weights[f"{name}.conv{place}.weight"]
                x = norm(x, f"{name}.bn{place}")
                x = x if place == 1 else x.clamp(min=0)
                strided = place == (2 if convs == 3 else 1)
                x = functional.conv2d(
                    x, kernel, stride=stride if strided else 1, padding=kernel.shape[-1] // 2
                )
            x = norm(x, f"{name}.bn{convs + 1}") * shares.pop(0)
            padding = torch.zeros(len(x), x.shape[1] - shortcut.shape[1], *x.shape[2:])
            x = x + torch.cat([shortcut, padding], dim=1)
        levels.append(x)
    pooled = norm(x, "bn_final").clamp(min=0).mean(dim=(2, 3))
    return [*levels, functional.linear(pooled, weights["fc.weight"], weights["fc.bias"])]


@pytest.mark.parametrize(("depth", "bottleneck", "convs"), [(29, True, 3), (20, False, 2)])
@torch.inference_mode()
def test_the_release_s_function_by_hand(depth, bottleneck, convs):
    arguments = {"depth": depth, "alpha": 48, "bottleneck": bottleneck}
    net = tame("pyramidnet", model_args=arguments, input_size=(3, 32, 32))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    *levels, logits = by_hand(dict(net.weights), images, convs, 3)
    found = net.features(images)
    for ours, expected in zip(found, levels, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.build().eval()(images), logits, rtol=1e-4, atol=1e-5)


def test_saved_and_rebuilt(tmp_path):
    arguments = {"depth": 11, "alpha": 6, "bottleneck": True}
    net = tame("pyramidnet", model_args=arguments, input_size=(3, 32, 32))
    net.save(tmp_path / "p.pth")
    again = Backbone.load(tmp_path / "p.pth")
    assert again.fingerprint() == net.fingerprint()
    assert again.build(num_classes=3).train()(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert again.build(num_classes=0)(torch.randn(1, 3, 40, 40)).shape == (1, 88)


def test_a_depth_that_cannot_be():
    for depth, bottleneck, words in ((111, True, "9 n"), (110, False, None), (111, False, "6 n")):
        arguments = {"depth": depth, "alpha": 6, "bottleneck": bottleneck, "num_classes": 3}
        with torch.device("meta"):
            if words is None:
                create_model("pyramidnet", **arguments)
            else:
                with pytest.raises(UsageError, match=words):
                    create_model("pyramidnet", **arguments)


@torch.inference_mode()
def test_caffe_s_strides_change_the_function_but_not_the_weights():
    stock = tame("resnet50", num_classes=3)
    spec = BackboneSpec(arch="resnet50_caffe", num_classes=3)
    caffe = Backbone(spec=spec, provenance=stock.provenance, weights=stock.weights)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one, other = stock.features(images), caffe.features(images)
    assert [level.shape for level in one] == [level.shape for level in other]
    equal = [bool(np.allclose(a, b)) for a, b in zip(one, other, strict=True)]
    assert equal == [True, True, False, False, False]  # the first stage has no stride


def test_names_that_timm_alone_does_not_know():
    import timm

    listed = {name for name in timm.list_models() if name not in NAMES}
    assert "resnet50" in listed
    assert {"resnet18_cifar", "pyramidnet200_a240", "resnet50_caffe"} <= NAMES


def test_levels_asked_for_once_are_not_kept():
    """timm writes the levels that are asked for into what a network is registered with."""
    import timm

    register()
    for indices in ((0, 1), (2,), (0, 1, 2)):
        model = timm.create_model("pyramidnet110_a64", features_only=True, out_indices=indices)
        assert len(model.feature_info.channels()) == len(indices)
    assert len(timm.create_model("pyramidnet110_a64", features_only=True).feature_info) == 3
